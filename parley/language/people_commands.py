"""`/people sync`: the directory is asked now, and what it says of people is carried out.

/people sync
/people sync anyway
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from parley.errors import BadArguments, ConfigurationError, Denied
from parley.language.characters import visible
from parley.language.decision import Decision, Speaker
from parley.language.grammar import Command
from parley.messages.inbox import Received
from parley.messages.model import Assurance
from parley.people.directory_search import DirectoryError
from parley.people.principals import Role

PATIENCE: Final = 20.0
"""Seconds after which it is said that it goes on, while others of the same conversation wait."""

MOST_TEXT: Final = 300
"""Characters of one sentence about something that is wrong."""

MOST_SHOWN: Final = 10
"""Problems that are shown; all of them are in the log."""

_SYNC: Final = frozenset({"sync", "同步"})
_ANYWAY: Final = frozenset({"anyway", "强制"})

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "usage": (
        "Write `/people sync`, or `/people sync anyway` where many are missing and that is right.",
        "请写 `/people sync`；若确实有许多人离开，请写 `/people sync anyway`。",
    ),
    "owner": (
        "Only the owner has the directory asked, where the platform vouches for who is writing.",
        "只有所有者可以同步目录，且须在能够证明身份的渠道中进行。",
    ),
    "done": (
        "The directory has {people} people: {joined} joined, {left} left, {changed} changed.",
        "目录中有 {people} 人：加入 {joined} 人，离开 {left} 人，变更 {changed} 人。",
    ),
    "held": (
        (
            "{missing} of {of} people are missing at once, or lose roles or accounts. I take it for a mistake: nobody "
            "was removed but {left} whom the directory disabled. If it is right, write `/people sync anyway`."
        ),
        (
            "突然缺少 {missing}/{of} 人，或其角色、账号消失。这可能是错误：除目录停用的 {left} 人外，未移除任何人。"
            "若确认无误，请写 `/people sync anyway`。"
        ),
    ),
    "goes-on": (
        "The directory is being asked; it takes a while. `parley doctor` tells how it went.",
        "正在同步目录，需要一些时间。`parley doctor` 会显示结果。",
    ),
    "failed": ("Nothing was changed. {reason}", "未做任何更改。{reason}"),
    "more": ("... and {count} more.", "……还有 {count} 个。"),
}

Sync = Callable[[bool, str], Awaitable[dict[str, Any]]]
"""Asks the directory: whether anyway, and who says so."""


class PeopleCommands:
    """The built-in `/people`."""

    def __init__(self, sync: Sync) -> None:
        self._sync = sync
        self._going_on: set[asyncio.Task[dict[str, Any]]] = set()

    async def people(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """Have the directory asked. Raises `CommandError` or `PolicyError`."""
        proven = speaker.assurance is Assurance.VERIFIED and received.acting_for_id is None
        if speaker.principal.role is not Role.OWNER or not proven:
            raise Denied(_text("owner", speaker.language))
        match command.positional:
            case (verb,) if verb.lower() in _SYNC:
                return await self._asked(speaker, anyway=False)
            case (verb, word) if verb.lower() in _SYNC and word.lower() in _ANYWAY:
                return await self._asked(speaker, anyway=True)
        raise BadArguments(_text("usage", speaker.language))

    async def _asked(self, speaker: Speaker, *, anyway: bool) -> Decision:
        task = asyncio.ensure_future(self._sync(anyway, speaker.principal.name))
        self._going_on.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=PATIENCE)
        if not done:
            return Decision.answer(_text("goes-on", speaker.language))
        try:
            said = task.result()
        except (DirectoryError, ConfigurationError) as error:
            return Decision.answer(_text("failed", speaker.language, reason=visible(str(error), MOST_TEXT)))
        return Decision.answer(_told(said, speaker.language))

    def _ended(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._going_on.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked is told, or was told that it goes on; the keeper has noted it


def _told(said: Mapping[str, Any], language: str) -> str:
    if said["held"]:
        lines = [_text("held", language, left=said["left"], **said["held"])]
    else:
        counts = {name: said[name] for name in ("people", "joined", "left", "changed")}
        lines = [_text("done", language, **counts)]
    problems = said["problems"]
    lines += [f"- {visible(one, MOST_TEXT)}" for one in problems[:MOST_SHOWN]]
    if len(problems) > MOST_SHOWN:
        lines.append(_text("more", language, count=len(problems) - MOST_SHOWN))
    return "\n".join(lines)


def _text(key: str, language: str, **values: object) -> str:
    return _TEXTS[key][language == "zh"].format(**values)


__all__ = ["PeopleCommands"]
