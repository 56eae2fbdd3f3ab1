"""What is the generic WebSocket's own: any service's JSON or text, read and answered as its account says."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors._websocket_frames import ack_frame, filled, holds, login_frame, mentions, value_at
from connectors.websocket import Protocol, WebSocket, parse, render
from parley.errors import (
    AuthError,
    ConfigurationError,
    ConnectorError,
    Rejected,
    StoreUnavailable,
    Unknown,
    Unreachable,
    Unsupported,
)
from parley.messages import (
    Accepted,
    Assurance,
    Button,
    ConversationKind,
    Event,
    File,
    Message,
    Reply,
    Route,
    Table,
)
from tests.fakes._driver import eventually
from tests.fakes.websocket import PROTOCOL, ROOM, SECRET, WebSocketDriver, WebSocketFake

SAID = Protocol(**PROTOCOL)
FRAME: dict[str, Any] = {
    "type": "message",
    "id": "m1",
    "data": {"from": {"id": "alice", "name": "Alice"}, "room": "alice", "text": "hi"},
}
ROUTE = Route(account="a", conversation="ops", kind=ConversationKind.GROUP, context={"sender": "alice"})


def read(protocol: Protocol = SAID, *, trusted: bool = False, **data: Any) -> Message | None:
    merged = {key: value for key, value in {**FRAME["data"], **data}.items() if value is not None}
    return parse(json.dumps({**FRAME, "data": merged}), protocol, "a", trusted=trusted)


def message(protocol: Protocol = SAID, *, trusted: bool = False, **data: Any) -> Message:
    found = read(protocol, trusted=trusted, **data)
    assert found is not None
    return found


# --- paths, conditions, templates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.b", 1),
        ("a.list.1.c", "x"),
        ("a.list.9", None),
        ("a.list.-1", None),
        ("a.list.x", None),
        ("a.list.99999999999", None),
        ("a.list.²", None),
        ("a.b.c", None),
        ("nothing", None),
        ("", None),
    ],
)
def test_a_path_names_a_value(path: str, value: Any) -> None:
    assert value_at({"a": {"b": 1, "list": [0, {"c": "x"}]}}, path) == value


@pytest.mark.parametrize(
    ("condition", "true"),
    [
        ("", True),
        ("type=message", True),
        ("type=other", False),
        ("n=7", True),
        ("ok=true", True),
        ("ok=True", False),
        ("ok", True),
        ("no", False),
        ("missing", False),
        ("missing=", False),
        ("eq=a=b", True),
    ],
)
def test_a_condition_is_true_or_not(condition: str, true: bool) -> None:
    assert holds({"type": "message", "n": 7, "ok": True, "no": False, "eq": "a=b"}, condition) is true


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ('{"ids": ["{id}", {}], "no": [], "n": 1.5}', '{"ids": ["m\\"1", {}], "no": [], "n": 1.5}'),
        ('{"a": {"b": null, "ü": "{id} {nobody}"}}', '{"a": {"b": null, "ü": "m\\"1 {nobody}"}}'),
        ('"{room}"', "null"),
        ('["{id}{room}", true, "{room}"]', '["m\\"1", true, null]'),
    ],
)
def test_a_template_keeps_its_form(template: str, line: str) -> None:
    assert filled(template, {"id": 'm"1', "room": None}) == line


def test_a_template_is_filled_in_as_values() -> None:
    template = (
        '{"text": "{text}", "to": ["{room}", 7], "note": "in {room}: {text}", "t": "{thread}", "keep": "{x}"}'
    )
    said = '"}, "admin": true, {"'
    out = json.loads(filled(template, {"text": said, "room": "ops", "thread": None}))
    assert out == {"text": said, "to": ["ops", 7], "note": f"in ops: {said}", "t": None, "keep": "{x}"}


@settings(deadline=None)
@given(st.text(), st.text())
def test_nothing_that_is_said_changes_the_form_of_a_frame(text: str, room: str) -> None:
    route = ROUTE.model_copy(update={"conversation": room})
    try:
        out = json.loads(render(Reply(text=text), route, SAID, "t"))
    except Rejected:
        assert not text.strip()
        return
    assert out == {"type": "say", "room": room, "thread": None, "to": "alice", "text": text, "ref": "t"}


@settings(deadline=None)
@given(st.text())
def test_what_is_said_fills_no_placeholder(text: str) -> None:
    out = json.loads(filled('{"note": "{a} {b}"}', {"a": "{b}" + text, "b": "secret"}))
    assert out["note"] == "{b}" + text + " secret"


def test_a_login_is_json_or_any_line() -> None:
    quoted = 'a"b'
    assert json.loads(login_frame(SAID, quoted))["token"] == quoted
    assert login_frame(Protocol(frames="text", login="LOGIN {secret}"), quoted) == 'LOGIN a"b'
    assert login_frame(Protocol(login="LOGIN {secret}"), quoted) == 'LOGIN a"b'


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"text": "no path "}, "text"),
        ({"id": "a..b"}, "id"),
        ({"message_when": "=x"}, "message_when"),
        ({"login_ok": " = "}, "login_ok"),
        ({"answer_error": ".x"}, "answer_error"),
        ({"reply": "{text}"}, "reply"),
        ({"reply": '{"text": "hi"}'}, "reply"),
        ({"reply": '{"text": "{text}", "s": "{secret}"}'}, "secret"),
        ({"reply": '{"text": "{text}", "x": ["' + "x" * 20_000 + '"]}'}, "reply"),
        ({"reply": "[" * 100_000}, "reply"),
        ({"ack": "ok {id}"}, "ack"),
        ({"ack": '{"a": "{id}"}', "id": ""}, "ack"),
        ({"answer": "ref"}, "answer"),
        ({"frames": "text", "ack": '{"a": "{id}"}'}, "ack"),
        ({"login": '{"t": "{token}"}'}, "login"),
    ],
)
def test_a_protocol_that_cannot_work_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Protocol(**fields)


# --- parse -----------------------------------------------------------------------------------------------------------


def test_a_message_is_read_where_its_parts_stand() -> None:
    found = message(room="ops", thread="t1", text="@parley: status")
    assert (found.native_id, found.text, found.sender.id, found.sender.name) == (
        "m1",
        "status",
        "alice",
        "Alice",
    )
    assert found.route == Route(
        account="a",
        conversation="ops",
        kind=ConversationKind.GROUP,
        thread="t1",
        reply_to="m1",
        context={"sender": "alice"},
    )


@pytest.mark.parametrize("room", ["alice", None, ""])
def test_a_room_of_ones_own_is_a_direct_conversation(room: str | None) -> None:
    found = message(room=room)
    assert (found.route.conversation, found.route.kind) == ("alice", ConversationKind.DIRECT)


@pytest.mark.parametrize(("trusted", "assurance"), [(False, Assurance.CLAIMED), (True, Assurance.VERIFIED)])
def test_senders_are_claimed_unless_the_service_vouches(trusted: bool, assurance: Assurance) -> None:
    assert message(trusted=trusted).sender.assurance is assurance
    found = parse("hello", Protocol(frames="text"), "a", trusted=trusted)
    assert found is not None
    assert found.sender.assurance is assurance


@pytest.mark.parametrize(
    "data",
    [
        {"from": None},
        {"from": {"id": ""}},
        {"from": {"id": True}},
        {"from": {"id": ["x"]}},
        {"from": {"id": "x" * 513}},
        {"from": {"id": "parley"}},
        {"text": None},
        {"text": 7},
        {"text": "x" * 1_000_001},
        {"room": "r" * 1025},
    ],
)
def test_what_is_no_message_is_left_out(data: dict[str, Any]) -> None:
    assert read(**data) is None


@pytest.mark.parametrize(
    "raw", ["", "nonsense", "[]", "7", '{"type": "other"}', b"\xff\xfe", "[" * 100_000, "NaN"]
)
def test_other_frames_are_left_out(raw: str | bytes) -> None:
    assert parse(raw, SAID, "a") is None


def test_numbers_are_ids_too() -> None:
    found = parse('{"id": 7, "sender": 12, "text": "hi"}', Protocol(), "a")
    assert found is not None
    assert (found.native_id, found.sender.id) == ("7", "12")


def test_nobody_there_is_the_service_itself() -> None:
    found = parse('{"sender": "service", "text": "/order 1"}', Protocol(), "a")
    assert found is not None
    assert found.sender.id != "service"
    alone = parse('{"text": "/order 1"}', Protocol(sender=""), "a")
    assert alone is not None
    assert alone.sender.id == "service"


def test_without_ids_the_same_words_are_two_messages() -> None:
    one, two = (parse('{"sender": "alice", "text": "yes"}', Protocol(), "a") for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.native_id != two.native_id


def test_a_text_frame_is_all_of_a_message() -> None:
    found = parse("NUL \x00 and {json}", Protocol(frames="text"), "a")
    assert found is not None
    assert (found.text, found.sender.id) == ("NUL \ufffd and {json}", "service")
    assert parse(" \n", Protocol(frames="text"), "a") is None


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("@parley status", True),
        ("ask @parley!", True),
        ("@parleyson", False),
        ("mail@parley", False),
        ("/status", True),
        (" /status", True),
        ("status", False),
    ],
)
def test_a_mention_is_a_word(text: str, ours: bool) -> None:
    assert mentions(json.dumps({"data": {"text": text}}), SAID) is ours


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60), st.booleans())
def test_nothing_that_comes_is_an_exception(raw: Any, plain: bool) -> None:
    protocol = Protocol(frames="text") if plain else SAID
    parse(raw, protocol, "a")
    ack_frame(protocol, raw)


# --- render ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "update", "error"),
    [
        (Reply(), {}, Rejected),
        (Reply(text=" \n"), {}, Rejected),
        (Reply(text="x", buttons=(Button(label="a", value="b"),)), {}, Unsupported),
        (Reply(text="x", table=Table(columns=("a",), rows=())), {}, Unsupported),
        (Reply(text="x", files=(File(name="f", content=b"x"),)), {}, Unsupported),
        (Reply(text="x", private=True), {}, Unsupported),
        (Reply(text="x"), {"private_to": "alice"}, Unsupported),
    ],
)
def test_what_cannot_be_said_is_refused(
    reply: Reply, update: dict[str, Any], error: type[ConnectorError]
) -> None:
    with pytest.raises(error):
        render(reply, ROUTE.model_copy(update=update), SAID, "t")


def test_an_answer_may_quote_what_it_answers() -> None:
    protocol = Protocol(reply='{"text": "{text}", "re": "{reply_to}", "thread": "{thread}"}')
    route = Route(account="a", conversation="ops", thread="t1", reply_to="m1")
    assert json.loads(render(Reply(text="hi"), route, protocol, "")) == {
        "text": "hi",
        "re": "m1",
        "thread": "t1",
    }


# --- the account -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"url": "https://example.org"}, "wss"),
        ({"url": "wss://"}, "wss"),
        ({"url": "wss://[broken"}, "wss"),
        ({"url": "wss://name:password@example.org"}, "password"),
        ({"url": "ws://example.org"}, "not encrypted"),
        ({"url": "ws://127.0.0.1.example.org"}, "not encrypted"),
        ({"login_by": "line"}, "login"),
        ({"secret": ""}, "secret"),
        ({"secret": "a\r\nX-Admin: yes"}, "secret"),
        ({"hear": "mentions"}, "mention"),
        ({"hear": "along"}, "mention"),
    ],
)
def test_an_account_that_cannot_work_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        WebSocket("a", **{"url": "wss://example.org", "secret": SECRET, **options})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("ws://127.0.0.1:1/x", False),
        ("ws://[::1]:1", False),
        ("ws://localhost", False),
        ("ws://10.0.0.7", True),
    ],
)
def test_plain_connections_are_for_this_machine_or_wished(url: str, plain: bool) -> None:
    WebSocket("a", url=url, secret=SECRET, allow_plain=plain)


# --- with the service ------------------------------------------------------------------------------------------------


class Inbox:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.down = 0

    async def accept(self, event: Event) -> Accepted:
        if self.down:
            self.down -= 1
            raise StoreUnavailable("down")
        self.events.append(event)
        return Accepted(id=event.native_id, new=True)

    async def holds(self, n: int) -> list[Message]:
        await eventually(lambda: len(self.events) >= n, f"{n} events")
        return [event for event in self.events if isinstance(event, Message)]


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
async def driver() -> AsyncIterator[WebSocketDriver]:
    async with WebSocketDriver() as running:
        yield running


@asynccontextmanager
async def hearing(connector: WebSocket, inbox: Inbox) -> AsyncIterator[asyncio.Task[None]]:
    async with connector:
        task = asyncio.create_task(connector.listen(inbox.accept))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})


TEXT = {"frames": "text", "login": "LOGIN {secret}", "login_ok": "OK", "login_refused": "NO"}


@pytest.mark.parametrize("login", ["line", "header"])
@pytest.mark.parametrize("frames", ["json", "text"])
async def test_every_way_to_speak_and_to_log_in(login: Any, frames: Any, inbox: Inbox) -> None:
    fields = dict(TEXT if frames == "text" else PROTOCOL)
    if login == "header":
        fields |= {"login": "", "login_ok": "", "login_refused": ""}
    async with WebSocketFake(frames=frames, login=login) as fake:
        made = WebSocket("a", url=fake.url, secret=SECRET, login_by=login, protocol=Protocol(**fields))
        async with hearing(made, inbox):
            await made.check()
            await fake.say("hello")
            (heard,) = await inbox.holds(1)
            await made.send_message(Reply(text="{hi}\n"), heard.route)
            await eventually(lambda: fake.heard, "the answer")
        assert (heard.text, fake.heard[0]["text"]) == ("hello", "{hi}\n")
        assert fake.logins == 1


@pytest.mark.parametrize("login", ["line", "header"])
@pytest.mark.parametrize("refuse_with", ["frame", "close"])
@pytest.mark.parametrize("answered", [True, False])
async def test_every_way_to_be_refused(login: Any, refuse_with: Any, answered: bool, inbox: Inbox) -> None:
    fields = dict(PROTOCOL)
    if not answered:
        if refuse_with == "frame" and login == "line":
            pytest.skip("a refusal in a frame is known by what the account says of it")
        fields |= {"login_ok": "", "login_refused": ""}
    if login == "header":
        fields |= {"login": "", "login_ok": "", "login_refused": ""}
    async with WebSocketFake(login=login, refuse_with=refuse_with) as fake:
        made = WebSocket("a", url=fake.url, secret="wrong", login_by=login, protocol=Protocol(**fields))
        async with hearing(made, inbox) as ended:
            with pytest.raises(AuthError):
                await asyncio.wait_for(asyncio.shield(ended), 10)
            with pytest.raises(AuthError):
                await made.check()
    assert fake.logins == 0


async def test_a_service_that_does_not_answer_a_login_is_not_reached(driver: WebSocketDriver) -> None:
    fields = {**PROTOCOL, "login_ok": "type=something else", "login_refused": ""}
    async with driver.connector("a", protocol=Protocol(**fields)) as made:
        checking = asyncio.create_task(made.check())
        await eventually(lambda: driver.fake.logins, "the login")
        await driver.fake.cut()
        with pytest.raises(Unreachable):
            await checking


async def test_what_is_not_acknowledged_comes_again(driver: WebSocketDriver, inbox: Inbox) -> None:
    inbox.down = 1
    async with hearing(driver.connector("a"), inbox):
        native_id = await driver.fake.say("hello")
        await eventually(lambda: not inbox.down, "the first attempt")
        await driver.fake.cut()
        await driver.fake.repeat(native_id)
        await eventually(lambda: native_id in driver.fake.taken, "the acknowledgement")
    assert {event.native_id for event in inbox.events} == {native_id}


async def test_a_service_that_says_everything_once_loses_nothing(inbox: Inbox) -> None:
    inbox.down = 3
    async with WebSocketFake(frames="text") as fake:
        made = WebSocket("a", url=fake.url, secret=SECRET, login_by="line", protocol=Protocol(**TEXT))  # type: ignore[arg-type]
        async with hearing(made, inbox):
            await fake.say("only once")
            await eventually(lambda: inbox.down < 3, "the first attempt")
            await fake.cut()
            assert [heard.text for heard in await inbox.holds(1)] == ["only once"]


async def test_the_services_own_id_of_an_answer_is_its_receipt(driver: WebSocketDriver) -> None:
    async with driver.connector("a") as made:
        receipt = await made.send_message(Reply(text="hi"), ROUTE, token="t-1")
    assert receipt.native_ids == ("s1",)
    assert driver.fake.heard[0]["ref"] == "t-1"


async def test_a_service_that_answers_no_answer_is_believed(driver: WebSocketDriver) -> None:
    fields = {**PROTOCOL, "answer": "", "answer_id": ""}
    async with driver.connector("a", protocol=Protocol(**fields)) as made:
        receipt = await made.send_message(Reply(text="hi"), ROUTE, token="t-1")
        await eventually(lambda: driver.fake.heard, "the answer")
    assert receipt.native_ids == ("t-1",)


async def test_answers_are_told_apart(driver: WebSocketDriver) -> None:
    async with driver.connector("a") as made:
        driver.fake.faults += [{"error": "no"}, {}]
        one = made.send_message(Reply(text="one"), ROUTE, token="t-1")
        two = made.send_message(Reply(text="two"), ROUTE, token="t-2")
        first, second = await asyncio.gather(one, two, return_exceptions=True)
    assert isinstance(first, Rejected)
    assert not isinstance(second, BaseException)


async def test_an_answer_that_looks_like_a_login_is_an_answer(driver: WebSocketDriver) -> None:
    """Many services say `ok` to everything."""
    fields = {**PROTOCOL, "login_ok": "type"}
    async with driver.connector("a", protocol=Protocol(**fields)) as made:
        await made.send_message(Reply(text="hi"), ROUTE, token="t")
    assert len(driver.fake.heard) == 1


async def test_a_lost_answer_is_unknown(driver: WebSocketDriver) -> None:
    async with driver.connector("a") as made:
        driver.fake.faults.append(None)
        with pytest.raises(Unknown):
            await made.send_message(Reply(text="hi"), ROUTE)


async def test_a_frame_that_is_too_large_is_not_sent(driver: WebSocketDriver) -> None:
    async with driver.connector("a", max_frame=2000) as made:
        with pytest.raises(Rejected, match="larger"):
            await made.send_message(Reply(text="x" * 2000), ROUTE)
    assert driver.fake.logins == 0


async def test_a_frame_that_is_too_large_ends_the_connection_only(
    driver: WebSocketDriver, inbox: Inbox
) -> None:
    async with hearing(driver.connector("a", max_frame=2000), inbox):
        await eventually(lambda: driver.fake.logins == 1, "the login")
        await driver.fake.send("x" * 2001)
        await eventually(lambda: driver.fake.logins == 2, "the next login")
        await driver.fake.say("still here")
        assert [heard.text for heard in await inbox.holds(1)] == ["still here"]


@pytest.mark.parametrize(
    ("hear", "heard"),
    [
        ("mentions", [("status", True), ("/status", True), ("alone", True)]),
        ("along", [("others", False), ("status", True), ("/status", True), ("alone", True)]),
        ("all", [("others", True), ("status", True), ("/status", True), ("alone", True)]),
    ],
)
async def test_what_counts_in_a_room(
    driver: WebSocketDriver, inbox: Inbox, hear: Any, heard: list[tuple[str, bool]]
) -> None:
    async with hearing(driver.connector("a", hear=hear), inbox):
        said = [await driver.fake.say(text, room=ROOM) for text in ("others", "@parley status", "/status")]
        said.append(await driver.fake.say("alone"))
        await eventually(
            lambda: set(said) <= set(driver.fake.taken), "acknowledgements, of what is left out too"
        )
    assert [(m.text, m.addressed) for m in await inbox.holds(len(heard))] == heard


async def test_a_thread_that_we_answered_in_is_ours(driver: WebSocketDriver, inbox: Inbox) -> None:
    made = driver.connector("a", hear="mentions")
    async with hearing(made, inbox):
        await driver.fake.say("not ours", room=ROOM, thread="t1")
        await driver.fake.say("@parley hello", room=ROOM, thread="t1")
        (first,) = await inbox.holds(1)
        await made.send_message(Reply(text="which one?"), first.route)
        await driver.fake.say("1024", room=ROOM, thread="t1")
        await driver.fake.say("elsewhere", room=ROOM, thread="t2")
        await driver.fake.say("the end")
        assert [m.text for m in await inbox.holds(3)] == ["hello", "1024", "the end"]


async def test_many_frames_in_one_packet_are_all_heard(driver: WebSocketDriver, inbox: Inbox) -> None:
    """More than may wait: they need not wait, but for those who handle them to have a turn."""
    async with hearing(driver.connector("a"), inbox):
        await eventually(lambda: driver.fake.logins == 1, "the login")
        said = [await driver.fake.say(f"{number}") for number in range(2500)]
        assert [heard.native_id for heard in await inbox.holds(len(said))] == said
        await eventually(lambda: len(driver.fake.taken) == len(said), "their acknowledgements")
        assert driver.fake.taken == said


async def test_what_is_stored_is_acknowledged_before_we_go(driver: WebSocketDriver) -> None:
    async def accept(event: Event) -> Accepted:
        listening.cancel()
        return Accepted(id=event.native_id, new=True)

    listening = asyncio.create_task(driver.connector("a").listen(accept))
    await eventually(lambda: driver.fake.logins == 1, "the login")
    said = await driver.fake.say("hello")
    await asyncio.wait({listening})
    await eventually(lambda: driver.fake.taken == [said], "the acknowledgement")


class Wire:
    """A way to the service on which what there is can go dead: nothing comes through any more, not even an end."""

    def __init__(self, port: int) -> None:
        self._dead = asyncio.Event()
        self._port = port
        self._tasks: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[int]:
        async with await asyncio.start_server(self._carry, "127.0.0.1", 0) as between:
            yield between.sockets[0].getsockname()[1]
            between.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def die(self) -> None:
        """The connections that there are go dead; new ones do not."""
        self._dead.set()
        self._dead = asyncio.Event()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        dead = self._dead
        their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(
                self._pump(reader, their_writer, dead), self._pump(their_reader, writer, dead)
            )
        except asyncio.CancelledError:
            pass  # the server calls a cancelled one an error
        finally:
            for end in (writer, their_writer):
                end.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, dead: asyncio.Event
    ) -> None:
        while data := await source.read(65536):
            if dead.is_set():
                await asyncio.Event().wait()
            sink.write(data)
        sink.close()


async def test_a_dead_connection_is_noticed(driver: WebSocketDriver, inbox: Inbox) -> None:
    wire = Wire(int(driver.fake.url.split(":")[2].split("/")[0]))
    async with wire.laid() as port:
        options: dict[str, Any] = {"secret": SECRET, "login_by": "line", "protocol": SAID, "ping_every": 0.3}
        made = WebSocket("a", url=f"ws://127.0.0.1:{port}/desk", **options)
        async with hearing(made, inbox):
            await eventually(lambda: driver.fake.logins >= 1, "the login")
            before, line = driver.fake.logins, await made._line.get()
            wire.die()
            await eventually(lambda: line.ended is not None, "the end of the dead connection")
            await eventually(lambda: driver.fake.logins > before, "a new connection")


async def test_what_people_write_is_not_logged(
    driver: WebSocketDriver, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = driver.connector("a")
    async with hearing(made, inbox):
        await driver.fake.say("a private word")
        (heard,) = await inbox.holds(1)
        await made.send_message(Reply(text="a private answer"), heard.route)
    assert "private" not in caplog.text
    assert SECRET not in caplog.text


def test_importing_it_brings_no_library() -> None:
    script = "import sys, connectors.websocket; print('websockets.asyncio' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
