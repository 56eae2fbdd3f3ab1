"""Alertmanager's payload as its vendor's own library has it, for the peer: there is none for Python.

Alertmanager publishes the form of its webhook as a type for Go (`template.Data` with its `Alert`s, whose times are
times), and the text of an alert as a template (`__text_alert_list`): both are made here, and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class Alert:
    """One alert of a call."""

    status: str
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime
    ends_at: datetime
    generator_url: str
    fingerprint: str

    def text(self) -> str:
        """What it says: labels and annotations in the order of their names, and where it comes from."""
        lines = ["Labels:"]
        lines += [f" - {name} = {value}" for name, value in sorted(self.labels.items())]
        lines.append("Annotations:")
        lines += [f" - {name} = {value}" for name, value in sorted(self.annotations.items())]
        lines.append(f"Source: {self.generator_url}")
        return "\n".join(lines)


def alerts(body: bytes) -> list[Alert]:
    """The alerts of a call, taken at its word."""
    return [_alert(found) for found in json.loads(body)["alerts"]]


def _alert(found: dict[str, Any]) -> Alert:
    return Alert(
        status=found["status"],
        labels=found["labels"],
        annotations=found["annotations"],
        starts_at=datetime.fromisoformat(found["startsAt"]),
        ends_at=datetime.fromisoformat(found["endsAt"]),
        generator_url=found["generatorURL"],
        fingerprint=found["fingerprint"],
    )
