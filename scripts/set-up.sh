#!/bin/sh
# Makes .venv from requirements.lock, hashes verified, and puts the project into it, editable.
# All it needs is Python 3.11 to 3.13; uv is brought where it is missing. `make` calls it when the stamp is old.
set -eu
cd "$(dirname "$0")/.."

die() {
    echo "set-up: $*" >&2
    exit 1
}

in_range='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'
wanted="Python 3.11, 3.12 or 3.13 is needed; name one with PYTHON=, as in: make up PYTHON=python3.12"

python=${PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || die "there is no '$python' here. $wanted"
"$python" -c "$in_range" || die "'$python' is $("$python" --version 2>&1). $wanted"
python=$("$python" -c 'import sys; print(sys.executable)')

tools=build/tools

bring_uv() {
    mkdir -p "$tools"
    # The same uv, under the same hash, as everything else in the lock.
    awk '/^[^ #]/ { keep = /^uv==/ } keep' requirements.lock >"$tools/uv.txt"
    # Debian parts venv and pip from Python; either of the two is enough here.
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv "$tools"
        "$tools/bin/python" -m pip install --quiet --no-deps --require-hashes -r "$tools/uv.txt"
    elif "$python" -c 'import pip' 2>/dev/null; then
        "$python" -m pip install --quiet --no-deps --require-hashes --target "$tools" --upgrade -r "$tools/uv.txt"
    elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        echo "set-up: $version has neither venv nor pip; installing $version-venv"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$version-venv" >/dev/null
        bring_uv
    else
        die "$python has neither venv nor pip. Install one of them (Debian: apt-get install python3-venv), or uv."
    fi
}

uv=$(command -v uv || true)
if [ -z "$uv" ]; then
    uv=$tools/bin/uv
    if ! "$uv" --version >/dev/null 2>&1; then
        echo "set-up: bringing uv into $tools"
        bring_uv
    fi
fi

# The Python that was chosen above is used, never another one that uv would fetch.
export UV_PYTHON_DOWNLOADS=never
if ! .venv/bin/python -c "$in_range" 2>/dev/null; then
    "$uv" venv --quiet --clear --python "$python" .venv
fi
echo "set-up: installing what requirements.lock names into .venv"
# Compiled now, so that the first start does not have to.
"$uv" pip install --quiet --python .venv/bin/python --require-hashes --compile-bytecode -r requirements.lock
# The builder is in the lock too: nothing is resolved or fetched here.
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
touch .venv/.set-up
