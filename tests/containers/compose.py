"""deployments/docker/compose.yaml as a user runs it: prepare.sh, `up`, commands inside, `down`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import docker  # type: ignore[import-untyped]
from docker.models.containers import Container  # type: ignore[import-untyped]

from tests.stack import PORTS, ROOT, free_ports

COMPOSE: Final = ROOT / "deployments/docker/compose.yaml"
USER: Final = 10001
"""The image's user: whose files are read inside when root has prepared the folder."""

_FUNCTION: Final = re.compile(r"^here=.*?^\}$", re.MULTILINE | re.DOTALL)
HEALTHY_SECONDS: Final = 150.0


class ComposeStack:
    """One installation in `folder`, under a project of its own. `override` is a compose file beside ours.

    with ComposeStack(client, image, tmp_path) as stack:
        stack.run("exec", "-T", "parley", "parley", "say", "/order 1024")
    """

    def __init__(
        self, client: docker.DockerClient, image: str, folder: Path, *, toml: str = "", override: str = ""
    ) -> None:
        self._client = client
        self.folder = folder
        self.config = folder / "config"
        self.ports = {name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
        self._project = f"parley{os.getpid()}x{self.ports['PARLEY_PORT']}"
        self.environment = {
            **os.environ,
            **self.ports,
            "PARLEY_IMAGE": image,
            "PARLEY_DIR": str(folder),
            "COMPOSE_PROJECT_NAME": self._project,
        }
        self._files = [str(COMPOSE)]
        if override:
            path = folder / "override.yaml"
            path.write_text(override, encoding="utf-8")
            self._files.append(str(path))
        folder.chmod(0o755)
        self._call("sh", str(COMPOSE.with_name("prepare.sh")))
        if toml:
            (self.config / "parley.toml").write_text(toml, encoding="utf-8")

    def __enter__(self) -> Self:
        try:
            self.run("up", "--detach")
            self.until_healthy()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; the folder stays."""
        self.run("down", "--volumes")

    def run(self, *arguments: str) -> str:
        """What `docker compose` prints; it has to end with 0."""
        files = [word for file in self._files for word in ("--file", file)]
        return self._call(*client_command(), *files, "--project-directory", str(self.folder), *arguments)

    @property
    def container(self) -> Container:
        """The container of the service `parley`."""
        label = f"com.docker.compose.project={self._project}"
        (container,) = self._client.containers.list(all=True, ignore_removed=True, filters={"label": label})
        return container

    def until_healthy(self) -> None:
        """Wait until its own health check says so."""
        container = self.container
        end = time.monotonic() + HEALTHY_SECONDS
        while container.attrs["State"]["Health"]["Status"] != "healthy":
            assert container.attrs["State"]["Status"] == "running", container.logs().decode()
            assert time.monotonic() < end, container.logs().decode()
            time.sleep(0.5)
            container.reload()

    def _call(self, *command: str) -> str:
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def client_command() -> Sequence[str]:
    """Compose as a plugin, or the program that it was before."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]


def documented_command(folder: Path) -> Mapping[str, str]:
    """Environment in which `parley` is the shell function that docs/containers.md tells people to make."""
    found = _FUNCTION.search((ROOT / "docs/containers.md").read_text(encoding="utf-8"))
    assert found is not None, "docs/containers.md shows the function"
    lines = ["#!/bin/bash", "set -e", 'typed=$PWD; cd "$(dirname "$0")/clone"', found[0], 'cd "$typed"']
    if len(client_command()) == 1:
        lines.insert(2, 'docker() { shift; docker-compose "$@"; }')
    (folder / "clone").symlink_to(ROOT)
    return as_program(folder, [*lines, 'parley "$@"'])


def command_in(container: Container, folder: Path) -> Mapping[str, str]:
    """Environment in which `parley` is the one inside this container; `folder` is where its program is written.

    Files that root has made beside it just now, for nobody else to read, are given to the container's user first, as
    docs/containers.md tells root to do by hand.
    """
    give = f"find . -maxdepth 1 -type f -user 0 -perm 600 -exec chown {USER} {{}} +"
    run = f'exec docker exec -i {shlex.quote(container.name)} parley "$@"'
    return as_program(folder, ["#!/bin/sh", give, run])


def as_program(folder: Path, lines: Sequence[str]) -> Mapping[str, str]:
    """Environment in which these lines are `parley`."""
    path = folder / "parley"
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    path.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "TZ": "UTC"}
