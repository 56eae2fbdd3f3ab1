#!/bin/sh
# sslyze, which tries every protocol and cipher of a port, in an environment of its own (build/sslyze): it wants an older
# cryptography than we do. Installs what sslyze.txt pins with its digests; quick when it is there.
set -eu

cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
place=build/sslyze
wanted=$(cksum <tests/servers/sslyze.txt)

mkdir -p build
exec 9>build/sslyze.lock
flock 9

if [ -f "$place/complete" ] && [ "$(cat "$place/complete")" = "$wanted" ]; then
    exit 0
fi
rm -rf "$place"
"$python" -m venv "$place"
"$place/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --no-binary sslyze --require-hashes \
    --requirement tests/servers/sslyze.txt >&2
echo "$wanted" >"$place/complete"
