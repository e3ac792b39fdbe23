#!/bin/sh
# Every header compiles alone. CC and CFLAGS come from the Makefile.
set -u
: "${CFLAGS:?comes from the Makefile: make lint}"
git ls-files -co --exclude-standard -- 'common/*.h' 'config/*.h' 'master/*.h' 'worker/*.h' 'tests/*.h' |
    xargs -P "$(nproc)" -I{} sh -c 'printf "#include \"%s\"\n" {} | ${CC:-gcc} $CFLAGS -fsyntax-only -x c -'
