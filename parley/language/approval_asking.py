"""From a command to an approval: a request is made to wait, and who asked is told for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.language.decision import Decision, Speaker
from parley.messages.inbox import Received
from parley.messages.model import Reply
from parley.people.approval_rules import Terms
from parley.runs.approving import ApprovalDesk, Asked
from parley.runs.catalogue import AutomationSpec
from parley.store import schema


async def ask(
    conn: AsyncConnection,
    desk: ApprovalDesk,
    decision: Decision,
    *,
    request_id: str,
    spec: AutomationSpec,
    values: Mapping[str, Any],
    terms: Terms,
    received: Received,
    speaker: Speaker,
    acting: Sequence[str] = (),
) -> None:
    """Within the write of `decision`: the request waits for its approval, or is refused where nobody could give one."""
    spoken_for = {*acting, *([received.acting_for_id] if received.acting_for_id else [])}
    asked = Asked(
        request_id=request_id,
        spec=spec,
        values=values,
        terms=terms,
        actor_id=speaker.principal.id,
        actor=speaker.principal.name,
        acting=tuple(sorted(spoken_for)),
        route=received.event.route,
        message_id=received.id,
        language=speaker.language,
        time_zone=desk.time_zone(speaker.principal.time_zone),
    )
    refused = await desk.ask(conn, asked, speaker.principal)
    decision.replies[:] = [Reply(text=refused)] if refused else []


async def acting_in(conn: AsyncConnection, row: Any, received: Received) -> list[str]:
    """Who has spoken for the person who asks, in any of the messages that made this request."""
    table = schema.message
    earlier = sa.select(table.c.acting_for_id).where(table.c.id == row.message_id)
    found = {
        *(row.asking or {}).get("acting", ()),
        (await conn.execute(earlier)).scalar(),
        received.acting_for_id,
    }
    return sorted(one for one in found if one)


__all__ = ["acting_in", "ask"]
