"""XMPP without a server: how stanzas are read, how replies are put, what errors mean."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors._xmpp_errors import meaning
from connectors._xmpp_files import Uploads
from connectors._xmpp_read import (
    Occupant,
    Room,
    StanzaError,
    from_archive,
    mentions,
    moment,
    occupant_of,
    parse,
    said,
    stanza_error,
    without_mention,
)
from connectors._xmpp_rooms import Place, RoomState
from connectors._xmpp_settings import XMPPSettings
from connectors._xmpp_write import id_of, render, styled
from parley.errors import ConnectorError, RateLimited, Rejected, Unknown, Unreachable, Unsupported
from parley.messages import (
    MAX_TEXT,
    Assurance,
    Button,
    ConversationKind,
    Edit,
    Event,
    Message,
    Reply,
    Route,
    Table,
)

BOT, ALICE, ROOM = "parley@example.org", "alice@example.org", "ops@rooms.example.org"
ACCOUNT = XMPPSettings.model_validate(
    {"jid": BOT, "password": "x", "nick": "Parley", "rooms": (ROOM,)}
).checked()
HERE = Room(ROOM, "Parley", {"alice": Occupant("alice", ALICE), "Parley": Occupant("Parley", BOT)})


def stanza(inner: str = "<body>hi</body>", **attributes: str) -> ET.Element:
    given = {"from": f"{ALICE}/phone", "to": BOT, "type": "chat", "id": "m1", **attributes}
    written = " ".join(f"{name}='{value}'" for name, value in given.items() if value)
    return ET.fromstring(f"<message xmlns='jabber:client' {written}>{inner}</message>")  # noqa: S314 - ours


def read(xml: ET.Element, room: Room | None = None, *, vouched: bool = True) -> Event | None:
    found = said(xml)
    return None if found is None else parse(found, "a", ACCOUNT, room, vouched=vouched)


def message(xml: ET.Element, room: Room | None = None, *, vouched: bool = True) -> Message:
    found = read(xml, room, vouched=vouched)
    assert isinstance(found, Message)
    return found


def stanza_id(by: str, id_: str) -> str:
    return f"<body>hi</body><stanza-id xmlns='urn:xmpp:sid:0' by='{by}' id='{id_}'/>"


def test_a_message_is_known_by_its_archives_id() -> None:
    assert message(stanza(stanza_id(BOT, "77"))).native_id == f"{BOT}:77"
    in_room = stanza(stanza_id(ROOM, "78"), **{"from": f"{ROOM}/alice", "type": "groupchat"})
    assert message(in_room, HERE).native_id == f"{ROOM}:78"


@pytest.mark.parametrize("by", [ALICE, "example.org", ROOM, "evil.example", ""])
def test_ids_of_others_are_not_trusted(by: str) -> None:
    assert message(stanza(stanza_id(by, "77"))).native_id == message(stanza()).native_id


def test_without_an_archive_ids_in_our_name_are_not_trusted_either() -> None:
    assert message(stanza(stanza_id(BOT, "77")), vouched=False).native_id == message(stanza()).native_id


def test_the_authors_own_id_is_taken_with_the_author() -> None:
    ids = {
        message(stanza()).native_id,
        message(stanza(id="m2")).native_id,
        message(stanza(**{"from": "bob@example.org/phone"})).native_id,
    }
    assert len(ids) == 3
    assert message(stanza()).native_id in ids


def test_live_and_from_the_archive_it_is_the_same() -> None:
    live = message(stanza(stanza_id(BOT, "77")))
    archived = from_archive(stanza(), BOT, "77", datetime.now(UTC))
    assert archived is not None
    again = parse(archived, "a", ACCOUNT)
    assert isinstance(again, Message)
    assert (again.native_id, again.sender, again.text) == (live.native_id, live.sender, live.text)


@pytest.mark.parametrize(
    ("jid", "assurance"),
    [
        (f"{ALICE}/phone", Assurance.VERIFIED),
        ("alice@sub.example.org/phone", Assurance.CLAIMED),
        ("alice@example.org.evil.example/x", Assurance.CLAIMED),
        ("alice@evil.example/example.org", Assurance.CLAIMED),
    ],
)
def test_only_the_domain_itself_is_trusted(jid: str, assurance: Assurance) -> None:
    found = message(stanza(**{"from": jid}))
    assert found.sender.assurance is assurance
    assert found.sender.id == jid.partition("/")[0]


def test_a_room_elsewhere_only_claims_who_is_in_it() -> None:
    room = Room("ops@rooms.evil.example", "Parley", {"alice": Occupant("alice", ALICE)})
    found = message(stanza(**{"from": "ops@rooms.evil.example/alice", "type": "groupchat"}), room)
    assert (found.sender.id, found.sender.assurance) == (ALICE, Assurance.CLAIMED)


def test_what_a_stanza_says_of_its_sender_counts_in_a_rooms_archive_alone() -> None:
    item = "<body>hi</body><x xmlns='http://jabber.org/protocol/muc#user'><item jid='admin@example.org'/></x>"
    live = message(stanza(item, **{"from": f"{ROOM}/bob", "type": "groupchat"}), HERE)
    assert (live.sender.id, live.sender.assurance) == (f"{ROOM}/bob", Assurance.CLAIMED)
    private = from_archive(stanza(item, **{"from": f"{ROOM}/bob"}), BOT, "7", None)
    assert private is not None
    found = parse(private, "a", ACCOUNT, HERE)
    assert isinstance(found, Message)
    assert found.sender.assurance is Assurance.CLAIMED


@pytest.mark.parametrize(
    "xml",
    [
        stanza("<subject>news</subject>"),
        stanza("<composing xmlns='http://jabber.org/protocol/chatstates'/>"),
        stanza(type="error"),
        stanza(**{"from": ""}),
        stanza(**{"from": f"{BOT}/desk"}),
        stanza(type="groupchat", **{"from": "elsewhere@rooms.example.org/bob"}),
        stanza("<body>join us</body><x xmlns='http://jabber.org/protocol/muc#user'><invite/></x>"),
    ],
)
def test_what_is_no_message_to_us(xml: ET.Element) -> None:
    assert read(xml) is None


def test_what_we_said_in_a_room_is_ours_and_what_the_room_says_is_nobodys() -> None:
    assert read(stanza(type="groupchat", **{"from": f"{ROOM}/Parley"}), HERE) is None
    assert read(stanza(type="groupchat", **{"from": ROOM}), HERE) is None


def test_machines_are_automatic() -> None:
    assert message(stanza(type="headline")).automatic
    assert message(stanza(**{"from": "example.org"})).automatic
    assert not message(stanza()).automatic


def test_a_long_text_is_cut_and_says_so() -> None:
    found = message(stanza(f"<body>{'x' * (MAX_TEXT + 1)}</body>"))
    assert len(found.text) == MAX_TEXT
    assert found.left_out


def test_the_moment_is_the_servers_and_never_to_come() -> None:
    late = "<body>x</body><delay xmlns='urn:xmpp:delay' stamp='2020-01-02T03:04:05Z'/>"
    assert message(stanza(late)).sent_at == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert message(stanza(late.replace("2020", "9020"))).sent_at <= datetime.now(UTC)


@pytest.mark.parametrize("stamp", ["", "soon", "0001-01-01T00:00:00+14:00", "2020-13-01T00:00:00Z", "9" * 50])
def test_a_moment_that_is_none(stamp: str) -> None:
    assert moment(stamp) is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Parley: /help", "/help"),
        ("parley, /help", "/help"),
        ("@Parley /help", "/help"),
        ("  Parley /help", "/help"),
        ("Parley", ""),
        ("Parleyment: hi", "Parleyment: hi"),
        ("hi Parley", "hi Parley"),
    ],
)
def test_the_nick_at_the_start(text: str, rest: str) -> None:
    assert without_mention(text, "Parley") == rest
    found = said(stanza(f"<body>{text}</body>", type="groupchat", **{"from": f"{ROOM}/alice"}))
    assert found is not None
    assert mentions(found, ACCOUNT, HERE) is (rest != text)


def test_an_edit_names_the_message_of_the_same_sender() -> None:
    xml = stanza("<body>new</body><replace xmlns='urn:xmpp:message-correct:0' id='m0'/>")
    found = said(xml)
    assert found is not None
    known = {(ALICE, ALICE, "m0"): "native", (ALICE, "bob@example.org", "m0"): "of another"}
    edit = parse(found, "a", ACCOUNT, known=known)
    assert isinstance(edit, Edit)
    assert edit.target == "native"


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
names = st.sampled_from(
    [
        "body",
        "subject",
        "thread",
        "delay",
        "replace",
        "reply",
        "fallback",
        "stanza-id",
        "x",
        "item",
        "result",
        "error",
    ]
)
spaces = st.sampled_from(
    ["jabber:client", "urn:xmpp:sid:0", "urn:xmpp:delay", "urn:xmpp:mam:2", "urn:xmpp:reply:0",
     "urn:xmpp:fallback:0", "http://jabber.org/protocol/muc#user", "urn:xmpp:message-correct:0", "jabber:x:oob"]
)  # fmt: skip
attributes = st.dictionaries(
    st.sampled_from(["id", "by", "stamp", "from", "to", "type", "jid", "for", "start", "end", "code"]), texts
)


@st.composite
def elements(draw: st.DrawFn, depth: int = 2) -> ET.Element:
    made = ET.Element(f"{{{draw(spaces)}}}{draw(names)}", draw(attributes))
    made.text = draw(texts)
    for _ in range(draw(st.integers(0, 3)) if depth else 0):
        made.append(draw(elements(depth - 1)))
    return made


@settings(max_examples=100, deadline=None)
@given(st.lists(elements(), max_size=5), attributes)
def test_whatever_comes_nothing_is_raised(inner: list[ET.Element], given_: dict[str, str]) -> None:
    xml = ET.Element("{jabber:client}message", given_)
    for one in inner:
        xml.append(one)
    for room in (None, HERE):
        read(xml, room)
    stanza_error(xml)
    occupant_of(xml)
    state = RoomState(ROOM, "Parley", datetime.now(UTC))
    state.take(xml)


# --- what we say -----------------------------------------------------------------------------------------------------

TO_ALICE = Route(account="a", conversation=ALICE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**b** and *i*", "*b* and _i_"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("`**x**`", "`**x**`"),
        ("```python\n**x**\n```", "```\n**x**\n```"),
        ("[site](https://example.org/a?b=1)", "site <https://example.org/a?b=1>"),
        ("[https://example.org](https://example.org)", "https://example.org"),
        ("[x](javascript:alert)", "[x](javascript:alert)"),
        ("- one\n- two", "- one\n- two"),
    ],
)
def test_markup_becomes_styling(text: str, shown: str) -> None:
    assert styled(text) == shown


@given(st.text(max_size=200))
def test_whatever_is_said_is_xml(text: str) -> None:
    if not text:
        return
    sent = ET.fromstring(  # noqa: S314 - ours
        ET.tostring(render(Reply(text=text), TO_ALICE, "id"), encoding="unicode")
        .encode("utf-8", "surrogatepass")
        .decode("utf-8")
    )
    assert sent.find("{jabber:client}body") is not None


def test_what_cannot_be_shown_is_refused() -> None:
    for reply in (
        Reply(text="x", table=Table(columns=("a",), rows=())),
        Reply(text="x", buttons=(Button(label="a", value="b"),)),
    ):
        with pytest.raises(Unsupported):
            render(reply, TO_ALICE, "id")
    with pytest.raises(Rejected):
        render(Reply(), TO_ALICE, "id")


def test_the_id_of_a_delivery_is_its_tokens() -> None:
    assert id_of("t") == id_of("t") != id_of("u")
    group = TO_ALICE.model_copy(update={"kind": ConversationKind.GROUP})
    assert render(Reply(text="x"), group, id_of("t")).get("type") == "groupchat"


# --- errors ----------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "condition", "error"),
    [
        ("wait", "resource-constraint", RateLimited),
        ("cancel", "resource-constraint", RateLimited),
        ("wait", "policy-violation", RateLimited),
        ("modify", "policy-violation", Rejected),
        ("auth", "forbidden", Rejected),
        ("cancel", "service-unavailable", Rejected),
        ("modify", "not-acceptable", Rejected),
        ("wait", "remote-server-timeout", Unreachable),
        ("wait", "internal-server-error", Unreachable),
        ("cancel", "internal-server-error", Unknown),
        ("cancel", "undefined-condition", Unknown),
    ],
)
def test_what_error_stanzas_mean(kind: str, condition: str, error: type[ConnectorError]) -> None:
    assert type(meaning(StanzaError(kind, condition))) is error


@pytest.mark.parametrize(("seconds", "expected"), [(None, 30.0), (7, 7.0), (-7, 0.0), (10**6, 3600.0)])
def test_how_long_to_wait(seconds: int | None, expected: float) -> None:
    retry_at = None if seconds is None else NOW + timedelta(seconds=seconds)
    found = meaning(StanzaError("wait", "resource-constraint", retry_at), NOW)
    assert isinstance(found, RateLimited)
    assert found.retry_after == expected


def test_an_error_stanza_is_read_with_the_moment_that_it_names() -> None:
    xml = stanza(
        "<error type='wait'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
        "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>secret details</text>"
        "<retry xmlns='urn:xmpp:http:upload:0' stamp='2026-01-01T00:00:07Z'/></error>",
        type="error",
    )
    found = stanza_error(xml)
    assert (found.kind, found.condition) == ("wait", "resource-constraint")
    assert found.retry_at == NOW + timedelta(seconds=7)
    assert "secret" not in str(meaning(found))


# --- places in archives ----------------------------------------------------------------------------------------------


def test_what_comes_live_counts_only_when_the_archive_was_read_up_to_it() -> None:
    place, known = Place(BOT, NOW), []
    place.stored("3", archived=False)
    known.append(place.last)
    place.stored("1", archived=True)
    place.broken()  # in the middle of reading: what lies between 1 and 3 was not seen
    known.append(place.last)
    place.stored("4", archived=False)
    place.read()
    known.append(place.last)
    place.stored("5", archived=False)
    known.append(place.last)
    assert known == [None, "1", "4", "5"]


@pytest.mark.parametrize(
    "url",
    ["", "x", "http://[bad/x", "https://example.org:99999/x", "file:///etc/passwd", "//", "https://\x00/"],
)
async def test_an_address_that_is_none_is_left_out(url: str) -> None:
    async def refuse(_: ET.Element) -> ET.Element:
        raise StanzaError("cancel", "service-unavailable")

    with pytest.raises(Rejected):
        await Uploads(ACCOUNT).get(url, refuse)


def test_importing_it_imports_no_sdk() -> None:
    program = (
        "import sys, connectors.xmpp; print([m for m in ('slixmpp', 'aiohttp', 'httpx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
