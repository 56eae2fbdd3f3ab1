"""What is open in a thread: a missing parameter, a confirmation, a question of a running automation.

All of it is in the store, so that an answer finds its question after a restart. Only the person who was asked may
answer; no value is guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments
from parley.language import approval_asking
from parley.language.asking import ask_parameter, confirm_text
from parley.language.binding import read_value
from parley.language.characters import Language
from parley.language.command_line import quoted
from parley.language.decision import Decision, Speaker
from parley.language.grammar import canonical_key
from parley.language.phrases import phrase
from parley.messages.inbox import Received
from parley.messages.kept_routes import kept
from parley.messages.model import Action, Assurance, Button, Reply, now
from parley.people import approvals
from parley.people.audit import Audit, Phase
from parley.people.rights import Decision as Allowed
from parley.people.rights import Origin, Rights
from parley.people.roles import meant
from parley.people.sealing import Keyring
from parley.runs import offers
from parley.runs.approving import ApprovalDesk
from parley.runs.catalogue import AutomationSpec, Catalogue, Effect, Lane, Parameter
from parley.runs.requests import (
    WAITING,
    QueuedRun,
    digest,
    insert_run,
    is_as_read,
    open_values,
    seal_values,
    short,
    update_request,
)
from parley.runs.sentences import sentence
from parley.store import schema
from parley.store.engine import Store

YES = frozenset(
    {"yes", "y", "ok", "1", "confirm", "run", "go", "是", "是的", "好", "好的", "确认", "可以", "执行"}
)
MOST_BUTTONS = 10
"""More choices than these are not offered as buttons; all of them may be typed."""

LONGEST_VALUE = 255
"""What a button may carry."""

NO = frozenset({"no", "n", "2", "cancel", "stop", "drop", "否", "不", "不要", "不用", "取消", "算了", "放弃"})


class Dialogue:
    """Reads answers to what is open."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        rights: Rights,
        desk: ApprovalDesk,
        *,
        catalogue: Callable[[], Catalogue],
        answered: Callable[[str], None],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._rights = rights
        self._desk = desk
        self._catalogue = catalogue
        self._answered = answered
        self._audit = Audit(keyring)

    async def awaits(self, received: Received, speaker: Speaker) -> bool:
        """Whether something that this person was asked is open here."""
        here, who = received.conversation_id, speaker.principal.id
        return (
            await self._store.read(lambda conn: _open_question(conn, here, who)) is not None
            or await self._store.read(lambda conn: _open_request(conn, here, who)) is not None
        )

    async def answer(self, received: Received, speaker: Speaker, text: str) -> Decision | None:
        """What this text answers here, or None when nothing that this person was asked is open here."""
        question = await self._store.read(
            lambda conn: _open_question(conn, received.conversation_id, speaker.principal.id)
        )
        if question is not None:
            return self._to_question(question, text, speaker.language)
        row = await self._store.read(
            lambda conn: _open_request(conn, received.conversation_id, speaker.principal.id)
        )
        if row is None:
            return None
        spec = self._catalogue().find(row.automation)
        if spec is None:
            return None
        word = text.strip().strip("。.!！").lower()
        if row.state == "awaiting-approval":
            if isinstance(received.event, Action):
                # A confirmation's own buttons name their request. Any other press was meant for an earlier question
                # (a second click on "yes", say) and must not confirm what it never showed.
                return Decision.answer(sentence("nothing-open", speaker.language))
            return self._confirm(row, spec, received, speaker, word)
        if word in NO and not _takes_text(spec, row):
            return self._drop(row, spec, speaker)
        return self._parameter(row, spec, received, speaker, text)

    async def confirm_by_id(
        self, identifier: str, received: Received, speaker: Speaker, *, yes: bool
    ) -> Decision:
        """Answer a confirmation by the id on its button, wherever it is pressed."""
        row = await self._store.read(lambda conn: _by_short_id(conn, identifier))
        if row is None:
            return Decision.answer(sentence("nothing-open", speaker.language))
        if row.actor_id != speaker.principal.id:
            return Decision.answer(sentence("not-yours", speaker.language))
        spec = self._catalogue().find(row.automation)
        if spec is None:
            return Decision.answer(sentence("not-in-catalogue", speaker.language, command=row.automation))
        return self._confirm(row, spec, received, speaker, "yes" if yes else "no") or Decision.silent(
            "answered"
        )

    async def take(self, identifier: str, received: Received, speaker: Speaker) -> Decision:
        """Take what an event offered, by the id on its button: the first who may run it does."""
        row = await self._store.read(lambda conn: offers.find(conn, identifier))
        if row is None:
            return Decision.answer(sentence("nothing-open", speaker.language))
        spec = self._catalogue().find(row.automation)
        if spec is None:
            return Decision.answer(sentence("not-in-catalogue", speaker.language, command=row.automation))
        if not offers.is_free(row):
            return Decision.answer(_no_longer_free(row, speaker))
        values = open_values(self._keyring, row)
        allowed = self._allowed(spec, speaker, values)
        if not allowed.allowed or received.acting_for_id is not None:
            # It stays open for somebody who may.
            return Decision.answer(
                allowed.reason if not allowed.allowed else phrase("not-for-another", speaker.language)
            )
        return self._queue(row, spec, received, values, speaker, taken=True)

    async def answer_by_id(
        self, identifier: str, given: Mapping[str, str], received: Received, speaker: Speaker
    ) -> Decision:
        """Answer a running automation's question by the id on its button, wherever it is pressed.

        A press counts for the value that it was offered for and for no later one.
        """
        question = await self._store.read(lambda conn: _question_by_short_id(conn, identifier))
        if question is None:
            return Decision.answer(sentence("nothing-open", speaker.language))
        if question.asked_of_id != speaker.principal.id or received.acting_for_id is not None:
            return Decision.answer(sentence("not-yours", speaker.language))
        parameter = self._asked_now(question)
        if parameter is None or canonical_key(parameter.name) not in given:
            return Decision.answer(sentence("nothing-open", speaker.language))
        return self._to_question(question, given[canonical_key(parameter.name)], speaker.language)

    # -- a request

    def _confirm(
        self, row: Any, spec: AutomationSpec, received: Received, speaker: Speaker, word: str
    ) -> Decision | None:
        if word not in YES | NO:
            return None
        if received.acting_for_id is not None:
            return Decision.answer(phrase("not-for-another", speaker.language))
        if spec.effect is not Effect.READ and speaker.assurance is not Assurance.VERIFIED:
            # Whoever only claims to be this person decides nothing, not even that it is dropped.
            return Decision.answer(self._allowed(spec, speaker).reason)
        if word in NO:
            return self._drop(row, spec, speaker)
        return self._queue(row, spec, received, open_values(self._keyring, row), speaker)

    def _drop(self, row: Any, spec: AutomationSpec, speaker: Speaker) -> Decision:
        text = sentence("asking-ended", speaker.language, command=row.automation)
        decision = Decision(replies=[Reply(text=text)])

        async def drop(conn: AsyncConnection) -> list[QueuedRun]:
            if not await is_as_read(conn, row):
                decision.replies[:] = [Reply(text=sentence("nothing-open", speaker.language))]
                return []
            reason = "dropped by the person who asked"
            await update_request(
                conn, row.id, where=(row.state,), state="cancelled", reason=reason, asking=None
            )
            await self._note(conn, row, spec, speaker, Phase.OUTCOME, "cancelled")
            return []

        decision.changes.append(drop)
        return decision

    def _parameter(
        self, row: Any, spec: AutomationSpec, received: Received, speaker: Speaker, text: str
    ) -> Decision:
        parameter = spec.parameter(row.asking["parameter"])
        if parameter is None:
            return self._drop(row, spec, speaker)
        try:
            value = read_value(text, parameter, speaker.language)
        except BadArguments as error:
            return Decision.answer(f"{error}\n{sentence('how-to-drop', speaker.language)}")
        values = open_values(self._keyring, row) | {parameter.name: value}
        missing = next((p for p in spec.parameters if p.required and p.name not in values), None)
        if missing is not None:
            asking = dict(row.asking) | {"parameter": missing.name}
            reply = ask_parameter(missing, spec, speaker.language)
            return self._keep(row, received, values, asking, reply, speaker)
        if row.asking.get("confirm"):
            reply = confirm_reply(spec, values, row.id, speaker.language)
            return self._keep(row, received, values, {"kind": "confirm"}, reply, speaker)
        return self._queue(row, spec, received, values, speaker)

    def _keep(
        self,
        row: Any,
        received: Received,
        values: dict[str, Any],
        asking: dict[str, Any],
        reply: Reply,
        speaker: Speaker,
    ) -> Decision:
        decision = Decision(replies=[reply])

        async def keep(conn: AsyncConnection) -> list[QueuedRun]:
            if not await is_as_read(conn, row):
                decision.replies[:] = [Reply(text=sentence("nothing-open", speaker.language))]
                return []
            taken = self._taken_over(row, received, values)
            state = "awaiting-approval" if asking["kind"] == "confirm" else "needs-input"
            acting = await approval_asking.acting_in(conn, row, received)
            kept_asking = asking | ({"acting": acting} if acting else {})
            await update_request(conn, row.id, where=(row.state,), state=state, asking=kept_asking, **taken)
            return []

        decision.changes.append(keep)
        return decision

    def _taken_over(self, row: Any, received: Received, values: dict[str, Any]) -> dict[str, Any]:
        # The answer is now the message that the request belongs to: who sent it waits for what comes of it.
        return {
            "message_id": received.id,
            "conversation_id": received.conversation_id,
            "route": kept(self._keyring, "request", row.id, received.event.route),
            "parameters_sealed": seal_values(self._keyring, row.id, values),
        }

    def _queue(
        self,
        row: Any,
        spec: AutomationSpec,
        received: Received,
        values: dict[str, Any],
        speaker: Speaker,
        *,
        taken: bool = False,
    ) -> Decision:
        # Typed or confirmed by this very person: what plain language only proposed is now a command.
        allowed = self._allowed(spec, speaker, values)
        decision = Decision()
        terms = self._desk.terms(spec, values)
        # What was taken is the person's own: nothing of it is the service's any more.
        own = {"origin": Origin.COMMAND} if taken else {}

        async def refuse(conn: AsyncConnection, kept_reason: str, told: str) -> list[QueuedRun]:
            decision.replies[:] = [Reply(text=told)]
            if taken:
                return []  # an offer stays open for somebody who may, or for when the lock is gone
            await update_request(
                conn, row.id, where=(row.state,), state="refused", reason=kept_reason, asking=None
            )
            await self._note(conn, row, spec, speaker, Phase.OUTCOME, "refused")
            return []

        async def queue(conn: AsyncConnection) -> list[QueuedRun]:
            # The row was read before this write: of two who take or confirm it at once the second one changes nothing.
            if not await is_as_read(conn, row):
                decision.replies[:] = [Reply(text=await _too_late(conn, row, speaker, taken=taken))]
                return []
            decision.replies.clear()
            if not allowed.allowed:
                return await refuse(conn, allowed.reason, allowed.reason)
            frozen = await self._desk.frozen(conn, spec, speaker.language)
            if frozen is not None:
                return await refuse(conn, frozen.kept, frozen.told)
            acting = await approval_asking.acting_in(conn, row, received)
            waits: dict[str, Any] = {"state": "queued", "queued_at": now(), "asking": None}
            if terms is not None:
                waits = {"state": "awaiting-approval", "asking": {"kind": approvals.KIND}}
            await update_request(
                conn,
                row.id,
                where=(row.state,),
                **waits,
                actor_id=speaker.principal.id,
                digest=digest(self._keyring, spec, values, speaker.principal.id),
                under_id=None,
                **own,
                **self._taken_over(row, received, values),
            )
            # Who was asked before has their intent there already; who takes what a service was offered has it now.
            phase, action = (Phase.INTENT, "run") if taken else (Phase.OUTCOME, "confirm")
            await self._note(conn, row, spec, speaker, phase, waits["state"], action)
            if terms is not None:
                await approval_asking.ask(
                    conn,
                    self._desk,
                    decision,
                    request_id=row.id,
                    spec=spec,
                    values=values,
                    terms=terms,
                    received=received,
                    speaker=speaker,
                    acting=acting,
                )
                return []
            return [
                QueuedRun(
                    run_id=await insert_run(conn, row.id),
                    request_id=row.id,
                    message_id=received.id,
                    automation=spec.command,
                    values=values,
                    actor=speaker.principal.name,
                    lane=Lane(row.lane),
                )
            ]

        decision.changes.append(queue)
        return decision

    def _allowed(
        self, spec: AutomationSpec, speaker: Speaker, values: Mapping[str, Any] | None = None
    ) -> Allowed:
        return self._rights.allows(
            speaker.principal,
            spec.effect,
            spec.command,
            Origin.COMMAND,
            speaker.assurance,
            speaker.language,
            values=None if values is None else meant(spec, values, whole=True),
            place=speaker.place,
            approvals=True,
        )

    async def _note(
        self,
        conn: AsyncConnection,
        row: Any,
        spec: AutomationSpec,
        speaker: Speaker,
        phase: Phase,
        state: str,
        action: str = "run",
    ) -> None:
        if spec.effect is not Effect.READ:
            await self._audit.append(
                conn,
                action=f"{action}:{spec.command}",
                phase=phase,
                actor=speaker.principal.name,
                subject=f"request:{row.id}",
                details={"state": state},
            )

    # -- a running automation's question

    def _to_question(self, question: Any, text: str, language: Language) -> Decision:
        given = self._given(question)
        parameter = self._asked_now(question)
        if parameter is None:
            return Decision.silent("the question was answered already")
        try:
            given[parameter.name] = read_value(text, parameter, language)
        except BadArguments as error:
            return Decision.answer(str(error))
        parameters = question_parameters(question.json_schema)
        following = next((p for p in parameters if p.name not in given), None)
        sealed = self._keyring.seal("question", "answer_sealed", question.id, json.dumps(given).encode())
        state = "open" if following else "answered"

        async def keep(conn: AsyncConnection) -> list[QueuedRun]:
            table = schema.question
            await conn.execute(
                sa.update(table).where(table.c.id == question.id).values(answer_sealed=sealed, state=state)
            )
            return []

        async def wake() -> None:
            self._answered(question.id)

        replies = [] if following is None else [question_reply(following, question.id)]
        return Decision(replies=replies, changes=[keep], afterwards=[wake])

    def _asked_now(self, question: Any) -> Parameter | None:
        given = self._given(question)
        return next((p for p in question_parameters(question.json_schema) if p.name not in given), None)

    def _given(self, question: Any) -> dict[str, Any]:
        if question.answer_sealed is None:
            return {}
        opened: dict[str, Any] = json.loads(
            self._keyring.open("question", "answer_sealed", question.id, question.answer_sealed)
        )
        return opened


