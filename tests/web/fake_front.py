"""A hub in memory: keeps the promises of `parley.web.front.Front` without a store, a link or Prefect."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from parley.errors import BadArguments, Denied, NeedsConfirmation, StoreUnavailable, UnknownCommand
from parley.language.binding import bind_json
from parley.messages.model import (
    Accepted,
    Button,
    File,
    HookRequest,
    HookResponse,
    Reply,
    Route,
    Table,
    now,
)
from parley.messages.published import Happening
from parley.people.audit import AuditRow
from parley.people.audit_reading import Wanted
from parley.people.principals import Principal, PrincipalKind, Role
from parley.people.sessions import Session
from parley.runs.catalogue import AutomationSpec, Effect, Parameter
from parley.web.front import (
    ApprovalView,
    DeadLetterView,
    EventsView,
    EventView,
    MessageView,
    ReplyView,
    RunView,
)

REPORT = File(name="logistics-1024.csv", media_type="text/csv", content=b"place,when\nShenzhen,2026-11-02\n")

ORDER = AutomationSpec(
    name="order_status",
    command="order",
    summary="Show where an order is.",
    deployment="order-status/order-status",
    examples=("where is order 1024", "查一下订单 1024 的物流"),
    parameters=(
        Parameter(
            name="order_id",
            json_schema={"type": "integer", "exclusiveMinimum": 0},
            description="Order number.",
        ),
        Parameter(name="note", json_schema={"type": "object"}, required=False),
    ),
)
RESTART = AutomationSpec(
    name="restart_service",
    command="restart",
    summary="Restart a service.",
    deployment="restart-service/restart-service",
    effect=Effect.DANGEROUS,
)


def person(name: str, role: Role) -> Principal:
    return Principal(id=f"p-{name}", name=name, kind=PrincipalKind.PERSON, role=role, language="en")


ADA, BEN, CLEO = person("ada", Role.OWNER), person("ben", Role.USER), person("cleo", Role.AUDITOR)


@dataclass
class Kept:
    """A message, whose it is, what became of it."""

    owner: str
    said: str
    at: datetime
    files: tuple[File, ...] = ()
    state: str = "queued"
    automation: str | None = None
    replies: list[ReplyView] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    total_ms: float | None = None


class NoSessions:
    """Nobody is signed in with a browser; people may ask that of themselves, owners of anybody."""

    async def of(self, asker: Principal, name: str = "") -> tuple[Principal, Sequence[Session]]:
        if name and name != asker.name and asker.role is not Role.OWNER:
            raise Denied("Only owners may see the sessions of others.")
        return asker, ()

    async def end(self, asker: Principal, ids: Sequence[str], name: str = "") -> int:
        await self.of(asker, name)
        return 0


class NoOtherWayIn:
    """Nobody has a password, and there is no provider."""

    providers = ()

    def __init__(self) -> None:
        self.sessions = NoSessions()


class FakeFront:
    """`/order N` answers at once; `/slow` waits until `finish`; anything else is told that it is not known."""

    def __init__(self) -> None:
        self.tokens = {"token-ada": ADA, "token-ben": BEN, "token-cleo": CLEO}
        self.codes = {"code-ada": ADA}
        self.sessions: dict[str, Principal] = {}
        self.asked_for_sessions = 0
        self.messages: dict[str, Kept] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.pages: dict[str, set[asyncio.Queue[tuple[Reply, Route, str]]]] = {}
        self.unasked: dict[str, tuple[str, Reply]] = {}
        self.hooked: list[HookRequest] = []
        self.parts = {"store": True, "prefect": True, "worker": True, "listeners": True}
        self.stored = asyncio.Event()
        self.published: dict[str, Happening] = {}
        self.letters: dict[str, DeadLetterView] = {}
        self.unavailable = False
        self.broken: Exception | None = None
        self.sign_in: Any = NoOtherWayIn()  # what these tests do not ask is not there

    async def principal_of(self, secret: str, *, session: bool, touches: bool = True) -> Principal | None:
        self.asked_for_sessions += session
        return (self.sessions if session else self.tokens).get(secret)

    async def log_in(self, secret: str, *, agent: str = "", address: str = "") -> str | None:
        found = self.codes.pop(secret, None) or self.tokens.get(secret)
        if found is None:
            return None
        session = secrets.token_urlsafe(16)
        self.sessions[session] = found
        return session

    async def log_out(self, secret: str) -> None:
        self.sessions.pop(secret, None)

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
        if acting_as and principal.role is not Role.OWNER:
            raise Denied("Only the owner may speak for somebody else.")
        accepted = self._store(principal, text, tuple(files), native_id)
        if accepted.new:
            self._answer(accepted.id, text)
        return accepted

    async def press(
        self, principal: Principal, value: str, *, thread: str | None = None, native_id: str | None = None
    ) -> Accepted:
        accepted = self._store(principal, value, (), native_id)
        if accepted.new:
            self.finish(accepted.id, Reply(text=f"You pressed `{value}`."))
        return accepted

    async def publish(self, principal: Principal, event: Happening, *, native_id: str | None) -> None:
        if principal.role is not Role.OWNER:
            raise Denied("Only the owner and operators publish and read events.")
        if native_id not in self.published:
            self.published[native_id or secrets.token_hex(8)] = event

    async def events(
        self,
        principal: Principal,
        patterns: Sequence[str],
        *,
        after: int | None,
        limit: int,
        seconds: float,
    ) -> EventsView:
        if principal.role is not Role.OWNER:
            raise Denied("Only the owner and operators publish and read events.")
        place = len(self.published) if after is None else after
        fresh = list(self.published.values())[place : place + limit]
        views = tuple(
            EventView(sequence=place + n, account="bus", at=now(), **event.model_dump())
            for n, event in enumerate(fresh, 1)
        )
        return EventsView(items=views, after=place + len(views))

    async def message(self, principal: Principal, message_id: str) -> MessageView | None:
        kept = self.messages.get(message_id)
        if kept is None or not self._may_see(principal, kept.owner):
            return None
        run = kept.automation is not None
        return MessageView(
            id=message_id,
            state=kept.state,
            final=kept.ended.is_set(),
            run_id=f"run-{message_id}" if run else None,
            flow_run_id=f"flow-{message_id}" if run else None,
            automation=kept.automation,
            replies=tuple(kept.replies),
            received_at=kept.at,
            timings={"total_ms": kept.total_ms} if kept.total_ms is not None else {},
        )

    async def wait_for(self, principal: Principal, message_id: str, seconds: float) -> MessageView | None:
        kept = self.messages.get(message_id)
        if kept is not None and self._may_see(principal, kept.owner):
            with suppress(TimeoutError):
                await asyncio.wait_for(kept.ended.wait(), seconds)
        return await self.message(principal, message_id)

    async def reply_file(
        self, principal: Principal, message_id: str | None, reply_id: str, index: int
    ) -> File | None:
        reply = self._reply(principal, message_id, reply_id)
        return reply.files[index] if reply is not None and index < len(reply.files) else None

    async def start_automation(
        self, principal: Principal, name: str, values: dict[str, Any], *, native_id: str | None = None
    ) -> Accepted:
        spec = next((spec for spec in (ORDER, RESTART) if name in (spec.name, spec.command)), None)
        if spec is None:
            raise UnknownCommand(f"There is no automation {name}.")
        if spec not in self.automations(principal):
            raise Denied(f"{name} can do harm: only the owner may run it.")
        bound = bind_json(values, spec)
        if bound.missing:
            raise BadArguments(f"{bound.missing[0].name} is missing.")
        accepted = self._store(principal, "", (), native_id)
        if accepted.new:
            self._answer(accepted.id, f"/{spec.command} {values.get('order_id', '')}")
        return accepted

    def automations(self, principal: Principal) -> list[AutomationSpec]:
        return [RESTART, ORDER] if principal.role is Role.OWNER else [ORDER]

    async def runs(self, principal: Principal, *, limit: int, before: str | None) -> list[RunView]:
        ids = sorted((one for one, kept in self.messages.items() if kept.automation), reverse=True)
        mine = [one for one in ids if self._may_see(principal, self.messages[one].owner)]
        older = [one for one in mine if before is None or one < before]
        return [
            RunView(
                id=one,
                automation=self.messages[one].automation or "",
                state=self.messages[one].state,
                origin="rest",
                actor=self.messages[one].owner,
                flow_run_id=f"flow-{one}",
                created_at=self.messages[one].at,
            )
            for one in older[:limit]
        ]

    async def cancel(self, principal: Principal, request_id: str) -> bool:
        kept = self.messages.get(request_id)
        if kept is None or kept.ended.is_set() or not self._may_see(principal, kept.owner):
            return False
        kept.state = "cancelled"
        kept.ended.set()
        return True

    async def audit(
        self, principal: Principal, wanted: Wanted, *, limit: int, before: int | None
    ) -> list[AuditRow]:
        if principal.role not in (Role.OWNER, Role.AUDITOR):
            raise Denied("The audit is for the owner and auditors.")
        return []

    async def approvals(self, principal: Principal) -> list[ApprovalView]:
        return [
            ApprovalView(
                code="K7QX",
                request_id="r1",
                automation="restart",
                what="`/restart web1` - may do harm",
                actor="ann",
                needed=2,
                approved_by=("bob",),
                created_at=now(),
                expires_at=now() + timedelta(minutes=15),
                mine=principal.name == "ann",
                may=principal.role is Role.OWNER,
            )
        ]

    async def dead_letters(
        self, principal: Principal, *, limit: int, kind: str | None, settled: bool, before: str | None
    ) -> list[DeadLetterView]:
        self._check_decider(principal, looking=True)
        found = [
            view
            for view in sorted(self.letters.values(), key=lambda one: one.id, reverse=True)
            if kind in (None, view.kind)
            and (settled or view.state == "open")
            and (before is None or view.id < before)
        ]
        return found[:limit]

    async def dead_letter(self, principal: Principal, identifier: str) -> DeadLetterView | None:
        self._check_decider(principal, looking=True)
        return self.letters.get(identifier)

    async def replay(
        self, principal: Principal, identifier: str, *, confirmed: bool
    ) -> DeadLetterView | None:
        view = self._decided_by(principal, identifier)
        if view is not None and view.doubtful and not confirmed:
            raise NeedsConfirmation("It may have had effects.")
        return self._decide(principal, view, "replayed")

    async def discard(self, principal: Principal, identifier: str) -> DeadLetterView | None:
        return self._decide(principal, self._decided_by(principal, identifier), "discarded")

    def _decided_by(self, principal: Principal, identifier: str) -> DeadLetterView | None:
        self._check_decider(principal)
        view = self.letters.get(identifier)
        if view is not None and view.state != "open":
            raise BadArguments("It was decided before.")
        return view

    def _decide(self, principal: Principal, view: DeadLetterView | None, state: str) -> DeadLetterView | None:
        if view is None:
            return None
        done = view.model_copy(update={"state": state, "settled_by": principal.name})
        self.letters[view.id] = done
        return done

    @staticmethod
    def _check_decider(principal: Principal, *, looking: bool = False) -> None:
        if principal.role is not Role.OWNER and not (looking and principal.role is Role.AUDITOR):
            raise Denied("Dead letters are for the owner and operators.")

    async def history(self, principal: Principal, *, limit: int = 50) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        for one, kept in self.messages.items():
            if kept.owner != principal.name:
                continue
            lines.append({"who": "me", "id": one, "text": kept.said, "at": kept.at.isoformat()})
            lines += [
                {
                    "who": "parley",
                    "id": view.id,
                    "reply": view.reply,
                    "at": view.created_at.isoformat(),
                    "message_id": one,
                }
                for view in kept.replies
            ]
        return lines[-limit:]

    @asynccontextmanager
    async def console(self, principal: Principal) -> AsyncIterator[AsyncIterator[tuple[Reply, Route, str]]]:
        queue: asyncio.Queue[tuple[Reply, Route, str]] = asyncio.Queue()
        pages = self.pages.setdefault(principal.name, set())
        pages.add(queue)

        async def replies() -> AsyncIterator[tuple[Reply, Route, str]]:
            while True:
                yield await queue.get()

        try:
            yield replies()
        finally:
            pages.discard(queue)

    async def hook(self, account: str, request: HookRequest) -> HookResponse:
        if account != "shop":
            return HookResponse(status=404, body=b"there is no such account\n")
        self.hooked.append(request)
        return HookResponse(status=200, headers={"content-type": "text/plain"}, body=b"taken")

    async def status(self) -> dict[str, Any]:
        return {
            "processes": [{"role": "hub", "pid": 1, "pss_mb": 90.0, "state": "running"}],
            "accounts": [{"name": "console", "platform": "console", "state": "listening", "reason": ""}],
            "queue": {"people": 0},
        }

    async def ready(self) -> dict[str, bool]:
        return self.parts

    def finish(self, message_id: str, reply: Reply, state: str = "done") -> None:
        """The end of a message."""
        kept = self.messages[message_id]
        self.reply(message_id, reply)
        kept.state = state
        kept.total_ms = 184.2
        kept.ended.set()

    def reply(self, message_id: str, reply: Reply) -> None:
        """One more reply to a message, to its page too."""
        kept = self.messages[message_id]
        view = ReplyView(id=f"{message_id}-r{len(kept.replies)}", reply=reply, state="sent", created_at=now())
        kept.replies.append(view)
        self._show(kept.owner, reply, view.id)

    def tell(self, name: str, reply: Reply, reply_id: str) -> None:
        """A reply that nobody asked for."""
        self.unasked[reply_id] = (name, reply)
        self._show(name, reply, reply_id)

    def _show(self, name: str, reply: Reply, reply_id: str) -> None:
        for queue in self.pages.get(name, ()):
            queue.put_nowait((reply, Route(account="console", conversation=name), reply_id))

    def _store(self, principal: Principal, text: str, files: tuple[File, ...], key: str | None) -> Accepted:
        if self.broken is not None:
            raise self.broken
        if self.unavailable:
            raise StoreUnavailable("The disk is full: nothing was stored. Try again later.")
        known = self.keys.get((principal.id, key)) if key else None
        if known:
            return Accepted(id=known, new=False)
        message_id = f"m{len(self.messages):04d}"
        self.messages[message_id] = Kept(owner=principal.name, said=text, at=now(), files=files)
        self.stored.set()
        if key:
            self.keys[principal.id, key] = message_id
        return Accepted(id=message_id, new=True)

    def _answer(self, message_id: str, text: str) -> None:
        kept = self.messages[message_id]
        if text.startswith("/slow"):
            kept.automation, kept.state = "slow", "running"
        elif text.startswith("/order"):
            kept.automation = "order_status"
            self.finish(message_id, an_order())
        elif text == "/fail":
            kept.automation = "order_status"
            self.finish(message_id, Reply(text="It did not work: the shop does not answer."), "failed")
        else:
            self.finish(message_id, Reply(text="I do not know that. Try `/help`."))

    def _reply(self, principal: Principal, message_id: str | None, reply_id: str) -> Reply | None:
        if message_id is None and reply_id in self.unasked:
            owner, reply = self.unasked[reply_id]
            return reply if owner == principal.name else None
        for one, kept in self.messages.items():
            if message_id not in (None, one) or not self._may_see(principal, kept.owner):
                continue
            for view in kept.replies:
                if view.id == reply_id:
                    return view.reply
        return None

    @staticmethod
    def _may_see(principal: Principal, owner: str) -> bool:
        return owner == principal.name or principal.role in (Role.OWNER, Role.AUDITOR)


def an_order() -> Reply:
    return Reply(
        text="Order **1024** is on its way.",
        table=Table(columns=("place", "when"), rows=(("Shenzhen", "2 Nov"), ("上海", "3 Nov"))),
        files=(REPORT,),
        buttons=(Button(label="Tell me when it arrives", value="watch 1024", style="primary"),),
    )
