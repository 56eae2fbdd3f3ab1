"""`/follow`, `/unfollow` and `/following`: what happens in a repository is told in the conversation that asked for it.

/follow octo/app
/follow octo/app push release issues
/unfollow octo/app
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied
from parley.language.characters import Language, visible
from parley.language.decision import Decision, Speaker
from parley.language.grammar import Command
from parley.messages.follows import USUAL, Follows, may_follow, repository
from parley.messages.inbox import Received
from parley.messages.model import Assurance, ConversationKind, Reply, Route, Table
from parley.messages.published import place_of
from parley.people.audit import Audit
from parley.runs.requests import QueuedRun
from parley.store.engine import Store

FORGES: Final = ("github", "gitlab", "gitea")
"""Platforms that tell what happens in repositories."""

_EVENTS: Final[Mapping[str, str]] = {
    "push": "*.push",
    "tag": "*.tag.#",
    "pull_request": "*.pull_request.#",
    "release": "*.release.#",
    "pipeline": "*.pipeline.#",
    "failure": "*.pipeline.failed",
    "issue": "*.issue.#",
    "all": "#",
}
_ALSO: Final[Mapping[str, str]] = {
    "pushes": "push",
    "tags": "tag",
    "pr": "pull_request",
    "prs": "pull_request",
    "mr": "pull_request",
    "merge_request": "pull_request",
    "merge_requests": "pull_request",
    "pull_requests": "pull_request",
    "releases": "release",
    "ci": "pipeline",
    "pipelines": "pipeline",
    "failures": "failure",
    "issues": "issue",
}

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "followed": (
        "This conversation now follows `{name}`: {events}. `/unfollow {name}` ends it.",
        "本会话现已关注 `{name}`：{events}。`/unfollow {name}` 可取消。",
    ),
    "unfollowed": (
        "This conversation follows `{name}` no more.",
        "本会话已不再关注 `{name}`。",
    ),
    "not-followed": ("This conversation does not follow `{name}`.", "本会话没有关注 `{name}`。"),
    "nothing": (
        "This conversation follows no repository. `/follow owner/name` makes it follow one.",
        "本会话没有关注任何仓库。`/follow owner/name` 可关注一个。",
    ),
    "no-forge": (
        "No GitHub, GitLab or Gitea account is connected yet, so nothing will be told until the owner connects one.",
        "尚未连接 GitHub、GitLab 或 Gitea 账号；在管理员连接之前不会有任何通知。",
    ),
    "usage": (
        "Write `/{command} owner/name`, as in `/{command} octo/app`; `octo/*` means all of octo's.",
        "请写 `/{command} owner/name`，例如 `/{command} octo/app`；`octo/*` 表示 octo 的所有仓库。",
    ),
    "bad-name": (
        "`{name}` is no repository: write owner/name.",
        "`{name}` 不是仓库：请写 owner/name。",
    ),
    "bad-event": (
        "`{name}` is no kind of event: {events}.",
        "`{name}` 不是事件种类：可用 {events}。",
    ),
    "not-here": (
        "In a room only operators and the owner decide what is told to everybody; follow it in a conversation with me.",
        "在群聊中，只有操作员和管理员可以决定向所有人通知什么；请与我单独对话后再关注。",
    ),
    "may-not": (
        "Your role may not follow repositories. Ask the owner for another one.",
        "您的角色不能关注仓库。请联系管理员调整。",
    ),
    "claimed": (
        "This channel cannot prove who you are, so nothing is changed from here. Ask the owner to verify the link.",
        "此渠道无法证明您的身份，因此不能在此更改。请管理员验证此关联。",
    ),
}


class FollowCommands:
    """The built-ins. `forges`: names of connected accounts that tell what happens in repositories."""

    def __init__(
        self, store: Store, audit: Audit, follows: Follows, forges: Callable[[], Sequence[str]]
    ) -> None:
        self._store = store
        self._audit = audit
        self._follows = follows
        self._forges = forges

    async def follow(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """`/follow owner/name [events...]`: from now on, and instead of what was followed of it before."""
        name = self._named(command, received, speaker)
        topics = _topics(command.positional[1:], speaker.language)
        route = received.event.route

        async def write(conn: AsyncConnection) -> list[QueuedRun]:
            await self._follows.add(conn, name, topics, route, speaker.principal.id)
            await self._note(conn, "follow", name, route, speaker, events=" ".join(topics))
            return []

        texts = [_say("followed", speaker.language, name=name, events=_spoken(topics))]
        if not self._forges():
            texts.append(_say("no-forge", speaker.language))
        return Decision(replies=[Reply(text="\n".join(texts))], changes=[write])

    async def unfollow(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """`/unfollow owner/name`."""
        name = self._named(command, received, speaker)
        route = received.event.route
        known = await self._store.read(lambda conn: self._follows.here(conn, route))
        if name not in {row.repository for row in known}:
            return Decision.answer(_say("not-followed", speaker.language, name=name))

        async def write(conn: AsyncConnection) -> list[QueuedRun]:
            if await self._follows.remove(conn, name, route):
                await self._note(conn, "unfollow", name, route, speaker)
            return []

        text = _say("unfollowed", speaker.language, name=name)
        return Decision(replies=[Reply(text=text)], changes=[write])

    async def following(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """`/following`: what this conversation follows."""
        if not may_follow(speaker.principal.role, ConversationKind.DIRECT):
            raise Denied(_say("may-not", speaker.language))
        rows = await self._store.read(lambda conn: self._follows.here(conn, received.event.route))
        if not rows:
            return Decision.answer(_say("nothing", speaker.language))
        cells = tuple((row.repository, _spoken(row.topics)) for row in rows)
        return Decision(replies=[Reply(table=Table(columns=("repository", "events"), rows=cells))])

    def _named(self, command: Command, received: Received, speaker: Speaker) -> str:
        language = speaker.language
        if speaker.assurance is not Assurance.VERIFIED:
            raise Denied(_say("claimed", language))
        role, kind = speaker.principal.role, received.event.route.kind
        if not may_follow(role, ConversationKind.DIRECT):
            raise Denied(_say("may-not", language))
        if not may_follow(role, kind):
            raise Denied(_say("not-here", language))
        if not command.positional:
            raise BadArguments(_say("usage", language, command=command.name))
        given = command.positional[0]
        name = repository(given)
        if name is None:
            raise BadArguments(_say("bad-name", language, name=visible(given, 100)))
        return name

    async def _note(
        self,
        conn: AsyncConnection,
        action: str,
        name: str,
        route: Route,
        speaker: Speaker,
        **details: str,
    ) -> None:
        await self._audit.record(
            conn,
            action=action,
            actor=speaker.principal.name,
            subject=f"repository:{name}",
            details={"conversation": place_of(route), **details},
        )


def _topics(words: Sequence[str], language: Language) -> tuple[str, ...]:
    if not words:
        return USUAL
    found: dict[str, None] = {}
    for word in (part for one in words for part in one.lower().replace("-", "_").split(",") if part):
        plain = _ALSO.get(word, word)
        if plain not in _EVENTS:
            raise BadArguments(_say("bad-event", language, name=visible(word, 50), events=", ".join(_EVENTS)))
        found[_EVENTS[plain]] = None
    return tuple(found)


def _spoken(topics: Sequence[str]) -> str:
    names = {pattern: word for word, pattern in _EVENTS.items()}
    return ", ".join(names.get(pattern, pattern) for pattern in topics)


def _say(key: str, language: Language, **values: object) -> str:
    english, chinese = _TEXTS[key]
    return (chinese if language == "zh" else english).format(**values)


__all__ = ["FORGES", "FollowCommands"]
