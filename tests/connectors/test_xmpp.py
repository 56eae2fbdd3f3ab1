"""XMPP over the wire: what a real Prosody does to us, and what we make of it."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from slixmpp import JID
from slixmpp.exceptions import IqError

from connectors.xmpp import XMPP, XMPPSettings
from parley.errors import AuthError, Rejected, Unknown, Unreachable
from parley.messages import Assurance, ConversationKind, Edit, File, Reply, Route
from tests.certificates import self_signed
from tests.connectors.hearing import Heard, listening
from tests.fakes._driver import eventually
from tests.fakes.xmpp import BOT, HIDDEN_ROOM, NICK, PASSWORD, ROOM, Gate, Person, XMPPDriver
from tests.servers.prosody import DOMAIN, Prosody

pytestmark = pytest.mark.servers

ALICE = f"alice@{DOMAIN}"
DIRECT = Route(account="office", conversation=ALICE)
GROUP = Route(account="office", conversation=ROOM, kind=ConversationKind.GROUP)
CLIENT = "jabber:client"


@pytest_asyncio.fixture
async def driver() -> AsyncIterator[XMPPDriver]:
    async with XMPPDriver() as running:
        yield running


@pytest_asyncio.fixture
async def xmpp(driver: XMPPDriver) -> AsyncIterator[XMPP]:
    async with driver.connector("office") as connector:
        yield connector


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest_asyncio.fixture
async def alice(driver: XMPPDriver) -> Person:
    return await driver.person("alice")


def element(namespace: str, name: str, text: str | None = None, **attributes: str) -> ET.Element:
    made = ET.Element(f"{{{namespace}}}{name}", attributes)
    made.text = text
    return made


async def there(driver: XMPPDriver, *rooms: str) -> None:
    alice = await driver.person("alice")
    for room in rooms or (ROOM, HIDDEN_ROOM):
        await eventually(lambda room=room: alice.sees(room, NICK), f"us in {room}")  # type: ignore[misc]


def answers(person: Person) -> list[str | None]:
    """What became of a wish to have us as a contact."""
    return [one.get("type") for one in person.presences if one.get("from") == BOT]


def bodies(person: Person, author: str = BOT) -> list[str]:
    """What was said to somebody, by us or in a room."""
    return [
        one.findtext(f"{{{CLIENT}}}body") or ""
        for one in person.heard
        if one.get("from", "").startswith(author) and one.find(f"{{{CLIENT}}}body") is not None
    ]


# --- nothing is lost, nothing comes twice ----------------------------------------------------------------------------


async def test_what_came_while_the_store_was_down_is_given_again(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard
) -> None:
    async with listening(xmpp, heard):
        await there(driver)
        heard.down = True
        first = await driver.person_says("one")
        second = await driver.person_says("two", direct=False)
        await eventually(lambda: heard.attempts >= 2, "a second attempt")
        assert not driver.acknowledged(first)
        assert not driver.acknowledged(second)
        heard.down = False
        await heard.hears("one", "two")
        await eventually(lambda: driver.acknowledged(first) and driver.acknowledged(second), "their settling")
    assert sorted(heard.texts) == ["one", "two"]
    assert b"<resume" in driver.wire.out


async def test_what_the_server_forgot_to_give_again_is_in_its_archives(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard
) -> None:
    """The store is down, the message not acknowledged, and then the server ends: it keeps no session over that."""
    async with listening(xmpp, heard):
        await there(driver)
        await driver.person_says("before", direct=False)
        await heard.hears("before")
        heard.down = True
        direct = await driver.person_says("one")
        in_room = await driver.person_says("two", direct=False)
        await eventually(lambda: heard.attempts >= 2, "an attempt")
        await driver.server.stop(kill=False)
        await driver.server.start()
        heard.down = False
        await heard.hears("one", "two")
    assert sorted(heard.texts) == ["before", "one", "two"]
    assert {heard.one("one").native_id, heard.one("two").native_id} == {direct, in_room}


async def test_a_broken_connection_is_resumed_not_begun_again(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    async with listening(xmpp, heard):
        await there(driver)
        await driver.person_says("before")
        await heard.hears("before")
        shown = len(alice.presences)
        driver.wire.cut()
        await driver.person_says("direct")
        await driver.person_says("in the room", direct=False)
        await heard.hears("direct", "in the room")
    assert heard.texts == ["before", "direct", "in the room"]
    assert driver.wire.out.count(b"<resume") == 1
    assert driver.wire.out.count(b"<enable") == 1
    left = [one for one in alice.presences[shown:] if one.get("from") == f"{ROOM}/{NICK}"]
    assert len(left) <= 1  # nobody in the room saw it, until we left for good


async def test_what_was_said_while_we_were_away_is_read_from_the_archives(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    direct = await driver.person_says("to you")
    id_ = await alice.say(ROOM, f"{NICK}: to all", kind="groupchat")
    in_room = f"{ROOM}:{await alice.archived(id_, room=ROOM)}"
    async with listening(xmpp, heard):
        await heard.hears("to you", "to all")
        await there(driver)
        await driver.person_says("now")
        await heard.hears("now")
    assert sorted(heard.texts) == ["now", "to all", "to you"]
    assert heard.one("to you").native_id == direct
    assert heard.one("to all").native_id == in_room
    assert heard.one("to all").sender.id == ALICE
    assert heard.one("to all").sender.assurance is Assurance.VERIFIED


async def test_what_is_said_while_an_archive_is_read_comes_behind_it(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    """The archive's older words are on their way when a newer one comes live: people are heard in their order."""
    gate = Gate((ROOM.encode(), b"queryid="))
    driver.wire.gates.append(gate)
    await alice.say(ROOM, f"{NICK}: one", kind="groupchat")
    async with listening(xmpp, heard):
        await there(driver, ROOM)
        await eventually(lambda: gate.reached, "the question for the archive")
        await alice.say(ROOM, f"{NICK}: two", kind="groupchat")
        await driver.person_says("meanwhile")
        await heard.hears("meanwhile")  # it came behind "two", over the same stream
        gate.opened.set()
        await heard.hears("one", "two")
    assert heard.texts == ["meanwhile", "one", "two"]