def confirm_reply(spec: AutomationSpec, values: dict[str, Any], request_id: str, language: Language) -> Reply:
    """Ask whether this should run, with buttons that are bound to this very request."""
    yes, no = ("运行", "取消") if language == "zh" else ("Run it", "Cancel")
    buttons = (
        Button(label=yes, value=f"/yes {short(request_id)}", style="primary"),
        Button(label=no, value=f"/no {short(request_id)}"),
    )
    return Reply(text=confirm_text(spec, values, language), buttons=buttons)


def question_parameters(json_schema: dict[str, Any]) -> tuple[Parameter, ...]:
    """The properties of an object's schema as parameters, those with a default left out."""
    definitions = {"$defs": json_schema["$defs"]} if "$defs" in json_schema else {}
    return tuple(
        Parameter(
            name=name, json_schema=dict(schema_) | definitions, description=schema_.get("description", "")
        )
        for name, schema_ in json_schema.get("properties", {}).items()
        if "default" not in schema_
    )


def question_reply(parameter: Parameter, question_id: str) -> Reply:
    """Ask for one value; the allowed ones as buttons, bound to this very question, where they are few and short."""
    choices = [str(choice) for choice in parameter.choices]
    buttons = [
        Button(label=choice[:75], value=value, code=choice)
        for choice in choices[:MOST_BUTTONS]
        if choice and len(value := _answer(parameter, question_id, choice)) <= LONGEST_VALUE
    ]
    return Reply(text=parameter.description or f"{parameter.name}?", buttons=tuple(buttons))


