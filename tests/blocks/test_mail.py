"""The mail Block: what Prefect asks of every Block, its secrets, and the connector that it makes."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from blocks.mail import MailAccount
from connectors.mail import Mail
from parley.errors import ConfigurationError
from tests.fakes.mail import ASSISTANT, PASSWORD, MailDriver


class TestStandard(BlockStandardTestSuite):
    """Prefect's own suite."""

    @pytest.fixture
    def block(self) -> type[Block]:
        return MailAccount

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's test fetches the logo over the network; we ship no logo that would have to be fetched."""
        assert block._logo_url is None


def account(**fields: object) -> MailAccount:
    given = {"address": "bot@example.org", "imap_host": "imap.example.org", "smtp_host": "smtp.example.org"}
    return MailAccount.model_validate({**given, "password": "s3cr3t", **fields})


def test_it_makes_its_connector() -> None:
    since = datetime(2026, 1, 2, tzinfo=UTC)
    connector = account(since=since, max_age_hours=2, folder="Bot", look_every=0.2).connector("office")
    assert isinstance(connector, Mail)
    assert connector.account == "office"
    settings = connector.settings
    assert (settings.username, settings.folder) == ("bot@example.org", "Bot")
    assert (settings.since, settings.max_age, settings.idle) == (since, 7200, 0.2)


@pytest.mark.servers
async def test_the_connector_works_with_the_blocks_credentials() -> None:
    async with MailDriver() as driver:
        made = account(
            address=ASSISTANT,
            password=PASSWORD,
            imap_host="127.0.0.1",
            imap_port=driver.dovecot.imap_port,
            imap_security="none",
            smtp_host="127.0.0.1",
            smtp_port=driver.post.smtp_port,
            smtp_security="none",
        )
        async with made.connector("office") as connector:
            await connector.check()


def test_its_secrets_are_known_and_never_shown() -> None:
    made = account(access_token="t0k3n")
    assert made.secret_fields() == ("password", "access_token")
    assert made.unsealed_fields() == ("password", "access_token")
    connector = made.connector("office")
    assert isinstance(connector, Mail)
    for shown in (repr(made), str(made), str(made.model_dump()), repr(connector), repr(connector.settings)):
        assert "s3cr3t" not in shown
        assert "t0k3n" not in shown


async def test_sealed_secrets_are_opened_before_use() -> None:
    sealed = account(password="sealed:v1:abc")
    with pytest.raises(ConfigurationError, match="password"):
        sealed.connector("office")

    async def opener(name: str, value: str) -> str:
        return f"opened {name} {value.removeprefix('sealed:v1:')}"

    opened = await sealed.opened(opener)
    assert opened.password == SecretStr("opened password abc")
    assert isinstance(opened.connector("office"), Mail)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"address": "no address"}, "address"),
        ({"address": "Bot <bot@example.org>"}, "address"),
        ({"address": "bot@example.org\r\nBcc: x@example.org"}, "address"),
        ({"password": ""}, "password or access_token"),
        ({"imap_security": "none"}, "imap_security"),
        ({"smtp_security": "none"}, "smtp_security"),
        ({"imap_host": "10.0.0.1", "imap_security": "none"}, "imap_security"),
        ({"ca_certificates": "no certificate"}, "ca_certificates"),
        ({"access_token": "sealed:v1:abc"}, "access_token"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        account(**fields).connector("office")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_in_clear_only_on_this_machine(host: str) -> None:
    made = account(imap_host=host, imap_security="none", smtp_host=host, smtp_security="none")
    assert isinstance(made.connector("office"), Mail)


@pytest.mark.parametrize(
    "fields",
    [
        {"imap_port": 0},
        {"smtp_port": 70000},
        {"imap_security": "ssl3"},
        {"max_age_hours": 0},
        {"look_every": 0.01},
    ],
)
def test_impossible_values_are_refused_when_they_are_typed(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        account(**fields)


@pytest.mark.parametrize("module", ["imapclient", "aiosmtplib"])
def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=r'pip install "prefect-parley\[mail\]"'):
        account().connector("office")
