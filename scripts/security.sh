#!/bin/sh
# Looks for mistakes in the source that are dangerous, for secrets in what is committed, and for versions with known
# holes; writes a bill of materials, build/sbom.json. Works without the internet once its tools are installed.
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
tools=build/security
lock=requirements-security.lock

if ! cmp -s "$lock" "$tools/installed.lock"; then
    rm -rf "$tools"
    "$uv" venv --quiet "$tools"
    VIRTUAL_ENV=$tools "$uv" pip install --quiet --require-hashes --requirement "$lock"
    cp "$lock" "$tools/installed.lock"
fi

failed=
check() {
    echo "security: $1"
    shift
    "$@" || failed=yes
}

sources="parley connectors blocks flows deployments scripts benchmarks"

# shellcheck disable=SC2086 # several words
check "dangerous code (bandit)" "$tools/bin/bandit" --quiet --recursive --severity-level medium --configfile security/bandit.yaml $sources
check "secrets (detect-secrets)" "$tools/bin/python" scripts/find_secrets.py
check "versions with known holes" .venv/bin/python -m pytest --quiet --no-header -p no:cacheprovider tests/test_supply_chain.py
mkdir -p build
check "bill of materials (build/sbom.json)" env PYTHONWARNINGS=ignore "$tools/bin/cyclonedx-py" requirements requirements.lock \
    --pyproject pyproject.toml --output-format JSON --output-reproducible --output-file build/sbom.json
[ -z "$failed" ]
