"""`/dlq`: what ended without having been carried out or delivered, listed, shown, done again and closed in the chat.

/dlq list
/dlq show 1a2b3c4d
/dlq replay 1a2b3c4d
/dlq discard 1a2b3c4d
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from parley.errors import BadArguments, Denied, NeedsConfirmation
from parley.language.characters import Language
from parley.language.decision import Decision, Speaker
from parley.language.grammar import Command
from parley.language.run_list import ago
from parley.messages.inbox import Received
from parley.messages.model import Button, Reply, Table
from parley.runs.dead_letters import KINDS, DeadLetter
from parley.runs.replay import Decider, ReplayDesk
from parley.runs.requests import short
from parley.runs.sentences import sentence

SHOWN: Final = 20

_COLUMNS: Final[Mapping[Language, tuple[str, ...]]] = {
    "en": ("id", "kind", "what", "who", "state", "when", "why"),
    "zh": ("编号", "类别", "内容", "发起者", "状态", "多久前", "原因"),
}
_WORDS: Final[Mapping[str, str]] = {
    "message": "消息",
    "run": "运行",
    "delivery": "投递",
    "expired": "过期",
    "open": "待处理",
    "replayed": "已重新执行",
    "discarded": "已关闭",
}
_CONFIRMED: Final = frozenset({"confirm", "yes", "确认", "是"})


class DeadLetterCommands:
    """The built-in `/dlq`."""

    def __init__(self, desk: ReplayDesk) -> None:
        self._desk = desk

    async def run(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """Carry it out. Raises `CommandError` or `PolicyError`."""
        who = Decider(
            name=speaker.principal.name,
            principal=speaker.principal,
            place=speaker.place,
            assurance=speaker.assurance,
            language=speaker.language,
        )
        self._desk.check_may_look(who)
        if received.acting_for_id is not None and command.positional[:1] in (("replay",), ("discard",)):
            raise Denied(sentence("dlq-denied", speaker.language))  # nobody decides in another's name
        match command.positional:
            case () | ("list",):
                return await self._list(who, speaker.language)
            case ("list", "all"):
                return await self._list(who, speaker.language, settled=True)
            case ("list", kind) if kind in KINDS:
                return await self._list(who, speaker.language, kind=kind)
            case ("show", wanted):
                return await self._show(who, await self._found(who, wanted), speaker.language)
            case ("replay", wanted, *more) if not set(more) - _CONFIRMED:
                return await self._replay(who, await self._found(who, wanted), confirmed=bool(more))
            case ("discard", wanted):
                return await self._discard(who, await self._found(who, wanted))
        raise BadArguments(sentence("dlq-usage", speaker.language))

    async def _found(self, who: Decider, wanted: str) -> DeadLetter:
        letter = await self._desk.find(who, wanted)
        if letter is None:
            raise BadArguments(sentence("dlq-unknown", who.language, id=wanted[:36]))
        return letter

    async def _list(
        self, who: Decider, language: Language, *, kind: str | None = None, settled: bool = False
    ) -> Decision:
        found = await self._desk.newest(who, limit=SHOWN, kind=kind, settled=settled)
        if not found:
            return Decision.answer(sentence("dlq-none", language))
        rows = tuple(_row(letter, language) for letter in found)
        return Decision(replies=[Reply(table=Table(columns=_COLUMNS[language], rows=rows))])

    async def _show(self, who: Decider, letter: DeadLetter, language: Language) -> Decision:
        shown = await self._desk.show(who, letter)
        cells = zip(_COLUMNS[language], _row(letter, language, whole=True), strict=True)
        facts = {**dict(cells), **shown.facts}
        if letter.settled_by:
            facts["by"] = letter.settled_by
        text = "\n".join(f"**{name}**: {value}" for name, value in facts.items())
        return Decision(replies=[Reply(text=text, buttons=_buttons(letter, language))])

    async def _replay(self, who: Decider, letter: DeadLetter, *, confirmed: bool) -> Decision:
        language: Language = "zh" if who.language == "zh" else "en"
        try:
            # Settled by its own write: whatever becomes of this answer, it is done again once.
            await self._desk.replay(who, letter, confirmed=confirmed)
        except NeedsConfirmation as error:
            return Decision(replies=[Reply(text=str(error), buttons=_buttons(letter, language))])
        key = {"delivery": "dlq-sent-again"}.get(letter.kind)
        key = key or ("dlq-run-again" if letter.automation else "dlq-handled-again")
        return Decision.answer(
            sentence(key, language, id=short(letter.id), command=letter.automation or letter.kind)
        )

    async def _discard(self, who: Decider, letter: DeadLetter) -> Decision:
        await self._desk.discard(who, letter)
        return Decision.answer(sentence("dlq-discarded", who.language, id=short(letter.id)))


def _row(letter: DeadLetter, language: Language, *, whole: bool = False) -> tuple[str, ...]:
    what = f"/{letter.automation}" if letter.automation else (letter.account or "-")
    reason = letter.reason if whole or len(letter.reason) <= 60 else f"{letter.reason[:59]}…"
    return (
        short(letter.id),
        _word(letter.kind, language),
        what,
        letter.actor or "-",
        _word(letter.state, language),
        ago(letter.created_at),
        " ".join(reason.split()),
    )


def _word(word: str, language: Language) -> str:
    return _WORDS.get(word, word) if language == "zh" else word


def _buttons(letter: DeadLetter, language: Language) -> tuple[Button, ...]:
    if letter.state != "open":
        return ()
    again = "send-again" if letter.kind == "delivery" else "run-again"
    confirm = " confirm" if letter.doubtful else ""
    code = short(letter.id)
    return (
        Button(label=sentence(again, language), value=f"/dlq replay {code}{confirm}", style="primary"),
        Button(label=sentence("close", language), value=f"/dlq discard {code}"),
    )


__all__ = ["DeadLetterCommands"]
