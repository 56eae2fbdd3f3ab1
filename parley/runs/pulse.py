"""The hub's own pulse: a run that is not heard of is only taken for lost when the hub could have heard it.

Beats cannot be taken while the machine sleeps, the hub is stopped or busy, or the store's disk is full. Afterwards the
runs that live on need a moment to be heard again.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from parley.messages.model import now

STALL = timedelta(seconds=10)
"""How long the hub may be away before that counts: a lease outlives one missed beat."""


class Pulse:
    """Looks at the clock every second and notes when it moved on without us, or when beats could not be stored."""

    def __init__(self) -> None:
        self._looked = now()
        self._trouble: datetime | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._look()
            await asyncio.sleep(1)

    def missed(self) -> None:
        """A beat came and could not be taken."""
        self._trouble = now()

    def well_for(self, seconds: float) -> bool:
        """Whether every beat of these last seconds was taken."""
        self._look()
        return self._trouble is None or now() - self._trouble > timedelta(seconds=seconds)

    def _look(self) -> None:
        at = now()
        if abs(at - self._looked) > STALL:
            self._trouble = at
        self._looked = at
