"""`/link` and `/invite`: from one account to another, and from nobody to somebody, by a code that is said once.

/link
/link ACDE-FHJK-MNPQ
/invite Bea operator
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, CommandError, Denied, PolicyError
from parley.language.characters import Language, language_of
from parley.language.decision import Decision, Speaker
from parley.language.grammar import Command, parse_command
from parley.messages.inbox import Received
from parley.messages.model import Assurance, ConversationKind, Message, Reply
from parley.people import linking, principals
from parley.people.audit import Audit
from parley.people.linking import CodeKind
from parley.people.principals import Role
from parley.people.sealing import Keyring
from parley.runs.requests import QueuedRun
from parley.store import schema
from parley.store.engine import Store

ALONE: Final = (ConversationKind.DIRECT, ConversationKind.MAIL)
"""Where nobody else reads along."""

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "code": (
        (
            "Send `/link {code}` to me from your other account, in a direct conversation, within ten minutes. It works "
            "once. Show it to nobody: whoever sends it is you."
        ),
        (
            "请在十分钟内，用您的另一个账号在与我的私聊中发送 `/link {code}`。"
            "仅可使用一次。请勿给他人看：谁发送它，谁就是您。"
        ),
    ),
    "invitation": (
        (
            "Give this to {name} yourself: they send `/link {code}` to me in a direct conversation, within three days. "
            "It works once; whoever sends it is {name} ({role})."
        ),
        (
            "请亲自把它交给 {name}：对方须在三天内于私聊中向我发送 `/link {code}`。"
            "仅可使用一次；谁发送它，谁就是 {name}（{role}）。"
        ),
    ),
    "linked": (
        "You are {name} here, too. `/whoami` tells what I know of you.",
        "您在这里也是 {name} 了。`/whoami` 可查看您的身份。",
    ),
    "claimed": (
        "This channel cannot prove who writes, so it stays for looking things up only.",
        "此渠道无法证明发送者身份，因此仅可用于查询。",
    ),
    "wrong": (
        "That code is not good: it is mistyped, used, too old, or was tried too often. Ask for a new one.",
        "该代码无效：可能输错、已使用、已过期或尝试次数过多。请重新获取。",
    ),
    "public": (
        "A code is for a direct conversation with me. Others may have read this one, so it is void: ask for a new one.",
        "代码只能在与我的私聊中使用。此代码可能已被他人看到，现已作废，请重新获取。",
    ),
    "alone": (
        "I give codes in a direct conversation only, where the platform vouches for who is writing.",
        "我只在能够证明身份的私聊中发放代码。",
    ),
    "known": (
        "You are {name} here already. To be somebody else, have the owner unlink this account first.",
        "您在这里已经是 {name}。如需更换，请先让所有者解除此账号的关联。",
    ),
    "owner": (
        "Only the owner invites people, in a direct conversation where the platform vouches for who is writing.",
        "只有所有者可以邀请他人，且须在能够证明身份的私聊中进行。",
    ),
    "usage": (
        "Write `/invite NAME` or `/invite NAME ROLE` (operator, user, auditor; user by default).",
        "请写 `/invite 名称` 或 `/invite 名称 角色`（operator、user、auditor；默认 user）。",
    ),
    "taken": (
        "There is already somebody called {name}. `/invite {name}`, without a role, gives a code for another account.",
        "已经有人叫 {name}。不带角色的 `/invite {name}` 会为其另一个账号生成代码。",
    ),
    "gone": (
        "{name} was removed, and a name is not given twice.",
        "{name} 已被移除，名称不会重复使用。",
    ),
}

_ROLES: Final = (Role.OPERATOR, Role.USER, Role.AUDITOR)
"""What an invitation may make of somebody: an owner is made at the machine."""


class LinkingCommands:
    """The built-ins `/link` and `/invite`."""

    def __init__(self, store: Store, keyring: Keyring, audit: Audit) -> None:
        self._store = store
        self._keyring = keyring
        self._audit = audit

    async def link(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """A code for somebody who is known, or a code that they were given. Raises `PolicyError`."""
        if not command.positional:
            return self._issue(received, speaker)
        said, language = " ".join(command.positional), speaker.language
        if received.event.route.kind not in ALONE:
            return self._said_in_public(said, language)
        if received.principal_id is not None:
            return Decision.answer(_text("known", language, name=speaker.principal.name))
        return self._redeem(received, said, language)

    async def from_stranger(self, received: Received, polite: Decision) -> Decision:
        """What comes of a good code that somebody unknown sends. All else is `polite`: nobody is told by guessing."""
        event = received.event
        command = _command_of(event.text) if isinstance(event, Message) else None
        if command is None or command.name != "link" or not command.positional:
            return polite
        said, language = " ".join(command.positional), language_of(command.raw)
        if await self._store.read(lambda conn: linking.is_good(conn, self._keyring, said)):
            alone = received.event.route.kind in ALONE
            return self._redeem(received, said, language) if alone else self._said_in_public(said, language)

        async def count(conn: AsyncConnection) -> list[QueuedRun]:
            await linking.tried(conn, self._keyring, said)
            return []

        polite.changes.append(count)
        return polite

    def _issue(self, received: Received, speaker: Speaker) -> Decision:
        direct = received.event.route.kind is ConversationKind.DIRECT
        if not direct or speaker.assurance is not Assurance.VERIFIED or received.acting_for_id is not None:
            raise Denied(_text("alone", speaker.language))
        who, decision = speaker.principal, Decision()

        async def issue(conn: AsyncConnection) -> list[QueuedRun]:
            code = await linking.issue(conn, self._keyring, who.id, CodeKind.LINK)
            await self._note(conn, "link-code-issued", who.name, who.name)
            decision.replies[:] = [Reply(text=_text("code", speaker.language, code=code))]
            return []

        decision.changes.append(issue)
        return decision

    def _redeem(self, received: Received, said: str, language: Language) -> Decision:
        event, decision = received.event, Decision()

        async def redeem(conn: AsyncConnection) -> list[QueuedRun]:
            found = await principals.find_by_identity(conn, event.account, event.sender.id)
            if found is not None:
                answer = _text("known", language, name=found.principal.name)
            else:
                answer = await self._redeemed(conn, received, said, language)
            decision.replies[:] = [Reply(text=answer)]
            return []

        decision.changes.append(redeem)
        return decision

    async def _redeemed(
        self, conn: AsyncConnection, received: Received, said: str, language: Language
    ) -> str:
        event = received.event
        proven = event.sender.assurance is Assurance.VERIFIED
        done = await linking.redeem(conn, self._keyring, said, event.account, event.sender.id, proven=proven)
        if done is None:
            return _text("wrong", language)
        name = done.principal.name
        await self._note(
            conn,
            "person-linked",
            name,
            name,
            account=event.account,
            identity=self._keyring.keyed_hash(f"{event.account}:{event.sender.id}"),
            by=done.kind.value,
            assurance=event.sender.assurance.value,
        )
        more = "" if proven else f" {_text('claimed', language)}"
        return f"{_text('linked', language, name=name)}{more}"

    def _said_in_public(self, said: str, language: Language) -> Decision:
        async def void(conn: AsyncConnection) -> list[QueuedRun]:
            if await linking.void_said(conn, self._keyring, said):
                await self._note(conn, "link-code-void", "-", None, why="it was said in front of others")
            return []

        return Decision(replies=[Reply(text=_text("public", language))], changes=[void])

    async def invite(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """A code with which a stranger becomes this person. Raises `CommandError` or `PolicyError`."""
        language, decision = speaker.language, Decision()
        self._owner_alone(received, speaker)
        name, role = _invited(command, language)

        async def invite(conn: AsyncConnection) -> list[QueuedRun]:
            try:
                who = await self._invited(conn, name, role, language)
            except PolicyError as error:
                decision.replies[:] = [Reply(text=str(error))]
                return []
            code = await linking.issue(conn, self._keyring, who.id, CodeKind.INVITATION)
            await self._note(conn, "person-invited", speaker.principal.name, who.name, role=who.role.value)
            text = _text("invitation", language, name=who.name, code=code, role=who.role.value)
            decision.replies[:] = [Reply(text=text)]
            return []

        decision.changes.append(invite)
        return decision

    @staticmethod
    def _owner_alone(received: Received, speaker: Speaker) -> None:
        proven = speaker.assurance is Assurance.VERIFIED and received.acting_for_id is None
        direct = received.event.route.kind is ConversationKind.DIRECT
        if speaker.principal.role is not Role.OWNER or not proven or not direct:
            raise Denied(_text("owner", speaker.language))

    @staticmethod
    async def _invited(
        conn: AsyncConnection, name: str, role: Role | None, language: Language
    ) -> principals.Principal:
        table = schema.principal
        query = sa.select(table.c.id).where(table.c.name == principals.clean_name(name))
        found = (await conn.execute(query)).scalar()
        if found is None:
            made = await principals.add_principal(conn, name, role=role or Role.USER)
            return await principals.get(conn, made)
        who = await principals.get(conn, str(found))
        if not who.enabled:
            raise PolicyError(_text("gone", language, name=who.name))
        if role is not None or who.kind is not principals.PrincipalKind.PERSON:
            raise PolicyError(_text("taken", language, name=who.name))
        return who

    async def _note(
        self, conn: AsyncConnection, action: str, actor: str, name: str | None, **details: str
    ) -> None:
        subject = f"person:{name}" if name else None
        await self._audit.record(conn, action=action, actor=actor, subject=subject, details=details)


def _invited(command: Command, language: Language) -> tuple[str, Role | None]:
    match command.positional:
        case (name,):
            return name, None
        case (name, role) if role in _ROLES:
            return name, Role(role)
    raise BadArguments(_text("usage", language))


def _command_of(text: str) -> Command | None:
    try:
        return parse_command(text[:200])
    except CommandError:
        return None


def _text(key: str, language: str, **values: object) -> str:
    return _TEXTS[key][language == "zh"].format(**values)


__all__ = ["LinkingCommands"]
