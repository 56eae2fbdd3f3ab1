"""Alertmanager, as far as it calls us; the real one calls us in tests/connectors/test_alerts.py."""

from __future__ import annotations

import base64
import json
from typing import Any, ClassVar

from connectors.alertmanager import Alertmanager
from parley.messages import HookRequest
from tests.fakes._alerting import alert, call
from tests.fakes._caller import posted

TOKEN, OLD_TOKEN, WRONG_TOKEN = "alerts-Token-1a2b", "alerts-Old-3c4d", "alerts-Wrong-5e6f"
USER, PASSWORD = "am", "alerts:Password-7g8h"


def delivery(payload: Any, authorization: str | None = f"Bearer {TOKEN}") -> HookRequest:
    """One call; Go's encoder ends the body with a new line."""
    headers = {"User-Agent": "Alertmanager/0.28.1"}
    if authorization is not None:
        headers["Authorization"] = authorization
    return posted(json.dumps(payload).encode() + b"\n", headers)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class AlertmanagerCaller:
    """Alertmanager for the contract suite."""

    name: ClassVar[str] = "alertmanager"
    cannot_age: ClassVar[str] = "Alertmanager signs nothing"
    cannot_sign: ClassVar[str] = "Alertmanager signs nothing"

    def connector(self, account: str) -> Alertmanager:
        return Alertmanager(account, token=TOKEN, old_token=OLD_TOKEN, username=USER, password=PASSWORD)

    def secrets(self) -> tuple[str, ...]:
        return (TOKEN, OLD_TOKEN, PASSWORD)

    def calls(self) -> dict[str, HookRequest]:
        return {
            "alert.firing": delivery(call(alert())),
            "alert.resolved": delivery(call(alert("resolved"))),
        }

    def aged(self, seconds: int) -> HookRequest:
        raise NotImplementedError(self.cannot_age)

    def again(self, topic: str) -> HookRequest:
        """A reminder after hours, from the other one of a pair: nothing of the alert has changed."""
        one = alert() if topic == "alert.firing" else alert("resolved")
        return delivery(call(one, externalURL="https://other.example"))

    def idle(self) -> HookRequest:
        return delivery(call())

    def forged(self) -> dict[str, HookRequest]:
        return {
            "another token": delivery(call(alert()), f"Bearer {WRONG_TOKEN}"),
            "no token": delivery(call(alert()), "Bearer "),
            "another password": delivery(call(alert()), basic(USER, "alerts")),
            "another user": delivery(call(alert()), basic("alice", PASSWORD)),
            "no base64": delivery(call(alert()), "Basic ünsinn\udcff"),
            "another scheme": delivery(call(alert()), f"Digest {TOKEN}"),
            "nothing": delivery(call(alert()), None),
        }


DRIVER = AlertmanagerCaller
