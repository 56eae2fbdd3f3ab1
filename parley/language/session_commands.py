"""`/sessions`: where one is signed in at the console, and the end of it.

/sessions
/sessions end 2
/sessions end all
/sessions bea
/sessions end all bea
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied, PolicyError
from parley.language.characters import Language, visible
from parley.language.decision import Decision, Speaker
from parley.language.grammar import Command
from parley.messages.inbox import Received
from parley.messages.model import Assurance, ConversationKind, Reply, Table
from parley.people.principals import Principal, Role
from parley.people.session_desk import SessionDesk
from parley.people.sessions import Kind, Session
from parley.runs.requests import QueuedRun

_ALL: Final = frozenset({"all", "全部"})
_END: Final = frozenset({"end", "结束"})

_COLUMNS: Final[Mapping[Language, tuple[str, ...]]] = {
    "en": ("n", "signed in", "by", "with", "last used"),
    "zh": ("序号", "登录时间", "方式", "设备", "最近使用"),
}
_KINDS: Final[Mapping[Kind, tuple[str, str]]] = {
    Kind.CODE: ("code", "登录码"),
    Kind.TOKEN: ("token", "令牌"),
    Kind.PASSWORD: ("password", "密码"),
    Kind.PASSKEY: ("passkey", "通行密钥"),
    Kind.OIDC: ("single sign-on", "单点登录"),
}
_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "none": ("{name} is signed in nowhere.", "{name} 没有登录任何会话。"),
    "ended": ("{count} session(s) of {name} ended.", "已结束 {name} 的 {count} 个会话。"),
    "gone": ("There is no such session; `/sessions` lists them.", "没有这个会话；`/sessions` 可列出。"),
    "usage": (
        "Write `/sessions`, `/sessions end NUMBER` or `/sessions end all`; an owner adds a name.",
        "请写 `/sessions`、`/sessions end 序号` 或 `/sessions end all`；所有者可在后面加名称。",
    ),
    "unproven": (
        "Sessions are told and ended where the platform vouches for who is writing, in nobody else's name.",
        "只能在能够证明身份的渠道中、以本人名义查看或结束会话。",
    ),
    "in-private": (
        "I list sessions in a direct conversation only.",
        "我只在私聊中列出会话。",
    ),
    "owner": (
        "Only the owner sees and ends other people's sessions.",
        "只有所有者可以查看或结束他人的会话。",
    ),
}


class SessionCommands:
    """The built-in `/sessions`."""

    def __init__(self, desk: SessionDesk) -> None:
        self._desk = desk

    async def sessions(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """List them, or end some. Raises `CommandError` or `PolicyError`."""
        language = speaker.language
        if speaker.assurance is not Assurance.VERIFIED or received.acting_for_id is not None:
            raise Denied(_text("unproven", language))
        match command.positional:
            case ():
                return await self._list(speaker, received, "")
            case (verb, which) if verb in _END:
                return await self._end(speaker, which, "")
            case (verb, which, name) if verb in _END:
                return await self._end(speaker, which, name)
            case (name,) if name not in _END:
                return await self._list(speaker, received, name)
        raise BadArguments(_text("usage", language))

    async def _list(self, speaker: Speaker, received: Received, name: str) -> Decision:
        if received.event.route.kind != ConversationKind.DIRECT:
            # In a room the others would read it.
            raise BadArguments(_text("in-private", speaker.language))
        whose, found = await self._of(speaker, name)
        if not found:
            return Decision.answer(_text("none", speaker.language, name=visible(whose.name)))
        table = Table(columns=_COLUMNS[speaker.language], rows=_rows(found, speaker))
        return Decision(replies=[Reply(table=table)])

    async def _end(self, speaker: Speaker, which: str, name: str) -> Decision:
        whose, found = await self._of(speaker, name)
        if which in _ALL:
            ids = [one.id for one in found]
        elif which.isascii() and which.isdigit() and len(which) < 4 and 0 < int(which) <= len(found):
            ids = [found[int(which) - 1].id]
        else:
            raise BadArguments(_text("gone" if which.isdigit() else "usage", speaker.language))
        decision = Decision()

        async def change(conn: AsyncConnection) -> list[QueuedRun]:
            count = await self._desk.end_in(conn, whose, ids, actor=speaker.principal.name)
            text = _text("ended", speaker.language, name=visible(whose.name), count=count)
            decision.replies[:] = [Reply(text=text)]
            return []

        decision.changes.append(change)
        return decision

    async def _of(self, speaker: Speaker, name: str) -> tuple[Principal, Sequence[Session]]:
        if name and name != speaker.principal.name and speaker.principal.role is not Role.OWNER:
            raise Denied(_text("owner", speaker.language))
        try:
            return await self._desk.of(speaker.principal, name)
        except Denied:
            raise
        except PolicyError as error:
            raise BadArguments(str(error)) from None


def _rows(found: Sequence[Session], speaker: Speaker) -> tuple[tuple[str, ...], ...]:
    zone = ZoneInfo(speaker.principal.time_zone or "UTC")
    at = speaker.language == "zh"

    def clock(when: datetime) -> str:
        return f"{when.astimezone(zone):%Y-%m-%d %H:%M %Z}"

    return tuple(
        (
            str(number),
            clock(one.created_at),
            _KINDS[one.kind][at],
            one.agent or "-",
            clock(one.used_at),
        )
        for number, one in enumerate(found, 1)
    )


def _text(key: str, language: str, **values: object) -> str:
    return _TEXTS[key][language == "zh"].format(**values)


__all__ = ["SessionCommands"]
