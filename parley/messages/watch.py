"""Waiting for a message's answer inside the hub: whoever waits is woken after each commit that concerns it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Watch:
    """Wakes those who wait for a key (a message id, a conversation id)."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = defaultdict(set)

    def notify(self, *keys: str | None) -> None:
        """Something about these changed."""
        for key in keys:
            for event in self._events.get(key or "", ()):
                event.set()

    @asynccontextmanager
    async def on(self, key: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set at each change; clear it before looking again."""
        event = asyncio.Event()
        self._events[key].add(event)
        try:
            yield event
        finally:
            self._events[key].discard(event)
            if not self._events[key]:
                del self._events[key]
