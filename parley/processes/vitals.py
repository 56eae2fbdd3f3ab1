"""How the stack is: what `parley status`, `/readyz` and `parley doctor` say."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ParleyError
from parley.link.calls import Role
from parley.messages.model import now
from parley.people import freezes
from parley.processes import memory, stations
from parley.processes.diagnosis import diagnosis
from parley.processes.measuring import disk_of
from parley.processes.refreshed import Refreshed
from parley.runs import dead_letters
from parley.store import schema
from parley.tls import expiry

if TYPE_CHECKING:
    from parley.processes.hub import Hub


LATELY = timedelta(minutes=stations.MINUTES)

FRESH, USABLE = 5.0, 30.0
"""Seconds for which what is costly to look at is shown again; and for which it is shown while it is looked at anew."""


class Vitals:
    """Looks at the hub; changes nothing."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._costly = Refreshed(self._look, fresh=FRESH, usable=USABLE)

    async def status(self, *, anew: bool = False) -> dict[str, Any]:
        """What `parley status --json` prints. `age_s`: how old what is costly to look at may be, unless `anew`."""
        costly, age = await self._costly.get(anew=anew)
        letters = await self._hub.store.read(dead_letters.counts)
        frozen = await self._hub.store.read(lambda conn: freezes.in_force(conn, self._hub.keyring))
        return {
            "age_s": round(age, 1),
            **costly,
            "accounts": self._hub.accounts.states(),
            "queue": {
                "waiting": sum(self._hub.dispatcher.queue_sizes().values()),
                "lanes": self._hub.dispatcher.queue_sizes(),
                "running": len(self._hub.dispatcher.in_flight),
                "unhandled": await self._count(schema.message, ("received",)),
                "undelivered": await self._count(schema.delivery, ("pending", "sending")),
                "dead_letters": sum(letters.values()),
                "ambiguous": await self._count(schema.delivery, ("ambiguous",)),
            },
            "configuration": self._hub.configuration.refused or "in force",
            "locked": [
                {
                    "automations": one.automations,
                    "by": one.by,
                    "until": one.expires_at.isoformat(timespec="seconds") if one.expires_at else None,
                }
                for one in frozen
            ],
        }

    async def _look(self) -> dict[str, Any]:
        # Of all that is told here this takes a tenth of a second and more: Linux counts the pages of each process.
        processes, prefect, children, ended = await asyncio.gather(
            asyncio.to_thread(memory.processes, self._hub.settings.home),
            self._prefect(),
            self._hub.measuring.crew(),
            self._hub.store.read(lambda conn: stations.recent(conn, now() - LATELY)),
        )
        return {
            "processes": processes,
            "prefect": prefect,
            "children": children,
            "stations": stations.summary(ended, stations.MINUTES),
            "disk": disk_of(self._hub.settings.home),
            "certificates": [
                one | {"ends": one["ends"].isoformat(timespec="seconds")}
                for one in expiry.served(self._hub.settings, now())
            ],
        }

    async def _prefect(self) -> dict[str, Any]:
        began = time.perf_counter()
        reachable = await self._hub.prefect.healthy()
        took = round((time.perf_counter() - began) * 1e3, 1)
        return {"url": self._hub.settings.api_url, "reachable": reachable, "ms": took if reachable else None}

    async def _count(self, table: sa.Table, states: tuple[str, ...]) -> int:
        query = sa.select(sa.func.count()).select_from(table).where(table.c.state.in_(states))

        async def fetch(conn: AsyncConnection) -> int:
            return int((await conn.execute(query)).scalar() or 0)

        return await self._hub.store.read(fetch)

    async def ready(self) -> dict[str, bool]:
        """Which parts answer."""
        own_worker = bool(self._hub.link.by_role(Role.WORKER)) if self._hub.own_worker else True
        return {
            "store": await self._store_answers(),
            "prefect": await self._hub.prefect.healthy(),
            "worker": own_worker,
            "listeners": bool(self._hub.link.by_role(Role.LISTENERS)),
            "catalogue": bool(self._hub.catalogue.automations),
        }

    async def _store_answers(self) -> bool:
        try:
            await self._count(schema.delivery, ())
        except ParleyError:
            return False
        return True

    async def doctor(self) -> list[dict[str, Any]]:
        """What is not as it should be, and how to mend it."""
        return await diagnosis(self._hub)
