"""The Discord Block: what Prefect asks of every Block, its secret, and the connector that it makes."""

from __future__ import annotations

import sys

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from blocks.discord import DiscordAccount
from connectors.discord import Discord
from parley.errors import ConfigurationError
from tests.fakes.discord import TOKEN, DiscordFake


class TestStandard(BlockStandardTestSuite):
    """Prefect's own suite."""

    @pytest.fixture
    def block(self) -> type[Block]:
        return DiscordAccount

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's test fetches the logo over the network; we ship no logo that would have to be fetched."""
        assert block._logo_url is None


def account(**fields: object) -> DiscordAccount:
    return DiscordAccount.model_validate({"bot_token": "MTE.x.yz", **fields})


def test_it_makes_its_connector() -> None:
    connector = account(hear="along", guild_ids=("1", "2"), catch_up_minutes=0).connector("office")
    assert isinstance(connector, Discord)
    assert connector.account == "office"


async def test_the_connector_works_with_the_blocks_credentials() -> None:
    async with DiscordFake(host="127.0.0.1") as fake:
        made = account(bot_token=f"Bot {TOKEN} ", base_url=fake.base_url)
        async with made.connector("office") as connector:
            await connector.check()


def test_its_secret_is_known_and_never_shown() -> None:
    made = account(bot_token="MTE.s3cr3t.yz")
    assert made.secret_fields() == ("bot_token",)
    assert made.unsealed_fields() == ("bot_token",)
    for shown in (repr(made), str(made), str(made.model_dump()), repr(made.connector("office"))):
        assert "s3cr3t" not in shown


async def test_a_sealed_secret_is_opened_before_use() -> None:
    sealed = account(bot_token="sealed:v1:abc")
    with pytest.raises(ConfigurationError, match="bot_token"):
        sealed.connector("office")

    async def opener(name: str, value: str) -> str:
        return f"{name}.opened.{value.removeprefix('sealed:v1:')}"

    opened = await sealed.opened(opener)
    assert opened.bot_token == SecretStr("bot_token.opened.abc")
    assert isinstance(opened.connector("office"), Discord)


@pytest.mark.parametrize("token", ["", "0123456789abcdef", "a.b", "a.b.c.d", "a b.c.d", "ключ.b.c"])
def test_what_is_no_bots_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigurationError, match="bot_token") as caught:
        account(bot_token=token).connector("office")
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"hear": "everything"},
        {"guild_ids": ("my server",)},
        {"catch_up_minutes": -1},
        {"catch_up_minutes": 9999},
    ],
)
def test_wrong_settings_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        account(**fields)


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "discord.gateway", None)
    with pytest.raises(ConfigurationError, match=r'pip install "prefect-parley\[discord\]"'):
        account().connector("office")
