"""Principals: people and services, the platform identities that are linked to them, and their roles.

Everything here runs within a write (`Store.write`) or a read; who may call it is decided by the caller, and audited.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import PolicyError
from parley.messages.model import Assurance
from parley.store.ids import new_id
from parley.store.schema import identity, principal, role_grant, session, source_grant, token

_ROLES: Final = (
    # Names of roles hold no comma.
    sa.select(sa.func.aggregate_strings(role_grant.c.role, ","))
    .where(role_grant.c.principal_id == principal.c.id)
    .correlate(principal)
    .scalar_subquery()
    .label("roles")
)

# Made once: everybody is looked up several times a message, and to make a statement takes longer than to execute it.
_BY_ID: Final = sa.select(principal, _ROLES).where(principal.c.id == sa.bindparam("wanted"))
_BY_NAME: Final = sa.select(principal, _ROLES).where(principal.c.name == sa.bindparam("wanted"))
_THIS_IDENTITY: Final = sa.and_(
    identity.c.account == sa.bindparam("on"), identity.c.native_user_id == sa.bindparam("user")
)
_BY_IDENTITY: Final = (
    sa.select(principal, _ROLES, identity.c.verified, identity.c.direct, identity.c.source)
    .join_from(identity, principal)
    .where(_THIS_IDENTITY)
)
_REACHED: Final = sa.update(identity).where(_THIS_IDENTITY)


class PrincipalKind(StrEnum):
    """A human being, or a machine such as an alert source."""

    PERSON = "person"
    SERVICE = "service"


class Role(StrEnum):
    """What a principal may run, before `automations` narrows it; see parley.people.rights."""

    OWNER = "owner"
    OPERATOR = "operator"
    USER = "user"
    AUDITOR = "auditor"
    NONE = "none"


BY_CODE: Final = "code"
"""Whose word a link is where somebody said a code from an account that did not vouch for them: nobody's but theirs."""

_LEFT: Final = "left:"
"""Before an account: by this user id somebody was known there who has left. No account has a colon in its name."""

RANKS: Final = (Role.OWNER, Role.OPERATOR, Role.AUDITOR, Role.USER, Role.NONE)
"""Of our own roles somebody has one: the first of these that anybody gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A person or a service. `automations` are globs over names; none means all that the role may run.

    `roles` are those of parley.toml that were granted besides, by name.
    """

    id: str
    name: str
    kind: PrincipalKind
    role: Role
    automations: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    language: str | None = None
    time_zone: str | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Who stands behind a platform's user id. `direct`: the conversation in which they last wrote to us alone.

    `source`: who says so, as in `link_identity`.
    `verified`: the owner says that this account's claims about this sender are checked (DKIM, SASL account, client
    certificate), so that they count although the platform alone only claims them.
    """

    principal: Principal
    verified: bool
    direct: str | None = None
    source: str | None = None

    def assurance(self, declared: Assurance) -> Assurance:
        """How well we know the sender, given what the connector declares."""
        return Assurance.VERIFIED if self.verified else declared


async def ensure_owner(conn: AsyncConnection, name: str) -> str:
    """The id of an enabled owner; made with this name when there is none."""
    wanted = sa.select(principal.c.id).where(principal.c.role == Role.OWNER, principal.c.enabled)
    found = await conn.scalar(wanted.order_by(principal.c.created_at, principal.c.id).limit(1))
    return str(found) if found else await add_principal(conn, name, role=Role.OWNER)


async def add_principal(
    conn: AsyncConnection,
    name: str,
    *,
    kind: PrincipalKind = PrincipalKind.PERSON,
    role: Role = Role.NONE,
    automations: Sequence[str] = (),
    language: str | None = None,
    time_zone: str | None = None,
) -> str:
    """A new principal's id. Raises PolicyError when the name is taken or cannot be one."""
    name = clean_name(name)
    if await conn.scalar(sa.select(principal.c.id).where(principal.c.name == name)):
        raise PolicyError(f"There is already somebody called {name}.")
    row = {
        "id": new_id(),
        "name": name,
        "kind": PrincipalKind(kind),
        "role": Role(role),
        "automations": list(automations),
        "language": language,
        "time_zone": time_zone,
        "enabled": True,
        "created_at": datetime.now(UTC),
    }
    await conn.execute(sa.insert(principal).values(row))
    return str(row["id"])


