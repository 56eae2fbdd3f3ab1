#!/bin/sh
# Writes requirements.lock from pyproject.toml: every extra and the dev group, for every supported Python and system.
# Pins that still fit are kept; `--upgrade` takes the newest. `--check` only says whether the lock is fresh.
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv

compile() {
    out=$1
    shift
    # No header and no index: the file must say the same wherever and from whatever registry it is made.
    "$uv" pip compile pyproject.toml --quiet --all-extras --group dev --universal --python-version 3.11 \
        --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --output-file "$out" "$@" >/dev/null
}

if [ "${1:-}" = --check ]; then
    mkdir -p build
    cp requirements.lock build/requirements.lock
    compile build/requirements.lock
    diff -u requirements.lock build/requirements.lock || {
        echo "requirements.lock does not follow from pyproject.toml any more: run 'make lock' and commit it" >&2
        exit 1
    }
else
    compile requirements.lock "$@"
fi
