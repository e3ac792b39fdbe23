#!/bin/sh
# with_postgres.sh COMMAND…: runs the command beside a private PostgreSQL cluster, whose URL it finds in RAGD_TEST_PG_URL.
# The cluster lives in a temporary directory, listens on a free loopback port and on a socket in that directory
# (RAGD_TEST_PG_SOCKET), trusts everybody, and is stopped and removed in any case. Nothing else of the machine is touched.
set -eu
[ $# -gt 0 ] || { echo "usage: $0 COMMAND…" >&2; exit 2; }

for bin in ${RAGD_TEST_PG_BIN:-} /usr/lib/postgresql/*/bin; do
    [ -x "$bin/initdb" ] && found=$bin
done
[ -n "${found:-}" ] || { echo "with_postgres: no PostgreSQL server is installed" >&2; exit 1; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/ragd-pg.XXXXXX")
as=""
if [ "$(id -u)" = 0 ]; then # the server refuses to run as root
    as="setpriv --reuid=postgres --regid=postgres --clear-groups"
    chown postgres "$dir"
fi

stop() {
    status=$?
    trap - EXIT INT TERM HUP
    [ ! -f "$dir/data/postmaster.pid" ] || $as "$found/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$dir"
    exit $status
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

cd "$dir"
$as "$found/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1 ||
    { cat "$dir/initdb.log" >&2; exit 1; }

port() {
    ${PYTHON:-/usr/bin/python3} -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
for try in 1 2 3; do # the port may be taken between the question and the start
    p=$(port)
    $as "$found/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 \
        -o "-c listen_addresses=127.0.0.1 -c port=$p -c unix_socket_directories=$dir -c max_connections=200 -c fsync=off" \
        start >/dev/null 2>&1 && break
    [ "$try" != 3 ] || { cat "$dir/log" >&2; exit 1; }
done
cd "$OLDPWD"

RAGD_TEST_PG_URL="postgresql://postgres@127.0.0.1:$p/postgres"
RAGD_TEST_PG_SOCKET="postgresql://postgres@/postgres?host=$dir&port=$p"
RAGD_TEST_PG_DATA="$dir/data"
export RAGD_TEST_PG_URL RAGD_TEST_PG_SOCKET RAGD_TEST_PG_DATA
"$@" &
child=$!
trap 'kill -TERM $child 2>/dev/null; wait $child; exit 130' INT
trap 'kill -TERM $child 2>/dev/null; wait $child; exit 143' TERM
wait $child
