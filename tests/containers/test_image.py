"""The image, and the stack in a container of it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import docker  # type: ignore[import-untyped]
import httpx
import pytest

from tests.containers.compose import COMPOSE, ComposeStack
from tests.containers.engine import ContainerStack, run_once

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

LOOK = """
for tool in gcc cc make pip uv git curl; do command -v $tool; done
find /app/venv -user 10001 | head -1
find / -xdev -perm -4000 -type f 2>/dev/null
python -c 'import pytest' 2>&1 | tail -1
"""


@pytest.fixture(scope="module")
def stack(docker_client: docker.DockerClient, image: str) -> Iterator[ContainerStack]:
    with ContainerStack(docker_client, image) as stack:
        yield stack


def test_the_image_is_slim_and_of_an_ordinary_user(docker_client: docker.DockerClient, image: str) -> None:
    config = docker_client.images.get(image).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    found = run_once(docker_client, image, ["-c", LOOK], entrypoint="sh", network_mode="none")
    lines = [line for line in found.splitlines() if line]
    assert lines.pop() == "ModuleNotFoundError: No module named 'pytest'"
    # Debian's own, which no-new-privileges makes worth nothing; none is of ours.
    assert all(line.startswith(("/usr/bin/", "/usr/lib/", "/bin/")) for line in lines), lines
    assert not {Path(line).name for line in lines} & {"gcc", "cc", "make", "pip", "uv", "git", "curl"}


def test_it_answers_and_is_healthy(stack: ContainerStack) -> None:
    assert "Order 1024" in stack.say("/order 1024")
    assert stack.container is not None
    end = time.monotonic() + 100
    while stack.container.attrs["State"]["Health"]["Status"] != "healthy":
        assert time.monotonic() < end, stack.container.attrs["State"]["Health"]
        time.sleep(0.5)
        stack.container.reload()
    assert httpx.get(f"{stack.url}/healthz", trust_env=False).status_code == 200
    metrics = f"http://127.0.0.1:{stack.ports['PARLEY_METRICS_PORT']}/metrics"
    assert "ai_assistant_requests_total" in httpx.get(metrics, trust_env=False).text
    hook = f"http://127.0.0.1:{stack.ports['PARLEY_HOOKS_PORT']}/hooks/nobody"
    assert httpx.post(hook, trust_env=False).status_code == 404


def test_its_neighbours_are_not_let_in(
    stack: ContainerStack, docker_client: docker.DockerClient, image: str
) -> None:
    assert stack.container is not None
    stack.container.reload()
    address = stack.container.attrs["NetworkSettings"]["IPAddress"]
    ask = (
        "import socket, sys\n"
        "for port in sys.argv[2:]:\n"
        "    try:\n"
        "        s = socket.create_connection((sys.argv[1], int(port)), 3)\n"
        "        s.sendall(b'GET /healthz HTTP/1.0\\r\\n\\r\\n')\n"
        "        print(port, s.recv(100) or 'closed')\n"
        "    except OSError as error:\n"
        "        print(port, 'closed')\n"
    )
    ports = [str(port) for port in stack.ports.values()]
    said = run_once(docker_client, image, ["-c", ask, address, *ports], entrypoint="python")
    assert said.splitlines() == [f"{port} closed" for port in ports]


def test_published_to_everybody_it_still_takes_this_machine_only(stack: ContainerStack) -> None:
    """What comes to the container's address from another machine keeps its own address; here, another of this one's."""
    assert stack.container is not None
    stack.container.reload()
    networks = stack.container.attrs["NetworkSettings"]
    there = (networks["IPAddress"], stack.ports["PARLEY_PORT"])
    assert b"200 OK" in _healthz(there, networks["Gateway"]), "as Docker's publishing comes in"
    # A second address of this machine on the bridge: to the container it is not its gateway.
    other = _neighbouring(networks["Gateway"])
    with _address(other):
        assert _healthz(there, other) == b""
    log = (stack.folder / "data/logs/publish.log").read_text()
    assert any(other in line and "is not let in" in line for line in log.splitlines())


def test_orphans_are_reaped_without_an_init(docker_client: docker.DockerClient, image: str) -> None:
    """As the first process of its container the supervisor takes note of the ends of what was left to it."""
    container = docker_client.containers.run(
        image,
        detach=True,
        init=False,
        tmpfs={"/app/data": "uid=10001,mode=700", "/app/key": "uid=10001,mode=700"},
    )
    try:
        orphan = "import os, sys\nif os.fork() == 0:\n    os.setsid()\n    os._exit(0) if os.fork() else os._exit(3)\n"
        end = time.monotonic() + 90
        while "ready in" not in container.logs().decode():
            assert time.monotonic() < end, container.logs().decode()
            time.sleep(0.5)
        for _ in range(5):
            assert container.exec_run(["python", "-c", orphan]).exit_code == 0
        count = "import psutil; print(sum(p.status() == 'zombie' for p in psutil.process_iter()))"
        end = time.monotonic() + 15
        while (left := container.exec_run(["python", "-c", count]).output.decode().strip()) != "0":
            assert time.monotonic() < end, f"{left} zombies"
            time.sleep(0.5)
    finally:
        container.remove(force=True, v=True)


def test_a_stop_is_clean_and_a_new_container_goes_on(docker_client: docker.DockerClient, image: str) -> None:
    with ContainerStack(docker_client, image) as stack:
        said = json.loads(stack.execute("parley", "say", "/order 1024", "--json"))
        began = time.monotonic()
        assert stack.stop() == 0
        assert time.monotonic() - began < 45
        log = (stack.folder / "data/logs/supervisor.log").read_text()
        assert log.rstrip().endswith("stopped")
        assert "is killed" not in log
        stack.start()
        token = stack.execute("parley", "token").strip()
        kept = httpx.get(
            f"{stack.url}/api/v1/messages/{said['id']}",
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
        )
        assert kept.raise_for_status().json()["id"] == said["id"]


def test_another_user_may_own_the_data(docker_client: docker.DockerClient, image: str) -> None:
    with ContainerStack(docker_client, image, user="12345:12345") as stack:
        assert "Order 1024" in stack.say("/order 1024")
        assert {path.stat().st_uid for path in (stack.folder / "data").rglob("*")} == {12345}


def test_a_folder_of_somebody_else_is_refused_in_one_sentence(
    docker_client: docker.DockerClient, image: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    container = docker_client.containers.run(image, detach=True, volumes=[f"{tmp_path}:/app/data"])
    try:
        assert container.wait(timeout=60)["StatusCode"] == 2
        said = container.logs().decode()
        assert "/app/data" in said
        assert "Traceback" not in said
    finally:
        container.remove(force=True, v=True)


def test_compose_starts_it_as_documented(
    docker_client: docker.DockerClient, image: str, tmp_path: Path
) -> None:
    with ComposeStack(docker_client, image, tmp_path) as stack:
        assert (tmp_path / "secrets/parley_key").stat().st_mode & 0o777 == 0o400
        container = stack.container
        assert container.attrs["HostConfig"]["ReadonlyRootfs"]
        bindings = container.attrs["HostConfig"]["PortBindings"].values()
        assert {one["HostIp"] for binding in bindings for one in binding} == {"127.0.0.1"}
        assert "Order 1024" in stack.run("exec", "-T", "parley", "parley", "say", "/order 1024")
        stack.run("stop")
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0
        stack.run("start")
        end = time.monotonic() + 120
        while not _answers(stack.ports["PARLEY_PORT"]):
            assert time.monotonic() < end, container.logs().decode()
            time.sleep(0.5)


def test_the_compose_file_is_valid_for_compose_of_today() -> None:
    """By the specification's own rules, as far as the file uses them; the old docker-compose knows fewer."""
    import yaml  # type: ignore[import-untyped]

    file = yaml.safe_load(COMPOSE.read_text())
    assert set(file) <= {"services", "networks", "secrets", "volumes", "name"}, "no `version`: it is obsolete"
    service = file["services"]["parley"]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert all(set(one) == {"file"} for one in file["secrets"].values())
    assert file["services"]["postgres"]["profiles"] == ["postgres"]
    for name in file["services"].values():
        assert set(name.get("secrets", ())) <= set(file["secrets"])
        assert set(name["networks"]) <= set(file["networks"])


def _answers(port: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _healthz(there: tuple[str, int], source: str) -> bytes:
    """The answer to a request that comes from this address; nothing where the connection is closed on."""
    with socket.socket() as connection:
        connection.settimeout(5)
        connection.bind((source, 0))
        connection.connect(there)
        with suppress(ConnectionError):
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return connection.recv(100)
    return b""


def _neighbouring(gateway: str) -> str:
    first, _, last = gateway.rpartition(".")
    return f"{first}.{253 if last != '253' else 252}"


class _address:  # noqa: N801 - reads as what it does
    """A second address on the bridge of this machine, for as long as the block lasts."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        shown = subprocess.run(["ip", "-o", "-4", "addr"], capture_output=True, text=True, check=True).stdout
        prefix = self._address.rpartition(".")[0]
        self._device = next(line.split()[1] for line in shown.splitlines() if f" {prefix}." in line)
        subprocess.run(["ip", "addr", "add", f"{self._address}/32", "dev", self._device], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "addr", "del", f"{self._address}/32", "dev", self._device], check=True)
