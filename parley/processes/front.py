"""The hub as the web sees it: the console's desk, messages, runs, hooks. Implements `parley.web.front.Front`."""

from __future__ import annotations

import asyncio
import hashlib
from asyncio import Queue
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from parley.errors import Denied, UnknownCommand
from parley.language.binding import bind_json
from parley.language.command_line import command_line
from parley.language.decision import Speaker
from parley.language.names import unknown_command
from parley.language.offered import Offer, Offered
from parley.messages.model import Accepted, Assurance, File, HookRequest, HookResponse, Reply, Route
from parley.messages.published import Happening
from parley.messages.watch import Watch
from parley.people import tokens
from parley.people.audit import Audit, AuditRow
from parley.people.audit_reading import Wanted
from parley.people.principals import Principal, Role, get_by_name
from parley.people.rights import Rights
from parley.people.sealing import Keyring
from parley.people.sign_in import SignIn
from parley.people.tokens import TokenKind
from parley.processes import views
from parley.processes.accounts import CONSOLE, Accounts
from parley.processes.audit_desk import AuditDesk
from parley.processes.event_desk import EventDesk
from parley.runs.catalogue import AutomationSpec, Catalogue
from parley.runs.dead_letters import DeadLetter
from parley.runs.open_approvals import OpenApprovals
from parley.runs.replay import Decider, ReplayDesk
from parley.runs.requests import OPEN
from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import new_id
from parley.web.front import ApprovalView, DeadLetterView, EventsView, Front, MessageView, RunView


class Desk(Protocol):
    """What the console's platform must offer; `connectors.console.Desk` does."""

    async def say(self, raw: dict[str, Any]) -> Accepted:
        """Hand an event in; returns once it is stored."""

    def watching(self, conversation: str) -> AbstractAsyncContextManager[Queue[Any]]:
        """What is posted in a conversation from now on."""


