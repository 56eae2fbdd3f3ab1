"""The hub's gauges: what is looked at when Prometheus asks, and what is looked at every few seconds."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from parley.errors import ParleyError, StoreUnavailable
from parley.link.calls import Role
from parley.messages.model import now
from parley.runs import dead_letters
from parley.tls import expiry

if TYPE_CHECKING:
    from parley.processes.hub import Hub

logger = logging.getLogger(__name__)

LOOKED_AT_LOOP: Final = 0.5
"""Seconds between two looks at how late the event loop is."""

LOOKED_AROUND: Final = 10.0
"""Seconds between two questions to Prefect's server and to the workers."""

CREW_TIME: Final = 2.0
"""Seconds that a worker gets to say how its children are."""


CHILDREN: Final = ("busy", "warm", "changing")


class Measuring:
    """Sets the gauges of one hub; changes nothing else."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._told: set[str] = set()
        self._metrics = hub.metrics
        hub.metrics.machinery.retention_at.set(time.time())
        hub.store.measured_by(hub.metrics.machinery.committed)

    def refresh(self) -> None:
        """Bring the gauges up to date that cost nothing to look at."""
        hub, machinery = self._hub, self._metrics.machinery
        self._metrics.queue(hub.dispatcher.queue_sizes())
        self._metrics.runs_in_flight(len(hub.dispatcher.in_flight))
        self._metrics.outbox(hub.outbox.waiting)
        machinery.queue_oldest(hub.dispatcher.queue_ages())
        machinery.outbox_oldest.set(hub.outbox.oldest)
        machinery.room.set(hub.dispatcher.room)
        machinery.unhandled.set(len(hub.intake))
        machinery.store_waiting.set(hub.store.waiting)
        self._accounts()
        self._latencies()
        self._disk()
        machinery.certificates(
            {one["port"]: one["ends"].timestamp() for one in expiry.served(hub.settings, now())}
        )

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_loop())
            group.create_task(self._look_around())

    async def crew(self) -> dict[str, int]:
        """Children of all workers that answer, by state; empty without a worker of ours."""
        counts: Counter[str] = Counter()
        for peer in self._hub.link.by_role(Role.WORKER):
            try:
                counts.update(await peer.call("crew", timeout=CREW_TIME))
            except (ParleyError, TimeoutError) as error:
                logger.info("%r did not say how its children are: %s", peer, error)
        return dict(counts)

    def _accounts(self) -> None:
        states = {one["name"]: one["state"] == "listening" for one in self._hub.accounts.states()}
        for gone in self._told - states.keys():
            self._metrics.account_gone(gone)
        for name, up in states.items():
            self._metrics.account(name, up=up)
        self._told = set(states)

    def _latencies(self) -> None:
        slowest: dict[str, float] = {}
        for peer in self._hub.link.peers:
            if peer.latency:
                slowest[peer.role.value] = max(slowest.get(peer.role.value, 0.0), peer.latency)
        self._metrics.machinery.link(slowest)

    def _disk(self) -> None:
        machinery, disk = self._metrics.machinery, disk_of(self._hub.settings.home)
        machinery.store_bytes.set(disk["store_bytes"])
        machinery.disk_free_bytes.set(disk["free_bytes"])
        machinery.disk_bytes.set(disk["total_bytes"])

    async def _watch_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOKED_AT_LOOP
            await asyncio.sleep(LOOKED_AT_LOOP)
            self._metrics.machinery.loop_lag(loop.time() - due)

    async def _look_around(self) -> None:
        while True:
            self._metrics.machinery.prefect_up.set(await self._hub.prefect.healthy())
            with suppress(StoreUnavailable):
                self._metrics.dead_letters(await self._hub.store.read(dead_letters.counts))
            if self._hub.own_worker:
                crew = await self.crew()
                self._metrics.machinery.children({state: crew.get(state, 0) for state in CHILDREN})
            await asyncio.sleep(LOOKED_AROUND)


def disk_of(home: Path) -> dict[str, int]:
    """Bytes of our own database's files, and of the disk that they are on; 0 where there is none."""
    store = sum(_size(home / name) for name in ("parley.db", "parley.db-wal"))
    try:
        usage = shutil.disk_usage(home)
    except OSError:
        return {"store_bytes": store, "free_bytes": 0, "total_bytes": 0}
    return {"store_bytes": store, "free_bytes": usage.free, "total_bytes": usage.total}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
