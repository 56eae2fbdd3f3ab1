"""The Block of a WebSocket service: what Prefect asks of every Block, its secret, and the connector that it makes."""

from __future__ import annotations

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from blocks.websocket import WebSocketAccount
from connectors.websocket import Protocol, WebSocket
from parley.errors import ConfigurationError
from parley.messages import Reply, Route
from tests.fakes._driver import eventually
from tests.fakes.websocket import PROTOCOL, SECRET, WebSocketFake


class TestStandard(BlockStandardTestSuite):
    """Prefect's own suite."""

    @pytest.fixture
    def block(self) -> type[Block]:
        return WebSocketAccount

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's test fetches the logo over the network; we ship no logo that would have to be fetched."""
        assert block._logo_url is None


PATHS = {"id", "sender", "name", "room", "thread", "text", "answer", "answer_id", "answer_wait"}


def account(**fields: object) -> WebSocketAccount:
    return WebSocketAccount.model_validate({"url": "wss://example.org/desk", "secret": "s3cr3t", **fields})


def test_it_makes_its_connector() -> None:
    made = account().connector("office")
    assert isinstance(made, WebSocket)
    assert made.account == "office"


def test_what_it_says_where_nothing_is_said_is_the_protocols() -> None:
    shown = account()
    for name in Protocol.__dataclass_fields__:
        assert getattr(shown, f"{name}_path" if name in PATHS else name) == getattr(Protocol(), name)


async def test_the_connector_speaks_as_the_block_says() -> None:
    fields = {f"{name}_path" if name in PATHS else name: value for name, value in PROTOCOL.items()}
    async with WebSocketFake() as fake:
        made = account(url=fake.url, secret=SECRET, login_by="line", hear="mentions", **fields)
        async with made.connector("office") as service:
            await service.check()
            route = Route(account="office", conversation="ops", thread="t1", context={"sender": "bob"})
            receipt = await service.send_message(Reply(text="hi"), route, token="t")
            await eventually(lambda: fake.heard, "the answer")
    assert receipt.native_ids == ("s1",)
    assert fake.heard == [
        {"type": "say", "room": "ops", "thread": "t1", "to": "bob", "text": "hi", "ref": "t"}
    ]


def test_its_secret_is_known_and_never_shown() -> None:
    made = account()
    assert made.secret_fields() == ("secret",)
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
    assert isinstance(opened.connector("office"), WebSocket)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"secret": ""}, "secret"),
        ({"url": "ws://example.org"}, "not encrypted"),
        ({"text_path": "a..b"}, "text"),
        ({"reply": "hello {text}"}, "reply"),
        ({"login_by": "line"}, "login"),
        ({"hear": "mentions"}, "mention"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        account(**fields).connector("office")


@pytest.mark.parametrize(
    "fields", [{"max_frame": 0}, {"max_frame": 2**30}, {"frames": "xml"}, {"hear": "nothing"}]
)
def test_what_cannot_be_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        account(**fields)


def test_without_a_login_no_secret_is_needed() -> None:
    assert isinstance(account(secret="", login_by="none").connector("office"), WebSocket)