class HubFront(Front):
    """Checks rights, and hands on."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        desk: Desk,
        accounts: Accounts,
        watch: Watch,
        events: EventDesk,
        replays: ReplayDesk,
        rights: Rights,
        audit_desk: AuditDesk,
        open_approvals: OpenApprovals,
        sign_in: SignIn,
        *,
        catalogue: Callable[[], Catalogue],
        cancel: Callable[[str, str], Awaitable[None]],
        status: Callable[[], Awaitable[dict[str, Any]]],
        ready: Callable[[], Awaitable[dict[str, bool]]],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._desk = desk
        self._accounts = accounts
        self._watch = watch
        self._events = events
        self._replays = replays
        self._offered = Offered(catalogue, rights)
        self._audit_desk = audit_desk
        self._open_approvals = open_approvals
        self.sign_in: SignIn = sign_in
        self._catalogue = catalogue
        self._cancel = cancel
        self._audit = Audit(keyring)
        self._status = status
        self._ready = ready

    # -- logging in

    @override
    async def principal_of(self, secret: str, *, session: bool, touches: bool = True) -> Principal | None:
        if session:
            found = await self.sign_in.sessions.resolve(secret, touches=touches)
            return found[0] if found else None
        return await self._store.read(lambda conn: tokens.resolve(conn, secret, {TokenKind.BEARER}))

    @override
    async def log_in(self, secret: str, *, agent: str = "", address: str = "") -> str | None:
        return await self.sign_in.with_secret(secret, agent=agent, address=address)

    @override
    async def log_out(self, secret: str) -> None:
        await self.sign_in.sessions.log_out(secret)

    # -- messages

    @override
    async def say(
        self,
        principal: Principal,
        text: str,
        *,
        files: Sequence[File] = (),
        native_id: str | None = None,
        thread: str | None = None,
        acting_as: str | None = None,
    ) -> Accepted:
        speaker = await self._speaker(principal, acting_as)
        event = self._event(principal, speaker, native_id, thread) | {
            "type": "message",
            "text": text,
            "files": tuple(files),
        }
        return await self._desk.say(event)

    @override
    async def press(
        self, principal: Principal, value: str, *, thread: str | None = None, native_id: str | None = None
    ) -> Accepted:
        event = self._event(principal, principal, native_id, thread) | {"type": "action", "value": value}
        return await self._desk.say(event)

    async def _speaker(self, principal: Principal, acting_as: str | None) -> Principal:
        if not acting_as or acting_as == principal.name:
            return principal
        if principal.role is not Role.OWNER:
            raise Denied("only the owner may speak for somebody else.")

        async def act(conn: AsyncConnection) -> Principal:
            other = await get_by_name(conn, acting_as)
            await self._audit.record(
                conn,
                action="speak-for",
                actor=principal.name,
                subject=f"person:{other.name}",
            )
            return other

        return await self._store.write(act)

    @staticmethod
    def _event(
        principal: Principal, speaker: Principal, native_id: str | None, thread: str | None
    ) -> dict[str, Any]:
        # The caller's own id is part of the key, so that nobody can take another's Idempotency-Key.
        native = f"{principal.id}:{_key(native_id)}" if native_id else f"{principal.id}:{new_id()}"
        acting = {"acting_as": principal.id} if speaker.id != principal.id else {}
        return {
            "native_id": native,
            "sender": {"id": speaker.id, "name": speaker.name, "assurance": Assurance.VERIFIED},
            "route": Route(account=CONSOLE, conversation=speaker.name, thread=thread, context=acting),
        }

    @override
    async def message(self, principal: Principal, message_id: str) -> MessageView | None:
        found = await self._store.read(lambda conn: views.message_view(conn, self._keyring, message_id))
        if found is None:
            return None
        view, owner = found
        return view if _may_see(principal, owner) else None

    @override
    async def wait_for(self, principal: Principal, message_id: str, seconds: float) -> MessageView | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        async with self._watch.on(message_id) as changed:
            stands = await self._store.read(lambda conn: views.standing(conn, message_id))
            if stands is None or not _may_see(principal, stands.owner):
                return None
            view, final = None, stands.final
            while not final and (left := deadline - loop.time()) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await changed.wait()
                changed.clear()
                view = await self.message(principal, message_id)
                final = view is None or view.final
            return view or await self.message(principal, message_id)

    @override
    async def reply_file(
        self, principal: Principal, message_id: str | None, reply_id: str, index: int
    ) -> File | None:
        if message_id is None:
            reply = await self._own_reply(principal, reply_id)
        else:
            view = await self.message(principal, message_id)
            reply = next((one.reply for one in view.replies if one.id == reply_id), None) if view else None
        return reply.files[index] if reply and 0 <= index < len(reply.files) else None

    async def _own_reply(self, principal: Principal, reply_id: str) -> Reply | None:
        place = (CONSOLE, principal.name)
        return await self._store.read(lambda conn: views.reply_in(conn, self._keyring, place, reply_id))

    # -- automations and runs

    @override
    async def start_automation(
        self, principal: Principal, name: str, values: dict[str, Any], *, native_id: str | None = None
    ) -> Accepted:
        spec = self._catalogue().find(name)
        if spec is None or spec.command not in self._offer(principal):
            known = [one.command for one in self.automations(principal)]
            raise (
                UnknownCommand(f"there is no automation {name!r} that you may run.")
                if spec
                else unknown_command(name, known, "zh" if principal.language == "zh" else "en")
            )
        bound = bind_json(values, spec)
        return await self.say(principal, command_line(spec, bound.values), native_id=native_id)

    @override
    def automations(self, principal: Principal) -> list[AutomationSpec]:
        return list(self._offer(principal).specs.values())

    def _offer(self, principal: Principal) -> Offer:
        # What is asked for here is said at the console: the same as a command typed there.
        place = f"{CONSOLE}:{principal.name}"
        return self._offered.to(Speaker(principal, Assurance.VERIFIED, "en", place))

    @override
    async def runs(self, principal: Principal, *, limit: int, before: str | None) -> list[RunView]:
        whose = None if _sees_all(principal) else principal.id
        return await self._store.read(
            lambda conn: views.run_views(conn, actor_id=whose, limit=limit, before=before)
        )

    @override
    async def cancel(self, principal: Principal, request_id: str) -> bool:
        table = schema.request
        query = sa.select(table.c.actor_id).where(table.c.id == request_id, table.c.state.in_(OPEN))

        async def fetch(conn: AsyncConnection) -> Any:
            return (await conn.execute(query)).first()

        row = await self._store.read(fetch)
        if row is None or (row.actor_id != principal.id and principal.role is not Role.OWNER):
            return False
        await self._cancel(request_id, principal.name)
        return True

    # -- dead letters

    @override
    async def dead_letters(
        self, principal: Principal, *, limit: int, kind: str | None, settled: bool, before: str | None
    ) -> list[DeadLetterView]:
        found = await self._replays.newest(
            _decider(principal), limit=limit, kind=kind, settled=settled, before=before
        )
        return [_letter_view(letter) for letter in found]

    @override
    async def dead_letter(self, principal: Principal, identifier: str) -> DeadLetterView | None:
        who = _decider(principal)
        letter = await self._replays.find(who, identifier)
        return _letter_view(letter, (await self._replays.show(who, letter)).facts) if letter else None

    @override
    async def replay(
        self, principal: Principal, identifier: str, *, confirmed: bool
    ) -> DeadLetterView | None:
        who = _decider(principal)
        letter = await self._replays.find(who, identifier)
        if letter is not None:
            await self._replays.replay(who, letter, confirmed=confirmed)
        return await self.dead_letter(principal, identifier) if letter else None

    @override
    async def discard(self, principal: Principal, identifier: str) -> DeadLetterView | None:
        who = _decider(principal)
        letter = await self._replays.find(who, identifier)
        if letter is not None:
            await self._replays.discard(who, letter)
        return await self.dead_letter(principal, identifier) if letter else None

    # -- the audit

    @override
    async def audit(
        self, principal: Principal, wanted: Wanted, *, limit: int, before: int | None
    ) -> Sequence[AuditRow]:
        return await self._audit_desk.read(principal, wanted, limit=limit, before=before)

    @override
    async def approvals(self, principal: Principal) -> list[ApprovalView]:
        language = principal.language or "en"
        found = await self._store.read(lambda conn: self._open_approvals.of(conn, principal, language))
        return [ApprovalView(**asdict(one)) for one in found]

    # -- events

    @override
    async def publish(self, principal: Principal, event: Happening, *, native_id: str | None) -> None:
        await self._events.publish(principal, event, _key(native_id) if native_id else None)

    @override
    async def events(
        self,
        principal: Principal,
        patterns: Sequence[str],
        *,
        after: int | None,
        limit: int,
        seconds: float,
    ) -> EventsView:
        return await self._events.read(principal, patterns, after, limit, seconds)

    # -- the console page

    @override
    async def history(self, principal: Principal, *, limit: int = 50) -> list[dict[str, Any]]:
        return await self._store.read(
            lambda conn: views.history(conn, self._keyring, CONSOLE, principal.name, limit)
        )

    @override
    @asynccontextmanager
    async def console(self, principal: Principal) -> AsyncIterator[AsyncIterator[tuple[Reply, Route, str]]]:
        async with self._desk.watching(principal.name) as queue:

            async def posts() -> AsyncIterator[tuple[Reply, Route, str]]:
                while True:
                    post = await queue.get()
                    yield post.reply, post.route, post.id

            yield posts()

    @override
    async def hook(self, account: str, request: HookRequest) -> HookResponse:
        return await self._accounts.hook(account, request)

    @override
    async def status(self) -> dict[str, Any]:
        return await self._status()

    @override
    async def ready(self) -> dict[str, bool]:
        return await self._ready()


def _decider(principal: Principal) -> Decider:
    # Whoever is logged in is who the token says.
    language = "zh" if principal.language == "zh" else "en"
    return Decider(name=principal.name, principal=principal, language=language)


def _letter_view(letter: DeadLetter, facts: dict[str, str] | None = None) -> DeadLetterView:
    return DeadLetterView(**asdict(letter), facts=facts or {})


def _sees_all(principal: Principal) -> bool:
    return principal.role in (Role.OWNER, Role.AUDITOR)


def _may_see(principal: Principal, owner: str | None) -> bool:
    return owner == principal.id or _sees_all(principal)


def _key(native_id: str) -> str:
    return (
        native_id
        if len(native_id) <= 200 and native_id.isprintable()
        else hashlib.sha256(native_id.encode()).hexdigest()
    )
