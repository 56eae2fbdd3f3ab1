"""`/lock` and `/unlock`: nothing of these names that changes something is started until it is unlocked.

/lock
/lock repair the storage is being moved for 2h
/lock all release day
/unlock repair
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied
from parley.language.characters import Language, visible
from parley.language.decision import Decision, Speaker
from parley.language.grammar import Command
from parley.messages.inbox import Received
from parley.messages.model import Assurance, Reply, Table, now
from parley.people import freezes
from parley.people.audit import Audit
from parley.people.freezes import ALL, LONGEST_REASON, Freeze
from parley.people.principals import Role
from parley.people.rights import Origin, Rights
from parley.people.sealing import Keyring
from parley.runs.approval_texts import clock, names
from parley.runs.catalogue import AutomationSpec, Catalogue, Effect
from parley.runs.requests import QueuedRun
from parley.store.engine import Store

LONGEST: Final = timedelta(days=30)

MOST: Final = 50
"""Freezes that are in force at once."""

_GLOB: Final = re.compile(r"[a-z0-9*?_\[\]!-]{1,64}")
_SPAN: Final = re.compile(r"(\d{1,4})\s*(m|min|h|d)", re.ASCII)
_UNITS: Final[Mapping[str, timedelta]] = {
    "m": timedelta(minutes=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_EVERYTHING: Final = frozenset({"all", "全部", ALL})

_COLUMNS: Final[Mapping[Language, tuple[str, ...]]] = {
    "en": ("locked", "by", "until", "why"),
    "zh": ("已锁定", "操作者", "截止", "原因"),
}

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "none": ("Nothing is locked.", "目前没有锁定任何操作。"),
    "none-of-yours": (
        "Nothing is locked that you may run or approve.",
        "您可以运行或批准的操作均未被锁定。",
    ),
    "unproven-list": (
        "I tell what is locked only where the platform vouches for who is writing.",
        "只有在能够证明身份的渠道中，我才会列出已锁定的操作。",
    ),
    "usage": (
        "Write `/lock NAME why`, `/lock all why for 2h` or `/unlock NAME`; `repair*` stands for many, at most 30d.",
        "请写 `/lock 名称 原因`、`/lock all 原因 for 2h` 或 `/unlock 名称`；`repair*` 可匹配多个，最长 30d。",
    ),
    "unproven": (
        "Locks count only where the platform vouches for who is writing, and never in somebody else's name.",
        "只能在能够证明身份的渠道中、以本人名义锁定或解锁。",
    ),
    "may-not": (
        "You may lock what you may run or approve, and nothing else: `{name}` is not all yours.",
        "您只能锁定自己可以运行或批准的操作，`{name}` 不在此范围内。",
    ),
    "unknown": (
        "No command that changes something is called `{name}`: nothing would be locked.",
        "没有名为 `{name}` 的、会做出更改的命令，锁定不会有任何作用。",
    ),
    "too-many": (
        "{most} locks are in force already: end one first.",
        "已有 {most} 个锁定，请先解除其中一个。",
    ),
    "locked": (
        "Locked: {what}. Nothing of it is started until `/unlock {name}`.",
        "已锁定：{what}。在 `/unlock {name}` 之前不会启动。",
    ),
    "locked-until": (
        "Locked until {until}: {what}. Nothing of it is started before that, or `/unlock {name}`.",
        "已锁定至 {until}：{what}。在此之前、且未执行 `/unlock {name}` 时不会启动。",
    ),
    "unlocked": ("Unlocked: `{name}`.", "已解锁：`{name}`。"),
    "not-locked": (
        "`{name}` is not locked; `/lock` lists what is.",
        "`{name}` 未被锁定；`/lock` 会列出已锁定的操作。",
    ),
    "not-yours": (
        "`{name}` was locked by {by}: only they or an owner unlock it.",
        "`{name}` 由 {by} 锁定，只有本人或所有者可以解锁。",
    ),
    "forever": ("unlocked", "解锁为止"),
}


class FreezeCommands:
    """The built-in `/lock` and `/unlock`."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        audit: Audit,
        rights: Rights,
        *,
        catalogue: Callable[[], Catalogue],
        time_zone: Callable[[str | None], str],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._audit = audit
        self._rights = rights
        self._catalogue = catalogue
        self._time_zone = time_zone

    async def lock(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """Lock, or list what is locked of what the speaker may run or approve. Raises `CommandError`."""
        if not command.positional:
            return await self._list(speaker)
        _refuse_unproven(received, speaker)
        language = speaker.language
        name, *words = command.positional
        glob = _glob(name, language)
        length, words = _span(words, command.named, language)
        reason = " ".join(words).strip()
        if not reason or len(reason) > LONGEST_REASON:
            raise BadArguments(_text("usage", language))
        meant = self._meant(glob)
        if not meant and glob != ALL:
            raise BadArguments(_text("unknown", language, name=visible(glob)))
        if not self._may(speaker, meant, everything=glob == ALL):
            raise Denied(_text("may-not", language, name=visible(glob)))
        return self._locking(speaker, glob, visible(reason, LONGEST_REASON), length, meant)

    def _locking(
        self,
        speaker: Speaker,
        glob: str,
        reason: str,
        length: timedelta | None,
        meant: Sequence[AutomationSpec],
    ) -> Decision:
        language = speaker.language
        until = now() + length if length else None
        decision = Decision()

        async def lock(conn: AsyncConnection) -> list[QueuedRun]:
            if len(await freezes.in_force(conn, self._keyring)) >= MOST:
                decision.replies[:] = [Reply(text=_text("too-many", language, most=MOST))]
                return []
            made = await freezes.begin(conn, self._keyring, glob, reason, speaker.principal.id, until)
            shown = f"{until:%Y-%m-%dT%H:%MZ}" if until else ""
            await self._note(conn, "lock", made, speaker, glob, until=shown)
            what = names((f"`/{spec.command}`" for spec in meant), language) or "`*`"
            text = _text(
                "locked-until" if until else "locked",
                language,
                what=what,
                name=_shown(glob),
                until=self._clock(until, speaker),
            )
            decision.replies[:] = [Reply(text=text)]
            return []

        decision.changes.append(lock)
        return decision

    async def unlock(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """End what was locked under this name. Raises `CommandError`."""
        if not command.positional:
            return await self._list(speaker)
        _refuse_unproven(received, speaker)
        glob, language = _glob(command.positional[0], speaker.language), speaker.language
        decision = Decision()

        async def unlock(conn: AsyncConnection) -> list[QueuedRun]:
            found = [one for one in await freezes.in_force(conn, self._keyring) if one.automations == glob]
            mine = [one for one in found if _may_end(one, speaker)]
            for one in mine:
                if await freezes.end(conn, one.id, speaker.principal.id):
                    await self._note(conn, "unlock", one.id, speaker, glob)
            key = "unlocked" if found and len(mine) == len(found) else "not-yours" if found else "not-locked"
            others = ", ".join(one.by for one in found if one not in mine)
            decision.replies[:] = [Reply(text=_text(key, language, name=_shown(glob), by=others))]
            return []

        decision.changes.append(unlock)
        return decision

    async def _list(self, speaker: Speaker) -> Decision:
        # The reason is told to those whom the lock concerns.
        if speaker.assurance is not Assurance.VERIFIED:
            raise Denied(_text("unproven-list", speaker.language))
        every = await self._store.read(lambda conn: freezes.in_force(conn, self._keyring))
        found = [one for one in every if self._concerns(one, speaker)]
        if not found:
            return Decision.answer(_text("none-of-yours" if every else "none", speaker.language))
        rows = tuple(
            (_shown(one.automations), one.by, self._clock(one.expires_at, speaker), one.reason)
            for one in found
        )
        return Decision(replies=[Reply(table=Table(columns=_COLUMNS[speaker.language], rows=rows))])

    def _concerns(self, one: Freeze, speaker: Speaker) -> bool:
        return _may_end(one, speaker) or any(
            self._holds(speaker, spec) for spec in self._meant(one.automations)
        )

    def _clock(self, until: datetime | None, speaker: Speaker) -> str:
        if until is None:
            return _text("forever", speaker.language)
        return clock(until, self._time_zone(speaker.principal.time_zone))

    def _meant(self, glob: str) -> list[AutomationSpec]:
        return [
            spec
            for spec in self._catalogue()
            if spec.effect is not Effect.READ
            and (fnmatchcase(spec.command, glob) or fnmatchcase(spec.name, glob))
        ]

    def _may(self, speaker: Speaker, meant: Sequence[AutomationSpec], *, everything: bool) -> bool:
        who = speaker.principal
        if who.role is Role.OWNER:
            return True
        if everything and (who.role is not Role.OPERATOR or who.automations):
            return False  # it holds for what will be there later, too
        return all(self._holds(speaker, spec) for spec in meant)

    def _holds(self, speaker: Speaker, spec: AutomationSpec) -> bool:
        allowed = self._rights.allows(
            speaker.principal,
            spec.effect,
            spec.command,
            Origin.COMMAND,
            speaker.assurance,
            speaker.language,
            place=speaker.place,
            approvals=True,
        )
        approves = self._rights.may_approve(speaker.principal, spec.command, place=speaker.place)
        return allowed.allowed or approves

    async def _note(
        self, conn: AsyncConnection, action: str, subject: str, speaker: Speaker, glob: str, **details: str
    ) -> None:
        await self._audit.record(
            conn,
            action=action,
            actor=speaker.principal.name,
            subject=f"freeze:{subject}",
            details={"automations": glob, **details},
        )


def _refuse_unproven(received: Received, speaker: Speaker) -> None:
    if speaker.assurance is not Assurance.VERIFIED or received.acting_for_id is not None:
        raise Denied(_text("unproven", speaker.language))


def _may_end(one: Freeze, speaker: Speaker) -> bool:
    return speaker.principal.role is Role.OWNER or one.by_id == speaker.principal.id


def _glob(name: str, language: Language) -> str:
    glob = name.strip("`").lstrip("/").lower()
    if glob in _EVERYTHING:
        return ALL
    if not _GLOB.fullmatch(glob):
        raise BadArguments(_text("usage", language))
    return glob


def _shown(glob: str) -> str:
    return "all" if glob == ALL else glob


def _span(
    words: Sequence[str], named: Mapping[str, str], language: Language
) -> tuple[timedelta | None, list[str]]:
    """How long, where that was said, and the words that are left."""
    text, left = named.get("for", ""), list(words)
    if not text and len(left) > 1 and left[-2].lower() == "for" and _SPAN.fullmatch(left[-1]):
        text, left = left[-1], left[:-2]
    if not text:
        return None, left
    found = _SPAN.fullmatch(text.strip())
    length = _UNITS[found[2]] * int(found[1]) if found else timedelta(0)
    if not timedelta(0) < length <= LONGEST:
        raise BadArguments(_text("usage", language))
    return length, left


def _text(key: str, language: str, **values: object) -> str:
    return _TEXTS[key][language == "zh"].format(**values)


__all__ = ["FreezeCommands"]
