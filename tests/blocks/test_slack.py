"""The Slack Block: what Prefect asks of every Block, its secrets, and the connector that it makes."""

from __future__ import annotations

import sys

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from blocks.slack import SlackAccount
from connectors.slack import Slack
from parley.errors import ConfigurationError
from tests.fakes.slack import SlackDriver


class TestStandard(BlockStandardTestSuite):
    """Prefect's own suite."""

    @pytest.fixture
    def block(self) -> type[Block]:
        return SlackAccount

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's test fetches the logo over the network; we ship no logo that would have to be fetched."""
        assert block._logo_url is None


def account(**fields: object) -> SlackAccount:
    return SlackAccount.model_validate({"bot_token": "xoxb-1", "app_token": "xapp-1", **fields})


def test_it_makes_its_connector() -> None:
    connector = account(hear="all").connector("office")
    assert isinstance(connector, Slack)
    assert connector.account == "office"


async def test_the_connector_works_with_the_blocks_credentials() -> None:
    async with SlackDriver() as driver:
        driver.fake.host = "127.0.0.1"
        bot, app, secret, *_ = driver.secrets()
        made = account(bot_token=bot, app_token=app, signing_secret=secret, base_url=driver.fake.base_url)
        async with made.connector("office") as connector:
            await connector.check()


def test_its_secrets_are_known_and_never_shown() -> None:
    made = account(signing_secret="s3cr3t")
    assert made.secret_fields() == ("bot_token", "app_token", "signing_secret")
    assert made.unsealed_fields() == ("bot_token", "app_token", "signing_secret")
    for shown in (repr(made), str(made), str(made.model_dump())):
        assert "s3cr3t" not in shown
        assert "xoxb-1" not in shown


async def test_sealed_secrets_are_opened_before_use() -> None:
    sealed = account(bot_token="sealed:v1:abc")
    with pytest.raises(ConfigurationError, match="bot_token"):
        sealed.connector("office")

    async def opener(name: str, value: str) -> str:
        return f"xoxb-opened-{name}-{value.removeprefix('sealed:v1:')}"

    opened = await sealed.opened(opener)
    assert opened.bot_token == SecretStr("xoxb-opened-bot_token-abc")
    assert isinstance(opened.connector("office"), Slack)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"bot_token": ""}, "bot_token"),
        ({"bot_token": "xapp-1"}, "bot_token"),
        ({"app_token": "xoxb-1"}, "app_token"),
        ({"app_token": ""}, "neither app_token nor signing_secret"),
        ({"signing_secret": "sealed:v1:abc"}, "signing_secret"),
    ],
)
def test_wrong_credentials_are_named_and_not_shown(fields: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        account(**fields).connector("office")
    assert not any(value and value in str(caught.value) for value in fields.values())


def test_a_hook_only_account_needs_no_app_token() -> None:
    assert isinstance(account(app_token="", signing_secret="s").connector("office"), Slack)


def test_unknown_ways_to_hear_are_refused() -> None:
    with pytest.raises(ValidationError):
        account(hear="everything")


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "slack_sdk.web.async_client", None)
    with pytest.raises(ConfigurationError, match=r'pip install "prefect-parley\[slack\]"'):
        account().connector("office")
