"""The console Block: what Prefect asks of every Block, and the connector that it makes."""

from __future__ import annotations

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite

from blocks.console import ConsoleAccount
from connectors.console import Console


class TestStandard(BlockStandardTestSuite):
    """Prefect's own suite."""

    @pytest.fixture
    def block(self) -> type[Block]:
        return ConsoleAccount

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's test fetches the logo over the network; we ship no logo that would have to be fetched."""
        assert block._logo_url is None


async def test_it_makes_its_connector() -> None:
    connector = ConsoleAccount().connector("mine")
    assert isinstance(connector, Console)
    assert connector.account == "mine"
    await connector.check()


def test_it_has_no_secrets() -> None:
    assert ConsoleAccount().secret_fields() == ()


def test_each_connector_has_a_desk_of_its_own() -> None:
    account = ConsoleAccount()
    one, other = account.connector("one"), account.connector("other")
    assert isinstance(one, Console)
    assert isinstance(other, Console)
    assert one.desk is not other.desk
