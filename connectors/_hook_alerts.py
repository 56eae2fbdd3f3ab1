"""Alerts in Alertmanager's form (webhook version 4), which Grafana shares: one notice an alert. Pure.

An alert's id is made of what makes it one occurrence: its fingerprint, when it began and, once resolved, when it ended.
So the reminders that are sent every few hours, the same alert in a group that grew, a second Alertmanager of a cluster
and a repeated call are all the same notice. What fires after it was told as over is another occurrence, though it may
have begun at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from connectors._hook_json import Json, Unreadable, integer_of, objects_of, text_of, texts_of, url_of
from connectors._hook_source import scope, sender
from connectors._hook_text import line, link, passage, shortened
from parley.messages import Notice, derived_id

MOST_ALERTS = 1000
"""Alerts of one call that are read; Alertmanager's own `max_alerts` bounds them earlier."""

Severity = Literal["info", "warning", "critical"]

Language = Literal["en", "zh"]

Occurrence = tuple[str, str]
"""An alert's fingerprint, and when it began."""

_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "named": "{name}: {summary} — {status}",
        "unnamed": "{name} — {status}",
        "firing": "firing",
        "resolved": "resolved",
        "is firing": "Firing.",
        "is resolved": "Resolved.",
        "is resolved after": "Resolved after {lasted}.",
        "min": "{n} min",
        "h": "{n} h",
        "d": "{n} days",
    },
    "zh": {
        "named": "{name}：{summary} — {status}",
        "unnamed": "{name} — {status}",
        "firing": "告警中",
        "resolved": "已恢复",
        "is firing": "告警中。",
        "is resolved": "已恢复。",
        "is resolved after": "已恢复，持续 {lasted}。",
        "min": "{n} 分钟",
        "h": "{n} 小时",
        "d": "{n} 天",
        "runbook": "处理手册",
        "source": "来源",
        "dashboard": "仪表盘",
        "panel": "面板",
        "silence": "静默",
    },
}
"""What is ours in an alert's text; all else is as the alert's rules say it."""

_CRITICAL = {"critical", "crit", "fatal", "emergency", "disaster", "page", "p1", "sev1"}
_INFO = {"info", "information", "informational", "notice", "debug", "none", "low", "ok"}
_SHOWN_APART = {"alertname", "severity", "grafana_folder", "__alert_rule_uid__"}
_MOST_LABELS_SHOWN = 12
_NEVER = "0001-01-01"


def alerts(
    body: Json,
    service: str,
    account: str,
    language: Language = "en",
    over: Mapping[Occurrence, str] | None = None,
) -> tuple[Notice, ...]:
    """A notice for each alert of the call. Raises `Unreadable` when it is not of this form.

    `over` has the native ids of the last notices that alerts are over.
    """
    if not isinstance(body.get("alerts"), list):
        raise Unreadable("The payload has no list `alerts`: is a template of one's own set for it?")
    group = text_of(body.get("groupKey"), 2000)
    found = [
        _notice(alert, body, group, service, account, language, over or {})
        for alert in objects_of(body["alerts"], MOST_ALERTS)
    ]
    left = (integer_of(body.get("truncatedAlerts")) or 0) + max(0, len(body["alerts"]) - MOST_ALERTS)
    return tuple(found) + ((_truncated(left, found, body, group, service, account),) if left > 0 else ())


def occurrence_of(notice: Notice) -> Occurrence:
    """Which alert a notice of one is about."""
    return notice.key, str(notice.data.get("startsAt", ""))


