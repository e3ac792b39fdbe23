#!/bin/sh
# usage: install-pypi.sh [bench]
# Installs what tests/requirements.txt lists into build/venv, if it is not there; with `bench`, what tests/bench/requirements.txt
# lists into build/venv-bench. Without a package index the tests that need it are skipped
# (and fail where CI=true), and benchmarks leave those peers out; nothing else depends on it.
set -u
cd "$(dirname "$0")/.." || exit 1
case ${1:-} in
bench) venv=build/venv-bench list=tests/bench/requirements.txt ;;
*) venv=build/venv list=tests/requirements.txt ;;
esac
if [ -x $venv/bin/python3 ] && cmp -s $list $venv/installed; then
    exit 0
fi
mkdir -p build
if "${PYTHON:-/usr/bin/python3}" -m venv $venv &&
    $venv/bin/pip install -q --disable-pip-version-check --retries 2 --timeout 20 -r $list; then
    cp $list $venv/installed
else
    echo "install-pypi.sh: not everything of $list could be installed; what needs it is skipped" >&2
fi
exit 0