async def link_identity(
    conn: AsyncConnection,
    principal_id: str,
    account: str,
    native_user_id: str,
    *,
    verified: bool = False,
    source: str | None = None,
) -> None:
    """Let this user id of this account be this principal. Raises PolicyError when it is somebody else's already.

    `source`: who says so, where it is not people (a directory, or `BY_CODE`); what they link by hand it does not take
    away.
    """
    await get(conn, principal_id)
    found = await find_by_identity(conn, account, native_user_id)
    if found is not None and found.principal.id != principal_id:
        raise PolicyError(f"This sender is linked to {found.principal.name} already; unlink it there first.")
    if found is not None:
        values = {"verified": verified, **({} if source else {"source": None})}
        await conn.execute(sa.update(identity).where(_is(account, native_user_id)).values(values))
        return
    row = {
        "id": new_id(),
        "principal_id": principal_id,
        "account": account,
        "native_user_id": native_user_id,
        "verified": verified,
        "source": source,
        "created_at": datetime.now(UTC),
    }
    await conn.execute(sa.insert(identity).values(row))


async def unlink(conn: AsyncConnection, account: str, native_user_id: str) -> bool:
    """Let this user id be nobody again; whether it was somebody."""
    return (await conn.execute(sa.delete(identity).where(_is(account, native_user_id)))).rowcount == 1


async def leave_behind(
    conn: AsyncConnection, account: str, native_user_id: str, *, source: str | None = None
) -> bool:
    """As `unlink`, and remember (`has_left`) that this is no newcomer; whether it was somebody.

    `source`: why, for `take_up_again`.
    """
    left = _LEFT + account
    before = await find_by_identity(conn, account, native_user_id)
    if before is None:
        return False
    await unlink(conn, left, native_user_id)
    values = {"account": left, "verified": False, "direct": None, "source": source}
    await conn.execute(sa.update(identity).where(_is(account, native_user_id)).values(values))
    return True


async def take_up_again(conn: AsyncConnection, principal_id: str, prefix: str, source: str) -> list[str]:
    """Let them be known, verified, as what they left behind for this reason, where nobody else is by now.

    Of accounts that begin with `prefix`; which these are.
    """
    left = identity.c.account.startswith(_LEFT + prefix, autoescape=True)
    theirs = sa.and_(left, identity.c.principal_id == principal_id, identity.c.source == source)
    accounts = []
    for row in (await conn.execute(sa.select(identity).where(theirs).order_by(identity.c.account))).all():
        account = row.account.removeprefix(_LEFT)
        if await find_by_identity(conn, account, row.native_user_id) is None:
            values = {"account": account, "verified": True, "source": None}
            await conn.execute(sa.update(identity).where(identity.c.id == row.id).values(values))
            accounts.append(account)
    return accounts


async def has_left(conn: AsyncConnection, native_user_id: str, account: str | None = None) -> bool:
    """Whether this user id of this account, or of any, was left behind (`leave_behind`): they may not join as new."""
    left = identity.c.account.startswith(_LEFT, autoescape=True)
    wanted = sa.and_(left, identity.c.native_user_id == native_user_id)
    if account is not None:
        wanted = _is(_LEFT + account, native_user_id)
    return (await conn.execute(sa.select(identity.c.id).where(wanted).limit(1))).first() is not None


async def find_by_identity(conn: AsyncConnection, account: str, native_user_id: str) -> Link | None:
    """Who this user id of this account is. Ids are compared byte for byte, never display names."""
    row = (await conn.execute(_BY_IDENTITY, {"on": account, "user": native_user_id})).first()
    if row is None:
        return None
    return Link(principal=_principal(row), verified=row.verified, direct=row.direct, source=row.source)


async def reached_at(conn: AsyncConnection, account: str, native_user_id: str, conversation: str) -> None:
    """Remember where this user id writes to us alone: that is where the person behind it can be reached."""
    place = {"on": account, "user": native_user_id}
    await conn.execute(_REACHED, {"direct": conversation, **place})


async def get(conn: AsyncConnection, principal_id: str) -> Principal:
    """The principal with this id. Raises PolicyError when there is none."""
    return await _one(conn, _BY_ID, principal_id)


async def get_by_name(conn: AsyncConnection, name: str) -> Principal:
    """The principal of this name. Raises PolicyError when there is none."""
    return await _one(conn, _BY_NAME, clean_name(name))


