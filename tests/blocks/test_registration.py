"""Importing `blocks` registers every Block, as Prefect does by its entry point, and imports no platform's SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from prefect.blocks.core import Block
from prefect.utilities.dispatch import get_registry_for_type

import blocks
import connectors
from blocks._base import ConnectorBlock, SecretBlock
from blocks.save import block_of

SDKS = {"slack_sdk", "imapclient", "aiosmtplib", "lxml", "slixmpp", "discord", "exchangelib", "aibot"}

LOADED = """
import json, sys
import blocks
print(json.dumps([sorted(name for name in sys.modules if name.startswith("blocks.")), sorted(sys.modules)]))
"""


def test_every_connector_has_a_block_of_its_name() -> None:
    assert set(blocks.modules()) >= set(connectors.names())
    assert "save" not in blocks.modules()


@pytest.mark.parametrize("name", blocks.modules())
def test_every_module_defines_a_block_that_prefect_knows(name: str) -> None:
    block = block_of(name)
    assert issubclass(block, ConnectorBlock if name in connectors.names() else SecretBlock)
    registry = get_registry_for_type(Block) or {}
    assert block.get_block_type_slug() in {known.get_block_type_slug() for known in registry.values()}


def test_importing_the_package_imports_every_block_and_no_sdk() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=60, check=True
    )
    ours, everything = json.loads(done.stdout)
    assert {f"blocks.{name}" for name in blocks.modules()} <= set(ours)
    assert "blocks.save" not in ours
    assert SDKS.isdisjoint(everything)


def test_prefect_finds_the_package_by_its_entry_point() -> None:
    (point,) = entry_points(group="prefect.collections", name="parley_blocks")
    assert point.load() is blocks


def test_a_broken_module_is_told_and_the_others_are_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(blocks, "modules", lambda: ("no_such_block", "slack"))
    blocks._register()
    assert "no_such_block" in caplog.text
    assert "blocks.slack" in sys.modules


def test_the_program_of_the_package_runs_without_a_warning() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "blocks.save", "nowhere"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(done.stdout)["error"].startswith("there is no Block")
    assert "RuntimeWarning" not in done.stderr
