"""Keeping house: what is due to be erased is erased, by itself, soon after a start and then every hour."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Final

from parley.errors import ParleyError
from parley.messages.model import now
from parley.metrics import Metrics
from parley.settings import Retention
from parley.store.engine import Store
from parley.store.retention import Erased, Kept, sweep

logger = logging.getLogger(__name__)

FIRST: Final = 60.0
"""Seconds after the start: a hub that never lives for an hour cleans too, and a start has the store to itself."""

EVERY: Final = 3600.0


class Housekeeping:
    """Runs retention; `run` until cancelled."""

    def __init__(self, store: Store, metrics: Metrics, retention: Callable[[], Retention]) -> None:
        self._store = store
        self._metrics = metrics
        self._retention = retention

    async def run(self, first: float = FIRST, every: float = EVERY) -> None:
        """Clean now and then. What fails is told in the log, and tried again the next time."""
        await asyncio.sleep(first)
        while True:
            try:
                await self.erase()
            except ParleyError as error:
                logger.warning("retention: %s", error)
            except Exception:
                logger.exception("retention failed")
            await asyncio.sleep(every)

    async def erase(self) -> Erased:
        """Erase everything that is due; returns when nothing is left. Raises `StoreUnavailable`."""
        days = self._retention()
        kept = Kept(bodies=timedelta(days=days.bodies_days), keys=timedelta(days=days.keys_days))
        erased = await sweep(self._store, now(), kept)
        counts = {kind: count for kind, count in asdict(erased).items() if kind != "more"}
        self._metrics.machinery.erased(counts)
        self._metrics.machinery.retention_at.set(time.time())
        logger.info("retention: %s", erased)
        return erased
