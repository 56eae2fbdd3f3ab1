#!/bin/sh
# All tests of tests/faults, one after another: they measure, and what they break must be their own. FAULTS_LONG=1 is the
# run of hours, FAULTS_SEEDS=1,2 its seeds, ARGS what else pytest is told.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${ARGS:-}" ]; then
    rm -f build/faults.json
fi
# shellcheck disable=SC2086 # none or several words
exec .venv/bin/pytest tests/faults ${ARGS:-}
