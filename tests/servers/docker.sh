#!/bin/sh
# A Docker engine and a base image for the tests of containers, on Debian as root; nothing comes from an image registry.
#
#   tests/servers/docker.sh run COMMAND...   COMMAND with DOCKER_HOST and PARLEY_TEST_BASE set, then end what was started
#   tests/servers/docker.sh base             only make the base image in the engine that is there, and print its name
#
# An engine that answers already is used and left as it is. Otherwise one of our own is started: its data, its socket,
# its containerd and its bridge are all under $PARLEY_TEST_DOCKER (by default build/docker), so that it meets no other.
# The base image is Debian's own Python, from the mirror that apt is configured with. Exit code 75: no engine can run here;
# with PARLEY_CONTAINERS=optional that is said, and no failure of `run`.
set -eu
cd "$(dirname "$0")/../.."

BASE=parley-test/base:bookworm
SUITE=bookworm
HOME_OF_ENGINE=${PARLEY_TEST_DOCKER:-$PWD/build/docker}
PATH=/usr/sbin:/sbin:$PATH
engine_pid=

say() { echo "docker.sh: $*" >&2; }

unable() {
    say "$*"
    if [ "$command" = run ] && [ "$PARLEY_CONTAINERS" = optional ]; then
        say "NOT RUN, because no container engine can run here: $wanted"
        exit 0
    fi
    exit 75
}

# Debian's own client where it is there: it can talk to BuildKit without a plugin.
docker() {
    if [ -x /usr/bin/docker ]; then /usr/bin/docker "$@"; else command docker "$@"; fi
}

need() {
    missing=
    for pair in "$@"; do
        [ -x "${pair%%=*}" ] || missing="$missing ${pair#*=}"
    done
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || unable "needed, and not there:$missing"
    say "installing$missing"
    # The package would start a daemon of its own; ours is started below, where it can be ended.
    policy=/usr/sbin/policy-rc.d
    made=
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        made=1
    fi
    apt-get update -qq >/dev/null
    # shellcheck disable=SC2086 # a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null || failed=1
    [ -z "$made" ] || rm -f $policy
    [ -z "${failed:-}" ] || unable "could not install$missing"
}

# An engine whose containers can be written down here: root, and a kernel that lets namespaces and bridges be made.
start_engine() {
    need /usr/sbin/dockerd=docker.io /usr/sbin/iptables=iptables
    mkdir -p "$HOME_OF_ENGINE" 2>/dev/null || unable "$HOME_OF_ENGINE cannot be made"
    # Sockets have short paths, whatever the clone's is.
    run=$(mktemp -d /tmp/parley-docker.XXXXXX)
    bridge=prl$(od -An -N3 -tx1 /dev/urandom | tr -d ' \n')
    forward=$(iptables -S FORWARD 2>/dev/null | sed -n 's/^-P FORWARD //p')
    ip link add "$bridge" type bridge 2>/dev/null || {
        rmdir "$run"
        unable "this machine does not let a bridge be made"
    }
    ip addr add 10.213.77.1/24 dev "$bridge" && ip link set "$bridge" up
    export DOCKER_HOST="unix://$run/docker.sock"
    dockerd --data-root "$HOME_OF_ENGINE" --exec-root "$run/exec" --pidfile "$run/pid" --host "$DOCKER_HOST" \
        --bridge "$bridge" >"$HOME_OF_ENGINE/dockerd.log" 2>&1 &
    engine_pid=$!
    trap stop_engine EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    for _ in $(seq 120); do
        docker version >/dev/null 2>&1 && return 0
        kill -0 "$engine_pid" 2>/dev/null || break
        sleep 0.5
    done
    tail -5 "$HOME_OF_ENGINE/dockerd.log" >&2
    unable "an engine does not start here"
}

# An engine leaves its rules behind, and a machine that forwards nothing that it does not know.
forget_rules() {
    for table in filter nat; do
        iptables -t $table -S | grep -e " $bridge " | sed 's/^-A/-D/' | while read -r rule; do
            # shellcheck disable=SC2086 # the words of a rule
            iptables -t $table $rule || true
        done
    done
    [ -z "$forward" ] || iptables -P FORWARD "$forward"
}

stop_engine() {
    code=$?
    if [ -n "$engine_pid" ]; then
        kill "$engine_pid" 2>/dev/null || true
        wait "$engine_pid" 2>/dev/null || true
        ip link delete "$bridge" 2>/dev/null || true
        forget_rules || true
        # What the engine keeps its containers' networks by stays mounted after its end.
        umount "$run"/exec/netns/* 2>/dev/null || true
        rm -rf "$run" || true
    fi
    exit $code
}

# What apt fetches this system from: the first entry of its sources that is a Debian archive with a main component.
mirror() {
    apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        awk -v suite="$SUITE" '$2 == suite && $3 == "main" && $4 == "Debian" { print $1; exit }'
}

make_base() {
    docker image inspect "$BASE" >/dev/null 2>&1 && return 0
    need /usr/sbin/debootstrap=debootstrap
    from=$(mirror)
    [ -n "$from" ] || { apt-get update -qq >/dev/null; from=$(mirror); }
    [ -n "$from" ] || unable "apt on this machine has no Debian $SUITE to make a base image from"
    say "making the base image"
    root=$(mktemp -d /tmp/parley-base.XXXXXX)
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$SUITE" "$root" "$from" >/dev/null
    # This machine may reach its package index through an authority of its own.
    if [ -d /usr/local/share/ca-certificates ]; then
        cp -a /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/"
        chroot "$root" update-ca-certificates >/dev/null 2>&1
    fi
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/etc/apt/sources.list
    tar -C "$root" -c . | docker import - "$BASE" >/dev/null
    rm -rf "$root"
}

command=${1:-}
[ -n "$command" ] && shift
wanted=$*
case ${PARLEY_CONTAINERS:=required} in
required | optional) ;;
*)
    say "PARLEY_CONTAINERS=$PARLEY_CONTAINERS is neither required nor optional"
    exit 2
    ;;
esac
docker version >/dev/null 2>&1 || { [ "$command" != base ] || unable "no engine answers"; start_engine; }
make_base
export PARLEY_TEST_BASE="$BASE"
case $command in
base) echo "$BASE" ;;
run)
    docker compose version >/dev/null 2>&1 || need /usr/bin/docker-compose=docker-compose
    "$@" &
    child=$!
    trap 'kill -TERM $child 2>/dev/null; wait $child; exit 143' TERM INT
    wait $child
    ;;
*) sed -n '2,10p' "$0" >&2; exit 2 ;;
esac
