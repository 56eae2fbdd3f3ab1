"""The XMPP Block: what Prefect asks of every Block, its secret, and the connector that it makes."""

from __future__ import annotations

import sys

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from blocks.xmpp import XMPPAccount
from connectors.xmpp import XMPP
from parley.errors import ConfigurationError
from tests.fakes.xmpp import BOT, NICK, PASSWORD, ROOM, XMPPDriver


class TestStandard(BlockStandardTestSuite):
    """Prefect's own suite."""

    @pytest.fixture
    def block(self) -> type[Block]:
        return XMPPAccount

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's test fetches the logo over the network; we ship no logo that would have to be fetched."""
        assert block._logo_url is None


def account(**fields: object) -> XMPPAccount:
    return XMPPAccount.model_validate({"jid": BOT, "password": "s3cr3t", **fields})


def test_it_makes_its_connector() -> None:
    connector = account(hear="all", rooms=[ROOM]).connector("office")
    assert isinstance(connector, XMPP)
    assert connector.account == "office"


@pytest.mark.servers
async def test_the_connector_works_with_the_blocks_credentials() -> None:
    async with XMPPDriver() as driver:
        made = account(
            password=PASSWORD,
            host="127.0.0.1",
            port=driver.wire.port,
            allow_plain_on_loopback=True,
            nick=NICK,
        )
        async with made.connector("office") as connector:
            await connector.check()


def test_its_secret_is_known_and_never_shown() -> None:
    made = account()
    assert made.secret_fields() == made.unsealed_fields() == ("password",)
    for shown in (repr(made), str(made), str(made.model_dump()), repr(made.connector("office"))):
        assert "s3cr3t" not in shown


async def test_a_sealed_password_is_opened_before_use() -> None:
    sealed = account(password="sealed:v1:abc")
    with pytest.raises(ConfigurationError, match="password"):
        sealed.connector("office")

    async def opener(name: str, value: str) -> str:
        return f"opened-{name}-{value.removeprefix('sealed:v1:')}"

    opened = await sealed.opened(opener)
    assert opened.password == SecretStr("opened-password-abc")
    assert isinstance(opened.connector("office"), XMPP)


def test_rooms_and_domains_may_be_one_line() -> None:
    made = account(rooms=f"{ROOM}, b@rooms.example.org ,", trusted_domains="a.example,b.example")
    assert made.rooms == (ROOM, "b@rooms.example.org")
    assert made.trusted_domains == ("a.example", "b.example")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"jid": "parley"}, "jid"),
        ({"jid": "a b@example.org"}, "jid"),
        ({"jid": "a@b@example.org"}, "jid"),
        ({"password": ""}, "password"),
        ({"rooms": ["ops"]}, "rooms"),
        ({"rooms": [f"{ROOM}/nick"]}, "rooms"),
        ({"trusted_domains": ["a b"]}, "trusted_domains"),
        ({"allow_plain_on_loopback": True}, "allow_plain_on_loopback"),
        ({"allow_plain_on_loopback": True, "host": "xmpp.example.org"}, "allow_plain_on_loopback"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file"),
        ({"ca_file": __file__}, "ca_file"),
    ],
)
def test_what_cannot_work_is_named(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        account(**fields).connector("office")


def test_unknown_ways_to_hear_are_refused() -> None:
    with pytest.raises(ValidationError):
        account(hear="everything")


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "slixmpp", None)
    with pytest.raises(ConfigurationError, match=r'pip install "prefect-parley\[xmpp\]"'):
        account().connector("office")
