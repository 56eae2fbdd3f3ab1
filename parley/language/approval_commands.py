"""`/approve`, `/refuse`, `/approvals` and `/delegate`: who lets what run, from whichever platform.

/approve K7QX
/refuse K7QX not before the backup is done
/approvals
/delegate
/delegate bob 8h
/delegate revoke bob
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied
from parley.language.characters import Language
from parley.language.decision import Decision, Speaker
from parley.language.grammar import Command
from parley.messages.inbox import Received
from parley.messages.model import Assurance, Message, Reply, Table, now
from parley.people import delegations, principals
from parley.people.audit import Audit
from parley.people.principals import Principal, PrincipalKind
from parley.runs.approval_texts import clock
from parley.runs.approving import ApprovalDesk, Voter
from parley.runs.open_approvals import OpenApproval, OpenApprovals
from parley.runs.requests import QueuedRun
from parley.store.engine import Store

LONGEST: Final = timedelta(days=30)
"""A delegation ends by itself, so that none is forgotten."""

_SPAN: Final = re.compile(r"(\d{1,4})\s*(m|min|h|d)", re.ASCII)
_UNITS: Final[Mapping[str, timedelta]] = {
    "m": timedelta(minutes=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_COLUMNS: Final[Mapping[Language, tuple[str, ...]]] = {
    "en": ("code", "who", "what", "approved by", "until", "for you"),
    "zh": ("代码", "请求者", "内容", "已批准", "截止", "待您处理"),
}
_LENT: Final[Mapping[Language, tuple[str, ...]]] = {
    "en": ("who", "approves in the place of", "until"),
    "zh": ("被委托人", "委托人", "截止"),
}

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "which": (
        "Write which one: `/{name} CODE`. `/approvals` lists what waits.",
        "请写明是哪一个：`/{name} 代码`。`/approvals` 会列出待批准的请求。",
    ),
    "none": (
        "Nothing waits for your approval, or for somebody's to what you asked.",
        "没有待您批准的请求，您的请求也都不在等待批准。",
    ),
    "yes": ("yes", "是"),
    "asked": ("no, yours", "否，您的请求"),
    "no-delegations": ("Nobody approves in another's place.", "目前没有委托。"),
    "usage": (
        "Write `/delegate`, `/delegate NAME 8h` or `/delegate revoke NAME`; at most 30d.",
        "请写 `/delegate`、`/delegate 名称 8h` 或 `/delegate revoke 名称`，最长 30d。",
    ),
    "unproven": (
        "This is done only where the platform vouches for who is writing, and never in somebody else's name.",
        "只能在能够证明身份的渠道中、以本人名义进行。",
    ),
    "no-right": (
        "You may not approve anything, so there is nothing to lend.",
        "您没有批准权，因此无法委托。",
    ),
    "nobody": ("There is no person {name} here.", "这里没有名为 {name} 的人。"),
    "able": (
        "{name} may approve without you; nobody has two voices.",
        "{name} 本来就可以批准，一人不能有两票。",
    ),
    "lent": (
        (
            "{name} may approve in your place until {until}, never what {name} or you ask for. "
            "`/delegate revoke {name}` ends it."
        ),
        "{name} 可代您批准至 {until}，但不能批准自己或您提出的请求。`/delegate revoke {name}` 可撤销。",
    ),
    "taken-back": ("{name} no longer approves in your place.", "{name} 不再代您批准。"),
    "not-lent": ("{name} does not approve in your place.", "{name} 并未代您批准。"),
}


class ApprovalCommands:
    """The built-in commands that approve."""

    def __init__(
        self,
        store: Store,
        audit: Audit,
        desk: ApprovalDesk,
        waiting: OpenApprovals,
    ) -> None:
        self._store = store
        self._audit = audit
        self._desk = desk
        self._waiting = waiting

    async def approve(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """Say yes to what has this code."""
        return self._vote(command, received, speaker, granted=True)

    async def refuse(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """Say no, with the words behind the code as the reason."""
        return self._vote(command, received, speaker, granted=False)

    def _vote(self, command: Command, received: Received, speaker: Speaker, *, granted: bool) -> Decision:
        if not command.positional:
            raise BadArguments(_text("which", speaker.language, name=command.name))
        code, *words = command.positional
        voter = Voter(
            principal=speaker.principal,
            assurance=speaker.assurance,
            language=speaker.language,
            place=speaker.place,
            typed=isinstance(received.event, Message),
            acting=received.acting_for_id is not None,
        )
        decision = Decision()

        async def vote(conn: AsyncConnection) -> list[QueuedRun]:
            said = await self._desk.vote(conn, code, voter, granted=granted, reason=" ".join(words))
            decision.replies[:] = [Reply(text=said.text)] if said.text else []
            return said.queued

        decision.changes.append(vote)
        return decision

    async def approvals(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """What waits for the speaker, and what the speaker asked for."""
        found = await self._store.read(
            lambda conn: self._waiting.of(conn, speaker.principal, speaker.language)
        )
        if speaker.assurance is not Assurance.VERIFIED:
            found = []  # what others ask for is shown to whom it concerns, and nobody knows whether this is one
        if not found:
            return Decision.answer(_text("none", speaker.language))
        rows = tuple(self._row(one, speaker) for one in found)
        return Decision(replies=[Reply(table=Table(columns=_COLUMNS[speaker.language], rows=rows))])

    def _row(self, one: OpenApproval, speaker: Speaker) -> tuple[str, ...]:
        language = speaker.language
        return (
            one.code,
            one.actor,
            one.what,
            ", ".join(one.approved_by) + f" ({len(one.approved_by)}/{one.needed})",
            clock(one.expires_at, self._desk.time_zone(speaker.principal.time_zone)),
            _text("yes" if one.may else "asked", language),
        )

    async def delegate(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """Let somebody approve in the speaker's place, or no longer. Raises `CommandError` or `PolicyError`."""
        if command.positional and (
            speaker.assurance is not Assurance.VERIFIED or received.acting_for_id is not None
        ):
            raise Denied(_text("unproven", speaker.language))
        match command.positional:
            case ():
                return await self._lent(speaker)
            case ("revoke" | "end", name):
                return await self._take_back(name, speaker)
            case (name, span):
                return await self._lend(name, span, speaker)
        raise BadArguments(_text("usage", speaker.language))

    async def _lent(self, speaker: Speaker) -> Decision:
        found = await self._store.read(delegations.in_force)
        sees_all = speaker.principal.role in ("owner", "auditor") and speaker.assurance is Assurance.VERIFIED
        mine = [one for one in found if sees_all or speaker.principal.id in (one.from_id, one.to_id)]
        if not mine:
            return Decision.answer(_text("no-delegations", speaker.language))
        zone = self._desk.time_zone(speaker.principal.time_zone)
        rows = tuple((one.taker, one.giver, clock(one.expires_at, zone)) for one in mine)
        return Decision(replies=[Reply(table=Table(columns=_LENT[speaker.language], rows=rows))])

    async def _lend(self, name: str, span: str, speaker: Speaker) -> Decision:
        language, giver = speaker.language, speaker.principal
        found = _SPAN.fullmatch(span.strip())
        length = _UNITS[found[2]] * int(found[1]) if found else timedelta(0)
        if not timedelta(0) < length <= LONGEST:
            raise BadArguments(_text("usage", language))
        taker = await self._person(name, language)
        until = now() + length
        shown = clock(until, self._desk.time_zone(giver.time_zone))
        decision = Decision()

        async def lend(conn: AsyncConnection) -> list[QueuedRun]:
            # Looked at within the write: rights may change while two such commands are handled.
            approvers = self._desk.approvers
            key = "lent"
            if not await approvers.has_a_right(conn, giver.id):
                key = "no-right"
            elif taker.id == giver.id or await approvers.has_a_right(conn, taker.id):
                key = "able"
            else:
                given = await delegations.give(conn, giver.id, taker.id, until)
                await self._note(conn, "delegate", given, speaker, taker, until=f"{until:%Y-%m-%dT%H:%MZ}")
            decision.replies[:] = [Reply(text=_text(key, language, name=taker.name, until=shown))]
            return []

        decision.changes.append(lend)
        return decision

    async def _take_back(self, name: str, speaker: Speaker) -> Decision:
        giver, taker = speaker.principal, await self._person(name, speaker.language)
        decision = Decision()

        async def take_back(conn: AsyncConnection) -> list[QueuedRun]:
            ended = await delegations.end(conn, giver.id, taker.id)
            if ended:
                await self._note(conn, "delegation-revoked", f"{giver.id}:{taker.id}", speaker, taker)
            key = "taken-back" if ended else "not-lent"
            decision.replies[:] = [Reply(text=_text(key, speaker.language, name=taker.name))]
            return []

        decision.changes.append(take_back)
        return decision

    async def _person(self, name: str, language: Language) -> Principal:
        found = [one for one in await self._store.read(principals.list_principals) if one.name == name]
        if not found or found[0].kind is not PrincipalKind.PERSON or not found[0].enabled:
            raise BadArguments(_text("nobody", language, name=name[:64]))
        return found[0]

    async def _note(
        self,
        conn: AsyncConnection,
        action: str,
        subject: str,
        speaker: Speaker,
        taker: Principal,
        **details: str,
    ) -> None:
        await self._audit.record(
            conn,
            action=action,
            actor=speaker.principal.name,
            subject=f"delegation:{subject}",
            details={"to": taker.name, **details},
        )


def _text(key: str, language: str, **values: object) -> str:
    return _TEXTS[key][language == "zh"].format(**values)


__all__ = ["ApprovalCommands"]
