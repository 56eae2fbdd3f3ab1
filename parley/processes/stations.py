"""How long the stations of the way took lately, from the times that the store keeps anyway.

Exact figures over a short past, for people; Prometheus gets histograms as things happen (`parley.metrics.way`).
`handed` has no time of its own in the store: it is part of `started` here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.store import schema

LEGS: Final = ("understood", "allowed", "started", "done", "delivered", "whole")
"""Stations in their order; `whole`: from the receipt of the message to the platform taking the answer."""

MINUTES: Final = 10
"""How far back people look by default."""

MOST: Final = 500
"""Ended runs that are looked at, the newest first: what a question about the state may cost is bounded."""

BUSIEST: Final = 8
"""Commands that are told one by one."""

Times = Mapping[str, float]
"""Seconds by leg; a leg that was not gone through is not there."""


async def recent(conn: AsyncConnection, since: datetime, most: int = MOST) -> list[tuple[str, str, Times]]:
    """Command, outcome and times of the runs that ended since then, newest first."""
    run, request, message, delivery = schema.run, schema.request, schema.message, schema.delivery
    answer = delivery.c.source == sa.literal("request:") + request.c.id
    query = (
        sa.select(
            request.c.automation,
            run.c.outcome,
            message.c.received_at,
            message.c.handled_at,
            request.c.created_at,
            request.c.queued_at,
            run.c.started_at,
            run.c.ended_at,
            sa.select(sa.func.min(delivery.c.created_at)).where(answer).scalar_subquery().label("written_at"),
            sa.select(sa.func.min(delivery.c.sent_at)).where(answer).scalar_subquery().label("sent_at"),
        )
        .join(request, request.c.id == run.c.request_id)
        .outerjoin(message, message.c.id == request.c.message_id)
        .where(run.c.ended_at > since)
        .order_by(run.c.ended_at.desc())
        .limit(most)
    )
    return [(row.automation, row.outcome, _times(row)) for row in (await conn.execute(query)).all()]


def summary(
    ended: Sequence[tuple[str, str, Times]], minutes: float, busiest: int = BUSIEST
) -> dict[str, Any]:
    """What `parley status` shows: all together by station, and the busiest commands.

    `more`: so many ended that only the newest of them were looked at.
    """
    by_command: defaultdict[str, list[Times]] = defaultdict(list)
    failed: defaultdict[str, int] = defaultdict(int)
    for command, outcome, times in ended:
        by_command[command].append(times)
        failed[command] += outcome == "failed"
    order = sorted(by_command, key=lambda command: (-len(by_command[command]), command))
    return {
        "minutes": minutes,
        "ended": len(ended),
        "more": len(ended) >= MOST,
        "failed": sum(failed.values()),
        "legs": _legs([times for _, _, times in ended]),
        "commands": [
            {
                "command": command,
                "ended": len(by_command[command]),
                "failed": failed[command],
                "legs": _legs(by_command[command]),
            }
            for command in order[:busiest]
        ],
    }


def _times(row: Any) -> Times:
    begun = row.received_at or row.created_at
    moments = {
        "understood": (row.received_at, row.handled_at),
        "allowed": (row.created_at, row.queued_at),
        "started": (row.queued_at, row.started_at),
        "done": (row.started_at, row.ended_at),
        "delivered": (row.written_at, row.sent_at),
        "whole": (begun, row.sent_at),
    }
    return {
        leg: max(0.0, (to - since).total_seconds())
        for leg, (since, to) in moments.items()
        if since is not None and to is not None
    }


def _legs(all_times: Iterable[Times]) -> dict[str, dict[str, float]]:
    legs: defaultdict[str, list[float]] = defaultdict(list)
    for times in all_times:
        for leg, seconds in times.items():
            legs[leg].append(seconds * 1e3)
    return {
        leg: {"n": len(legs[leg]), "p50_ms": _rank(legs[leg], 0.5), "p95_ms": _rank(legs[leg], 0.95)}
        for leg in LEGS
        if legs[leg]
    }


def _rank(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them do not exceed."""
    ranked = sorted(values)
    return round(ranked[max(0, -(-round(share * 100) * len(ranked) // 100) - 1)], 1)
