#!/bin/sh
# What is generated and kept in the tree is what the program would print now: the example configuration, and the
# reference table in README.md between its two markers.
set -u
ragd=${BUILD:-build}/ragd
[ -x "$ragd" ] || { echo "$ragd is not built" >&2; exit 77; }
rc=0
"$ragd" dump --example | diff -u config/ragd.example.yaml - ||
    { echo "config/ragd.example.yaml is stale: make generated" >&2; rc=1; }
reference=$(mktemp)
trap 'rm -f "$reference"' EXIT
"$ragd" dump --reference >"$reference"
sed -n '/^<!-- generated: ragd dump --reference -->$/,/^<!-- end -->$/p' README.md | sed '1d;$d' | diff -u - "$reference" ||
    { echo "README.md's configuration reference is stale: make generated" >&2; rc=1; }
exit $rc
