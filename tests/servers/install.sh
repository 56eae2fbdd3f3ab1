#!/bin/sh
# Brings the real servers that some tests talk to: Dovecot, PostgreSQL, Chromium, Prosody, Prometheus, Alertmanager,
# OpenLDAP, libfaketime (a clock that tests set), and clients of some platforms from npm. The tests start them
# themselves, in their own folders and ports; here they are only installed.
# Quick when all is there. With CI set, a lack is an error.
set -eu
cd "$(dirname "$0")/../.."

# PYTHON, where it is set, is the one that .venv is made with: the clients are brought by .venv's own.
if ! PYTHON='' sh tests/servers/npm-peers.sh; then
    echo "test-servers: could not install what tests/servers/npm-peers.txt names." >&2
    [ -z "${CI:-}" ] || exit 1
    echo "test-servers: tests that need it are skipped." >&2
fi

if ! PYTHON='' sh tests/servers/sslyze.sh; then
    echo "test-servers: could not install what tests/servers/sslyze.txt pins." >&2
    [ -z "${CI:-}" ] || exit 1
    echo "test-servers: the test that needs it is skipped." >&2
fi

missing() {
    # Servers live in sbin, which a user's PATH may lack; Debian keeps PostgreSQL's programs out of PATH altogether.
    PATH=$PATH:/usr/sbin:/usr/local/sbin
    command -v dovecot >/dev/null 2>&1 || printf ' dovecot-imapd'
    command -v postgres >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || printf ' postgresql'
    command -v chromium >/dev/null 2>&1 || printf ' chromium'
    command -v prosody >/dev/null 2>&1 || printf ' prosody'
    command -v prometheus-alertmanager >/dev/null 2>&1 || printf ' prometheus-alertmanager'
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || printf ' libfaketime'
    command -v promtool >/dev/null 2>&1 || printf ' prometheus'
    command -v slapd >/dev/null 2>&1 || printf ' slapd'
    command -v ldapsearch >/dev/null 2>&1 || printf ' ldap-utils'
}

packages=$(missing)
[ -n "$packages" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "test-servers: not here:$packages; tests marked 'servers' that need them are skipped." >&2
    echo "test-servers: on Debian, 'sudo make test-servers' brings them." >&2
    [ -z "${CI:-}" ] || exit 1
    exit 0
fi

install() {
    # A fresh server must not start by itself: it would take the port and the memory of what the tests start.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    apt-get update -qq || return 1
    # shellcheck disable=SC2086 # one word a package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null || return 1
}

echo "test-servers: installing$packages"
if ! install || [ -n "$(missing)" ]; then
    echo "test-servers: could not install:$(missing)" >&2
    [ -z "${CI:-}" ] || exit 1
    echo "test-servers: tests marked 'servers' that need them are skipped." >&2
fi
