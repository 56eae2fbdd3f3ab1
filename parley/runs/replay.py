"""What people do about dead letters: look, do it again, let it be. One desk for chat, REST and the command line.

Doing it again is a new run of the same request, a new delivery of the same words under the same token, or the same
message handled once more: with the rights of whoever asked, looked at anew. It happens once for each letter, and only
after a second word where it may have had effects already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied, NeedsConfirmation
from parley.messages.inbox import REPLAYED
from parley.messages.model import Assurance, now
from parley.messages.outbox import Outbox
from parley.people import principals
from parley.people.audit import Audit, Phase
from parley.people.principals import Principal, Role
from parley.people.rights import Origin, Rights
from parley.people.roles import meant
from parley.people.sealing import Keyring
from parley.runs import dead_letters
from parley.runs.approval_texts import say
from parley.runs.approving import ApprovalDesk
from parley.runs.catalogue import AutomationSpec, Catalogue, Effect, Lane
from parley.runs.dead_letters import DeadLetter
from parley.runs.dispatch import Dispatcher
from parley.runs.requests import QueuedRun, insert_run, open_values, principal_name, update_request
from parley.runs.sentences import sentence
from parley.settings import Limits
from parley.store import schema
from parley.store.engine import Store, after_commit

ENDED: Final = ("failed", "expired")
"""States of a request that may be run again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Who decides, and where; `principal` is None for the person at the machine, who may do all."""

    name: str
    principal: Principal | None = None
    place: str | None = None
    assurance: Assurance = Assurance.VERIFIED
    language: str = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A dead letter with what can be told of its subject: never what people wrote, nor what is sealed."""

    letter: DeadLetter
    facts: dict[str, str] = field(default_factory=dict)


