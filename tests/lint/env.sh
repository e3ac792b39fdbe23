#!/bin/sh
# Each name in .env.example is one that the configuration or docker-compose.yml reads.
set -u
rc=0
for name in $(sed -n 's/^#\{0,1\}\([A-Z][A-Z0-9_]*\)=.*/\1/p' .env.example); do
    grep -q "[\${]${name}[}:]" docker-compose.yml && continue
    grep -qE "^KEY\(.*[\" ]${name}[\" ]" config/keys.def && continue
    key=$(sed -n 's/^KEY(\([a-z_]*\), \([a-z0-9_]*\),.*/RAGD_\1_\2/p' config/keys.def | tr '[:lower:]' '[:upper:]' | grep -x "$name")
    [ -n "$key" ] || { echo ".env.example: nothing reads $name"; rc=1; }
done
exit $rc
