#!/bin/sh
# All tests of tests/faults, two at a time: most of what they do is to wait. FAULTS_LONG=1 is the run of hours,
# FAULTS_SEEDS=1,2 its seeds, ARGS what pytest is told instead of that.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${ARGS:-}" ]; then
    rm -f build/faults.json
fi
# shellcheck disable=SC2086 # none or several words
exec .venv/bin/pytest tests/faults ${ARGS:--n 2}
