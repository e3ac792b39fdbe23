#!/bin/sh
# Shell scripts are free of the usual mistakes.
set -u
git ls-files -co --exclude-standard -- '*.sh' .ci/run | xargs shellcheck -S warning
