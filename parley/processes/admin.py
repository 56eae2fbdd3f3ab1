"""What only the person at the machine may do, through the command line. Every change leaves an audit row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, ConfigurationError, LinkError, PolicyError
from parley.messages.model import ConversationKind, now
from parley.people import audit, principals, tokens
from parley.people.principals import PrincipalKind, Role
from parley.people.sealing import Keyring
from parley.people.tokens import TokenKind
from parley.processes.accounts import Accounts
from parley.processes.audit_desk import AuditDesk
from parley.runs.adopt import SERVICE, route_from
from parley.runs.catalogue import Catalogue
from parley.runs.dead_letters import DeadLetter
from parley.runs.replay import Decider, ReplayDesk
from parley.runs.requests import short
from parley.runs.sentences import sentence
from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import new_id

Verb = Callable[..., Awaitable[Any]]

ACTOR = "command line"
AT_THE_MACHINE = Decider(name=ACTOR)
LOGIN = timedelta(minutes=15)


class Admin:
    """The administrative verbs; `run` carries one out."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        accounts: Accounts,
        *,
        console_url: str,
        catalogue: Callable[[], Catalogue],
        replays: ReplayDesk,
        audit_desk: AuditDesk,
        accounts_changed: Callable[[], Awaitable[None]],
        status: Callable[[], Awaitable[dict[str, Any]]],
        doctor: Callable[[], Awaitable[list[dict[str, Any]]]],
        more: Mapping[str, Verb],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._accounts = accounts
        self._console_url = console_url
        self._catalogue = catalogue
        self._accounts_changed = accounts_changed
        self._replays = replays
        self._audit = audit.Audit(keyring)
        self._verbs: dict[str, Verb] = {
            "status": status,
            "doctor": doctor,
            **more,
            **{verb: getattr(self, method) for verb, method in _OWN.items()},
            **audit_desk.verbs,
        }

    async def run(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Carry out one verb. Raises `LinkError` for an unknown one or wrong arguments, else what the verb raises."""
        act = self._verbs.get(verb)
        if act is None:
            raise LinkError(f"there is no administrative verb {verb!r}.")
        try:
            return await act(**arguments)
        except TypeError as error:
            raise LinkError(f"{verb}: wrong arguments ({error}).") from None

    async def _change(
        self, action: str, subject: str, change: Callable[[AsyncConnection], Awaitable[Any]]
    ) -> Any:
        async def write(conn: AsyncConnection) -> Any:
            result = await change(conn)
            await self._audit.record(conn, action=action, actor=ACTOR, subject=subject)
            return result

        return await self._store.write(write)

    # -- tokens

    async def _token(
        self,
        as_name: str | None = None,
        label: str | None = None,
        days: float | None = None,
        kind: str = "bearer",
    ) -> dict[str, str]:
        async def issue(conn: AsyncConnection) -> str:
            holder = (await principals.get_by_name(conn, as_name)).id if as_name else await _owner(conn)
            ttl = timedelta(days=days) if days else None
            return await tokens.issue(conn, holder, TokenKind(kind), label, ttl)

        return {"token": await self._change("token-issued", f"person:{as_name or 'owner'}", issue)}

    async def _login_link(self) -> dict[str, str]:
        async def issue(conn: AsyncConnection) -> str:
            return await tokens.issue(conn, await _owner(conn), TokenKind.LOGIN, "link", LOGIN)

        secret = await self._change("log-in-link-issued", "person:owner", issue)
        return {"url": f"{self._console_url}/login?code={secret}"}

    # -- accounts

    async def _seal(self, block_type: str, block_name: str, field: str, value: str) -> dict[str, str]:
        return {"sealed": self._keyring.seal_text(block_type, block_name, field, value)}

    async def _add_account(self, name: str, platform: str, block: str) -> None:
        add = self._accounts.adding(name, platform, block)
        await self._change("account-added", f"account:{name}", add)
        await self._accounts.load()
        await self._accounts_changed()

    async def _show_accounts(self) -> list[dict[str, Any]]:
        return self._accounts.states()

    # -- people

    async def _people(self) -> list[dict[str, Any]]:
        async def fetch(conn: AsyncConnection) -> list[dict[str, Any]]:
            links = (await conn.execute(sa.select(schema.identity).where(principals.is_in_force()))).all()
            return [_person(one, links) for one in await principals.list_principals(conn)]

        return await self._store.read(fetch)

    async def _person_add(
        self,
        name: str,
        role: str = "user",
        automations: list[str] | None = None,
        kind: str = "person",
        language: str | None = None,
    ) -> None:
        if language not in (None, "en", "zh"):
            raise ConfigurationError(f"{language!r} is not a language spoken here: choose en or zh.")

        async def add(conn: AsyncConnection) -> str:
            return await principals.add_principal(
                conn,
                name,
                kind=PrincipalKind(kind),
                role=_role(role),
                automations=tuple(automations or ()),
                language=language,
            )

        await self._change("person-added", f"person:{name}", add)

    async def _person_role(self, name: str, role: str, automations: list[str] | None = None) -> None:
        async def change(conn: AsyncConnection) -> None:
            found = await principals.get_by_name(conn, name)
            await principals.set_role(conn, found.id, _role(role), automations=automations)

        await self._change(f"person-role:{role}", f"person:{name}", change)
        now_is = (await self._store.read(lambda conn: principals.get_by_name(conn, name))).role
        if now_is != role:
            raise ConfigurationError(
                f"{name} stays {now_is.value}, since a group says so; by hand it is {role}."
            )

    async def _person_link(self, name: str, account: str, user_id: str, verified: bool = False) -> None:
        if not self._accounts.knows(account):
            raise ConfigurationError(f"there is no account {account!r}: `parley accounts` lists them.")

        async def link(conn: AsyncConnection) -> None:
            found = await principals.get_by_name(conn, name)
            await principals.link_identity(conn, found.id, account, user_id, verified=verified)

        await self._change("person-linked", f"person:{name}", link)

    async def _person_unlink(self, account: str, user_id: str) -> bool:
        return bool(
            await self._change(
                "person-unlinked",
                f"account:{account}",
                lambda conn: principals.unlink(conn, account, user_id),
            )
        )

    async def _person_disable(self, name: str) -> None:
        async def disable(conn: AsyncConnection) -> None:
            await principals.disable(conn, (await principals.get_by_name(conn, name)).id)

        await self._change("person-disabled", f"person:{name}", disable)

    # -- grants for runs that nobody asked for in a chat

    async def _grant(
        self, automation: str, as_name: str | None = None, to: str | None = None, days: float | None = None
    ) -> None:
        spec = self._catalogue().find(automation)
        if spec is None:
            raise ConfigurationError(
                f"there is no automation {automation!r}: `parley automations` lists them."
            )

        async def grant(conn: AsyncConnection) -> None:
            service = await self._service(conn, as_name or SERVICE)
            kind = ConversationKind.DIRECT if (to or "").startswith("console:") else ConversationKind.CHANNEL
            row = {
                "id": new_id(),
                "automation": spec.command,
                "principal_id": service,
                "granted_by_id": await _owner(conn),
                "route": route_from(to, kind).model_dump(mode="json") if to else None,
                "created_at": now(),
                "expires_at": now() + timedelta(days=days) if days else None,
            }
            await conn.execute(sa.insert(schema.grant).values(row))

        await self._change("granted", f"automation:{spec.command}", grant)

    async def _service(self, conn: AsyncConnection, name: str) -> str:
        # A grant is the owner's word for this automation: the service gets just what it needs, by name.
        try:
            return (await principals.get_by_name(conn, name)).id
        except PolicyError:
            return await principals.add_principal(conn, name, kind=PrincipalKind.SERVICE, role=Role.USER)

    async def _ungrant(self, automation: str) -> int:
        table = schema.grant

        async def revoke(conn: AsyncConnection) -> int:
            live = sa.and_(table.c.automation == automation, table.c.revoked_at.is_(None))
            return (await conn.execute(sa.update(table).where(live).values(revoked_at=now()))).rowcount

        return int(await self._change("grant-revoked", f"automation:{automation}", revoke))

    async def _grants(self) -> list[dict[str, Any]]:
        table, person = schema.grant, schema.principal
        query = sa.select(table, person.c.name).join(person, person.c.id == table.c.principal_id)

        async def fetch(conn: AsyncConnection) -> list[dict[str, Any]]:
            rows = (await conn.execute(query.where(table.c.revoked_at.is_(None)))).all()
            return [{"automation": row.automation, "as": row.name, "to": row.route} for row in rows]

        return await self._store.read(fetch)

    # -- dead letters

    async def _dead_letters(
        self, limit: int = 50, kind: str | None = None, settled: bool = False
    ) -> list[dict[str, Any]]:
        found = await self._replays.newest(AT_THE_MACHINE, limit=limit, kind=kind, settled=settled)
        return [_letter(one) for one in found]

    async def _dead_letter(self, identifier: str) -> dict[str, Any]:
        letter = await self._letter_of(identifier)
        return _letter(letter) | {"facts": (await self._replays.show(AT_THE_MACHINE, letter)).facts}

    async def _dead_letter_replay(self, identifier: str, confirmed: bool = False) -> dict[str, Any]:
        letter = await self._letter_of(identifier)
        await self._replays.replay(AT_THE_MACHINE, letter, confirmed=confirmed)
        return await self._dead_letter(letter.id)

    async def _dead_letter_discard(self, identifier: str) -> dict[str, Any]:
        letter = await self._letter_of(identifier)
        await self._replays.discard(AT_THE_MACHINE, letter)
        return await self._dead_letter(letter.id)

    async def _letter_of(self, identifier: str) -> DeadLetter:
        letter = await self._replays.find(AT_THE_MACHINE, identifier)
        if letter is None:
            raise BadArguments(sentence("dlq-unknown", id=identifier[:36]))
        return letter

    # -- audit, catalogue

    async def _show_catalogue(self) -> dict[str, Any]:
        return self._catalogue().model_dump(mode="json")


_OWN = {
    "token": "_token",
    "login_link": "_login_link",
    "seal": "_seal",
    "add_account": "_add_account",
    "people": "_people",
    "person_add": "_person_add",
    "person_role": "_person_role",
    "person_link": "_person_link",
    "person_unlink": "_person_unlink",
    "person_disable": "_person_disable",
    "grant": "_grant",
    "ungrant": "_ungrant",
    "grants": "_grants",
    "dead_letters": "_dead_letters",
    "dead_letter": "_dead_letter",
    "dead_letter_replay": "_dead_letter_replay",
    "dead_letter_discard": "_dead_letter_discard",
    "accounts": "_show_accounts",
    "catalogue": "_show_catalogue",
}


async def _owner(conn: AsyncConnection) -> str:
    # The one of the start may have left since.
    return await principals.ensure_owner(conn, "owner")


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is not a role: choose {', '.join(role.value for role in Role)}."
        ) from None


def _letter(one: DeadLetter) -> dict[str, Any]:
    times = {"created_at": one.created_at, "settled_at": one.settled_at}
    return asdict(one) | {
        "code": short(one.id),
        **{name: at.isoformat() if at else None for name, at in times.items()},
    }


def _person(one: principals.Principal, links: Any) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind.value,
        "role": one.role.value,
        "roles": list(one.roles),
        "automations": list(one.automations),
        "enabled": one.enabled,
        "identities": [
            f"{link.account}:{link.native_user_id}" for link in links if link.principal_id == one.id
        ],
    }
