"""The Exchange Block: what Prefect asks of every Block, its secrets, and the connector that it makes."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from blocks.exchange import ExchangeMailbox
from connectors.exchange import Exchange
from parley.errors import ConfigurationError
from tests.fakes.exchange import PASSWORD, USER, ExchangeDriver
from tests.fakes.mail import ASSISTANT


class TestStandard(BlockStandardTestSuite):
    """Prefect's own suite."""

    @pytest.fixture
    def block(self) -> type[Block]:
        return ExchangeMailbox

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's test fetches the logo over the network; we ship no logo that would have to be fetched."""
        assert block._logo_url is None


def app(**fields: object) -> ExchangeMailbox:
    """A mailbox in the cloud that an app reads."""
    given = {"address": "bot@example.org", "client_id": "c", "client_secret": "s3cr3t", "tenant_id": "t"}
    return ExchangeMailbox.model_validate({**given, **fields})


def on_premises(**fields: object) -> ExchangeMailbox:
    """A mailbox on a server of the organisation."""
    given = {"address": "bot@example.org", "server": "mail.example.org", "auth": "ntlm"}
    return ExchangeMailbox.model_validate({**given, "username": "EX\\bot", "password": "p4ss", **fields})


def made(block: ExchangeMailbox) -> Exchange:
    connector = block.connector("office")
    assert isinstance(connector, Exchange)
    assert connector.account == "office"
    return connector


def test_an_app_reads_a_mailbox_in_the_cloud() -> None:
    settings = made(app()).settings
    assert settings.ews_url() == "https://outlook.office365.com/EWS/Exchange.asmx"
    assert settings.impersonates()


def test_a_user_reads_a_mailbox_on_premises() -> None:
    since = datetime(2026, 1, 2, tzinfo=UTC)
    settings = made(
        on_premises(since=since, max_age_hours=2, folder="inbox/Bot", trust_internal=True)
    ).settings
    assert settings.ews_url() == "https://mail.example.org/EWS/Exchange.asmx"
    assert not settings.impersonates()
    assert (settings.since, settings.max_age, settings.folder_path()) == (since, 7200, ("inbox", "Bot"))
    assert settings.trust_internal


@pytest.mark.parametrize(
    ("access", "impersonates"), [("automatic", False), ("delegate", False), ("impersonation", True)]
)
def test_how_a_user_acts_can_be_said(access: str, impersonates: bool) -> None:
    assert made(on_premises(access=access)).settings.impersonates() is impersonates
    as_user = app(username="bot@example.org", password="p4ss", access=access)
    assert made(as_user).settings.impersonates() is impersonates


def test_senders_are_not_trusted_unless_somebody_says_so() -> None:
    assert not made(app()).settings.trust_internal


async def test_the_connector_works_with_the_blocks_credentials() -> None:
    async with ExchangeDriver() as driver:
        block = on_premises(
            address=ASSISTANT,
            server="",
            endpoint=f"{driver.server.url}/EWS/Exchange.asmx",
            auth="basic",
            username=USER,
            password=PASSWORD,
        )
        async with made(block) as connector:
            await connector.check()


def test_its_secrets_are_known_and_never_shown() -> None:
    block = app(username="bot@example.org", password="p4ss")
    assert block.secret_fields() == ("password", "client_secret")
    assert block.unsealed_fields() == ("password", "client_secret")
    connector = made(block)
    for shown in (
        repr(block),
        str(block),
        str(block.model_dump()),
        repr(connector),
        repr(connector.settings),
    ):
        assert "s3cr3t" not in shown
        assert "p4ss" not in shown


async def test_sealed_secrets_are_opened_before_use() -> None:
    sealed = app(client_secret="sealed:v1:abc")
    with pytest.raises(ConfigurationError, match="client_secret"):
        sealed.connector("office")

    async def opener(name: str, value: str) -> str:
        return f"opened {name} {value.removeprefix('sealed:v1:')}"

    opened = await sealed.opened(opener)
    assert opened.client_secret == SecretStr("opened client_secret abc")
    made(opened)


@pytest.mark.parametrize(
    ("block", "named"),
    [
        (app(address="no address"), "address"),
        (app(address="Bot <bot@example.org>"), "address"),
        (app(client_id=""), "client_id"),
        (app(client_secret=""), "client_secret"),
        (app(tenant_id=""), "tenant_id"),
        (app(access="delegate"), "access"),
        (app(username="bot@example.org"), "username and password"),
        (app(password="p4ss"), "username and password"),
        (app(authority="http://login.example.org"), "authority"),
        (app(authority="login.example.org"), "authority"),
        (app(folder=""), "folder"),
        (app(folder="inbox//x"), "folder"),
        (on_premises(server=""), "endpoint"),
        (on_premises(server="https://mail.example.org/EWS"), "server"),
        (on_premises(server="user:pw@mail.example.org"), "endpoint"),
        (on_premises(endpoint="http://mail.example.org/EWS/Exchange.asmx"), "endpoint"),
        (on_premises(endpoint="ftp://mail.example.org/"), "endpoint"),
        (on_premises(endpoint="https://[::1/EWS"), "endpoint"),
        (on_premises(username=""), "username and password"),
        (on_premises(password=""), "username and password"),
        (on_premises(password="sealed:v1:abc"), "password"),
        (on_premises(ca_certificates="no certificate"), "ca_certificates"),
    ],
)
def test_wrong_settings_are_named(block: ExchangeMailbox, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        block.connector("office")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_in_clear_only_on_this_machine(host: str) -> None:
    made(on_premises(endpoint=f"http://{host}:8080/EWS/Exchange.asmx"))


@pytest.mark.parametrize(
    "fields", [{"auth": "digest"}, {"access": "owner"}, {"max_age_hours": 0}, {"since": "2026-01-02"}]
)
def test_impossible_values_are_refused_when_they_are_typed(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        app(**fields)


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "exchangelib", None)
    with pytest.raises(ConfigurationError, match=r'pip install "prefect-parley\[exchange\]"'):
        app().connector("office")
