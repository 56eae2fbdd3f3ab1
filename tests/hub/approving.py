"""What tests of approvals do: people ask, press and write, and the runs that are let go are started."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from parley.link.calls import DeliverCall, StartCall, Started
from parley.messages.model import Action, Button, ConversationKind, Route, Sender
from parley.people.audit import AuditRow
from parley.people.principals import Principal, Role
from parley.runs.requests import run_token
from parley.store import schema
from parley.store.ids import new_id
from tests.hub.rooms import World, world_in

_CODE = re.compile(r"\b[A-HJ-NP-Z2-9]{4}\b")


@asynccontextmanager
async def people_in(home: Path, **file: Any) -> AsyncIterator[World]:
    """A hub with an operator ann, and an owner bob besides the first one; both are on slack."""
    async with world_in(home, **file) as world:
        for name, role in (("ann", Role.OPERATOR), ("bob", Role.OWNER)):
            if name not in {row.name for row in await world.rows(schema.principal)}:
                await world.person(name, role)
        yield world


async def who(world: World, name: str) -> Principal:
    (row,) = await world.rows(schema.principal, name=name)
    return await world.principal(row.id)


async def write(
    world: World, text: str, *, person: str, place: str = "", account: str = "slack", **more: Any
) -> list[DeliverCall]:
    """Somebody writes, to us alone unless a place is named; all that was said because of it, wherever."""
    before = len(world.platforms.calls)
    more |= {} if place else {"kind": ConversationKind.DIRECT}
    await world.platforms.say(place or f"{account}:D-{person}", text, person=person, addressed=True, **more)
    await world.settled()
    return world.platforms.calls[before:]


async def press(world: World, button: Button, *, person: str, call: DeliverCall) -> list[DeliverCall]:
    """Somebody presses a button of something that was delivered."""
    before = len(world.platforms.calls)
    route = Route(account=call.account, conversation=call.route.conversation, kind=call.route.kind)
    await world.platforms.hear(
        Action(
            account=call.account,
            native_id=f"press-{new_id()}",
            sender=Sender(id=person),
            route=route,
            value=button.value,
        )
    )
    await world.settled()
    return world.platforms.calls[before:]


async def request(world: World) -> Any:
    """The newest request."""
    return (await world.rows(schema.request))[-1]


async def approval(world: World) -> Any:
    """The newest approval."""
    return (await world.rows(schema.approval))[-1]


async def start(world: World, holder: str = "h") -> Started:
    """The worker asks for the start of the newest run; raises `StartRefused`."""
    (*_, run) = await world.rows(schema.run)
    flow_run = f"flow-{run.id}"
    world.hub.dispatcher._flow_runs[flow_run] = run.id
    call = StartCall(
        token=run_token(world.hub.keyring, run.id), flow_run_id=flow_run, holder=holder, automation="x"
    )
    return await world.hub.ledger.start(call)


async def trail(world: World, *actions: str) -> list[tuple[str, str, str, str | None]]:
    """Rows of the audit: action, phase, actor, state."""
    rows = await world.rows(schema.audit)
    return [
        (row.action, row.phase, row.actor, row.details.get("state"))
        for row in rows
        if any(row.action.startswith(one) for one in actions)
    ]


async def audit_is_whole(world: World) -> bool:
    """Whether the chain holds."""
    rows = [AuditRow.of(row) for row in await world.rows(schema.audit)]
    return bool(rows) and not world.hub.audit.verify(rows)


def code_in(text: str) -> str:
    """The code that a text shows."""
    found = _CODE.search(text.rsplit("Code", maxsplit=1)[-1])
    assert found, text
    return found[0]
