"""What travels between a platform and the engine survives the wire, and says the same on both sides."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from parley.messages import (
    MAX_TEXT,
    Action,
    Assurance,
    Button,
    Capabilities,
    ConversationKind,
    Edit,
    Event,
    File,
    HookRequest,
    HookResponse,
    Message,
    Receipt,
    Reply,
    Route,
    Sender,
    Table,
    derived_id,
)

ROUTE = Route(
    account="team", conversation="C1", kind=ConversationKind.CHANNEL, thread="1", context={"url": "u"}
)
SENDER = Sender(id="U1", name="Ä", assurance=Assurance.CLAIMED, language="zh")
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
BYTES = bytes(range(256))
FILE = File(name="f.bin", media_type="image/png", content=BYTES)

EVENTS: tuple[Event, ...] = (
    Message(
        account="team",
        native_id="1",
        sender=SENDER,
        route=ROUTE,
        text="x\n中",
        files=(FILE,),
        left_out=("a: b",),
    ),
    Edit(account="team", native_id="2", sender=SENDER, route=ROUTE, target="1", text="y"),
    Action(account="team", native_id="3", sender=SENDER, route=ROUTE, value="/yes", target="1"),
)
OTHERS = (
    Reply(
        text="x",
        table=Table(columns=("a",), rows=(("1",),)),
        files=(FILE,),
        buttons=(Button(label="Yes", value="/yes", style="danger"),),
        private=True,
    ),
    Receipt(native_ids=("1", "2")),
    HookRequest(method="POST", path="/hooks/team", query="a=b", headers={"x": "y"}, body=BYTES, remote="::1"),
    HookResponse(status=503, headers={"retry-after": "5"}, body=BYTES),
    Capabilities(max_text=10, text_unit="bytes", markup="html", hooks=True),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_an_event_survives_json_with_its_bytes(event: Event) -> None:
    assert EVENT.validate_json(EVENT.dump_json(event)) == event
    # As the link writes it: bytes in base64 there too.
    assert EVENT.validate_python(json.loads(to_json(event, bytes_mode="base64"))) == event


@pytest.mark.parametrize("value", OTHERS, ids=lambda value: type(value).__name__)
def test_everything_else_survives_json_with_its_bytes(value: Any) -> None:
    assert type(value).model_validate_json(value.model_dump_json()) == value
    assert type(value).model_validate(json.loads(to_json(value, bytes_mode="base64"))) == value


@settings(deadline=None)
@given(content=st.binary(max_size=500))
def test_any_bytes_survive(content: bytes) -> None:
    file = File(name="f", content=content)
    assert File.model_validate_json(file.model_dump_json()) == file


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_nothing_can_be_changed_or_added(event: Event) -> None:
    with pytest.raises(ValidationError):
        setattr(event, "native_id", "other")  # noqa: B010 - mypy would refuse the plain assignment
    with pytest.raises(ValidationError):
        EVENT.validate_python(event.model_dump() | {"extra": 1})


@pytest.mark.parametrize(
    "spoilt",
    [
        {"native_id": ""},
        {"account": ""},
        {"text": "x" * (MAX_TEXT + 1)},
        {"sent_at": datetime(2026, 1, 1)},  # noqa: DTZ001 - a time without a zone is the point
        {"sender": {"id": ""}},
        {"type": "shout"},
        {"type": None},
    ],
)
def test_what_is_no_event_is_refused(spoilt: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EVENT.validate_python(EVENTS[0].model_dump() | spoilt)


def test_moments_are_aware() -> None:
    assert EVENTS[0].sent_at.tzinfo is UTC


# --- routes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"context": {"url": "another"}}, True),
        ({"reply_to": "7"}, True),
        ({"private_to": "U1"}, True),
        ({"account": "other"}, False),
        ({"conversation": "C2"}, False),
        ({"thread": None}, False),
        ({"thread": "2"}, False),
        ({"kind": ConversationKind.DIRECT}, False),
    ],
)
def test_a_place_is_account_kind_conversation_and_thread(change: dict[str, Any], same: bool) -> None:
    other = ROUTE.model_copy(update=change)
    assert ROUTE.same_place(other) is other.same_place(ROUTE) is same


# --- ids for platforms that have none --------------------------------------------------------------------------------


def test_the_same_parts_give_the_same_id() -> None:
    assert derived_id("a", b"b", "中") == derived_id("a", "b", "中".encode())
    # A message stored by an older version must be recognised by a newer one.
    assert derived_id("a", "b") == "sha256:3c9d591045bc8876f9d0399bbfb05c6a412096e906f73278f98406cd5dca86df"


@pytest.mark.parametrize(
    "other", [("ab", "c"), ("a", "b", "c"), ("abc",), ("abc", ""), ("", "abc"), ("A", "bc"), ()]
)
def test_other_parts_give_another_id(other: tuple[str, ...]) -> None:
    assert derived_id(*other) != derived_id("a", "bc")


@settings(deadline=None)
@given(one=st.lists(st.binary(max_size=5), max_size=4), other=st.lists(st.binary(max_size=5), max_size=4))
def test_where_one_part_ends_counts(one: list[bytes], other: list[bytes]) -> None:
    assert (derived_id(*one) == derived_id(*other)) is (one == other)


@pytest.mark.parametrize(
    ("reply", "empty"),
    [
        (Reply(), True),
        (Reply(private=True), True),
        (Reply(text=" "), False),
        (Reply(files=(FILE,)), False),
        (Reply(buttons=(Button(label="a", value="a"),)), False),
        (Reply(table=Table(columns=(), rows=())), False),
    ],
)
def test_nothing_to_send_is_known(reply: Reply, empty: bool) -> None:
    assert reply.is_empty() is empty
