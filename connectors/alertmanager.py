"""Prometheus Alertmanager: its webhook receiver (version 4), proven by its `http_config`: a bearer token or a login.

By https://prometheus.io/docs/alerting/latest/configuration/#webhook_config and its source: Alertmanager does not sign;
it sends again what was answered with 5xx and gives up on 4xx. A call holds one or several alerts and no id of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from connectors._hook_alert_source import AlertSource
from connectors._hook_alerts import Language, alerts
from connectors._hook_json import Json
from connectors._hook_proofs import prove_authorization
from connectors._hook_source import authorizations
from parley.messages import HookRequest, Notice

__all__ = ["CONNECTOR", "Alertmanager", "parse"]


def parse(body: Json, account: str, language: Language = "en") -> tuple[Notice, ...]:
    """A notice for each alert of a call. Raises `Unreadable`."""
    return alerts(body, Alertmanager.service, account, language)


class Alertmanager(AlertSource):
    """One receiver of an Alertmanager."""

    name: ClassVar[str] = "alertmanager"
    service: ClassVar[str] = "Alertmanager"

    def __init__(
        self,
        account: str,
        *,
        token: str = "",
        old_token: str = "",
        username: str = "",
        password: str = "",
        language: Language = "en",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """A bearer token, or a user name and password; both are taken where both are set.

        `old_token` is still taken while the token is being changed. Raises `ConfigurationError`.
        """
        super().__init__(account, language=language, clock=clock)
        self._tokens, self._logins = authorizations((token, old_token), username, password)

    def prove(self, request: HookRequest, now: float) -> None:
        """The Authorization header."""
        prove_authorization(self._tokens, self._logins, request.headers.get("authorization", ""))


CONNECTOR = Alertmanager
