"""People at the machine: roles of parley.toml given and taken, invitations, and what becomes of who leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError
from parley.people import directory_sync, leaving, linking, principals
from parley.people.audit import Audit
from parley.people.linking import CodeKind
from parley.people.policy import Policy
from parley.people.roles import BUILT_IN
from parley.people.sealing import Keyring
from parley.runs.approval_leaving import ApprovalLeaving
from parley.store.engine import Store

Change = Callable[[AsyncConnection, principals.Principal], Awaitable[Any]]

ACTOR = "command line"


class PeopleDesk:
    """Administrative verbs about people; each is in the audit."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        audit: Audit,
        *,
        policy: Callable[[], Policy],
        approvals: Callable[[], ApprovalLeaving],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._audit = audit
        self._policy = policy
        self._approvals = approvals

    @property
    def verbs(self) -> Mapping[str, Callable[..., Awaitable[Any]]]:
        """By name, as the command line calls them."""
        return {
            "person_grant": self.grant,
            "person_revoke": self.revoke,
            "person_invite": self.invite,
            "person_remove": self.remove,
        }

    async def grant(self, name: str, role: str) -> bool:
        """Give a role of parley.toml; whether they had not had it. Raises ConfigurationError for one that is not."""
        if role in BUILT_IN:
            raise ConfigurationError(f"{role} is one of our own roles: `parley people role {name} {role}`.")
        if role not in self._policy().own:
            known = ", ".join(self._policy().own) or "none"
            raise ConfigurationError(f"parley.toml has no role {role!r}; it has: {known}.")
        return bool(
            await self._change("role-given", name, lambda c, who: principals.give_role(c, who.id, role), role)
        )

    async def revoke(self, name: str, role: str) -> bool:
        """Take a role of parley.toml away, one that the file has no more too; whether they had it by hand.

        Raises ConfigurationError where a group gives it: then only what was given by hand is taken.
        """
        taken = bool(
            await self._change("role-taken", name, lambda c, who: principals.take_role(c, who.id, role), role)
        )
        if source := await self._store.read(lambda conn: _given_by(conn, name, role)):
            raise ConfigurationError(f"{name} keeps the role {role}: a group gives it ({source}).")
        return taken

    async def invite(self, name: str) -> dict[str, str]:
        """A code with which somebody who was added becomes known on a platform. Raises PolicyError."""
        code = await self._change(
            "person-invited",
            name,
            lambda conn, who: linking.issue(conn, self._keyring, _here(who).id, CodeKind.INVITATION),
        )
        return {"code": code}

    async def remove(self, name: str) -> None:
        """Take everything from somebody who leaves. Raises PolicyError for the last owner."""

        async def for_good(conn: AsyncConnection, who: principals.Principal) -> None:
            await self.leave(conn, who)
            await directory_sync.removed_by_hand(conn, who.id)

        await self._change("person-removed", name, for_good)

    async def leave(self, conn: AsyncConnection, who: principals.Principal) -> None:
        """Take everything from somebody, in the caller's write; who says so is audited there. Raises PolicyError."""
        # First, while it is known where they were shown what waits.
        await self._approvals().leave(conn, who.id, who.name)
        await leaving.remove(conn, self._audit, who.id)

    async def _change(self, action: str, name: str, change: Change, role: str = "") -> Any:
        async def write(conn: AsyncConnection) -> Any:
            who = await principals.get_by_name(conn, name)
            result = await change(conn, who)
            if result is not False:
                details = {"role": role} if role else {}
                await self._audit.record(
                    conn, action=action, actor=ACTOR, subject=f"person:{who.name}", details=details
                )
            return result

        return await self._store.write(write)


async def _given_by(conn: AsyncConnection, name: str, role: str) -> str | None:
    who = await principals.get_by_name(conn, name)
    return await principals.source_of(conn, who.id, role)


def _here(who: principals.Principal) -> principals.Principal:
    if not who.enabled:
        raise ConfigurationError(f"{who.name} is disabled: nobody can be let in as them.")
    return who


__all__ = ["PeopleDesk"]