class ReplayDesk:
    """Looks into dead letters and decides about them."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        outbox: Outbox,
        dispatcher: Dispatcher,
        audit: Audit,
        rights: Rights,
        *,
        catalogue: Callable[[], Catalogue],
        limits: Callable[[], Limits],
        take_up: Callable[[], None],
        desk: ApprovalDesk,
    ) -> None:
        self._desk = desk
        self._store = store
        self._keyring = keyring
        self._outbox = outbox
        self._dispatcher = dispatcher
        self._audit = audit
        self._rights = rights
        self._catalogue = catalogue
        self._limits = limits
        self._take_up = take_up

    # -- looking

    def check_may_look(self, who: Decider) -> None:
        """Raise `Denied` unless they are the owner, an operator or an auditor, and surely so."""
        _check_role(who, (Role.OWNER, Role.OPERATOR, Role.AUDITOR))

    async def newest(
        self,
        who: Decider,
        *,
        limit: int = 20,
        kind: str | None = None,
        settled: bool = False,
        before: str | None = None,
    ) -> list[DeadLetter]:
        """The newest; see `dead_letters.newest`. Raises `Denied`."""
        self.check_may_look(who)
        return await self._store.read(
            lambda conn: dead_letters.newest(conn, limit=limit, kind=kind, settled=settled, before=before)
        )

    async def find(self, who: Decider, identifier: str) -> DeadLetter | None:
        """One by its id, or the last eight characters of that. Raises `Denied`."""
        self.check_may_look(who)
        return await self._store.read(lambda conn: dead_letters.find(conn, identifier))

    async def show(self, who: Decider, letter: DeadLetter) -> Shown:
        """What is known of its subject. Raises `Denied`."""
        self.check_may_look(who)
        facts = await self._store.read(lambda conn: self._facts(conn, letter))
        return Shown(letter=letter, facts={name: value for name, value in facts.items() if value})

    async def _facts(self, conn: AsyncConnection, letter: DeadLetter) -> dict[str, str]:
        if letter.kind == "delivery":
            row = await _row(conn, schema.delivery, letter.subject_id)
            return (
                {} if row is None else {"place": _place(row), "attempts": str(row.attempts), "of": row.source}
            )
        if letter.subject.startswith("message:"):
            row = await _row(conn, schema.message, letter.subject_id)
            return (
                {} if row is None else {"place": _place(row), "type": row.type, "at": _time(row.received_at)}
            )
        row = await _run_row(conn, letter.subject_id)
        if row is None:
            return {}
        asked = {"command": self._command(row), "request": row.id, "flow_run": row.flow_run_id or ""}
        return asked | {"place": _place(row), "at": _time(row.created_at)}

    def _command(self, row: Any) -> str:
        spec = self._catalogue().find(row.automation)
        if spec is None or row.parameters_sealed is None:
            return f"/{row.automation}"
        values = open_values(self._keyring, row)
        given = (f"{name}={value}" for name, value in values.items() if name not in spec.sealed_names)
        return " ".join((f"/{row.automation}", *given))[:500]

    # -- deciding

    def check_may_decide(self, who: Decider, letter: DeadLetter, *, again: bool = False) -> None:
        """Raise `Denied` unless they are the owner or an operator, and may themselves run what is run `again`."""
        _check_role(who, (Role.OWNER, Role.OPERATOR))
        if again and who.principal is not None and letter.automation is not None:
            spec = self._catalogue().find(letter.automation)
            effect = spec.effect if spec else Effect.DANGEROUS
            allowed = self._rights.allows(
                who.principal, effect, letter.automation, Origin.COMMAND, who.assurance, who.language
            )
            if not allowed.allowed:
                raise Denied(allowed.reason)

    def check_open(self, who: Decider, letter: DeadLetter, *, confirmed: bool) -> None:
        """Raise `BadArguments` when it was decided before, `NeedsConfirmation` when a second word is needed."""
        if letter.state != "open":
            raise _settled(letter, who.language)
        if letter.doubtful and not confirmed:
            key = "dlq-doubtful-delivery" if letter.kind == "delivery" else "dlq-doubtful"
            raise NeedsConfirmation(
                sentence(key, who.language, what=_what(letter), account=letter.account or "-")
            )

    async def replay(self, who: Decider, letter: DeadLetter, *, confirmed: bool) -> None:
        """Do it again. Raises `Denied`, `NeedsConfirmation`, and `BadArguments` when that is not possible."""
        self.check_may_decide(who, letter, again=True)
        self.check_open(who, letter, confirmed=confirmed)
        await self._store.write(lambda conn: self.replay_within(conn, who, letter))

    async def discard(self, who: Decider, letter: DeadLetter) -> None:
        """Let it be. Raises `Denied`, and `BadArguments` when it was decided before."""
        self.check_may_decide(who, letter)
        self.check_open(who, letter, confirmed=True)
        await self._store.write(lambda conn: self.discard_within(conn, who, letter))

    async def replay_within(self, conn: AsyncConnection, who: Decider, letter: DeadLetter) -> None:
        """As `replay`, within a write; the caller has checked."""
        await self._settle(conn, who, letter, "replayed")
        if letter.kind == "delivery":
            await self._deliver_again(conn, who, letter)
        elif letter.subject.startswith("message:"):
            await self._handle_again(conn, who, letter)
        else:
            await self._run_again(conn, who, letter)

    async def discard_within(self, conn: AsyncConnection, who: Decider, letter: DeadLetter) -> None:
        """As `discard`, within a write; the caller has checked."""
        await self._settle(conn, who, letter, "discarded")

    async def _settle(
        self, conn: AsyncConnection, who: Decider, letter: DeadLetter, state: Literal["replayed", "discarded"]
    ) -> None:
        if not await dead_letters.settle(conn, letter.id, state, who.name):
            raise _settled(letter, who.language)
        await self._audit.record(
            conn,
            action=f"dead-letter-{state}",
            actor=who.name,
            subject=f"dead-letter:{letter.id}",
            details={"kind": letter.kind, "subject": letter.subject, "automation": letter.automation or ""},
        )

    def _check_may_run(self, who: Decider, spec: AutomationSpec, values: Mapping[str, Any]) -> None:
        if who.principal is None:
            return
        allowed = self._rights.allows(
            who.principal,
            spec.effect,
            spec.command,
            Origin.COMMAND,
            who.assurance,
            who.language,
            values=meant(spec, values, whole=True),
            place=who.place,
        )
        if not allowed.allowed:
            raise Denied(allowed.reason)

    async def _run_again(self, conn: AsyncConnection, who: Decider, letter: DeadLetter) -> None:
        row = await _run_row(conn, letter.subject_id)
        spec = self._catalogue().find(letter.automation or "")
        if row is None or (row.parameters_sealed is None and (spec is None or spec.parameters)):
            raise BadArguments(sentence("dlq-erased", who.language))
        if spec is None:
            raise BadArguments(sentence("not-in-catalogue", who.language, command=row.automation))
        values = open_values(self._keyring, row)
        self._check_may_run(who, spec, values)
        if self._desk.terms(spec, values) is not None:
            # It was approved for one run; another one is somebody's new request.
            raise BadArguments(say("used", who.language, command=spec.command))
        if row.run_state not in ("lost", "finished") or not await self._queue_again(conn, row):
            raise BadArguments(sentence("dlq-not-ended", who.language, command=row.automation))
        run_id = await insert_run(conn, row.id, epoch=await _last_epoch(conn, row.id) + 1)
        await self._note_intent(conn, who, row, spec)
        queued = QueuedRun(
            run_id=run_id,
            request_id=row.id,
            message_id=row.message_id,
            automation=spec.command,
            values=values,
            actor=await principal_name(conn, row.actor_id),
            lane=Lane(row.lane),
        )
        after_commit(lambda: self._dispatcher.add(queued))

    async def _queue_again(self, conn: AsyncConnection, row: Any) -> bool:
        return await update_request(
            conn,
            row.id,
            where=ENDED,
            state="queued",
            reason=None,
            queued_at=now(),
            started_at=None,
            ended_at=None,
            expires_at=now() + timedelta(seconds=self._limits().message_age),
        )

    async def _note_intent(self, conn: AsyncConnection, who: Decider, row: Any, spec: AutomationSpec) -> None:
        if spec.effect is Effect.READ:
            return
        await self._audit.append(
            conn,
            action=f"run:{spec.command}",
            phase=Phase.INTENT,
            actor=await principal_name(conn, row.actor_id),
            subject=f"request:{row.id}",
            details={"state": "queued", "origin": row.origin, "version": spec.version, "again_by": who.name},
        )

    async def _check_is_theirs(self, conn: AsyncConnection, who: Decider, letter: DeadLetter) -> None:
        # It is handled in the name of whoever wrote it: nobody else has them approve, unlock or ask for anything.
        if who.principal is None:
            return
        row = await _row(conn, schema.message, letter.subject_id)
        if row is None:
            raise BadArguments(sentence("dlq-erased", who.language))
        writer = row.principal_id
        if writer is None and (link := await principals.find_by_identity(conn, row.account, row.sender_id)):
            writer = link.principal.id
        if writer != who.principal.id or row.acting_for_id is not None:
            raise Denied(sentence("dlq-not-theirs", who.language))

    async def _handle_again(self, conn: AsyncConnection, who: Decider, letter: DeadLetter) -> None:
        await self._check_is_theirs(conn, who, letter)
        table, request = schema.message, schema.request
        made = sa.select(sa.func.count()).where(request.c.message_id == letter.subject_id)
        if (await conn.execute(made)).scalar_one():
            raise BadArguments(sentence("dlq-carried-out", who.language))
        ended = sa.and_(
            table.c.id == letter.subject_id,
            table.c.state.in_(("dead", "expired")),
            table.c.event_sealed.is_not(None),
        )
        values = {
            "state": "received",
            "reason": REPLAYED,
            "handled_at": None,
            "expires_at": now() + timedelta(seconds=self._limits().message_age),
        }
        if not (await conn.execute(sa.update(table).where(ended).values(values))).rowcount:
            raise BadArguments(sentence("dlq-erased", who.language))
        after_commit(self._take_up)

    async def _deliver_again(self, conn: AsyncConnection, who: Decider, letter: DeadLetter) -> None:
        one = await self._outbox.write_again(conn, letter.subject_id, f"replay:{letter.id}")
        if one is None:
            raise BadArguments(sentence("dlq-erased", who.language))
        after_commit(lambda: self._outbox.send([one]))


def _check_role(who: Decider, roles: Iterable[Role]) -> None:
    if who.principal is None:
        return
    surely = who.assurance is Assurance.VERIFIED and who.principal.enabled
    if who.principal.role not in roles or not surely:
        raise Denied(sentence("dlq-denied", who.language))


def _settled(letter: DeadLetter, language: str) -> BadArguments:
    key = "dlq-discarded-before" if letter.state == "discarded" else "dlq-replayed-before"
    return BadArguments(sentence(key, language, name=letter.settled_by or "-"))


def _what(letter: DeadLetter) -> str:
    return f"/{letter.automation}" if letter.automation else letter.kind


def _place(row: Any) -> str:
    route = row.route or {}
    return f"{route['account']}:{route['conversation']}" if route else ""


def _time(moment: Any) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


async def _row(conn: AsyncConnection, table: sa.Table, row_id: str) -> Any:
    return (await conn.execute(sa.select(table).where(table.c.id == row_id))).first()


async def _run_row(conn: AsyncConnection, run_id: str) -> Any:
    run, request, batch = schema.run, schema.request, schema.batch
    query = (
        sa.select(
            request,
            run.c.state.label("run_state"),
            sa.func.coalesce(run.c.flow_run_id, batch.c.flow_run_id).label("flow_run_id"),
        )
        .join(run, run.c.request_id == request.c.id)
        .outerjoin(batch, batch.c.id == run.c.batch_id)
        .where(run.c.id == run_id)
    )
    return (await conn.execute(query)).first()


async def _last_epoch(conn: AsyncConnection, request_id: str) -> int:
    query = sa.select(sa.func.max(schema.run.c.epoch)).where(schema.run.c.request_id == request_id)
    return int((await conn.execute(query)).scalar() or 0)


__all__ = ["Decider", "ReplayDesk", "Shown"]
