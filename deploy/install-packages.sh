#!/bin/sh
# usage: install-packages.sh [--clean] SECTION...
# Installs what is missing of the named sections of packages.txt. Nothing is downloaded when all is there. Services
# that packages bring along are not started, and no PostgreSQL cluster is created: the tests make their own.
# --clean also empties apt's caches, for container images.
set -eu
list=$(dirname "$0")/packages.txt
clean=
[ "${1-}" = --clean ] && clean=1 && shift
[ $# -gt 0 ] || { echo "usage: $0 [--clean] SECTION..." >&2; exit 2; }

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=
for section in "$@"; do
    entries=$(awk -v s="[$section]" '/^\[/ {on = $0 == s; next} on && NF && !/^#/' "$list")
    [ -n "$entries" ] || { echo "$list has no section [$section]" >&2; exit 2; }
    for entry in $entries; do
        found=
        for name in $(echo "$entry" | tr '|' ' '); do
            installed "$name" && found=1 && break
        done
        [ -n "$found" ] || case " $missing " in *" ${entry%%|*} "*) ;; *) missing="$missing ${entry%%|*}" ;; esac
    done
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "These Debian packages are missing:$missing" >&2
    echo "Run this once, then try again:  sudo $0 $*" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt() {
    apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >&2
}
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.conf
saved=$(mktemp -d)
restore() {
    if [ -e "$saved/policy" ]; then mv "$saved/policy" $policy; else rm -f $policy; fi
    if [ -e "$saved/cluster" ]; then mv "$saved/cluster" $cluster; fi
    rm -rf "$saved"
}
trap restore EXIT
trap 'exit 1' INT TERM HUP

[ ! -e $policy ] || mv $policy "$saved/policy"
printf '#!/bin/sh\nexit 101\n' >$policy
chmod 755 $policy
echo "installing:$missing" >&2
apt update
case $missing in
*postgresql-*)
    apt install -y --no-install-recommends postgresql-common
    cp -p $cluster "$saved/cluster"
    echo 'create_main_cluster = false' >>$cluster
    ;;
esac
# shellcheck disable=SC2086 # a list of names
apt install -y --no-install-recommends $missing
if [ -n "$clean" ]; then
    apt-get clean
    rm -rf /var/lib/apt/lists/*
fi
