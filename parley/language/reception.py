"""Reception: a stored event is understood, allowed, asked about, and becomes a request or an answer.

Text only proposes; code decides. Everything that one event leads to is committed in one transaction, which also marks
the event as handled, so that a hub that dies in between handles it again and a hub that did not cannot do it twice.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import AuditUnavailable, CommandError, PolicyError, StoreUnavailable
from parley.failpoints import failpoint
from parley.language import approval_asking
from parley.language.asking import ask_parameter, offer_text
from parley.language.binding import bind
from parley.language.builtin import Builtins
from parley.language.characters import Language, language_of, visible
from parley.language.decision import Decision, Speaker
from parley.language.dialogue import Dialogue, confirm_reply
from parley.language.grammar import Command, command_name, parse_command
from parley.language.mail_loops import MailLoops
from parley.language.names import unknown_command
from parley.language.offered import Offered
from parley.language.pace import Pacer, TooFast
from parley.language.phrases import phrase
from parley.language.understanding import Understander
from parley.messages.bridges import Bridges, Crossing
from parley.messages.bus import Bus
from parley.messages.bus import Origin as BusOrigin
from parley.messages.carrying import in_carried_thread
from parley.messages.inbox import Received
from parley.messages.model import Action, ConversationKind, Edit, Event, Message, Notice, Reply, now
from parley.messages.outbox import Delivery, Outbox, last_ordinal
from parley.messages.published import Published, message_topic, of_message, of_notice, place_of
from parley.messages.state import MISTAKEN
from parley.messages.watch import Watch
from parley.metrics import Metrics
from parley.people import approvals, principals
from parley.people.approval_rules import Terms
from parley.people.audit import Audit, Phase
from parley.people.rights import Decision as Allowed
from parley.people.rights import Origin, Rights
from parley.people.roles import meant
from parley.people.sealing import Keyring
from parley.runs import dead_letters
from parley.runs.approving import ApprovalDesk
from parley.runs.catalogue import AutomationSpec, Catalogue, Effect, Lane
from parley.runs.dispatch import URGENT, Dispatcher
from parley.runs.requests import (
    NewRequest,
    QueuedRun,
    insert_request,
    insert_run,
    principal_name,
    update_request,
)
from parley.runs.sentences import sentence
from parley.settings import Limits
from parley.store import schema
from parley.store.engine import Store

logger = logging.getLogger(__name__)

MOST_UNDERSTOOD = 100_000
"""Longest text that is looked at, in characters; a longer one is answered with how to send it."""


MOST_NAME = 200
"""Characters at the beginning of a message in which the name of a command stands."""

_MARK_HANDLED: Final = sa.update(schema.message).where(
    schema.message.c.id == sa.bindparam("the_message"), schema.message.c.state == "received"
)

STRANGER = "unknown sender"
"""Why somebody who is linked to nobody was answered."""

MOST_STRANGERS = 10_000
"""Unknown senders that are remembered in memory besides the store."""


class Reception:
    """Handles stored events, one conversation at a time."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        outbox: Outbox,
        dispatcher: Dispatcher,
        watch: Watch,
        builtins: Builtins,
        dialogue: Dialogue,
        bus: Bus,
        rights: Rights,
        desk: ApprovalDesk,
        *,
        from_stranger: Callable[[Received, Decision], Awaitable[Decision]],
        bridges: Callable[[], Bridges],
        bridge_stopped: Callable[[AsyncConnection, str], Awaitable[list[Delivery]]],
        catalogue: Callable[[], Catalogue],
        understander: Callable[[], Understander],
        limits: Callable[[], Limits],
        language: Callable[[], str],
        metrics: Metrics,
    ) -> None:
        self._metrics = metrics
        self._store = store
        self._keyring = keyring
        self._outbox = outbox
        self._dispatcher = dispatcher
        self._watch = watch
        self._builtins = builtins
        self._dialogue = dialogue
        self._bus = bus
        self._rights = rights
        self._desk = desk
        self._from_stranger = from_stranger
        self._bridges = bridges
        self._bridge_stopped = bridge_stopped
        self._catalogue = catalogue
        self._offered = Offered(catalogue, rights, lambda hit: metrics.machinery.cache("rights", hit=hit))
        self._understander = understander
        self._limits = limits
        self._language = language
        self._audit = Audit(keyring)
        self._pacer = Pacer(limits)
        self._mail_loops = MailLoops()
        self._telling: OrderedDict[tuple[str, str], datetime] = OrderedDict()

    def urgent(self, received: Received) -> bool:
        """Whether this stands in no queue behind chatter: buttons, built-in commands, alerts, urgent lanes."""
        event = received.event
        if isinstance(event, Message):
            name = command_name(event.text[:MOST_NAME])
            if name is None:
                return False
            spec = self._catalogue().find(name)
            return self._builtins.has(name) or (spec is not None and spec.lane in URGENT)
        return isinstance(event, Action) or (isinstance(event, Notice) and event.severity != "info")

    async def handle(self, received: Received) -> None:
        """Handle one event. An error of our own leaves an apology and a dead message, never a lost one.

        Raises `StoreUnavailable`: then nothing was decided, and the event is handled again.
        """
        try:
            decision = await self._decide(received)
        except (CommandError, PolicyError) as error:
            decision = Decision.answer(str(error), reason=MISTAKEN)
        except StoreUnavailable:
            raise
        except Exception as error:
            logger.exception("message %s could not be handled", received.id)
            decision = _apology(received.event, error)
        crossing = self._crossing(received, decision)
        decision.events += self._published(received, crossing)
        try:
            await self._commit(received, decision, crossing)
        except AuditUnavailable:
            # What is privileged is not done without its row; nothing else needs one.
            logger.exception("message %s: refused, because the audit takes no row", received.id)
            text = sentence("audit-unavailable", self._language())
            refused = Decision.answer(text, reason="the audit could not be written")
            await self._commit(received, refused, Crossing())
        except StoreUnavailable:
            raise
        except Exception as error:
            logger.exception("message %s: what it leads to could not be committed", received.id)
            await self._commit_less(received, decision, error)

    async def _commit_less(self, received: Received, decision: Decision, error: Exception) -> None:
        # Nothing was committed, and it must not come up again for ever. What is only published is left out first;
        # if that was not it, whoever asked is told.
        if decision.events:
            rest = replace(decision, events=[], state="dead", reason="it could not be published")
            try:
                await self._commit(received, rest, Crossing())
            except StoreUnavailable:
                raise
            except Exception as again:
                logger.exception("message %s: nor could it be without its events", received.id)
                error = again
            else:
                return
        await self._commit(received, _apology(received.event, error), Crossing())

    def _crossing(self, received: Received, decision: Decision) -> Crossing:
        event = received.event
        if not isinstance(event, Message) or (event.addressed and not decision.carried):
            return Crossing()
        bot = event.sender.is_bot or event.automatic
        return self._bridges().cross(place_of(event.route), now(), bot=bot)

    def _published(self, received: Received, crossing: Crossing) -> list[Published]:
        event = received.event
        if isinstance(event, Notice):
            return [of_notice(received.id, event)]
        # By far the most of what is said no route wants: that is known before an event is made of it.
        if isinstance(event, Message) and (
            crossing.rooms or self._bus.may_take(message_topic(event.account))
        ):
            said = of_message(received.id, event)
            return [said] if crossing.rooms or self._bus.takes(said) else []
        return []

    # -- deciding: reads only

    async def _decide(self, received: Received) -> Decision:
        event = received.event
        if isinstance(event, Edit):
            return Decision.silent("an edit changes nothing that was asked")
        if isinstance(event, Notice):
            return Decision.silent("published")
        if isinstance(event, Message) and not event.addressed:
            return Decision.silent("said to others in the room")
        if isinstance(event, Message) and await self._is_carried(received, event):
            return Decision(reason="said to others in the room", carried=True)
        if isinstance(event, Message) and event.automatic:
            return Decision.silent("automatic mail is never answered")
        if event.sender.is_bot:
            return Decision.silent("another bot is never answered")
        speaker = await self._speaker(received)
        if speaker is None:
            return await self._stranger(received)
        age = now() - event.sent_at
        old = age > timedelta(seconds=self._limits().message_age) and not received.replayed
        if old or received.expires_at < now():
            text, reason = sentence("too-late", speaker.language, age=_spoken(age)), "it came too late"
            return Decision.answer(text, state="expired", reason=reason)
        if hurried := self._said_too_fast(received, speaker):
            return hurried
        writes = _writes_mail(received)
        if writes and await self._is_loop(received, speaker, writes):
            return Decision.silent("mail that comes again and again is not answered")
        decision = await self._unless_frozen(await self._understand(received, speaker), speaker)
        if writes and decision.reason == MISTAKEN and self._mail_loops.not_understood(writes):
            return Decision.silent("mail that is not understood is answered a few times an hour")
        if speaker.moved:
            decision.changes.append(partial(_reached_at, event=event))
        if isinstance(event, Message) and event.left_out:
            decision.replies.append(_without(event.left_out, speaker.language))
        return decision

    async def _is_loop(self, received: Received, speaker: Speaker, writes: str) -> bool:
        text = _text_of(received.event) if isinstance(received.event, Message) else ""
        # What is said to a question of ours may well be the same as to the one before.
        awaited = await self._dialogue.awaits(received, speaker)
        return self._mail_loops.is_one(writes, text, awaited=awaited)

    def _said_too_fast(self, received: Received, speaker: Speaker) -> Decision | None:
        if received.principal_id or received.replayed:
            return None  # what programs send is bounded where it comes in
        too_fast = self._pacer.said(
            speaker.principal.id, place_of(received.event.route), urgent=self.urgent(received)
        )
        return _too_fast(too_fast, speaker.language) if too_fast else None

    async def _unless_frozen(self, decision: Decision, speaker: Speaker) -> Decision:
        new = decision.request
        if new is None or new.state == "refused" or new.spec.effect is Effect.READ:
            return decision
        frozen = await self._store.read(lambda conn: self._desk.frozen(conn, new.spec, speaker.language))
        if frozen is None:
            return decision
        refused = replace(new, state="refused", reason=frozen.kept, asking=None)
        return Decision(replies=[Reply(text=frozen.told)], request=refused)

    async def _is_carried(self, received: Received, event: Message) -> bool:
        """Whether this belongs to a thread that a bridge carries: then only commands and answers are meant for us."""
        if not event.route.thread or place_of(event.route) not in self._bridges():
            return False
        if parse_command(_text_of(event)) is not None:
            return False
        if not await self._store.read(lambda conn: in_carried_thread(conn, event.route)):
            return False
        speaker = await self._speaker(received)
        return speaker is None or not await self._dialogue.awaits(received, speaker)

    async def _speaker(self, received: Received) -> Speaker | None:
        event = received.event
        said = _language_said(event.text) if isinstance(event, Message) else None

        async def find(conn: AsyncConnection) -> principals.Link | None:
            if received.principal_id:
                logged_in = await principals.get(conn, received.principal_id)
                return principals.Link(principal=logged_in, verified=True)
            return await principals.find_by_identity(conn, event.account, event.sender.id)

        link = await self._store.read(find)
        if link is None or not link.principal.enabled:
            return None
        spoken: Language = "zh" if (said or link.principal.language or self._language()) == "zh" else "en"
        alone = event.route.kind is ConversationKind.DIRECT and received.principal_id is None
        return Speaker(
            link.principal,
            link.assurance(event.sender.assurance),
            spoken,
            place_of(event.route),
            moved=alone and link.direct != event.route.conversation,
        )

    async def _stranger(self, received: Received) -> Decision:
        return await self._from_stranger(received, await self._polite(received))

    async def _polite(self, received: Received) -> Decision:
        # One polite line a day at the most, so that an address cannot be made to talk.
        sender = received.event.sender.id
        since = now() - timedelta(days=1)
        table = schema.message
        query = sa.select(sa.func.count()).where(
            table.c.account == received.event.account,
            table.c.sender_id == sender,
            table.c.received_at > since,
            table.c.state == "handled",
            # Written out: SQLite takes an index of these rows only for a condition that is the same word by word.
            sa.text(f"reason = '{STRANGER}'"),
        )
        told = await self._store.read(lambda conn: _scalar(conn, query))
        if told or not self._tell(received.event.account, sender):
            return Decision.silent("unknown sender, told today")
        text = received.event.text if isinstance(received.event, Message) else ""
        return Decision.answer(sentence("unknown-sender", language_of(text), id=sender), reason=STRANGER)

    def _tell(self, account: str, sender: str) -> bool:
        # Messages of one sender in several threads are handled side by side, before any of them is committed.
        told = self._telling.get((account, sender))
        if told is not None and now() - told < timedelta(days=1):
            return False
        self._telling[account, sender] = now()
        if len(self._telling) > MOST_STRANGERS:
            self._telling.popitem(last=False)
        return True

    async def _understand(self, received: Received, speaker: Speaker) -> Decision:
        event = received.event
        text = event.value if isinstance(event, Action) else _text_of(event)
        if len(text) > MOST_UNDERSTOOD:
            return Decision.answer(
                sentence("too-long-text", speaker.language, length=len(text), most=MOST_UNDERSTOOD),
                reason=MISTAKEN,
            )
        command = parse_command(text)
        if command is None:
            answered = await self._dialogue.answer(received, speaker, text)
            if answered is not None:
                return answered
            if not text.strip():
                return Decision.answer(sentence("empty", speaker.language), reason=MISTAKEN)
            return self._plain(received, speaker, text)
        if self._builtins.has(command.name):
            return await self._builtins.run(command, received, speaker)
        spec = self._catalogue().find(command.name)
        if spec is None:
            raise unknown_command(command.name, self._offered.to(speaker).names, speaker.language)
        return self._command(received, speaker, spec, command)

    def _command(
        self, received: Received, speaker: Speaker, spec: AutomationSpec, command: Command
    ) -> Decision:
        decision = self._allowed(speaker, spec, Origin.COMMAND)
        if not decision.allowed:
            return self._refused(received, speaker, spec, {}, Origin.COMMAND, decision.reason)
        bound = bind(command, spec, speaker.language)
        return self.ask_or_queue(received, speaker, spec, bound.values, Origin.COMMAND)

    def _plain(self, received: Received, speaker: Speaker, text: str) -> Decision:
        understood = self._understander().understand(text, self._offered.to(speaker))
        if understood.sure is None:
            if not understood.nearest:
                return Decision.answer(sentence("not-understood", speaker.language), reason=MISTAKEN)
            return Decision(replies=[offer_text(understood.nearest, speaker.language)])
        sure = understood.sure
        return self.ask_or_queue(received, speaker, sure.spec, dict(sure.values), Origin.LANGUAGE)

    def _allowed(
        self,
        speaker: Speaker,
        spec: AutomationSpec,
        origin: Origin,
        values: Mapping[str, Any] | None = None,
    ) -> Allowed:
        return self._rights.allows(
            speaker.principal,
            spec.effect,
            spec.command,
            origin,
            speaker.assurance,
            speaker.language,
            values=None if values is None else meant(spec, values, whole=False),
            place=speaker.place,
            approvals=True,
        )

    def ask_or_queue(
        self,
        received: Received,
        speaker: Speaker,
        spec: AutomationSpec,
        values: dict[str, Any],
        origin: Origin,
    ) -> Decision:
        """A request for these values: asked about what is missing, confirmed where it must be, else queued."""
        allowed = self._allowed(speaker, spec, origin, values)
        if not allowed.allowed:
            return self._refused(received, speaker, spec, values, origin, allowed.reason)
        if too_fast := self._pacer.asked(spec.command, speaker.principal.id):
            return _too_fast(too_fast, speaker.language)
        missing = next((p for p in spec.parameters if p.required and p.name not in values), None)
        if missing is not None:
            asking = {"kind": "parameter", "parameter": missing.name, "confirm": allowed.confirm}
            request = self._request(received, speaker, spec, values, origin, "needs-input", asking=asking)
            return Decision(replies=[ask_parameter(missing, spec, speaker.language)], request=request)
        if allowed.confirm:
            request = self._request(
                received, speaker, spec, values, origin, "awaiting-approval", asking={"kind": "confirm"}
            )
            return Decision(
                replies=[confirm_reply(spec, values, request.id, speaker.language)], request=request
            )
        terms = self._desk.terms(spec, values)
        if terms is not None:
            return self._approved_first(received, speaker, spec, values, origin, terms)
        return Decision(request=self._request(received, speaker, spec, values, origin, "queued"))

    def _approved_first(
        self,
        received: Received,
        speaker: Speaker,
        spec: AutomationSpec,
        values: dict[str, Any],
        origin: Origin,
        terms: Terms,
    ) -> Decision:
        asking = {"kind": approvals.KIND}
        request = self._request(received, speaker, spec, values, origin, "awaiting-approval", asking=asking)
        decision = Decision(request=request)

        async def ask(conn: AsyncConnection) -> list[QueuedRun]:
            await approval_asking.ask(
                conn,
                self._desk,
                decision,
                request_id=request.id,
                spec=spec,
                values=values,
                terms=terms,
                received=received,
                speaker=speaker,
            )
            return []

        decision.changes.append(ask)
        return decision

    def _refused(
        self,
        received: Received,
        speaker: Speaker,
        spec: AutomationSpec,
        values: dict[str, Any],
        origin: Origin,
        reason: str,
    ) -> Decision:
        request = self._request(received, speaker, spec, values, origin, "refused", reason=reason)
        return Decision(replies=[Reply(text=reason)], request=request)

    def _request(
        self,
        received: Received,
        speaker: Speaker,
        spec: AutomationSpec,
        values: dict[str, Any],
        origin: Origin,
        state: str,
        *,
        asking: dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> NewRequest:
        return NewRequest(
            spec=spec,
            values=values,
            origin=origin,
            actor_id=speaker.principal.id,
            state=state,
            lane=spec.lane or Lane.PEOPLE,
            route=received.event.route,
            message_id=received.id,
            conversation_id=received.conversation_id,
            asking=asking,
            reason=reason,
            expires_at=now()
            + timedelta(seconds=self._limits().ask_age if asking else self._limits().message_age),
        )

    # -- committing: everything or nothing

    async def _commit(self, received: Received, decision: Decision, crossing: Crossing) -> None:
        said = received.event
        origin = BusOrigin(
            message_id=received.id,
            conversation_id=received.conversation_id,
            said=said if isinstance(said, Message) else None,
            rooms=crossing.rooms,
        )

        async def transaction(conn: AsyncConnection) -> tuple[list[Delivery], list[QueuedRun]] | None:
            if not await _mark_handled(conn, received.id, decision):
                return None
            if decision.state in ("dead", "expired"):
                await _record(conn, received, decision)
            queued: list[QueuedRun] = []
            if decision.request:
                queued += await self._insert(conn, decision.request)
            for change in decision.changes:
                queued += await change(conn)
            source = f"message:{received.id}"
            # What was said the first time stays: what is said now comes behind it.
            first = await last_ordinal(conn, source) + 1 if received.replayed else 0
            replies = [reply for reply in decision.replies if not reply.is_empty()]
            written = await self._outbox.write(
                conn, source, replies, received.event.route, message_id=received.id, first=first
            )
            for event in decision.events:
                keep = isinstance(received.event, Notice)
                outcome = await self._bus.publish(conn, event, origin, keep=keep)
                written += outcome.deliveries
                queued += outcome.queued
            if isinstance(said, Edit):
                written += await self._bus.change(conn, received.id, said)
            for name in crossing.stopped:
                written += await self._bridge_stopped(conn, name)
            return written, queued

        failpoint("request.decided")
        committed = await self._store.write(transaction)
        if committed is None:
            return  # it was handled before, so nothing of this decision counts
        failpoint("request.stored")
        deliveries, queued = committed
        self._outbox.send(deliveries)
        for one in queued:
            self._dispatcher.add(one)
        if not queued:  # else nothing is final yet: whoever waits is woken at the end
            self._watch.notify(received.id)
        self._measure(received, decision)
        for act in decision.afterwards:
            await act()

    def _measure(self, received: Received, decision: Decision) -> None:
        asked = decision.request
        if asked is not None:
            self._metrics.way.reached("understood", _since(received.stored_at), asked.spec.command)
            if asked.state == "refused":
                self._metrics.refusal("denied")
        elif decision.replies or decision.changes:
            self._metrics.way.reached("understood", _since(received.stored_at))
        if decision.reason == STRANGER:
            self._metrics.refusal("unknown-sender")

    async def _insert(self, conn: AsyncConnection, new: NewRequest) -> list[QueuedRun]:
        if new.asking is not None and new.asking["kind"] != approvals.KIND:
            await self._drop_older_questions(conn, new)
        request_id = await insert_request(conn, self._keyring, new)
        actor = (await principals.get(conn, new.actor_id)).name if new.actor_id else "-"
        if new.spec.effect is not Effect.READ or new.state == "refused":
            await self._audit_intent(conn, new, request_id, actor)
        if new.state != "queued":
            return []
        return [await queue(conn, request_id, new, actor)]

    async def _audit_intent(
        self, conn: AsyncConnection, new: NewRequest, request_id: str, actor: str
    ) -> None:
        await self._audit.append(
            conn,
            action=f"run:{new.spec.command}",
            phase=Phase.OUTCOME if new.state == "refused" else Phase.INTENT,
            actor=actor,
            subject=f"request:{request_id}",
            details={"state": new.state, "origin": new.origin, "version": new.spec.version},
        )

    async def _drop_older_questions(self, conn: AsyncConnection, new: NewRequest) -> None:
        # One open question a person and thread: a new command replaces what was being asked before.
        table = schema.request
        query = sa.select(table.c.id, table.c.automation).where(
            table.c.conversation_id == new.conversation_id,
            table.c.actor_id == new.actor_id,
            table.c.state.in_(("needs-input", "awaiting-approval")),
            table.c.asking["kind"].as_string() != approvals.KIND,
        )
        reason = "replaced by a newer request"
        for row in (await conn.execute(query)).all():
            await update_request(conn, row.id, state="cancelled", reason=reason, asking=None)
            spec = self._catalogue().find(row.automation)
            if spec is None or spec.effect is not Effect.READ:
                await self._audit.append(
                    conn,
                    action=f"run:{row.automation}",
                    phase=Phase.OUTCOME,
                    actor=await principal_name(conn, new.actor_id),
                    subject=f"request:{row.id}",
                    details={"state": "cancelled"},
                )


async def _reached_at(conn: AsyncConnection, *, event: Event) -> list[QueuedRun]:
    await principals.reached_at(conn, event.account, event.sender.id, event.route.conversation)
    return []


async def queue(conn: AsyncConnection, request_id: str, new: NewRequest, actor: str) -> QueuedRun:
    """A run for a request that is queued."""
    return QueuedRun(
        run_id=await insert_run(conn, request_id),
        request_id=request_id,
        message_id=new.message_id,
        automation=new.spec.command,
        values=new.values,
        actor=actor,
        lane=new.lane,
    )


async def _mark_handled(conn: AsyncConnection, message_id: str, decision: Decision) -> bool:
    values = {"state": decision.state, "reason": decision.reason, "handled_at": now()}
    done = await conn.execute(_MARK_HANDLED, values | {"the_message": message_id})
    return bool(done.rowcount)


def _language_said(text: str) -> Language | None:
    """The language that a text is in; None where that does not show: a command or one word is alike in all."""
    if language_of(text) == "zh":
        return "zh"
    return "en" if len(text.split()) > 1 and parse_command(text) is None else None


def _apology(event: Event, error: Exception) -> Decision:
    reason = f"it could not be handled ({type(error).__name__}); the hub's log says more"
    if isinstance(event, Notice) or (isinstance(event, Message) and not event.addressed):
        return Decision(state="dead", reason=reason)  # nobody asked, so nobody is told
    text = "Something went wrong on our side; the operator's log says what."
    return Decision.answer(text, state="dead", reason=reason)


def _too_fast(one: TooFast, language: Language) -> Decision:
    if one.told:
        return Decision.silent("too fast, and told so")
    return Decision.answer(sentence("too-fast", language, wait=one.spoken), reason=MISTAKEN)


async def _record(conn: AsyncConnection, received: Received, decision: Decision) -> None:
    await dead_letters.record(
        conn,
        "message" if decision.state == "dead" else "expired",
        f"message:{received.id}",
        decision.reason or decision.state,
        account=received.event.account,
        actor_id=received.principal_id,
    )


def _writes_mail(received: Received) -> str:
    """Who wrote this mail, which is no command; nothing for everything else."""
    event = received.event
    if event.route.kind is not ConversationKind.MAIL or received.principal_id or received.replayed:
        return ""
    if not isinstance(event, Message) or command_name(_text_of(event)[:MOST_NAME]) is not None:
        return ""
    return f"{event.account}:{event.sender.id}"


def _text_of(event: Message | Edit | Notice) -> str:
    if not isinstance(event, Message):
        return ""
    return event.text or (event.subject if event.subject.startswith(("/", "／")) else "")


def _without(left_out: tuple[str, ...], language: Language) -> Reply:
    names = (f"- `{visible(name, 200)}`" for name in left_out)
    return Reply(text="\n".join([phrase("left-out", language), *names]))


def _since(moment: datetime) -> float:
    return (now() - moment).total_seconds()


def _spoken(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} h" if hours < 48 else f"{age.days} d"


async def _scalar(conn: AsyncConnection, query: Any) -> Any:
    return (await conn.execute(query)).scalar()


__all__ = ["Reception", "queue"]
