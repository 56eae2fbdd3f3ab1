"""The scenarios of docs/, word for word, with the installation in a container: its commands are run inside.

Real: the image, compose.yaml and its restrictions, Alertmanager, Prosody. Slack, Discord, WeCom are fakes of their
protocols on this machine. What the pages say of processes that die and of calls that come twice is tests/scenarios'.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import docker  # type: ignore[import-untyped]
import psutil
import pytest

from tests.containers.compose import USER, ComposeStack, command_in, documented_command
from tests.containers.engine import ContainerStack
from tests.fakes.discord import DiscordDriver, DiscordFake
from tests.fakes.slack import SlackDriver, SlackFake
from tests.scenarios import development, operations, support
from tests.scenarios.alerting import alertmanager, free_port
from tests.scenarios.page import Page
from tests.stack import ROOT

pytestmark = [pytest.mark.containers, pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(900)]

VENDOR: Final = "vendor.test"
"""The name under which a container knows the fake of a platform on this machine."""


@pytest.fixture
def gateway(docker_client: docker.DockerClient) -> str:
    """This machine's address on the engine's bridge: containers reach it there, and nobody else does."""
    bridge = docker_client.networks.get("bridge").attrs["Options"]["com.docker.network.bridge.name"]
    return next(one.address for one in psutil.net_if_addrs()[bridge] if "." in one.address)


async def test_support(docker_client: docker.DockerClient, image: str, gateway: str, tmp_path: Path) -> None:
    """In compose.yaml's own container.

    The orders are the sample, which the page allows; so the part about a database that is down is left to
    tests/scenarios, which has a PostgreSQL to stop.
    """
    site, bin_ = tmp_path / "site", tmp_path / "bin"
    site.mkdir()
    bin_.mkdir()
    slack = SlackDriver()
    slack.fake = SlackFake(host=VENDOR, listen=("127.0.0.1", gateway))
    page = Page(ROOT / "docs" / support.NAME, {}, site / "config")
    async with slack:
        stack = await asyncio.to_thread(
            ComposeStack, docker_client, image, site, toml=page.settings(), override=_hosts(gateway)
        )
        _put_secrets(stack.config, support.SECRETS)
        await asyncio.to_thread(stack.__enter__)
        try:
            page.environment = stack.environment | dict(documented_command(bin_))
            room = support.enter(page, slack)
            await page.follow(until=support.DOWN)
            support.nothing_else_was_said(slack, room)
        except AssertionError as error:
            error.add_note(_logs(site))
            raise
        finally:
            await asyncio.to_thread(stack.close)


async def test_development(
    docker_client: docker.DockerClient, image: str, gateway: str, tmp_path: Path
) -> None:
    """GitHub's and GitLab's calls come in as from a proxy on the machine: by the published port of the hooks."""
    discord = DiscordDriver()
    discord.fake = DiscordFake(host=VENDOR, heartbeat=1.0, listen=("127.0.0.1", gateway))
    toml = Page(ROOT / "docs" / development.NAME, {}, tmp_path).settings()
    async with discord:
        stack = await asyncio.to_thread(
            ContainerStack, docker_client, image, toml=toml, extra_hosts={VENDOR: gateway}
        )
        try:
            config = stack.folder / "config"
            _put_secrets(config, development.SECRETS)
            await asyncio.to_thread(stack.start)
            page = Page(ROOT / "docs" / development.NAME, command_in(stack.container, tmp_path), config)
            hooks = f"http://127.0.0.1:{stack.ports['PARLEY_HOOKS_PORT']}/hooks"
            places = development.enter(page, discord, hooks)
            await page.follow()
            await places.nothing_else_was_said()
        except AssertionError as error:
            error.add_note(_logs(stack.folder))
            raise
        finally:
            await asyncio.to_thread(stack.close)


async def test_operations(docker_client: docker.DockerClient, image: str, tmp_path: Path) -> None:
    """On this machine's network, because WeCom's fake and Prosody are on its loopback. The scripts lie in config/."""
    path = ROOT / "docs" / "scenario-operations.md"
    async with operations.neighbours() as others:
        certificate = await asyncio.to_thread(Path(others.wecom.fake.ca_file).read_text)
        stack = await asyncio.to_thread(
            ContainerStack,
            docker_client,
            image,
            files={"wecom.pem": certificate},
            environment={"SSL_CERT_FILE": "/app/config/wecom.pem", "PARLEY_PUBLISH": ""},
            network="host",
        )
        try:
            config, port = stack.folder / "config", free_port()
            page = Page(path, {}, config)
            operations.enter(
                page,
                others,
                hooks=str(stack.ports["PARLEY_HOOKS_PORT"]),
                alertmanager=port,
                folder="/app/config/bin",
            )
            (config / "parley.toml").write_text(page.settings())
            operations.put_programs(config / "bin", "/app/data")
            _put_secrets(config, operations.SECRETS)
            await asyncio.to_thread(stack.start)
            page.environment = command_in(stack.container, tmp_path)
            async with alertmanager(tmp_path, page.file("yaml"), port):
                await page.follow()
            assert operations.effects(stack.folder / "data") == operations.EFFECTS
        except AssertionError as error:
            error.add_note(_logs(stack.folder))
            raise
        finally:
            await asyncio.to_thread(stack.close)


def _hosts(gateway: str) -> str:
    """What a test has to add to compose.yaml: the way to the vendor."""
    return f'services:\n  parley:\n    extra_hosts: ["{VENDOR}:{gateway}"]\n'


def _put_secrets(config: Path, secrets: dict[str, str]) -> None:
    """As docs/containers.md says: in the container's working folder, and its user's."""
    for name, secret in secrets.items():
        path = config / name
        path.write_text(f"{secret}\n")
        path.chmod(0o600)
        os.chown(path, USER, USER)


def _logs(folder: Path) -> str:
    """The ends of the logs of all of its processes."""
    return "\n".join(
        "\n".join([f"== {path.name}", *path.read_text(errors="replace").splitlines()[-20:]])
        for path in sorted((folder / "data/logs").glob("*.log"))
    )
