"""No reader of what comes from outside fails, hangs or grows, whatever it is given."""

from __future__ import annotations

import pytest

import connectors
from connectors._hook_source import HookSource
from parley.messages import Capabilities
from tests.attacks.effort import EXAMPLES, MOST_MEMORY, PENTEST, keep, tried
from tests.attacks.engine_readers import engine_readers
from tests.attacks.inventory import Reader
from tests.attacks.platform_readers import platform_readers

READERS = (*platform_readers(), *engine_readers())

STATIONS = {"language", "events", "settings", "web", "link"}
"""Whose readers are the engine's own."""


def test_every_connector_has_a_reader_here() -> None:
    known = {reader.name.partition(".")[0] for reader in READERS}
    assert known == {*connectors.names(), *STATIONS}


def test_everything_that_is_called_has_a_reader_of_calls_here() -> None:
    def takes_calls(name: str) -> bool:
        connector = connectors.load(name)
        capabilities: Capabilities = connector.capabilities
        return capabilities.hooks or issubclass(connector, HookSource)

    called = {name for name in connectors.names() if takes_calls(name)}
    known = {
        reader.name.partition(".")[0] for reader in READERS if reader.name.endswith((".hook", ".envelope"))
    }
    assert called == known


@pytest.mark.timeout(3600 if PENTEST else 300)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_whatever_comes_is_read_or_refused(reader: Reader) -> None:
    with reader.ready() as take:
        cost = tried(reader.hostile, take)
    keep(reader.name, cost)
    assert cost.cases >= EXAMPLES / 2, "too few cases: the strategy repeats itself"
    assert cost.memory <= MOST_MEMORY, f"{cost.memory / 2**20:.0f} MiB more"
    assert cost.errors == []
