"""Automations in containers, for real: `parley up` on this machine, Prefect's Docker worker, an engine."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import docker  # type: ignore[import-untyped]
import httpx
import pytest

from tests.stack import PORTS, ROOT, Stack

pytestmark = [pytest.mark.containers, pytest.mark.prefect, pytest.mark.timeout(300)]

WAIT = 90.0

SCRIPTS = """
[scripts.look-around]
argv = ["sh", "-c", "id -u; touch /probe 2>&1; ls /sys/class/net; cat /probes/tests/containers/mounted.txt"]
summary = "Look around."

[scripts.gluttony]
argv = ["python3", "-c", "x = []\\nwhile True: x.append(bytes(range(256)) * 65536)"]
summary = "Eat memory."
memory_mb = 4096

[scripts.call-out]
argv = ["python3", "-c", '''
import socket
try:
    socket.create_connection(("1.1.1.1", 443), 3)
    print("connected")
except OSError as error:
    print("no way out:", error)
''']
summary = "Reach the Internet."

[containers.automations.repair]
memory_mb = 300

# What is looked at here is where it runs, not who lets it.
[[approvals]]
automations = "repair"
needed = 0
"""


@dataclass(frozen=True)
class Machine:
    """This machine beside the stack: a program that listens on all of its addresses; another container that does."""

    port: int
    addresses: tuple[str, ...]
    name: str


@pytest.fixture(scope="module")
def machine(docker_client: docker.DockerClient, image: str) -> Iterator[Machine]:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        stopped = threading.Event()
        answering = threading.Thread(target=_answer, args=(server, stopped), daemon=True)
        answering.start()
        other = docker_client.containers.run(
            image,
            ["-c", f"import http.server as h; h.test(h.SimpleHTTPRequestHandler, port={port})"],
            entrypoint="python",
            detach=True,
            healthcheck={"test": ["NONE"]},
        )
        try:
            other.reload()
            theirs = other.attrs["NetworkSettings"]["IPAddress"]
            _eventually(lambda: _connects(theirs, port), "the other container listens")
            yield Machine(port, (*_own_addresses(), theirs), socket.gethostname())
        finally:
            other.remove(force=True, v=True)
            stopped.set()
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
            answering.join(5)


@pytest.fixture(scope="module")
def stack(image: str, machine: Machine) -> Iterator[Stack]:
    toml = f"""
[automations]
modules = ["flows", "tests.containers.probes"]

[containers]
image = "{image}"
mounts = ["{ROOT}/tests:/probes/tests"]
environment = {{ PYTHONPATH = "/probes" }}

