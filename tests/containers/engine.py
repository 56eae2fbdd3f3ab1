"""The image, built once for what the sources are now, and stacks that run from it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import docker  # type: ignore[import-untyped]
import httpx
from docker.models.containers import Container  # type: ignore[import-untyped]

from tests.stack import PORTS, ROOT, free_ports

BASE: Final = "PARLEY_TEST_BASE"
"""The base image's name: tests/servers/docker.sh makes it."""

NAME: Final = "parley-test/image"
READY_SECONDS: Final = 120.0

_SOURCES: Final = ("parley", "connectors", "blocks", "flows", "deployments")
_SINGLE: Final = ("pyproject.toml", "requirements.lock", "README.md", "LICENSE", ".dockerignore")


def digest(base: str) -> str:
    """Changes with whatever goes into the image."""
    found = hashlib.sha256(base.encode())
    files = [ROOT / name for name in _SINGLE]
    for folder in _SOURCES:
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    for path in sorted(files):
        found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def build(client: docker.DockerClient) -> str:
    """The image of these sources; built where the engine has none yet, and older ones are removed."""
    base = os.environ[BASE]
    tag = f"{NAME}:{digest(str(client.images.get(base).id))}"
    if any(tag in image.tags for image in client.images.list(NAME)):
        return tag
    index = _index()
    command = ["docker", "build", "--network", "host", "--tag", tag, "--build-arg", f"BASE={base}"]
    command += ["--build-arg", f"PIP_INDEX_URL={index}"] if index else []
    command += ["--file", str(ROOT / "deployments/docker/Dockerfile"), str(ROOT)]
    # BuildKit where the client has it built in; the classic builder does the same with this file.
    done = subprocess.run(
        command,
        env=os.environ | {"DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    for image in client.images.list(NAME):
        for other in image.tags:
            if other != tag:
                with suppress(docker.errors.APIError):
                    client.images.remove(other)
    return tag


def _index() -> str:
    """The package index that pip is set up with on this machine; nothing when it is the usual one."""
    asked = subprocess.run(
        ["python3", "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return os.environ.get("PIP_INDEX_URL") or asked.stdout.strip()


def run_once(client: docker.DockerClient, image: str, command: list[str], **options: Any) -> str:
    """What a container prints until it ends; it is removed with the volumes that the image gave it.

    `remove=True` of Docker's own library leaves those behind. Raises `AssertionError` where its exit code is not 0.
    """
    container = client.containers.run(image, command, detach=True, **options)
    try:
        code = container.wait(timeout=100)["StatusCode"]
        said = container.logs().decode(errors="replace")
    finally:
        container.remove(force=True, v=True)
    assert code == 0, said
    return str(said)


class ContainerStack:
    """`parley up` in a container of the image, with the restrictions of compose.yaml, data and settings in a folder.

        with ContainerStack(client, image, toml="...") as stack:
            stack.say("/order 1024")

    `network` joins an existing network of Docker's, where a fake of a platform may be, or is `host`; `files` are put
    beside parley.toml, so that automations and certificates of a test are found.
    """

    def __init__(
        self,
        client: docker.DockerClient,
        image: str,
        *,
        toml: str = "",
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        extra_hosts: Mapping[str, str] | None = None,
        network: str | None = None,
        user: str = "10001:10001",
        folder: Path | None = None,
    ) -> None:
        self._client = client
        self._image = image
        self._extra = dict(environment or {})
        self._hosts = dict(extra_hosts or {})
        self._network = network
        self._user = user
        self.folder = folder or Path(tempfile.mkdtemp(prefix="parley-container-"))
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.container: Container | None = None
        self._lay_out(toml, files or {})

    @property
    def url(self) -> str:
        """The console, published on this machine's loopback."""
        return f"http://127.0.0.1:{self.ports['PARLEY_PORT']}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start a new container on the folder, and wait until it is ready."""
        self.container = self._client.containers.run(
            self._image,
            detach=True,
            init=True,
            user=self._user,
            environment={name: str(port) for name, port in self.ports.items()}
            | {"PARLEY_KEY_FILE": "/run/secrets/parley_key"}
            | self._extra,
            ports=self._published,
            volumes=[
                f"{self.folder / 'data'}:/app/data",
                f"{self.folder / 'anchors'}:/app/anchors",
                f"{self.folder / 'config'}:/app/config:ro",
                f"{self.folder / 'secrets'}:/run/secrets:ro",
            ],
            extra_hosts=self._hosts,
            network=self._network,
            read_only=True,
            tmpfs={"/tmp": "rw,noexec,nosuid,nodev,size=256m,mode=1777"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            mem_limit="2g",
            pids_limit=512,
        )
        end = time.monotonic() + READY_SECONDS
        while not self.ready():
            self.container.reload()
            assert self.container.status in ("created", "running"), self.logs()
            assert time.monotonic() < end, self.logs()
            time.sleep(0.2)

    @property
    def _published(self) -> dict[str, tuple[str, int]]:
        if self._network == "host":  # it listens on this machine's own loopback
            return {}
        return {f"{port}/tcp": ("127.0.0.1", port) for port in self.ports.values()}

    def ready(self) -> bool:
        """Whether every part is there now."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def stop(self) -> int:
        """SIGTERM, as `docker stop`; returns the exit code. The container is removed, the folder stays."""
        if self.container is None:
            return 0
        self.container.stop(timeout=60)
        self.container.reload()
        code = int(self.container.attrs["State"]["ExitCode"])
        self.container.remove(force=True, v=True)
        self.container = None
        return code

    def close(self) -> None:
        """End it, and remove the folder."""
        if self.container is not None:
            self.container.remove(force=True, v=True)
            self.container = None
        subprocess.run(["rm", "-rf", str(self.folder)], check=False)

    def execute(self, *command: str) -> str:
        """What a command inside prints; it has to end with 0."""
        assert self.container is not None
        done = self.container.exec_run(list(command))
        text = done.output.decode(errors="replace")
        assert done.exit_code == 0, text
        return str(text)

    def say(self, text: str) -> str:
        """Say something by `parley say` inside, and return the answer."""
        return self.execute("parley", "say", text)

    def logs(self) -> str:
        """What the container printed, and the ends of the logs of its processes."""
        assert self.container is not None
        parts = [self.container.logs(tail=40).decode(errors="replace")]
        for path in sorted((self.folder / "data/logs").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-20:]
            parts.append("\n".join([f"== {path.name}", *lines]))
        return "\n".join(parts)

    def _lay_out(self, toml: str, files: Mapping[str, str]) -> None:
        for name in ("data", "anchors", "config", "secrets"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name, text in {"parley.toml": toml, **files}.items():
            path = self.folder / "config" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self.folder.chmod(0o755)
        own = {"user": self._user, "network_mode": "none", "entrypoint": "sh"}
        mounts = [f"{self.folder}:/site"]
        # By the engine, because whoever runs the tests may not give files to another user.
        give = {**own, "user": "0:0", "volumes": mounts}
        run_once(
            self._client,
            self._image,
            [
                "-c",
                f"chown {self._user} /site/data /site/anchors /site/secrets && chmod 700 /site/data /site/anchors",
            ],
            **give,
        )
        make: dict[str, Any] = {**own, "volumes": mounts, "entrypoint": "python"}
        run_once(
            self._client, self._image, ["-P", "-m", "deployments.new_key", "/site/secrets/parley_key"], **make
        )
