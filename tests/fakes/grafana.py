"""Grafana's webhook contact point, as far as it calls us: its fields, and its HMAC over the time and the body."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any, ClassVar

from connectors.grafana import Grafana
from parley.messages import HookRequest
from tests.fakes import _alerting as alerting
from tests.fakes._caller import NOW, posted

SECRET, OLD_SECRET, WRONG_SECRET = "grafana-Secret-1a2b", "grafana-Old-3c4d", "grafana-Wrong-5e6f"
TOKEN = "grafana-Token-7g8h"
STAMP_HEADER = "X-Grafana-Alerting-Signature-Timestamp"
SITE = "https://grafana.example"


def delivery(
    payload: Any,
    *,
    secret: str = SECRET,
    at: int | None = NOW,
    header: str = "X-Grafana-Alerting-Signature",
    authorization: str = "",
) -> HookRequest:
    """One call, signed; without `at` there is no time, as where no header for it is named."""
    body = json.dumps(payload).encode()
    headers = {"User-Agent": "Grafana"}
    signed = body if at is None else f"{at}:".encode() + body
    if at is not None:
        headers[STAMP_HEADER] = str(at)
    if secret:
        headers[header] = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    if authorization:
        headers["Authorization"] = authorization
    return posted(body, headers)


def alert(status: str = "firing", **changes: Any) -> dict[str, Any]:
    more = {
        "values": {"B": 1.7, "C": 1},
        "valueString": "[ var='B' labels={instance=web1} value=1.7 ]",
        "silenceURL": f"{SITE}/alerting/silence/new?alertmanager=grafana",
        "dashboardURL": f"{SITE}/d/dash",
        "panelURL": f"{SITE}/d/dash?viewPanel=1",
        "generatorURL": f"{SITE}/alerting/grafana/abc/view",
        "orgId": 1,
    }
    return {**alerting.alert(status), **more, **changes}


def call(*alerts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    whole = alerting.call(*alerts, externalURL=SITE + "/", version="1", orgId=1)
    return {
        **whole,
        "title": "[FIRING:1] HighLatency",
        "state": "alerting",
        "message": "**Firing**",
        **changes,
    }


class GrafanaCaller:
    """Grafana, which signs with a time, for the contract suite."""

    name: ClassVar[str] = "grafana"
    cannot_age: ClassVar[str] = ""
    cannot_sign: ClassVar[str] = ""

    def connector(self, account: str) -> Grafana:
        return Grafana(
            account, secret=SECRET, old_secret=OLD_SECRET, timestamp_header=STAMP_HEADER, clock=lambda: NOW
        )

    def secrets(self) -> tuple[str, ...]:
        return (SECRET, OLD_SECRET)

    def calls(self) -> dict[str, HookRequest]:
        return {
            "alert.firing": delivery(call(alert())),
            "alert.resolved": delivery(call(alert("resolved"))),
        }

    def aged(self, seconds: int) -> HookRequest:
        return delivery(call(alert()), at=NOW - seconds)

    def again(self, topic: str) -> HookRequest:
        one = alert() if topic == "alert.firing" else alert("resolved")
        return delivery(call(one), at=NOW + 20)

    def idle(self) -> HookRequest:
        return delivery(call())

    def forged(self) -> dict[str, HookRequest]:
        good = delivery(call(alert()))
        later = {**good.headers, STAMP_HEADER.lower(): str(NOW + 1)}
        return {
            "another secret": delivery(call(alert()), secret=WRONG_SECRET),
            "no time": delivery(call(alert()), at=None),
            "another time": good.model_copy(update={"headers": later}),
            "a token instead": delivery(call(alert()), secret="", authorization=f"Bearer {TOKEN}"),
        }


DRIVER = GrafanaCaller
