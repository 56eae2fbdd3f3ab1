"""Runs and alerts on the bus: `run.<state>.<automation>`, `alert.<automation>`, and what a run publishes itself."""

from __future__ import annotations

from typing import Any

from parley.errors import BadArguments
from parley.link.calls import PublishCall
from parley.messages.published import Published
from parley.messages.topics import is_topic, topic
from parley.runs.failures import Notice, told
from parley.settings import BUS, OWN_TOPICS

MOST_REASON = 20_000
"""Characters of the reason of a failure that an event repeats."""


def ended_topic(automation: str, state: str) -> str:
    """The topic of a run's end."""
    return topic("run", state, automation)


def of_end(row: Any, state: str, reason: str | None, *, fell_back: bool) -> Published:
    """A run's end: `row` is the run with its request."""
    told = (reason or "")[:MOST_REASON]
    return Published(
        source=f"run:{row.run_id}:{state}",
        topic=ended_topic(row.automation, state),
        account=BUS,
        title=f"/{row.automation}: {state}",
        text=told,
        severity="warning" if state == "failed" else "info",
        data={
            "automation": row.automation,
            "state": state,
            "reason": told,
            "run": row.run_id,
            "request": row.id,
            "flow_run": row.flow_run_id or "",
            "origin": row.origin,
            "fell_back": fell_back,
        },
        trail=_trail(row),
    )


def of_alert(row: Any, notice: Notice) -> Published:
    """An alert of ours, or that an automation works again."""
    firing = notice.key == "alert"
    text = told(notice)
    return Published(
        source=notice.source,
        topic=topic("alert", row.automation),
        account=BUS,
        title=f"/{row.automation} " + ("keeps failing" if firing else "works again"),
        text=text,
        key=f"alert:{row.automation}",
        closes=not firing,
        severity="critical" if firing else "info",
        data={
            "automation": row.automation,
            "state": "firing" if firing else "recovered",
            "count": notice.values["count"],
            "reason": notice.values.get("reason", ""),
        },
        trail=_trail(row),
    )


def of_call(call: PublishCall, row: Any) -> Published:
    """What a run published."""
    return Published(
        source=f"run:{call.run_id}:{call.ordinal}",
        topic=call.topic,
        account=BUS,
        title=call.title,
        text=call.text,
        url=call.url,
        key=call.key,
        closes=call.closes,
        severity=call.severity,
        data=call.data,
        trail=_trail(row),
    )


def check_topic(name: str, accounts: frozenset[str]) -> None:
    """Raises `BadArguments` for a topic that nobody but the engine or an account publishes to."""
    if not is_topic(name):
        raise BadArguments(f"{name[:200]!r} is no topic: write lower-case words with dots between them.")
    first = name.partition(".")[0]
    if first in OWN_TOPICS or first in accounts:
        raise BadArguments(
            f"topics that begin with {first!r} are not for programs: begin with a name of your own."
        )


def _trail(row: Any) -> tuple[str, ...]:
    return (*(row.trail or ()), f"run:{row.automation}")
