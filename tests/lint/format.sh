#!/bin/sh
# C is formatted as .clang-format says; `make fmt` does it.
set -u
git ls-files -co --exclude-standard -- '*.c' '*.h' | xargs clang-format-14 --dry-run -Werror
