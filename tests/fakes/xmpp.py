"""XMPP on this machine: a real Prosody, people who use slixmpp, and a wire that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import httpx
from slixmpp import JID, ClientXMPP

from connectors.xmpp import XMPP, XMPPSettings
from parley.messages import File
from tests.fakes._driver import PATIENCE, Failure, Sent, eventually
from tests.servers.prosody import DOMAIN, HIDDEN, ROOMS, Prosody

PASSWORD = "correct-horse-battery-staple"
WRONG_PASSWORD = "Tr0ub4dor&3-is-wrong"
BOT = f"parley@{DOMAIN}"
NICK = "Parley"
ROOM = f"ops@{ROOMS}"
HIDDEN_ROOM = f"quiet@{HIDDEN}"

_SID, _MAM = "urn:xmpp:sid:0", "urn:xmpp:mam:2"
Passed = Literal["on", "swallowed", "lost", "last"]
"""Whether bytes go on, or do not; with `lost` and `last` the connection ends."""

_HEADER = re.compile(rb"<\?xml|<stream:stream")


@dataclass
class Gate:
    """What passes the wire with all of these in it waits until the gate is opened."""

    marks: tuple[bytes, ...]
    reached: bool = False
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def pass_(self, data: bytes) -> None:
        """Return at once, or once it is open."""
        if all(mark in data for mark in self.marks):
            self.reached = True
            await self.opened.wait()


class Wire:
    """What lies between us and the server: TCP in clear, looked at, that can be cut, closed and made to lose things.

    It counts as XEP-0198 counts: which messages the server gave us, and which of them we said that we have.
    """

    def __init__(self, port: int) -> None:
        self.to, self.port = port, 0
        self.connections: set[asyncio.StreamWriter] = set()
        self.made = 0
        self.refused = 0
        self.losing = False
        self.muting = False
        self.swallowing = False
        self.refuse_after = 0
        self.gates: list[Gate] = []
        self.given: dict[str, set[tuple[str, int]]] = {}
        self.acked: dict[str, int] = {}
        self.out = bytearray()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Drop what is connected, as a network does."""
        for writer in tuple(self.connections):
            writer.transport.abort()

    def is_acked(self, native_id: str) -> bool:
        return any(number <= self.acked.get(session, 0) for session, number in self.given.get(native_id, ()))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            if self.refused:
                self.refused -= 1
                writer.transport.abort()
                return
            await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _carry(self, ours: asyncio.StreamReader, our_end: asyncio.StreamWriter) -> None:
        self.made += 1
        theirs, their_end = await asyncio.open_connection("127.0.0.1", self.to)
        self.connections |= {our_end, their_end}
        count = _Count(self)
        try:
            async with asyncio.TaskGroup() as group:
                _ = group.create_task(self._pump(ours, their_end, count.said))
                _ = group.create_task(self._pump(theirs, our_end, count.heard))
        except* OSError:
            pass
        finally:
            self.connections -= {our_end, their_end}
            our_end.transport.abort()
            their_end.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        to: asyncio.StreamWriter,
        look: Callable[[bytes], Passed],
    ) -> None:
        while data := await source.read(65536):
            for gate in self.gates:
                await gate.pass_(data)
            passed = look(data)
            if passed in {"on", "last"}:
                to.write(data)
                await to.drain()
            if passed in {"lost", "last"}:
                self.refused, self.refuse_after = self.refused + self.refuse_after, 0
                to.close()  # what was written is read
                await to.wait_closed()
                raise ConnectionResetError
        to.close()
        raise ConnectionResetError