[containers.automations.reach]
network = ["{machine.name}:{machine.port}"]
{SCRIPTS}
"""
    with Stack(toml=toml) as stack:
        stack.until(lambda: _offered(stack, "look"), 60, "the automations are offered")
        yield stack


def _say(stack: Stack, text: str, state: str = "done") -> str:
    said = stack.say(text, wait=WAIT)
    assert said["state"] == state, f"{said}\n{stack.logs('containers')}"
    return str(said["replies"][-1]["text"])


def test_a_container_is_shut_on_all_sides(stack: Stack, docker_client: docker.DockerClient) -> None:
    seen = json.loads(_say(stack, "/look"))
    assert seen == {
        "uid": 10001,
        "capabilities": "0000000000000000",
        "bounding": "0000000000000000",
        "no_new_privileges": "1",
        "interfaces": ["lo"],
        "root": False,
        "folder": False,
        "scratch": True,
        "engine": False,
        "secrets": [],
        "sockets": ["hub.sock", "order.json", "parley.toml", "prefect.sock"],
    }
    _eventually(lambda: not _containers(docker_client, stack), "it is removed after its run")
    _eventually(lambda: not list((stack.home / "run" / "gate").iterdir()), "and so are its sockets")


def test_nothing_is_reached_but_what_is_named(stack: Stack, machine: Machine) -> None:
    ours = [int(stack.environment[name]) for name in PORTS]
    shut = [f"{address}:{machine.port}" for address in machine.addresses]
    shut += [f"{address}:{port}" for address in machine.addresses for port in ours]
    shut += [f"127.0.0.1:{port}" for port in (machine.port, *ours)]
    shut += ["1.1.1.1:443", "example.com:443", f"{machine.name}:{ours[0]}"]
    for address in machine.addresses:
        assert _connects(address, machine.port), "the test's own program can be reached from here"
    named = f"{machine.name}:{machine.port}"
    found = json.loads(_say(stack, f"/reach targets={','.join([named, *shut])}"))
    assert found.pop(named) == "pong"
    assert set(found) == set(shut)
    assert [target for target, said in found.items() if not said.startswith("no:")] == []


def test_without_a_name_the_same_address_is_shut(stack: Stack, machine: Machine) -> None:
    found = json.loads(_say(stack, f"/reach-nothing targets={machine.name}:{machine.port}"))
    assert all(said.startswith("no:") for said in found.values())


def test_prefect_answers_a_run_about_itself_only(stack: Stack) -> None:
    answers = json.loads(_say(stack, "/ask-prefect"))
    assert answers.pop("own run") == 200
    assert answers.pop("own logs") == 201
    assert set(answers.values()) == {"gate"}, answers


def test_too_much_memory_ends_the_run_and_is_told(stack: Stack, docker_client: docker.DockerClient) -> None:
    answer = _say(stack, "/eat", state="failed")
    assert "/eat" in answer
    flow_run = _latest(stack, "eat")
    assert flow_run["state"]["type"] == "CRASHED"
    assert "out of memory" in flow_run["state"]["message"]
    _eventually(lambda: not _containers(docker_client, stack), "its container is gone")


def test_a_cancelled_run_loses_its_container(stack: Stack, docker_client: docker.DockerClient) -> None:
    said = stack.say("/linger", wait=0)
    _eventually(lambda: _lingers(stack, said["id"]), "it lingers")
    assert len(_containers(docker_client, stack)) == 1
    stack.say("/cancel", wait=30)
    _eventually(lambda: _message(stack, said["id"])["state"] not in ("queued", "running"), "it has ended")
    _eventually(lambda: not _containers(docker_client, stack), "its container is gone")
    _eventually(lambda: _latest(stack, "linger")["state"]["type"] == "CANCELLED", "Prefect knows")


def test_a_killed_container_is_reported(stack: Stack, docker_client: docker.DockerClient) -> None:
    said = stack.say("/linger", wait=0)
    _eventually(lambda: _lingers(stack, said["id"]), "it lingers")
    (container,) = _containers(docker_client, stack)
    container.kill()
    _eventually(lambda: _message(stack, said["id"])["state"] == "failed", "it is told as failed")
    assert _latest(stack, "linger")["state"]["type"] == "CRASHED"


def test_a_killed_worker_leaves_no_container_and_no_run(
    stack: Stack, docker_client: docker.DockerClient
) -> None:
    said = stack.say("/linger", wait=0)
    _eventually(lambda: _lingers(stack, said["id"]), "it lingers")
    killed = stack.kill("containers")
    stack.back("containers", killed)
    _eventually(lambda: not _containers(docker_client, stack), "its successor removes the container")
    _eventually(lambda: _message(stack, said["id"])["state"] == "failed", "the run is reported as lost")
    assert json.loads(_say(stack, "/look"))["uid"] == 10001, "and the next run is carried out"


def test_a_run_that_prefect_starts_gets_its_container(stack: Stack) -> None:
    with _prefect(stack) as api:
        deployment = api.get("/deployments/name/look/parley").raise_for_status().json()
        assert deployment["work_pool_name"] == "parley-containers"
        made = api.post(
            f"/deployments/{deployment['id']}/create_flow_run", json={"state": {"type": "SCHEDULED"}}
        )
        flow_run = made.raise_for_status().json()["id"]
        _eventually(
            lambda: api.get(f"/flow_runs/{flow_run}").json()["state"]["type"] == "COMPLETED",
            "it is completed",
        )
        assert "PARLEY_RUN_TOKEN" not in json.dumps(api.get(f"/flow_runs/{flow_run}").json())


def test_scripts_run_in_a_container(stack: Stack) -> None:
    looked = _say(stack, "/repair look-around")
    assert "10001" in looked
    assert "Read-only file system" in looked
    assert "\nlo\n" in looked
    assert "seen by the script" in looked
    assert "no way out" in _say(stack, "/repair call-out")


def test_a_script_that_is_registered_later_runs_too(stack: Stack) -> None:
    before = stack.folder.joinpath("parley.toml").read_text()
    stack.configure(before + '[scripts.later]\nargv = ["echo", "here I am"]\n')
    try:
        stack.until(lambda: '"later"' in stack.client.get("/api/v1/automations").text, 60, "it is registered")
        assert "here I am" in _say(stack, "/repair later")
    finally:
        stack.configure(before)


def test_a_script_that_eats_memory_is_killed_and_reported(stack: Stack) -> None:
    began = time.monotonic()
    answer = _say(stack, "/repair gluttony", state="failed")
    assert time.monotonic() - began < 60, "not by its own time limit"
    assert "gluttony" in answer or "/repair" in answer


# -- looking


def _offered(stack: Stack, command: str) -> bool:
    found = stack.client.get("/api/v1/automations")
    return found.is_success and f'"{command}"' in found.text and bool(_pool(stack))


def _pool(stack: Stack) -> bool:
    with _prefect(stack) as api:
        return api.get("/deployments/name/look/parley").is_success


@contextmanager
def _prefect(stack: Stack) -> Iterator[httpx.Client]:
    environment = stack.prefect_environment
    user, _, password = environment["PREFECT_API_AUTH_STRING"].partition(":")
    url = environment["PREFECT_API_URL"]
    with httpx.Client(base_url=url, auth=(user, password), timeout=10, trust_env=False) as client:
        token = client.get("/csrf-token", params={"client": "tests"}).json()["token"]
        client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "tests"})
        yield client


def _latest(stack: Stack, flow: str) -> dict[str, Any]:
    body = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    with _prefect(stack) as api:
        found: list[dict[str, Any]] = api.post("/flow_runs/filter", json=body).raise_for_status().json()
    return found[0]


def _message(stack: Stack, message_id: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.client.get(f"/api/v1/messages/{message_id}").raise_for_status().json()
    return found


def _lingers(stack: Stack, message_id: str) -> bool:
    return any("lingering" in reply["text"] for reply in _message(stack, message_id)["replies"])


def _containers(client: docker.DockerClient, stack: Stack) -> list[Any]:
    import hashlib

    label = hashlib.sha256(str(stack.home).encode()).hexdigest()[:16]
    return list(
        client.containers.list(
            all=True, ignore_removed=True, filters={"label": f"parley.installation={label}"}
        )
    )


def _eventually(holds: Any, what: str, seconds: float = WAIT) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


def _answer(server: socket.socket, stopped: threading.Event) -> None:
    while not stopped.is_set():
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.settimeout(3)
            if connection.recv(5):
                connection.sendall(b"pong\n")


def _connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 2).close()
    except OSError:
        return False
    return True


def _own_addresses() -> list[str]:
    import psutil

    return [
        one.address
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family == socket.AF_INET and not one.address.startswith("127.")
    ]
