#!/bin/sh
# Every header compiles alone. CC and CFLAGS come from the Makefile; by itself it asks for those of libpq, the only library
# whose headers lie in a folder of their own.
set -u
: "${CFLAGS=-I. -D_GNU_SOURCE $(pkg-config --cflags libpq)}"
export CFLAGS
git ls-files -co --exclude-standard -- 'common/*.h' 'config/*.h' 'master/*.h' 'worker/*.h' 'tests/*.h' |
    xargs -P "$(nproc)" -I{} sh -c 'printf "#include \"%s\"\n" {} | ${CC:-gcc} $CFLAGS -fsyntax-only -x c -'
