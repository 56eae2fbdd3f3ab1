"""Offers: runs that an event proposes and a person may take, once.

An offer is a request that waits, asked by the service that reported the event. Whoever takes it first becomes the one
who asks, with that person's rights and none of the service's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments
from parley.language.characters import visible
from parley.language.command_line import command_line
from parley.messages.model import Button, now
from parley.people import approvals
from parley.people.sealing import Keyring
from parley.runs.catalogue import AutomationSpec
from parley.runs.requests import digest, open_values, short, update_request
from parley.store import schema

KIND: Final = "offer"
_STATE: Final = "awaiting-approval"
_LONGEST_LABEL: Final = 75


def button(request_id: str, spec: AutomationSpec, values: Mapping[str, Any], label: str = "") -> Button:
    """What people press to take it: with this label, or the command line that would do the same."""
    code = f"/take {short(request_id)}"
    # What an event gave for the label came from outside: one line, with nothing hidden in it.
    shown = visible(" ".join(label.split())) or _command_line(spec, values)
    shown = shown if len(shown) <= _LONGEST_LABEL else shown[: _LONGEST_LABEL - 1] + "…"
    return Button(label=shown, value=code, style="danger" if spec.effect == "dangerous" else "primary")


def _command_line(spec: AutomationSpec, values: Mapping[str, Any]) -> str:
    open_values = {name: value for name, value in values.items() if name not in spec.sealed_names}
    try:
        line = command_line(spec, open_values)
    except BadArguments:
        line = f"/{spec.command}"
    return line


def asking(account: str, key: str) -> dict[str, Any]:
    """What stands in the request's row while it is an offer."""
    return {"kind": KIND, "about": f"{account}:{key}" if key else ""}


async def is_open(
    conn: AsyncConnection,
    keyring: Keyring,
    spec: AutomationSpec,
    values: Mapping[str, Any],
    service_id: str,
) -> bool:
    """Whether the same is offered, or on its way, already: a repeated alert need not offer it twice."""
    table = schema.request
    own = sa.select(sa.func.count()).where(
        table.c.state.in_((_STATE, "queued", "running")),
        table.c.digest == digest(keyring, spec, values, service_id),
    )
    if (await conn.execute(own)).scalar_one():
        return True
    # One that was taken is its taker's.
    taken = sa.select(table.c.id, table.c.parameters_sealed, table.c.trail).where(
        table.c.automation == spec.command,
        table.c.origin == "command",
        table.c.state.in_((_STATE, "queued", "running")),
    )
    return any(
        row.trail and open_values(keyring, row) == dict(values) for row in (await conn.execute(taken)).all()
    )


async def withdraw(conn: AsyncConnection, service_id: str, account: str, key: str) -> None:
    """Close what was offered about this key and nobody took."""
    about = asking(account, key)["about"]
    if not about:
        return
    table = schema.request
    query = sa.select(table.c.id, table.c.asking).where(
        table.c.state == _STATE, table.c.actor_id == service_id
    )
    for row in (await conn.execute(query)).all():
        if row.asking and row.asking.get("kind") == KIND and row.asking.get("about") == about:
            reason = "what it was offered for is over"
            await update_request(conn, row.id, where=(_STATE,), state="expired", reason=reason, asking=None)


async def find(conn: AsyncConnection, identifier: str) -> Any:
    """The request with this short id that is or was an offer; None when there is none."""
    table = schema.request
    wanted = identifier.strip().strip("`").lower().replace("-", "")[-8:]
    if len(wanted) < 8 or not wanted.isalnum():
        return None
    query = (
        sa.select(table, schema.principal.c.name.label("actor"))
        .outerjoin(schema.principal, schema.principal.c.id == table.c.actor_id)
        .where(table.c.id.like(f"%{wanted}"))
        .order_by(table.c.created_at.desc())
        .limit(10)
    )
    # What an event led to has a trail; one that was taken is no longer the service's own.
    return next((row for row in (await conn.execute(query)).all() if row.trail), None)


def is_free(row: Any) -> bool:
    """Whether it can still be taken."""
    return row.state == _STATE and (row.asking or {}).get("kind") == KIND and row.expires_at > now()


def is_taken(row: Any) -> bool:
    """Whether somebody took it, and it waits for its approval, runs or has run."""
    waits = row.state == _STATE and (row.asking or {}).get("kind") == approvals.KIND
    return waits or row.state in ("queued", "running", "done", "failed")
