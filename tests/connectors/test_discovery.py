"""Connectors are found by name, in this package and in other distributions, and loaded only when asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

import connectors
from connectors.slack import Slack
from parley.errors import ConfigurationError

# The SDKs of platforms, and what they and we speak through: each is paid for by those who use such an account.
SDKS = {"slack_sdk", "imapclient", "aiosmtplib", "lxml", "slixmpp", "discord", "exchangelib", "aibot"}
CLIENTS = {"httpx", "aiohttp", "requests", "websockets.asyncio", "cryptography"}
LOADED = """
import json, sys
import connectors
for name in connectors.names():
    connectors.load(name)
print(json.dumps(sorted(sys.modules)))
"""


def others(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    """Other distributions offer these connectors."""
    found = EntryPoints(EntryPoint(name, value, connectors.GROUP) for name, value in points)
    monkeypatch.setattr(connectors, "entry_points", lambda *, group: found.select(group=group))


def test_modules_are_connectors_and_private_modules_are_not() -> None:
    assert "slack" in connectors.names()
    assert list(connectors.names()) == sorted(connectors.names())
    assert not [name for name in connectors.names() if name.startswith("_")]


@pytest.mark.parametrize("name", connectors.names())
def test_a_connector_is_called_as_its_module(name: str) -> None:
    assert connectors.load(name).name == name


def test_loading_all_of_them_imports_no_sdk() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=60, check=True
    )
    assert (SDKS | CLIENTS).isdisjoint(json.loads(done.stdout))


def test_other_distributions_add_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    others(monkeypatch, ("elsewhere", "connectors.slack:Slack"))
    assert "elsewhere" in connectors.names()
    assert connectors.load("elsewhere") is Slack


def test_a_name_taken_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    others(monkeypatch, ("slack", "their.slack:Slack"))
    with pytest.raises(ConfigurationError, match=r"their\.slack"):
        connectors.names()


def test_two_others_of_one_name_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    others(monkeypatch, ("x", "one:X"), ("x", "two:X"))
    with pytest.raises(ConfigurationError, match="'x'"):
        connectors.names()


def test_the_same_offer_seen_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    others(monkeypatch, ("x", "one:X"), ("x", "one:X"))
    assert "x" in connectors.names()


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="slack"):
        connectors.load("slak")


@pytest.mark.parametrize("value", ["connectors.slack:parse", "connectors.slack:API", "pathlib:Path"])
def test_what_is_no_connector_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    others(monkeypatch, ("x", value))
    with pytest.raises(ConfigurationError, match="no Connector class"):
        connectors.load("x")


def test_a_module_without_a_connector_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys.modules["connectors.slack"], "CONNECTOR")
    with pytest.raises(ConfigurationError, match="CONNECTOR"):
        connectors.load("slack")