async def test_an_archive_that_cannot_be_read_now_is_read_later(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard
) -> None:
    """What was said while only another device of ours was there is in the archive and nowhere else."""
    desk = Person("parley", PASSWORD, driver.server.port, resource="desk")
    await desk.enter()
    try:
        missed = await driver.person_says("to the desk")
    finally:
        await desk.leave()
    driver.server.control("break", times="1")
    async with listening(xmpp, heard):
        await there(driver)
        await driver.person_says("now")
        await heard.hears("now", "to the desk")
    assert heard.one("to the desk").native_id == missed
    assert sorted(heard.texts) == ["now", "to the desk"]


async def test_a_restart_finds_the_same_ids_in_the_archives(driver: XMPPDriver) -> None:
    first, second = Heard(), Heard()
    async with driver.connector("office") as connector, listening(connector, first):
        await there(driver)
        await driver.person_says("direct")
        await driver.person_says("in the room", direct=False)
        await first.hears("direct", "in the room")
    async with driver.connector("office") as connector, listening(connector, second):
        await second.hears("direct", "in the room")
    for text in ("direct", "in the room"):
        assert first.one(text).native_id == second.one(text).native_id
        assert first.one(text).sender == second.one(text).sender
        assert first.one(text).route == second.one(text).route


async def test_a_second_listen_goes_on_where_the_first_ended(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    async with listening(xmpp, heard):
        await there(driver)
        await driver.person_says("one", direct=False)
        await heard.hears("one")
    for number in range(60):  # more than a page
        await alice.say(ROOM, f"{NICK}: missed {number}", kind="groupchat")
    async with listening(xmpp, heard):
        await heard.hears(*(f"missed {number}" for number in range(60)))
    assert heard.texts == ["one", *(f"missed {number}" for number in range(60))]


async def test_how_far_is_read_back_is_bounded(heard: Heard) -> None:
    async with XMPPDriver(catch_up_minutes=0) as driver:
        alice = await driver.person("alice")
        await alice.say(ROOM, f"{NICK}: long ago", kind="groupchat")
        await asyncio.sleep(1.1)  # archives know whole seconds
        async with driver.connector("office") as connector, listening(connector, heard):
            await there(driver)
            await driver.person_says("now", direct=False)
            await heard.hears("now")
    assert heard.texts == ["now"]


async def test_a_room_without_an_archive_tells_its_history_once(heard: Heard) -> None:
    async with XMPPDriver() as driver:
        driver.server.modules_disabled = ("muc_mam",)
        await driver.server.stop()
        driver.server.rewrite()
        await driver.server.start()
        alice = Person("alice", PASSWORD, driver.server.port, resource="desk")
        await alice.enter(ROOM)
        await alice.say(ROOM, f"{NICK}: earlier", kind="groupchat")
        async with driver.connector("office") as connector, listening(connector, heard):
            await heard.hears("earlier")
            await eventually(lambda: alice.sees(ROOM, NICK), "us in the room")
            await driver.server_forgets()
            await heard.hears("earlier")
            await eventually(lambda: driver.wire.out.count(b"<enable") >= 2, "a new session")
            await alice.say(ROOM, f"{NICK}: later", kind="groupchat")
            await heard.hears("later")
        await alice.leave()
    assert heard.texts == ["earlier", "later"]


async def test_our_own_words_are_not_heard(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    other = Person("parley", PASSWORD, driver.server.port, resource="desk")
    await other.enter()
    async with listening(xmpp, heard):
        await there(driver)
        await other.say(ALICE, "from our desk")
        await other.say(BOT, "a note to ourselves")
        await xmpp.send_message(Reply(text="from here"), GROUP)
        await driver.person_says("after", direct=False)
        await heard.hears("after")
    await other.leave()
    assert heard.texts == ["after"]


# --- rooms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hear", "texts", "addressed"),
    [
        ("mentions", ["mine"], [True]),
        ("along", ["not for you", "mine"], [False, True]),
        ("all", ["not for you", "mine"], [True, True]),
    ],
)
async def test_what_counts_in_a_room(
    hear: str, texts: list[str], addressed: list[bool], heard: Heard
) -> None:
    async with XMPPDriver(hear=hear) as driver:
        alice = await driver.person("alice")
        async with driver.connector("office") as connector, listening(connector, heard):
            await there(driver)
            await alice.say(ROOM, "not for you", kind="groupchat")
            await alice.say(ROOM, f"{NICK}, mine", kind="groupchat")
            await heard.hears("mine")
    assert heard.texts == texts
    assert [message.addressed for message in heard.messages] == addressed


async def test_a_reference_or_a_reply_to_us_is_meant_for_us(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    async with listening(xmpp, heard):
        await there(driver)
        (ours,) = (await xmpp.send_message(Reply(text="which one?"), GROUP)).native_ids
        id_ = await alice.archived(ours, room=ROOM)
        quoted = "> which one?\n"
        fallback = element("urn:xmpp:fallback:0", "fallback", **{"for": "urn:xmpp:reply:0"})
        fallback.append(element("urn:xmpp:fallback:0", "body", start="0", end=str(len(quoted))))
        answer = element("urn:xmpp:reply:0", "reply", id=id_, to=f"{ROOM}/{NICK}")
        await alice.say(ROOM, quoted + "1024", answer, fallback, kind="groupchat")
        mention = element("urn:xmpp:reference:0", "reference", type="mention", uri=f"xmpp:{BOT}")
        await alice.say(ROOM, "hey you", mention, kind="groupchat")
        await alice.say(ROOM, "not you", kind="groupchat")
        await driver.person_says("after")
        await heard.hears("after")
    assert heard.texts == ["1024", "hey you", "after"]


async def test_a_thread_under_a_message_of_ours(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    """As notices have it: a head, what follows under it, and what people say there."""
    async with listening(xmpp, heard):
        await there(driver)
        (head,) = (await xmpp.send_message(Reply(text="build 7 fails"), GROUP)).native_ids
        in_thread = GROUP.model_copy(update={"thread": head})
        await xmpp.send_message(Reply(text="it is mended"), in_thread)
        await eventually(lambda: "it is mended" in bodies(alice, ROOM), "the second message")
        shown = next(one for one in alice.heard if one.findtext(f"{{{CLIENT}}}body") == "it is mended")
        reply = shown.find("{urn:xmpp:reply:0}reply")
        assert reply is not None
        assert reply.get("id") == await alice.archived(head, room=ROOM)
        assert shown.findtext(f"{{{CLIENT}}}thread") == head
        await alice.say(ROOM, "thanks", element(CLIENT, "thread", head), kind="groupchat")
        answer = element("urn:xmpp:reply:0", "reply", id=str(reply.get("id")), to=f"{ROOM}/{NICK}")
        await alice.say(ROOM, "thanks again", answer, kind="groupchat")
        await heard.hears("thanks", "thanks again")
    assert heard.one("thanks").route.thread == heard.one("thanks again").route.thread == head


async def test_who_speaks_is_known_where_the_room_shows_it(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    async with listening(xmpp, heard):
        await there(driver)
        await alice.say(ROOM, f"{NICK}: shown", kind="groupchat")
        forged = element("http://jabber.org/protocol/muc#user", "x")
        forged.append(element("http://jabber.org/protocol/muc#user", "item", jid=f"admin@{DOMAIN}"))
        bob = await driver.person("bob")
        await bob.say(HIDDEN_ROOM, f"{NICK}: hidden", forged, kind="groupchat")
        await heard.hears("shown", "hidden")
    shown, hidden = heard.one("shown").sender, heard.one("hidden").sender
    assert (shown.id, shown.name, shown.assurance) == (ALICE, "alice", Assurance.VERIFIED)
    assert hidden.assurance is Assurance.CLAIMED
    assert hidden.id.startswith(f"occupant:{HIDDEN_ROOM}:")


async def test_people_of_other_domains_only_claim(heard: Heard) -> None:
    async with (
        XMPPDriver(trusted_domains=("elsewhere.example",)) as driver,
        driver.connector("office") as connector,
        listening(connector, heard),
    ):
        await there(driver)
        await driver.person_says("direct")
        await driver.person_says("in the room", direct=False)
        await heard.hears("direct", "in the room")
    assert [message.sender.assurance for message in heard.messages] == [Assurance.CLAIMED] * 2


async def test_a_private_conversation_in_a_room(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    private = element("http://jabber.org/protocol/muc#user", "x")
    async with listening(xmpp, heard):
        await there(driver)
        await alice.say(f"{HIDDEN_ROOM}/{NICK}", "between us", private)
        await heard.hears("between us")
        message = heard.one("between us")
        assert message.route.kind is ConversationKind.DIRECT
        assert message.route.conversation == f"{HIDDEN_ROOM}/alice"
        await xmpp.send_message(Reply(text="just you"), message.route)
        await eventually(lambda: "just you" in bodies(alice, f"{HIDDEN_ROOM}/{NICK}"), "the answer")
        muc: Any = alice.client.plugin["xep_0045"]
        await muc.set_self_nick(JID(HIDDEN_ROOM), "alina")
        await eventually(lambda: alice.sees(HIDDEN_ROOM, "alina"), "the new nick")
        mallory = Person("bob", PASSWORD, driver.server.port)
        mallory.name = "alice"
        await mallory.enter(HIDDEN_ROOM)
        await driver.person_says("after")
        await heard.hears("after")
        with pytest.raises(Rejected):
            await xmpp.send_message(Reply(text="a secret"), message.route)
    await mallory.leave()
    assert bodies(mallory, HIDDEN_ROOM) == []


async def test_a_private_answer_follows_who_left(driver: XMPPDriver, xmpp: XMPP, alice: Person) -> None:
    bob = await driver.person("bob")
    carol = Person("carol", PASSWORD, driver.server.port)
    await carol.enter()
    await xmpp.send_message(
        Reply(text="for carol", private=True), GROUP.model_copy(update={"private_to": carol.jid})
    )
    await eventually(lambda: bodies(carol) == ["for carol"], "the answer")
    gone = GROUP.model_copy(update={"private_to": f"occupant:{ROOM}:nobody"})
    with pytest.raises(Rejected):
        await xmpp.send_message(Reply(text="for nobody", private=True), gone)
    await carol.leave()
    assert "for carol" not in [*bodies(alice), *bodies(alice, ROOM), *bodies(bob, ROOM)]


async def test_thrown_out_we_come_back(driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person) -> None:
    async with listening(xmpp, heard):
        await there(driver)
        muc: Any = alice.client.plugin["xep_0045"]
        await muc.set_role(JID(ROOM), NICK, "none")
        await eventually(lambda: not alice.sees(ROOM, NICK), "our leaving")
        await there(driver)
        await driver.person_says("welcome back", direct=False)
        await heard.hears("welcome back")


async def test_a_nick_that_is_taken_gets_a_tail(heard: Heard) -> None:
    async with XMPPDriver(nick="alice") as driver:
        alice = await driver.person("alice")
        async with driver.connector("office") as connector, listening(connector, heard):
            await eventually(lambda: alice.sees(ROOM, "alice_"), "us in the room")
            await alice.say(ROOM, "alice_: hello", kind="groupchat")
            await heard.hears("hello")


async def test_a_room_that_is_not_there_is_not_made(heard: Heard) -> None:
    ghost = ROOM.replace("ops", "oops")
    async with (
        XMPPDriver(rooms=(ghost, ROOM)) as driver,
        driver.connector("office") as connector,
        listening(connector, heard),
    ):
        await there(driver, ROOM)
        route = GROUP.model_copy(update={"conversation": ghost})
        with pytest.raises(Rejected):
            await connector.send_message(Reply(text="x"), route)
        away = GROUP.model_copy(update={"conversation": "other@rooms.example.org"})
        with pytest.raises(Rejected):
            await connector.send_message(Reply(text="x"), away)


# --- what people can do ----------------------------------------------------------------------------------------------


async def test_edits_go_both_ways(driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person) -> None:
    async with listening(xmpp, heard):
        await there(driver)
        native = await driver.person_says("/order 1042")
        replace = element("urn:xmpp:message-correct:0", "replace", id=driver.said[native])
        await alice.say(BOT, "/order 1024", replace)
        await eventually(lambda: len(heard.given) == 2, "the edit")
        edit = heard.given[1]
        assert isinstance(edit, Edit)
        assert (edit.target, edit.text, edit.sender.id) == (native, "/order 1024", ALICE)
        bob = await driver.person("bob")
        await bob.say(
            BOT, "/order 1", element("urn:xmpp:message-correct:0", "replace", id=driver.said[native])
        )
        await eventually(lambda: len(heard.given) == 3, "the forged edit")
        forged = heard.given[2]
        assert isinstance(forged, Edit)
        assert forged.target != native
        (id_,) = (await xmpp.send_message(Reply(text="running"), GROUP)).native_ids
        await xmpp.edit_message(id_, Reply(text="**done**"), GROUP)
        await eventually(lambda: "*done*" in bodies(alice, ROOM), "our edit")
    shown = next(one for one in alice.heard if one.findtext(f"{{{CLIENT}}}body") == "*done*")
    changed = shown.find("{urn:xmpp:message-correct:0}replace")
    assert changed is not None
    assert changed.get("id") == id_


async def test_receipts_are_given_when_it_is_stored(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    def receipts() -> list[str]:
        found = [one.find("{urn:xmpp:receipts}received") for one in alice.heard]
        return [one.get("id", "") for one in found if one is not None]

    async with listening(xmpp, heard):
        await there(driver)
        heard.down = True
        id_ = await alice.say(BOT, "hello", element("urn:xmpp:receipts", "request"))
        await eventually(lambda: heard.attempts, "the message")
        assert receipts() == []
        heard.down = False
        await eventually(lambda: receipts() == [id_], "the receipt")
        await xmpp.show_typing(DIRECT)
        states = "{http://jabber.org/protocol/chatstates}composing"
        await eventually(lambda: any(one.find(states) is not None for one in alice.heard), "the chat state")


@pytest.mark.parametrize(
    ("trusted", "answer"), [((), "subscribed"), (("elsewhere.example",), "unsubscribed")]
)
async def test_only_trusted_domains_may_add_us(trusted: tuple[str, ...], answer: str, heard: Heard) -> None:
    async with XMPPDriver(trusted_domains=trusted) as driver:
        alice = await driver.person("alice")
        async with driver.connector("office") as connector, listening(connector, heard):
            await there(driver)
            people: Any = alice.client
            await people.get_roster()
            people.send_presence_subscription(JID(BOT))
            await eventually(lambda: answer in answers(alice), answer)


async def test_what_we_are_is_told_and_nothing_else(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    async with listening(xmpp, heard):
        await there(driver)
        here = JID(f"{ROOM}/{NICK}")
        disco: Any = alice.client.plugin["xep_0030"]
        info = await disco.get_info(jid=here, timeout=5)
        assert "urn:xmpp:message-correct:0" in info["disco_info"]["features"]
        ping: Any = alice.client.plugin["xep_0199"]
        await ping.send_ping(here, timeout=5)
        unknown: Any = alice.client.make_iq_get("jabber:iq:version", ito=here)
        with pytest.raises(IqError) as caught:
            await unknown.send(timeout=5)
    assert caught.value.condition == "service-unavailable"


async def test_files_of_other_servers_are_not_fetched(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other, listening(xmpp, heard):
        await there(driver)
        url = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}/report.pdf"
        link = element("jabber:x:oob", "x")
        link.append(element("jabber:x:oob", "url", url))
        await alice.say(BOT, url, link)
        bad = element("jabber:x:oob", "x")
        bad.append(element("jabber:x:oob", "url", "http://[bad/x"))
        await alice.say(BOT, "what is this?", bad)
        await heard.hears(url, "what is this?")
    assert asked == []
    assert heard.messages[0].files == ()
    assert "report.pdf" in heard.messages[0].left_out[0]


async def test_a_file_alone_is_shown_as_clients_show_files(
    driver: XMPPDriver, xmpp: XMPP, alice: Person
) -> None:
    picture = File(name="figure 1.png", media_type="image/png", content=b"\x89PNG")
    await xmpp.send_message(Reply(files=(picture,)), DIRECT, token="t")
    (sent,) = await driver.sent(1)
    assert [(file.name, file.content) for file in sent.files] == [(picture.name, picture.content)]
    link = alice.heard[-1].findtext("{jabber:x:oob}x/{jabber:x:oob}url")
    assert bodies(alice) == [link]


async def test_encrypted_messages_are_named(
    driver: XMPPDriver, xmpp: XMPP, heard: Heard, alice: Person
) -> None:
    async with listening(xmpp, heard):
        await there(driver)
        await alice.say(
            BOT, "I sent you an encrypted message", element("eu.siacs.conversations.axolotl", "encrypted")
        )
        await heard.hears("")
    assert "encrypted" in heard.messages[0].left_out[0]


# --- sending over a bad line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", [DIRECT, GROUP])
@pytest.mark.parametrize("how", ["losing", "muting"])
async def test_resumption_tells_what_became_of_a_message(
    driver: XMPPDriver, xmpp: XMPP, alice: Person, how: str, route: Route
) -> None:
    """The message or its acknowledgement gets lost; the same session goes on, and it is there once."""
    await xmpp.send_message(Reply(text="before"), route)
    setattr(driver.wire, how, True)
    await xmpp.send_message(Reply(text="once"), route, token="t")
    await xmpp.send_message(Reply(text="after"), route)
    assert [one.text for one in await driver.sent(3)] == ["before", "once", "after"]
    assert b"<resume" in driver.wire.out


@pytest.mark.parametrize("route", [DIRECT, GROUP])
@pytest.mark.parametrize(("how", "arrived"), [("losing", False), ("muting", True)])
async def test_the_archive_tells_where_resumption_does_not(
    driver: XMPPDriver, xmpp: XMPP, how: str, arrived: bool, route: Route
) -> None:
    await xmpp.send_message(Reply(text="before"), route)
    setattr(driver.wire, how, True)
    driver.wire.refuse_after = 1
    with pytest.raises(Unknown):
        await xmpp.send_message(Reply(text="perhaps"), route, token="t")
    found = await xmpp.find_sent("t", route)
    assert (found is not None) is arrived
    await xmpp.send_message(Reply(text="after"), route)
    texts = ["before", *(["perhaps"] if arrived else []), "after"]
    assert [one.text for one in await driver.sent(len(texts))] == texts
    if found is not None:
        await xmpp.edit_message(found.native_ids[0], Reply(text="certainly"), route)


async def test_an_archive_that_leaves_things_out_tells_nothing(driver: XMPPDriver, xmpp: XMPP) -> None:
    async with XMPPDriver() as other:
        other.server.extra = "default_archive_policy = false"
        await other.server.stop()
        other.server.rewrite()
        await other.server.start()
        async with other.connector("office") as connector:
            with pytest.raises(Unknown):
                await connector.find_sent("t", DIRECT)
    assert await xmpp.find_sent("t", DIRECT) is None


@pytest.mark.parametrize(
    ("kind", "condition", "error"),
    [
        ("cancel", "service-unavailable", Rejected),
        ("auth", "forbidden", Rejected),
        ("modify", "not-acceptable", Rejected),
        ("wait", "recipient-unavailable", Unreachable),
    ],
)
async def test_what_comes_back_was_not_sent(
    driver: XMPPDriver, xmpp: XMPP, kind: str, condition: str, error: type[Exception]
) -> None:
    await asyncio.to_thread(driver.server.control, "bounce", user="parley", type=kind, condition=condition)
    with pytest.raises(error):
        await xmpp.send_message(Reply(text="x"), DIRECT)


async def test_nobody_is_there(xmpp: XMPP) -> None:
    with pytest.raises(Rejected):
        await xmpp.send_message(
            Reply(text="x"), DIRECT.model_copy(update={"conversation": f"nobody@{DOMAIN}"})
        )


# --- the connection --------------------------------------------------------------------------------------------------


def settings(port: int, **changed: Any) -> XMPPSettings:
    return XMPPSettings.model_validate(
        {"jid": BOT, "password": PASSWORD, "host": "127.0.0.1", "port": port, "open_within": 5, **changed}
    )


async def test_tls_is_verified_both_ways(tmp_path: Path) -> None:
    pair, authority = self_signed(DOMAIN)[::-1], tmp_path / "ca.pem"
    authority.write_bytes(pair[1])
    async with Prosody(accounts={"parley": PASSWORD, "alice": PASSWORD}, certificate=pair) as server:
        for port, security in ((server.port, "starttls"), (server.tls_port, "tls")):
            good = settings(port, security=security, ca_file=str(authority))
            async with XMPP("office", good) as xmpp:
                await xmpp.check()
                await xmpp.send_message(Reply(text="hello"), DIRECT)
            async with XMPP("office", settings(port, security=security)) as xmpp:
                with pytest.raises(Unreachable, match="certificate"):
                    await xmpp.check()


async def test_a_certificate_of_another_name_is_refused(tmp_path: Path) -> None:
    pair, authority = self_signed("other.example")[::-1], tmp_path / "ca.pem"
    authority.write_bytes(pair[1])
    async with (
        Prosody(accounts={"parley": PASSWORD}, certificate=pair) as server,
        XMPP("office", settings(server.port, ca_file=str(authority))) as xmpp,
    ):
        with pytest.raises(Unreachable, match="certificate"):
            await xmpp.check()


async def test_without_tls_nothing_is_said(driver: XMPPDriver) -> None:
    async with XMPP("office", settings(driver.wire.port)) as xmpp:
        with pytest.raises(Unreachable, match="TLS"):
            await xmpp.check()
    assert b"<auth" not in driver.wire.out


async def test_a_wrong_password_is_tried_once(driver: XMPPDriver) -> None:
    async with driver.broken_connector("office") as xmpp:
        with pytest.raises(AuthError):
            await xmpp.check()
    assert driver.wire.out.count(b"<auth") == 1


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def stranger(talk: Talk) -> AsyncIterator[int]:
    """A server that is none."""
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            await talk(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


def _says(*parts: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        for part in parts:
            writer.write(part)
            await writer.drain()
        await _silence(reader, writer)

    return talk


STREAM = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1' version='1.0'>"


@pytest.mark.parametrize(
    "talk",
    [
        _silence,
        _says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        _says(b"<!DOCT", b"YPE x [<!ENTITY a 'b'>]>" + STREAM + b"<stream:features>&a;</stream:features>"),
        _says(("<!DOCTYPE x [<!ENTITY a 'b'>]>" + STREAM.decode() + "<stream:features/>").encode("utf-16")),
        _says(STREAM + b"<stream:features/>"),
        _says(STREAM + b"<a>", *([b"x" * 1_000_000] * 17)),
        _says(STREAM + b"<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>evil.example"
              b"</see-other-host></stream:error></stream:stream>"),
    ],
    ids=["silence", "http", "entities", "entities in UTF-16", "nothing offered", "endless", "elsewhere"],
)  # fmt: skip
async def test_a_server_that_is_none_is_unreachable(talk: Talk) -> None:
    tasks = asyncio.all_tasks()
    async with (
        stranger(talk) as port,
        XMPP("office", settings(port, allow_plain_on_loopback=True, open_within=2)) as xmpp,
    ):
        with pytest.raises(Unreachable):
            await xmpp.check()
        with pytest.raises(Unreachable):
            await xmpp.send_message(Reply(text="x"), DIRECT)
    await eventually(lambda: asyncio.all_tasks() <= tasks, f"the end of {asyncio.all_tasks() - tasks}")


async def test_cancelling_while_it_connects_leaves_nothing(heard: Heard) -> None:
    tasks = asyncio.all_tasks()
    async with stranger(_silence) as port, XMPP("office", settings(port)) as xmpp, listening(xmpp, heard):
        await asyncio.sleep(0.2)
    await eventually(lambda: asyncio.all_tasks() <= tasks, f"the end of {asyncio.all_tasks() - tasks}")


async def test_a_silent_server_is_noticed(heard: Heard) -> None:
    """Nothing comes any more, not even the end of the connection: the server is asked, and the line dropped."""
    async with (
        XMPPDriver(probe_every=0.1, answer_within=0.5) as driver,
        driver.connector("office") as connector,
        listening(connector, heard),
    ):
        await there(driver)
        driver.wire.swallowing = True
        await driver.person_says("said into silence")
        await eventually(lambda: driver.wire.made >= 2, "a new connection")
        await heard.hears("said into silence")
