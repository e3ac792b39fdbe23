#!/bin/sh
# Writes the files of worker/cli/samples/ as one C table (worker/cli/samples.h) to stdout.
set -eu
cd "$(dirname "$0")/samples"
echo '#include "worker/cli/samples.h"'
echo '#include <stddef.h>'
echo 'const struct sample samples[] = {'
for f in *; do
    printf '    {"%s",\n' "$f"
    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/?/\\?/g' -e 's/.*/     "&\\n"/' "$f"
    echo '    },'
done
echo '    {NULL, NULL},'
echo '};'