async def list_principals(
    conn: AsyncConnection, condition: sa.ColumnElement[bool] | None = None, most: int | None = None
) -> list[Principal]:
    """Those of whom the condition holds, by name; all without one."""
    query = sa.select(principal, _ROLES).order_by(principal.c.name)
    query = query if condition is None else query.where(condition)
    return [_principal(row) for row in await conn.execute(query.limit(most))]


async def identities(conn: AsyncConnection, principal_id: str) -> list[tuple[str, str, bool]]:
    """What they are known as: account, user id, and whether the link is verified."""
    query = sa.select(identity.c.account, identity.c.native_user_id, identity.c.verified)
    theirs = sa.and_(identity.c.principal_id == principal_id, is_in_force())
    rows = await conn.execute(query.where(theirs).order_by(identity.c.account))
    return [(row.account, row.native_user_id, row.verified) for row in rows]


def is_in_force() -> sa.ColumnElement[bool]:
    """Of rows of `identity`: what somebody is known as, not what they left behind."""
    return sa.not_(identity.c.account.startswith(_LEFT, autoescape=True))


async def set_role(
    conn: AsyncConnection, principal_id: str, role: Role, *, automations: Sequence[str] | None = None
) -> None:
    """Change the role that people give, and the globs when given; a group may make it more (`RANKS`).

    Raises PolicyError when no owner would be left.
    """
    if role is not Role.OWNER and not await is_owner_without(conn, principal_id, None):
        await _keep_an_owner(conn, principal_id)
    values: dict[str, Any] = {"role": Role(role), "given_role": None}
    if automations is not None:
        values["automations"] = list(automations)
    await _update(conn, principal_id, values)
    await settle_roles(conn, principal_id)


async def give_role(conn: AsyncConnection, principal_id: str, role: str) -> bool:
    """Let them have this role of parley.toml by hand; whether they had not. Raises PolicyError for one of ours."""
    if role in tuple(Role):
        raise PolicyError(
            f"{role} is no role of parley.toml: it is what somebody is, not what they have besides."
        )
    await get(conn, principal_id)
    same = _granted(principal_id, role)
    # What a group gave alone is given by people now as well.
    lent = sa.update(role_grant).where(same, role_grant.c.source.is_not(None)).values(source=None)
    if (await conn.execute(lent)).rowcount:
        return True
    if (await conn.execute(sa.select(role_grant.c.id).where(same))).first():
        return False
    await conn.execute(sa.insert(role_grant).values(_grant_row(principal_id, role, None)))
    return True


async def take_role(conn: AsyncConnection, principal_id: str, role: str) -> bool:
    """Take a role of parley.toml away that people gave; whether they had. What a group gives stays: `source_of`."""
    by_hand = sa.and_(_granted(principal_id, role), role_grant.c.source.is_(None))
    taken = bool((await conn.execute(sa.delete(role_grant).where(by_hand))).rowcount)
    if taken:
        await settle_roles(conn, principal_id)
    return taken


async def given_role(conn: AsyncConnection, principal_id: str) -> Role:
    """Which of our own roles people gave them by hand; a group may make it more."""
    query = sa.select(sa.func.coalesce(principal.c.given_role, principal.c.role))
    return Role(await conn.scalar(query.where(principal.c.id == principal_id)))


async def source_of(conn: AsyncConnection, principal_id: str, role: str) -> str | None:
    """A source of groups that gives them this role; None when there is none."""
    table = source_grant
    query = sa.select(table.c.source).where(table.c.principal_id == principal_id, table.c.role == role)
    found = await conn.scalar(query.order_by(table.c.source).limit(1))
    return str(found) if found else None


async def settle_roles(conn: AsyncConnection, principal_id: str) -> None:
    """Let what counts follow from what people gave by hand and what groups give (`source_grant`)."""
    table = source_grant
    query = sa.select(table.c.role, table.c.source).where(table.c.principal_id == principal_id)
    lent = {row.role: row.source for row in await conn.execute(query.order_by(table.c.source.desc()))}
    row = (await conn.execute(sa.select(principal).where(principal.c.id == principal_id))).one()
    given = Role(row.given_role or row.role)
    role = min([given, *(Role(name) for name in lent if name in tuple(Role))], key=RANKS.index)
    kept = None if role is given else given
    if (role, kept) != (row.role, row.given_role):
        await _update(conn, principal_id, {"role": role, "given_role": kept})
    await _settle_grants(conn, principal_id, {name: lent[name] for name in lent if name not in tuple(Role)})


