"""Alerts in Alertmanager's form (webhook version 4), as its documentation shows them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

NEVER = "0001-01-01T00:00:00Z"
BEGAN, ENDED = "2025-10-09T08:00:00.123Z", "2025-10-09T08:12:00.123Z"
SITE = "https://alerts.example"


def alert(status: str = "firing", *, fingerprint: str = "aa11bb22cc33dd44", **changes: Any) -> Json:
    return {
        "status": status,
        "labels": {"alertname": "HighLatency", "severity": "critical", "instance": "web1", "job": "app"},
        "annotations": {"summary": "p99 is above 1 s", "description": "It is 1.7 s on web1."},
        "startsAt": BEGAN,
        "endsAt": ENDED if status == "resolved" else NEVER,
        "generatorURL": f"{SITE}/graph?g0.expr=up%3D%3D0",
        "fingerprint": fingerprint,
        **changes,
    }


def call(*alerts: Json, **changes: Any) -> Json:
    """One call with these alerts; it is firing as long as one of them is."""
    firing = any(one["status"] == "firing" for one in alerts)
    return {
        "receiver": "parley",
        "status": "firing" if firing else "resolved",
        "alerts": list(alerts),
        "groupLabels": {"alertname": "HighLatency"},
        "commonLabels": {"alertname": "HighLatency", "severity": "critical"},
        "commonAnnotations": {},
        "externalURL": SITE,
        "version": "4",
        "groupKey": '{}:{alertname="HighLatency"}',
        "truncatedAlerts": 0,
        **changes,
    }