class _Count:
    """One connection, as far as XEP-0198 counts on it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._parsers: list[ET.XMLPullParser[Any]] = []
        self._depths = [0, 0]
        self._muted = self._swallowed = False
        self._session, self._resuming, self._number = "", (0, ""), 0
        for side in (0, 1):
            self._parsers.append(ET.XMLPullParser(("start", "end")))
            self._depths[side] = 0

    def said(self, data: bytes) -> Passed:
        """What we say to the server; it may get lost, or be the last that gets through, unconfirmed."""
        self._wire.out += data
        if b"<message" in data and b"<body" in data:
            if self._wire.losing:
                self._wire.losing = False
                return "lost"
            if self._wire.muting:
                self._wire.muting = False
                self._muted = True
                return "last"
        if _HEADER.search(data):  # a new stream, on both sides
            for side in (0, 1):
                self._parsers[side], self._depths[side] = ET.XMLPullParser(("start", "end")), 0
        for one in self._stanzas(0, data):
            name = one.tag.rpartition("}")[2]
            if name == "a":
                self._ack(self._session, one)
            elif name == "resume":
                self._resuming = (int(one.get("h", "0")), one.get("previd", ""))
                self._ack(one.get("previd", ""), one)
        return "on"

    def heard(self, data: bytes) -> Passed:
        """What the server says to us."""
        if self._muted or self._swallowed:
            return "swallowed" if self._swallowed else "lost"
        if self._wire.swallowing:
            self._wire.swallowing, self._swallowed = False, True
            return "swallowed"
        for one in self._stanzas(1, data):
            namespace, _, name = one.tag[1:].rpartition("}")
            if name == "enabled":
                self._session, self._number = one.get("id", ""), 0
            elif name == "resumed":
                self._number, self._session = self._resuming
            elif self._session and namespace == "jabber:client":
                self._number += 1
                for id_ in _native_ids(one):
                    self._wire.given.setdefault(id_, set()).add((self._session, self._number))
        return "on"

    def _ack(self, session: str, one: ET.Element) -> None:
        known = self._wire.acked
        known[session] = max(known.get(session, 0), int(one.get("h", "0")))

    def _stanzas(self, side: int, data: bytes) -> list[ET.Element]:
        parser, found = self._parsers[side], []
        parser.feed(data)
        try:
            for event, element in cast("Iterator[tuple[str, ET.Element]]", parser.read_events()):
                self._depths[side] += 1 if event == "start" else -1
                if event == "end" and self._depths[side] == 1:
                    found.append(element)
        except ET.ParseError:
            pass  # the end of a stream
        return found


def _native_ids(one: ET.Element) -> list[str]:
    ids = [f"{found.get('by')}:{found.get('id')}" for found in one.findall(f"{{{_SID}}}stanza-id")]
    result = one.find(f"{{{_MAM}}}result")
    return ids if result is None else [*ids, f"{one.get('from', BOT)}:{result.get('id')}"]


class Person:
    """Somebody with an ordinary client: slixmpp, with the plugins that its authors wrote for these things."""

    def __init__(self, name: str, password: str, port: int, *, resource: str = "phone") -> None:
        self.name, self.jid, self._port = name, f"{name}@{DOMAIN}", port
        self.client = ClientXMPP(f"{self.jid}/{resource}", password)
        self.client.enable_starttls = self.client.enable_direct_tls = False
        self.client.enable_plaintext = True
        self.client.plugin["feature_mechanisms"].unencrypted_scram = True
        for plugin in ("xep_0030", "xep_0045", "xep_0066", "xep_0199", "xep_0313", "xep_0359", "xep_0363"):
            self.client.register_plugin(plugin)
        self.heard: list[ET.Element] = []
        self.presences: list[ET.Element] = []
        self._ready = asyncio.Event()
        self.client.add_event_handler("session_start", lambda _: self._ready.set())
        self.client.add_filter("in", self._keep)

    def _keep(self, stanza: Any) -> Any:
        if stanza.xml.tag == "{jabber:client}message":
            self.heard.append(stanza.xml)
        elif stanza.xml.tag == "{jabber:client}presence":
            self.presences.append(stanza.xml)
        return stanza

    async def enter(self, *rooms: str, there: bool = True) -> None:
        """Log in; unless only to look into archives, be seen and be in these rooms."""
        _ = self.client.connect("127.0.0.1", self._port)
        async with asyncio.timeout(PATIENCE):
            await self._ready.wait()
        if there:
            self.client.send_presence()
        for room in rooms:
            await self.client.plugin["xep_0045"].join_muc_wait(
                JID(room), self.name, maxstanzas=0, timeout=PATIENCE
            )

    def sees(self, room: str, nick: str) -> bool:
        """Whether this nick is in the room."""
        newest = next((one for one in reversed(self.presences) if one.get("from") == f"{room}/{nick}"), None)
        return newest is not None and newest.get("type") is None

    async def leave(self) -> None:
        client = self.client
        if client.transport is not None:
            client.send_raw(client.stream_footer)
            client.transport.close()
        await eventually(lambda: client.transport is None, "the end of a person's connection")
        client._run_out_filters.cancel()  # type: ignore[union-attr]

    async def say(self, to: str, text: str, *more: ET.Element, kind: str = "chat", id_: str = "") -> str:
        """Say it, and wait until the server has taken it."""
        message = self.client.make_message(JID(to), text or None, mtype=kind)  # type: ignore[arg-type]
        message["id"] = id_ or uuid.uuid4().hex
        for one in more:
            message.xml.append(one)
        message.send()
        await self.client.plugin["xep_0199"].ping(JID(DOMAIN), timeout=PATIENCE)
        return str(message["id"])

    async def put(self, file: File) -> str:
        """Upload a file; returns its address."""
        url: str = await self.client.plugin["xep_0363"].upload_file(
            Path(file.name),
            size=len(file.content),
            content_type=file.media_type,
            input_file=io.BytesIO(file.content),
        )
        return url

    async def archived(self, message_id: str, *, room: str | None = None) -> str:
        """The id that an archive has for a message: our own account's or a room's."""
        found = self.client.plugin["xep_0313"].iterate(jid=JID(room) if room else None, reverse=True)
        async for one in found:
            result = one["mam_result"]
            if result["forwarded"]["stanza"]["id"] == message_id:
                return str(result["id"])
        raise AssertionError(f"{message_id} is not in the archive")


class XMPPDriver:
    """One account on one server, with alice, and whoever else is asked for."""

    name: ClassVar[str] = "xmpp"
    cannot_fail: ClassVar[Mapping[Failure, str]] = {
        "rate_limited": "an error of XMPP says that it is too much and names no time; "
        "tests/connectors/test_xmpp.py has how such errors are read",
    }

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.people: dict[str, Person] = {}
        names = ("parley", "alice", "bob", "carol")
        self.server = Prosody(accounts=dict.fromkeys(names, PASSWORD))
        self.said: dict[str, str] = {}
        self.observer: Person | None = None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.server)
        self.wire = await self._stack.enter_async_context(Wire(self.server.port))
        await self._observe()
        await self.person("alice")
        return self

    async def _observe(self) -> Person:
        """Our own account, only to look into its archive. Prosody ends it with all else when the password changes."""
        if self.observer is None or self.observer.client.transport is None:
            self.observer = Person("parley", PASSWORD, self.server.port, resource="observer")
            await self.observer.enter(there=False)
            self._stack.push_async_callback(self.observer.leave)
        return self.observer

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def person(self, name: str) -> Person:
        """Somebody who is there, and in both rooms."""
        if name not in self.people:
            person = Person(name, PASSWORD, self.server.port)
            await person.enter(ROOM, HIDDEN_ROOM)
            self._stack.push_async_callback(person.leave)
            self.people[name] = person
        return self.people[name]

    def connector(self, account: str) -> XMPP:
        return XMPP(account, self.settings_of(PASSWORD))

    def broken_connector(self, account: str) -> XMPP:
        return XMPP(account, self.settings_of(WRONG_PASSWORD))

    def settings_of(self, password: str, **changed: Any) -> XMPPSettings:
        values: dict[str, Any] = {
            "jid": BOT,
            "password": password,
            "host": "127.0.0.1",
            "port": self.wire.port,
            "allow_plain_on_loopback": True,
            "rooms": (ROOM, HIDDEN_ROOM),
            "nick": NICK,
            "ack_within": 5,
        }
        return XMPPSettings.model_validate({**values, **self.settings, **changed})

    def secrets(self) -> tuple[str, ...]:
        return (PASSWORD, WRONG_PASSWORD)

    async def person_says(
        self,
        text: str,
        *,
        person: str = "alice",
        thread: str | None = None,
        files: tuple[File, ...] = (),
        direct: bool = True,
    ) -> str:
        speaker, more = await self.person(person), []
        if thread or not direct:  # clients that know threads give each new conversation one
            more.append(_element("jabber:client", "thread", thread or uuid.uuid4().hex))
        urls = [await speaker.put(file) for file in files]
        for url in urls:
            link = ET.Element("{jabber:x:oob}x")
            link.append(_element("jabber:x:oob", "url", url))
            more.append(link)
        body = "\n".join([text, *urls])
        if direct:
            id_ = await speaker.say(BOT, body, *more)
            native = f"{BOT}:{await (await self._observe()).archived(id_)}"
        else:
            await eventually(lambda: speaker.sees(ROOM, NICK), "us in the room")  # who is there is spoken to
            id_ = await speaker.say(ROOM, f"{NICK}: {body}", *more, kind="groupchat")
            native = f"{ROOM}:{await speaker.archived(id_, room=ROOM)}"
        self.said[native] = id_
        return native

    async def redeliver(self, native_id: str) -> None:
        """Unacknowledged, it comes again when the connection is; acknowledged, the server is made to repeat itself."""
        if self.acknowledged(native_id):
            self.server.control("again", user="parley", id=native_id.partition(":")[2])
        else:
            self.wire.cut()

    async def sent(self, n: int) -> list[Sent]:
        await eventually(lambda: len(self._messages()) >= n, f"{n} messages from us")
        return [await self._seen(to, message) for to, message in self._messages()]

    def _messages(self) -> list[tuple[str, ET.Element]]:
        found: dict[str, tuple[str, ET.Element]] = {}
        for person in self.people.values():
            for one in person.heard:
                author, id_ = one.get("from", ""), one.get("id", "")
                ours = author.startswith(f"{BOT}/") or author in {f"{ROOM}/{NICK}", f"{HIDDEN_ROOM}/{NICK}"}
                if ours and one.get("type") != "error" and one.find("{jabber:client}body") is not None:
                    found.setdefault(id_, (person.jid, one))
        return list(found.values())

    async def _seen(self, to: str, one: ET.Element) -> Sent:
        urls = [found.text or "" for found in one.findall("{jabber:x:oob}x/{jabber:x:oob}url")]
        text = one.findtext("{jabber:client}body") or ""
        place = one.get("from", "").partition("/")[0]
        files = []
        async with httpx.AsyncClient(trust_env=False) as http:
            for url in urls:
                text = text.replace(url, "")
                answer = await http.get(url)
                assert answer.status_code == 200
                name = httpx.URL(url).path.rpartition("/")[2]
                files.append(
                    File(name=name, media_type=answer.headers["content-type"], content=answer.content)
                )
        in_room = place in {ROOM, HIDDEN_ROOM}
        private = in_room and one.get("type") == "chat"
        return Sent(
            text=text.strip(),
            thread=one.findtext("{jabber:client}thread"),
            files=tuple(files),
            conversation=place if in_room else to,
            private_to=to if private else None,
        )

    def refuse_next(self, how: Failure, retry_after: float | str = 1) -> None:
        match how:
            case "rejected":
                self.server.control("bounce", user="parley", type="auth", condition="forbidden")
            case "auth":
                self.server.control("refuse", user="parley", password=PASSWORD)
                self.wire.cut()
            case "unreachable":
                self.wire.refused += 1
                self.wire.cut()
            case "unknown":
                self.wire.losing = True
                self.wire.refuse_after = 1
            case _:
                raise AssertionError(how)

    async def cut(self) -> None:
        self.wire.cut()

    async def server_forgets(self) -> None:
        """The server ends our session: there is nothing to resume."""
        await asyncio.to_thread(self.server.control, "forget", user="parley")

    def acknowledged(self, native_id: str) -> bool:
        return self.wire.is_acked(native_id)


def _element(namespace: str, name: str, text: str) -> ET.Element:
    made = ET.Element(f"{{{namespace}}}{name}")
    made.text = text
    return made


DRIVER = XMPPDriver