async def is_owner_without(conn: AsyncConnection, principal_id: str, source: str | None) -> bool:
    """Whether they are an owner by others than this source of groups; None: than people's own hands."""
    row = (await conn.execute(sa.select(principal).where(principal.c.id == principal_id))).first()
    if source is not None and row is not None and row.role == Role.OWNER and row.given_role is None:
        return True
    table = source_grant
    owns = sa.and_(table.c.principal_id == principal_id, table.c.role == Role.OWNER)
    others = owns if source is None else sa.and_(owns, table.c.source != source)
    return (await conn.execute(sa.select(table.c.id).where(others))).first() is not None


async def has_other_owner(conn: AsyncConnection, principal_id: str) -> bool:
    """Whether somebody else is an enabled owner."""
    others = sa.select(principal.c.id).where(
        principal.c.role == Role.OWNER, principal.c.enabled, principal.c.id != principal_id
    )
    return (await conn.execute(others.limit(1))).first() is not None


async def disable(conn: AsyncConnection, principal_id: str) -> None:
    """Take every right away, and every token and session. Raises PolicyError when no owner would be left."""
    await _keep_an_owner(conn, principal_id)
    await _update(conn, principal_id, {"enabled": False})
    live = sa.and_(token.c.principal_id == principal_id, token.c.revoked_at.is_(None))
    await conn.execute(sa.update(token).where(live).values(revoked_at=datetime.now(UTC)))
    await conn.execute(sa.delete(session).where(session.c.principal_id == principal_id))


async def enable(conn: AsyncConnection, principal_id: str) -> None:
    """Give the rights back; tokens and sessions stay revoked."""
    await _update(conn, principal_id, {"enabled": True})


def clean_name(name: str) -> str:
    """The one spelling of a name. Raises PolicyError when it is empty, too long or holds what cannot be seen."""
    name = unicodedata.normalize("NFKC", name).strip()
    if not 0 < len(name) <= 64 or not name.isprintable():
        raise PolicyError("A name has 1 to 64 characters, all of them visible.")
    return name


def _is(account: str, native_user_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(identity.c.account == account, identity.c.native_user_id == native_user_id)


def _principal(row: sa.Row[Any]) -> Principal:
    return Principal(
        id=row.id,
        name=row.name,
        kind=PrincipalKind(row.kind),
        role=Role(row.role),
        automations=tuple(row.automations),
        roles=tuple(sorted(row.roles.split(","))) if row.roles else (),
        language=row.language,
        time_zone=row.time_zone,
        enabled=row.enabled,
    )


async def _one(conn: AsyncConnection, query: sa.Select[Any], wanted: str) -> Principal:
    row = (await conn.execute(query, {"wanted": wanted})).first()
    if row is None:
        raise PolicyError("There is nobody of that name.")
    return _principal(row)


async def _update(conn: AsyncConnection, principal_id: str, values: dict[str, Any]) -> None:
    done = await conn.execute(sa.update(principal).where(principal.c.id == principal_id).values(values))
    if done.rowcount != 1:
        raise PolicyError("There is nobody of that name.")


async def _keep_an_owner(conn: AsyncConnection, leaving: str) -> None:
    if (await get(conn, leaving)).role is Role.OWNER and not await has_other_owner(conn, leaving):
        raise PolicyError("This is the last owner: make somebody else an owner first.")


async def _settle_grants(conn: AsyncConnection, principal_id: str, lent: dict[str, str]) -> None:
    table = role_grant
    query = sa.select(table.c.role, table.c.source).where(table.c.principal_id == principal_id)
    here = {row.role: row.source for row in await conn.execute(query)}
    gone = [role for role, source in here.items() if source is not None and role not in lent]
    if gone:
        theirs = sa.and_(table.c.principal_id == principal_id, table.c.role.in_(gone))
        await conn.execute(sa.delete(table).where(theirs, table.c.source.is_not(None)))
    fresh = [_grant_row(principal_id, role, source) for role, source in lent.items() if role not in here]
    if fresh:
        await conn.execute(sa.insert(table), fresh)


def _granted(principal_id: str, role: str) -> sa.ColumnElement[bool]:
    return sa.and_(role_grant.c.principal_id == principal_id, role_grant.c.role == role)


def _grant_row(principal_id: str, role: str, source: str | None) -> dict[str, Any]:
    return {
        "id": new_id(),
        "principal_id": principal_id,
        "role": role,
        "source": source,
        "created_at": datetime.now(UTC),
    }