def _answer(parameter: Parameter, question_id: str, choice: str) -> str:
    return f"/answer {short(question_id)} {parameter.name}={quoted(choice)}"


def _no_longer_free(row: Any, speaker: Speaker) -> str:
    key = "offer-taken" if offers.is_taken(row) else "offer-over"
    return sentence(key, speaker.language, command=row.automation, name=row.actor)


async def _too_late(conn: AsyncConnection, row: Any, speaker: Speaker, *, taken: bool) -> str:
    offer = await offers.find(conn, row.id) if taken else None
    return _no_longer_free(offer, speaker) if offer else sentence("nothing-open", speaker.language)


def _takes_text(spec: AutomationSpec, row: Any) -> bool:
    parameter = spec.parameter(row.asking.get("parameter", ""))
    return bool(parameter and any(str(choice).lower() in NO for choice in parameter.choices))


async def _open_request(conn: AsyncConnection, conversation_id: str, actor_id: str) -> Any:
    table = schema.request
    query = (
        sa.select(table)
        .where(
            table.c.conversation_id == conversation_id,
            table.c.actor_id == actor_id,
            table.c.state.in_(WAITING),
            # What waits for an approval waits for others.
            table.c.asking["kind"].as_string() != approvals.KIND,
            table.c.expires_at > now(),
        )
        .order_by(table.c.created_at.desc())
        .limit(1)
    )
    return (await conn.execute(query)).first()