def _notice(
    alert: Json,
    body: Json,
    group: str,
    service: str,
    account: str,
    language: Language,
    over: Mapping[Occurrence, str],
) -> Notice:
    labels, annotations = texts_of(alert.get("labels")), texts_of(alert.get("annotations"))
    status = "resolved" if alert.get("status") == "resolved" else "firing"
    fingerprint = text_of(alert.get("fingerprint"), 100) or derived_id(*_flat(labels))
    began, ended = text_of(alert.get("startsAt"), 60), text_of(alert.get("endsAt"), 60)
    ended = "" if ended.startswith(_NEVER) or status == "firing" else ended
    after = over.get((fingerprint, began), "") if status == "firing" else ""
    name = labels.get("alertname", "") or "Alert"
    summary = annotations.get("summary", "") or annotations.get("message", "")
    source, group_url = url_of(alert.get("generatorURL")), url_of(body.get("externalURL"))
    words = _WORDS[language]
    title = words["named" if summary else "unnamed"].format(
        name=line(name, 120), summary=line(summary), status=words[status]
    )
    return Notice(
        account=account,
        native_id=derived_id("alert", fingerprint, status, began, ended, *([after] if after else [])),
        sender=sender(service),
        route=scope(account, group),
        topic=f"alert.{status}",
        title=shortened(title, 500),
        text=_text(alert, labels, annotations, status, _lasted(began, ended, words), words),
        url=source or group_url,
        key=fingerprint,
        closes=status == "resolved",
        # A resolved alert keeps it, so that what routes the one by severity routes the other to the same place.
        severity=severity_of(labels.get("severity", "")),
        data={
            "alertname": name,
            "summary": summary,
            "labels": labels,
            "annotations": annotations,
            "status": status,
            "startsAt": began,
            "endsAt": ended,
            "fingerprint": fingerprint,
            "generatorURL": source,
            "receiver": text_of(body.get("receiver"), 200),
            "groupKey": group,
            "externalURL": group_url,
            **_of_grafana(alert, body),
        },
    )


def severity_of(label: str) -> Severity:
    """What the label `severity` means; none, or a word of the installation's own, is a warning."""
    word = label.strip().lower()
    return "critical" if word in _CRITICAL else "info" if word in _INFO else "warning"


def _text(
    alert: Json,
    labels: dict[str, str],
    annotations: dict[str, str],
    status: str,
    lasted: str,
    words: dict[str, str],
) -> str:
    after = " after" if status == "resolved" and lasted else ""
    state = words[f"is {status}{after}"].format(lasted=lasted)
    about = passage(annotations.get("description", ""), 2000)
    shown = [f"{name}={value}" for name, value in sorted(labels.items()) if name not in _SHOWN_APART]
    where = line(", ".join(shown[:_MOST_LABELS_SHOWN]), 600)
    links = {
        "runbook": url_of(annotations.get("runbook_url")),
        "source": url_of(alert.get("generatorURL")),
        "dashboard": url_of(alert.get("dashboardURL")),
        "panel": url_of(alert.get("panelURL")),
        "silence": url_of(alert.get("silenceURL")),
    }
    ways = " · ".join(link(words.get(word, word), url) for word, url in links.items() if url)
    return "\n\n".join(part for part in (state, about, where, ways) if part)


def _of_grafana(alert: Json, body: Json) -> dict[str, Any]:
    """What only Grafana sends, as far as it is there."""
    found: dict[str, Any] = {
        name: url
        for name in ("silenceURL", "dashboardURL", "panelURL", "imageURL")
        if (url := url_of(alert.get(name)))
    }
    if values := text_of(alert.get("valueString"), 500):
        found["valueString"] = values
    if (organisation := integer_of(body.get("orgId"))) is not None:
        found["orgId"] = organisation
    return found


def _truncated(left: int, told: list[Notice], body: Json, group: str, service: str, account: str) -> Notice:
    """That there are alerts which the call left out: nobody may take its list for all there is."""
    ids = [notice.native_id for notice in told]
    return Notice(
        account=account,
        native_id=derived_id("truncated", group, str(left), *ids),
        sender=sender(service),
        route=scope(account, group),
        topic="alert.truncated",
        title=f"{left} more alerts are not listed",
        text=f"{service} left out {left} alerts of this group: its own list has them.",
        url=url_of(body.get("externalURL")),
        severity="warning",
        data={
            "truncated": left,
            "receiver": text_of(body.get("receiver"), 200),
            "groupKey": group,
            "externalURL": url_of(body.get("externalURL")),
        },
    )


def _flat(labels: dict[str, str]) -> list[str]:
    return [part for pair in sorted(labels.items()) for part in pair]


def _lasted(began: str, ended: str, words: dict[str, str]) -> str:
    """The time between, in words; nothing where it cannot be told."""
    if not ended:
        return ""
    try:
        minutes = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds() / 60
    except (ValueError, TypeError, OverflowError):
        return ""
    if minutes < 0:
        return ""
    if minutes < 90:
        return words["min"].format(n=max(1, round(minutes)))
    if minutes < 72 * 60:
        return words["h"].format(n=round(minutes / 60))
    return words["d"].format(n=round(minutes / 60 / 24))
