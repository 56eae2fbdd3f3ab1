"""`/role` and `/who`: what people have, given and taken by an owner, and who may run what.

/role add bea night-shift
/role remove bea night-shift
/who can restart-web
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied, PolicyError
from parley.language.characters import Language
from parley.language.decision import Decision, Speaker
from parley.language.grammar import Command
from parley.language.names import unknown_command
from parley.language.offered import Offered
from parley.messages.inbox import Received
from parley.messages.model import Assurance, Reply, Table
from parley.people import principals
from parley.people.audit import Audit
from parley.people.policy import Policy
from parley.people.principals import Principal, Role
from parley.people.rights import Origin, Rights
from parley.people.roles import BUILT_IN
from parley.runs.catalogue import AutomationSpec, Catalogue
from parley.runs.requests import QueuedRun
from parley.store import schema
from parley.store.engine import Store

MOST_SHOWN: Final = 50
"""People whom `/who` names; of more it says so."""

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "given": ("{name} has the role {role} now.", "{name} 现在拥有角色 {role}。"),
    "had": ("{name} has the role {role} already.", "{name} 已经拥有角色 {role}。"),
    "taken": ("{name} has the role {role} no more.", "{name} 不再拥有角色 {role}。"),
    "not-had": ("{name} does not have the role {role}.", "{name} 没有角色 {role}。"),
    "kept": (
        "By hand that is so; but a group that {name} is in says otherwise, and gives more.",
        "已手动更改，但 {name} 所在的组授予了更多权限，以组为准。",
    ),
    "unknown": (
        "parley.toml has no role {role}. It has: {roles}.",
        "parley.toml 中没有角色 {role}。现有：{roles}。",
    ),
    "owner": (
        "Only the owner gives and takes roles, where the platform vouches for who is writing.",
        "只有所有者可以授予或收回角色，且须在能够证明身份的渠道中进行。",
    ),
    "usage": (
        "Write `/role add NAME ROLE` or `/role remove NAME ROLE`; the roles are {roles}.",
        "请写 `/role add 名称 角色` 或 `/role remove 名称 角色`；现有角色：{roles}。",
    ),
    "who-usage": ("Write `/who can COMMAND`.", "请写 `/who can 命令`。"),
    "who-denied": (
        "I tell who may do what only where the platform vouches for who is writing.",
        "只有在能够证明身份的渠道中，我才会说明谁可以做什么。",
    ),
    "nobody": ("Nobody may run `/{command}`.", "没有人可以运行 `/{command}`。"),
    "more": ("... and others.", "……还有其他人。"),
}
_COLUMNS: Final[Mapping[Language, tuple[str, ...]]] = {
    "en": ("who", "role", "how"),
    "zh": ("谁", "角色", "方式"),
}
_HOW: Final[Mapping[str, tuple[str, str]]] = {
    "runs": ("runs it", "可运行"),
    "asks": ("may ask; it waits for an approval", "可申请，需批准"),
    "sometimes": ("at certain times, in certain places or with certain values", "限于特定时间、位置或参数值"),
}


class RoleCommands:
    """The built-ins `/role` and `/who`."""

    def __init__(
        self,
        store: Store,
        audit: Audit,
        rights: Rights,
        offered: Offered,
        *,
        catalogue: Callable[[], Catalogue],
    ) -> None:
        self._store = store
        self._audit = audit
        self._rights = rights
        self._offered = offered
        self._catalogue = catalogue

    async def role(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """Give or take a role. Raises `CommandError` or `PolicyError`."""
        proven = speaker.assurance is Assurance.VERIFIED and received.acting_for_id is None
        if speaker.principal.role is not Role.OWNER or not proven:
            raise Denied(_text("owner", speaker.language))
        match command.positional:
            case ("add" | "give", name, role):
                self._check(role, speaker.language)
                return self._change(name, role, speaker, add=True)
            case ("remove" | "take", name, role):
                return self._change(name, role, speaker, add=False)
        raise BadArguments(_text("usage", speaker.language, roles=self._names()))

    def _names(self) -> str:
        return ", ".join((*BUILT_IN, *self._rights.policy.own))

    def _check(self, role: str, language: Language) -> None:
        if self._rights.policy.table(role) is None:
            raise BadArguments(_text("unknown", language, role=role[:64], roles=self._names()))

    def _change(self, name: str, role: str, speaker: Speaker, *, add: bool) -> Decision:
        decision = Decision()

        async def change(conn: AsyncConnection) -> list[QueuedRun]:
            try:
                who = await principals.get_by_name(conn, name)
                act = _given if add else _taken
                changed = await act(conn, who, role)
            except PolicyError as error:
                decision.replies[:] = [Reply(text=str(error))]
                return []
            key = ("given" if changed else "had") if add else ("taken" if changed else "not-had")
            after = await principals.get(conn, who.id)
            if add != (role in (after.role, *after.roles)):
                key = "kept"
            text = _text(key, speaker.language, name=who.name, role=role[:64])
            decision.replies[:] = [Reply(text=text)]
            if changed:
                await self._audit.record(
                    conn,
                    action="role-given" if add else "role-taken",
                    actor=speaker.principal.name,
                    subject=f"person:{who.name}",
                    details={"role": role, "was": who.role.value},
                )
            return []

        decision.changes.append(change)
        return decision

    async def who(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """Who may run a command that the asker may see. Raises `CommandError` or `PolicyError`.

        One that the asker may not see is answered as one that there is not.
        """
        if speaker.assurance is not Assurance.VERIFIED:
            raise Denied(_text("who-denied", speaker.language))
        words = command.positional[1:] if command.positional[:1] == ("can",) else command.positional
        if len(words) != 1:
            raise BadArguments(_text("who-usage", speaker.language))
        spec = self._catalogue().find(words[0].lstrip("/"))
        if spec is None or not self._may_see(spec, speaker):
            raise unknown_command(words[0].lstrip("/"), self._offered.to(speaker).names, speaker.language)
        rows, more = await self._may(spec, speaker.language)
        if not rows:
            return Decision.answer(_text("nobody", speaker.language, command=spec.command))
        text = _text("more", speaker.language) if more else ""
        return Decision(
            replies=[Reply(text=text, table=Table(columns=_COLUMNS[speaker.language], rows=tuple(rows)))]
        )

    def _may_see(self, spec: AutomationSpec, speaker: Speaker) -> bool:
        # What /help shows, what the asker approves, and all for who looks after what others did.
        return (
            spec.command in self._offered.to(speaker)
            or speaker.principal.role is Role.AUDITOR
            or self._rights.may_approve(speaker.principal, spec.command, place=speaker.place)
        )

    async def _may(self, spec: AutomationSpec, language: Language) -> tuple[list[tuple[str, ...]], bool]:
        policy = self._rights.policy
        names = [name for name in (*BUILT_IN, *policy.own) if _concerns(policy, name, spec)]
        found = await self._store.read(lambda conn: _having(conn, names, MOST_SHOWN * 4))
        rows: list[tuple[str, ...]] = []
        for who in found:
            how = self._how(who, spec)
            if how:
                roles = ", ".join((who.role.value, *who.roles))
                rows.append((who.name, roles, _HOW[how][language == "zh"]))
        return rows[:MOST_SHOWN], len(rows) > MOST_SHOWN or len(found) == MOST_SHOWN * 4

    def _how(self, who: Principal, spec: AutomationSpec) -> str:
        asked = (who, spec.effect, spec.command, Origin.COMMAND, Assurance.VERIFIED)
        decision = self._rights.allows(*asked, approvals=True)
        if decision.allowed:
            return "asks" if decision.approval else "runs"
        return "sometimes" if self._is_bounded(who, spec) else ""

    def _is_bounded(self, who: Principal, spec: AutomationSpec) -> bool:
        policy = self._rights.policy
        tables = (policy.table(role) for role in who.roles if _concerns(policy, role, spec))
        return any(
            table and (table.hours or table.days or table.accounts or table.conversations) for table in tables
        )


async def _given(conn: AsyncConnection, who: Principal, role: str) -> bool:
    if role not in BUILT_IN:
        return await principals.give_role(conn, who.id, role)
    if await principals.given_role(conn, who.id) == role:
        return False
    await principals.set_role(conn, who.id, Role(role))
    return True


async def _taken(conn: AsyncConnection, who: Principal, role: str) -> bool:
    if role not in BUILT_IN:
        return await principals.take_role(conn, who.id, role)
    if await principals.given_role(conn, who.id) != role or role == Role.NONE:
        return False
    await principals.set_role(conn, who.id, Role.NONE)
    return True


async def _having(conn: AsyncConnection, roles: list[str], most: int) -> list[Principal]:
    """Enabled people and services who have one of these roles, by name."""
    table, grants = schema.principal, schema.role_grant
    granted = sa.select(grants.c.principal_id).where(grants.c.role.in_(roles))
    condition = sa.and_(table.c.enabled, sa.or_(table.c.role.in_(roles), table.c.id.in_(granted)))
    return await principals.list_principals(conn, condition, most)


def _concerns(policy: Policy, role: str, spec: AutomationSpec) -> bool:
    table = policy.table(role)
    return bool(table and table.concerns(spec.effect) and table.covers(spec.command))


def _text(key: str, language: str, **values: object) -> str:
    return _TEXTS[key][language == "zh"].format(**values)


__all__ = ["RoleCommands"]
