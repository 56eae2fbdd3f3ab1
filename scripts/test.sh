#!/bin/sh
# All tests but those that have a target of their own: first several at once, as most of them wait for servers, then
# alone those that measure. WORKERS is how many at once (one more than there are processors when it is not given),
# COVERAGE=1 also measures what is tested. Both parts are run to their end; it fails when either does.
set -u
cd "$(dirname "$0")/.."
workers=${WORKERS:-$(($(getconf _NPROCESSORS_ONLN) + 1))}
first='' second=''
if [ -n "${COVERAGE:-}" ]; then
    first='--cov --cov-report='
    second='--cov --cov-append --cov-report=term --cov-report=xml:build/coverage.xml'
fi

tests() {
    .venv/bin/pytest --ignore=tests/containers --ignore=tests/scenarios --ignore=tests/faults "$@"
}

code=0
# shellcheck disable=SC2086 # none or several words
tests -n "$workers" -m 'not serial' $first || code=$?
# Only the files that have such tests: to collect all takes longer than most of these.
# shellcheck disable=SC2046,SC2086
tests -m serial $second $(grep -rl --include='test_*.py' --exclude-dir=faults 'mark\.serial' tests) || code=$?
exit "$code"
