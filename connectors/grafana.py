"""Grafana: the webhook contact point of its alerting, proven by an HMAC signature, a bearer token or a login.

By https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/
the signature (since Grafana 12) is the hexadecimal HMAC-SHA256 of the body, or of `<time>:<body>` where a header for
the time is named at the contact point; that header has no name of its own. The payload is Alertmanager's with a few
fields more. Grafana sends again what was not answered with 2xx.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from connectors._hook_alert_source import AlertSource
from connectors._hook_alerts import Language, alerts
from connectors._hook_json import Json
from connectors._hook_proofs import prove_authorization, prove_hex_hmac, prove_recent
from connectors._hook_source import authorizations, required
from parley.messages import HookRequest, Notice

__all__ = ["CONNECTOR", "SIGNATURE_HEADER", "Grafana", "parse"]

SIGNATURE_HEADER = "X-Grafana-Alerting-Signature"
"""Where Grafana puts the signature unless the contact point says otherwise."""


def parse(body: Json, account: str, language: Language = "en") -> tuple[Notice, ...]:
    """A notice for each alert of a call. Raises `Unreadable`."""
    return alerts(body, Grafana.service, account, language)


class Grafana(AlertSource):
    """One contact point of a Grafana."""

    name: ClassVar[str] = "grafana"
    service: ClassVar[str] = "Grafana"

    def __init__(
        self,
        account: str,
        *,
        secret: str = "",
        old_secret: str = "",
        signature_header: str = SIGNATURE_HEADER,
        timestamp_header: str = "",
        token: str = "",
        username: str = "",
        password: str = "",
        language: Language = "en",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """With `secret` every call must be signed; else it must carry the bearer token or the login.

        With `timestamp_header` the signature covers the time in that header, and old calls are refused. `old_secret`
        is still taken while the secret is being changed. Raises `ConfigurationError`.
        """
        super().__init__(account, language=language, clock=clock)
        self._secrets = required(secret=secret, old_secret=old_secret) if secret else ()
        self._signature_header = signature_header.strip().lower()
        self._timestamp_header = timestamp_header.strip().lower()
        self._tokens, self._logins = ((), ()) if secret else authorizations((token,), username, password)

    def prove(self, request: HookRequest, now: float) -> None:
        """The signature, or where none was agreed the Authorization header."""
        if not self._secrets:
            prove_authorization(self._tokens, self._logins, request.headers.get("authorization", ""))
            return
        signed = request.body
        if self._timestamp_header:
            stamp = request.headers.get(self._timestamp_header, "")
            prove_recent(stamp, now)
            signed = f"{stamp}:".encode() + signed
        prove_hex_hmac(self._secrets, signed, request.headers.get(self._signature_header, ""))


CONNECTOR = Grafana
