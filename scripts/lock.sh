#!/bin/sh
# Writes requirements.lock from pyproject.toml: every extra and the dev group, for every supported Python and system.
# Pins that still fit are kept; `--upgrade` takes the newest. `--check` only says whether the lock is fresh. So it is
# with the locks of tools that are installed apart from the others: requirements-security.lock follows from
# requirements-security.in, and requirements-pentest.lock from requirements-pentest.in.
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv

resolve() {
    # No header and no index: the file must say the same wherever and from whatever registry it is made.
    "$uv" pip compile "$@" --quiet --universal --python-version 3.11 \
        --generate-hashes --no-header --no-emit-index-url --no-emit-find-links >/dev/null
}

compile() {
    lock=$1
    out=$2
    shift 2
    case $lock in
    requirements.lock) resolve pyproject.toml --all-extras --group dev --output-file "$out" "$@" ;;
    *) resolve "${lock%.lock}.in" --output-file "$out" "$@" ;;
    esac
}

for lock in requirements.lock requirements-security.lock requirements-pentest.lock; do
    if [ "${1:-}" = --check ]; then
        mkdir -p build
        cp "$lock" "build/$lock"
        compile "$lock" "build/$lock"
        diff -u "$lock" "build/$lock" || {
            echo "$lock does not follow from its source any more: run 'make lock' and commit it" >&2
            exit 1
        }
    else
        compile "$lock" "$lock" "$@"
    fi
done
