"""The third level of failure: consecutive failures of one automation, one alert, one recovery.

Counted in our own store, in the transaction that closes the request, so that a restart in between neither loses nor
repeats the alert.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.inbox import insert_new
from parley.messages.model import Button, now
from parley.runs.sentences import sentence
from parley.store import schema

_TABLE = schema.alert_state
_STATE_OF: Final = sa.select(_TABLE).where(_TABLE.c.automation == sa.bindparam("automation"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something the people on duty are told. `source` makes the delivery unique."""

    source: str
    key: str
    values: dict[str, Any]
    buttons: tuple[Button, ...] = ()


def told(notice: Notice, language: str = "en") -> str:
    """What people read of it."""
    once = notice.values.get("count") == 1
    return sentence(f"{notice.key}-once" if once else notice.key, language, **notice.values)


async def count_failure(conn: AsyncConnection, automation: str, reason: str, threshold: int) -> Notice | None:
    """One more failure in a row; the alert when it is the `threshold`-th, unless it is silenced."""
    row = await _row(conn, automation)
    streak = row.streak + 1
    silenced = row.silenced_until is not None and row.silenced_until > now()
    alert = streak >= threshold and not row.alerting and not silenced
    values = {"streak": streak, "last_reason": reason[:1000], "changed_at": now()}
    if alert:
        values |= {"alerting": True, "alerts": row.alerts + 1, "acknowledged_by": None}
    await _update(conn, automation, values)
    if not alert:
        return None
    return Notice(
        source=f"alert:{automation}:{row.alerts + 1}",
        key="alert",
        values={"command": automation, "count": streak, "reason": reason},
    )


async def count_success(conn: AsyncConnection, automation: str) -> Notice | None:
    """A success resets the count; the recovery notice when there was an alert."""
    row = (await conn.execute(_STATE_OF, {"automation": automation})).first()
    if row is None or (row.streak == 0 and not row.alerting):
        return None
    await _update(
        conn, automation, {"streak": 0, "alerting": False, "acknowledged_by": None, "changed_at": now()}
    )
    if not row.alerting:
        return None
    return Notice(
        source=f"recovery:{automation}:{row.alerts}",
        key="recovered",
        values={"command": automation, "count": row.streak},
    )


async def acknowledge(conn: AsyncConnection, automation: str, name: str) -> bool:
    """Somebody takes the alert over; whether there was one."""
    return await _change_alert(conn, automation, {"acknowledged_by": name})


async def silence(conn: AsyncConnection, automation: str, until: datetime) -> None:
    """No alert before this moment; failures go on being counted."""
    await _row(conn, automation)
    await _update(conn, automation, {"silenced_until": until, "changed_at": now()})


async def alerting(conn: AsyncConnection) -> list[Any]:
    """Automations that have an open alert."""
    return list((await conn.execute(sa.select(_TABLE).where(_TABLE.c.alerting.is_(True)))).all())


async def is_raised(conn: AsyncConnection, name: str) -> bool:
    """Whether the people on duty were told of this, and not yet that it is over."""
    query = sa.select(_TABLE.c.alerting).where(_TABLE.c.automation == name)
    return bool((await conn.execute(query)).scalar())


async def set_raised(conn: AsyncConnection, name: str, raised: bool) -> int | None:
    """Note that the people on duty are told of this, or that it is over: which time it is; None when they know."""
    row = await _row(conn, name)
    values = {"alerting": raised, "alerts": row.alerts + int(raised), "changed_at": now()}
    known = sa.and_(_TABLE.c.automation == name, _TABLE.c.alerting.is_(not raised))
    changed = (await conn.execute(sa.update(_TABLE).where(known).values(values))).rowcount
    return row.alerts + int(raised) if changed else None


async def _change_alert(conn: AsyncConnection, automation: str, values: dict[str, Any]) -> bool:
    where = sa.and_(_TABLE.c.automation == automation, _TABLE.c.alerting.is_(True))
    return bool((await conn.execute(sa.update(_TABLE).where(where).values(values))).rowcount)


async def _row(conn: AsyncConnection, automation: str) -> Any:
    fresh = {"automation": automation, "streak": 0, "alerts": 0, "alerting": False, "changed_at": now()}
    await conn.execute(insert_new(conn, _TABLE, fresh, ("automation",)))
    return (await conn.execute(sa.select(_TABLE).where(_TABLE.c.automation == automation))).one()


async def _update(conn: AsyncConnection, automation: str, values: dict[str, Any]) -> None:
    await conn.execute(sa.update(_TABLE).where(_TABLE.c.automation == automation).values(values))
