"""A service that calls with alerts in Alertmanager's form, and may call with one again that it told as over.

Alertmanager keeps `startsAt` where Prometheus sends an alert on that it took for over meanwhile (because nothing had
come for a while, as on a broken network). Nothing in the call tells that from a reminder of what is firing still. So
it is remembered here which alerts were told as over: what fires after that is another occurrence. After a restart of
this process such a one counts as a reminder.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from connectors._hook_alerts import Language, Occurrence, alerts, occurrence_of
from connectors._hook_json import json_body
from connectors._hook_source import HookSource
from connectors._memory import Memory
from parley.messages import Event, HookRequest, Notice


class AlertSource(HookSource):
    """One receiver of alerts, whose words around an alert are in `language`."""

    def __init__(
        self, account: str, *, language: Language = "en", clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(account, clock=clock)
        self._language = language
        self._over: Memory[Occurrence, str] = Memory()

    def events(self, request: HookRequest) -> tuple[Notice, ...]:
        """The alerts of a call."""
        return alerts(json_body(request), self.service, self.account, self._language, self._over)

    def stored(self, event: Event) -> None:
        """Remember what is over."""
        if isinstance(event, Notice) and event.closes:
            self._over[occurrence_of(event)] = event.native_id
