#!/bin/sh
# Writes the SQL files of worker/store/migrations/PRODUCT/ as one C table (worker/store/migrations.h) to stdout.
set -eu
cd "$(dirname "$0")"
mkdir -p migrations && cd migrations
echo '#include "worker/store/migrations.h"'
echo '#include <stddef.h>'
echo 'const struct migration migrations[] = {'
for f in */*.sql; do
    [ -e "$f" ] || continue
    base=$(basename "$f" .sql)
    number=$(expr "${base%%_*}" + 0)
    printf '    {"%s", %d, "%s",\n' "${f%%/*}" "$number" "$base"
    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/.*/     "&\\n"/' "$f"
    echo '    },'
done
echo '    {NULL, 0, NULL, NULL},'
echo '};'
