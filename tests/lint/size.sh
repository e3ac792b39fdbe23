#!/bin/sh
# Files stay readable: at most 600 lines of source, and comments, which the formatter does not wrap, within 124 characters; a README of at most 30 lines in each top folder.
set -u
rc=0
for file in $(git ls-files -co --exclude-standard -- '*.c' '*.h' '*.py' '*.sh' Makefile); do
    lines=$(wc -l <"$file")
    [ "$lines" -le 600 ] || { echo "$file: $lines lines, at most 600"; rc=1; }
done
LC_ALL=C.UTF-8 git grep -nE '^.{125,}' -- 'common/*.[ch]' 'config/*.[ch]' 'master/*.[ch]' 'worker/*.[ch]' && rc=1
for folder in $(git ls-files -co --exclude-standard -- '*/*' | cut -d/ -f1 | grep -v '^\.' | sort -u); do
    [ -f "$folder/README.md" ] || { echo "$folder: no README.md"; rc=1; continue; }
    lines=$(wc -l <"$folder/README.md")
    [ "$lines" -le 30 ] || { echo "$folder/README.md: $lines lines, at most 30"; rc=1; }
done
exit $rc