async def _open_question(conn: AsyncConnection, conversation_id: str, principal_id: str) -> Any:
    # Of a run that has ended nobody waits for the answer any more: what is said then is something new.
    table, run = schema.question, schema.run
    query = (
        sa.select(table)
        .join(run, run.c.id == table.c.run_id)
        .where(
            run.c.state.in_(("started", "suspended")),
            table.c.conversation_id == conversation_id,
            table.c.asked_of_id == principal_id,
            table.c.state == "open",
            table.c.expires_at > now(),
        )
        .order_by(table.c.created_at)
        .limit(1)
    )
    return (await conn.execute(query)).first()


async def _question_by_short_id(conn: AsyncConnection, identifier: str) -> Any:
    table, run = schema.question, schema.run
    wanted = identifier.strip().lower().replace("-", "")[-8:]
    if len(wanted) < 8 or not wanted.isalnum():
        return None
    query = (
        sa.select(table)
        .join(run, run.c.id == table.c.run_id)
        .where(
            run.c.state.in_(("started", "suspended")),
            table.c.state == "open",
            table.c.expires_at > now(),
            table.c.id.like(f"%{wanted}"),
        )
        .order_by(table.c.created_at.desc())
        .limit(1)
    )
    return (await conn.execute(query)).first()


async def _by_short_id(conn: AsyncConnection, identifier: str) -> Any:
    table = schema.request
    wanted = identifier.strip().lower().replace("-", "")[-8:]
    if len(wanted) < 8 or not wanted.isalnum():
        return None
    waiting = sa.and_(
        table.c.state == "awaiting-approval",
        table.c.asking["kind"].as_string() != approvals.KIND,
        table.c.expires_at > now(),
    )
    query = sa.select(table).where(waiting, table.c.id.like(f"%{wanted}"))
    return (await conn.execute(query.order_by(table.c.created_at.desc()).limit(1))).first()
