"""`parley doctor`: what is not as it should be, and how to mend each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ParleyError
from parley.messages.model import now
from parley.messages.routes import places_of
from parley.people.directory_search import LACKS, installed
from parley.store import schema
from parley.tls import expiry

if TYPE_CHECKING:
    from parley.processes.hub import Hub

MOST_NAMES: Final = 10
"""People who are named in one line."""


async def diagnosis(hub: Hub) -> list[dict[str, Any]]:
    """One row a check: {"check", "ok", "says", "mend"}."""
    rows = [
        _row(
            "configuration",
            hub.configuration.refused is None,
            hub.configuration.refused or "parley.toml is in force",
            "mend the file",
        ),
        _row("key", True, f"{hub.settings.key_file} opens the store", "-"),
        *_anchors(hub),
        *[
            _row(f"automation {one.source}", False, one.reason, "mend the module; it is read again at once")
            for one in hub.catalogue.broken
        ],
        *_certificates(hub),
        *_directory(hub),
        *_processes(await hub.vitals.ready()),
        *[
            _row(
                f"account {one['name']}",
                one["state"] == "listening",
                one["reason"] or one["state"],
                "check the Block's credentials",
            )
            for one in hub.accounts.states()
        ],
    ]
    return rows + _routes(hub) + await _roles(hub) + await _deployments(hub)


def _anchors(hub: Hub) -> list[dict[str, Any]]:
    anchors = hub.anchors
    rows = [
        _row(
            "anchors of the audit",
            not anchors.problem,
            f"{anchors.file.path}: {anchors.problem or 'are written'}",
            "point PARLEY_AUDIT_ANCHORS to a file that may be written, not with the data",
        )
    ]
    if anchors.behind:
        mend = "`parley audit verify`; after a restore of your own, move the file of anchors away and keep it"
        rows.append(_row("audit", False, anchors.behind, mend))
    return rows


def _certificates(hub: Hub) -> list[dict[str, Any]]:
    return [
        _row(
            f"certificate of {one['port']}",
            not one["soon"],
            f"{one['file']} ends on {one['ends']:%Y-%m-%d}, in {one['days']} days",
            "renew it in its place (`parley certs renew` for one of its own); it is taken up by itself",
        )
        for one in expiry.served(hub.settings, now())
    ]


def _directory(hub: Hub) -> list[dict[str, Any]]:
    if hub.file.directory is None:
        return []
    keeper = hub.directory
    if installed() is None:
        return [_row("directory", False, LACKS, "install it; for the image: docs/directory.md")]
    said = "another hub asks it" if keeper.is_asked_elsewhere else "was not asked yet"
    if keeper.answered:
        said = f"answered at {keeper.answered:%Y-%m-%d %H:%M} UTC"
    rows = [_row("directory", not keeper.trouble, keeper.trouble or said, "docs/directory.md")]
    if keeper.problems:
        text = f"{len(keeper.problems)} of its people are not as it says, such as: {keeper.problems[0]}"
        rows.append(_row("people of the directory", False, text, "mend the entry, or docs/directory.md"))
    lost = [name for name in hub.file.directory.identities if not hub.accounts.knows(name)]
    mend = "connect the account, or mend the file"
    rows += [_row("parley.toml, [directory]", False, f"there is no account {name}", mend) for name in lost]
    return rows


def _processes(ready: dict[str, bool]) -> list[dict[str, Any]]:
    return [
        _row(name, answers, "answers" if answers else "does not answer", "see its log under `logs/`")
        for name, answers in ready.items()
    ]


def _routes(hub: Hub) -> list[dict[str, Any]]:
    lost = [
        _row(
            f"parley.toml, {where}",
            False,
            f"there is no account for {place}; nothing is sent there",
            "connect the account, or mend the file",
        )
        for place, where in places_of(hub.file)
        if not hub.accounts.knows(place.partition(":")[0])
    ]
    gone = [
        _row(
            f"parley.toml, route {route.name!r}",
            False,
            f"there is no automation {route.run!r}; events start nothing",
            "name one of `parley automations`",
        )
        for route in hub.file.routes
        if route.run and hub.catalogue.find(route.run) is None
    ]
    return lost + gone


async def _roles(hub: Hub) -> list[dict[str, Any]]:
    """Roles that people were given and parley.toml has no more: they give nothing, until it has them again."""
    given = await hub.store.read(_roles_given)
    return [
        _row(
            f"role {role!r}",
            False,
            f"parley.toml has no such role any more; it gives nothing to {_named(names)}",
            f"write [roles.{role}] again, or take it away: `parley people revoke NAME {role}`",
        )
        for role, names in given.items()
        if role not in hub.policy.own
    ]


async def _roles_given(conn: AsyncConnection) -> dict[str, list[str]]:
    person, grant = schema.principal, schema.role_grant
    query = (
        sa.select(grant.c.role, person.c.name)
        .join(person, person.c.id == grant.c.principal_id)
        .order_by(grant.c.role, person.c.name)
    )
    found: dict[str, list[str]] = {}
    for role, name in (await conn.execute(query)).tuples():
        found.setdefault(role, []).append(name)
    return found


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


async def _deployments(hub: Hub) -> list[dict[str, Any]]:
    rows = []
    for spec in hub.catalogue:
        try:
            await hub.prefect.deployment_id(spec.deployment)
        except ParleyError as error:
            rows.append(
                _row(
                    f"deployment {spec.deployment}",
                    False,
                    str(error),
                    "run `prefect deploy --all`, or restart the worker",
                )
            )
    return rows or [_row("deployments", True, "every automation has one", "-")]


def _row(check: str, ok: bool, says: str, mend: str) -> dict[str, Any]:
    return {"check": check, "ok": ok, "says": says, "mend": "-" if ok else mend}
