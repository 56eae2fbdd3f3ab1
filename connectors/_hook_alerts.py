"""Alerts in Alertmanager's form (webhook version 4), which Grafana shares: one notice an alert. Pure.

An alert's id is made of what makes it one occurrence: its fingerprint, when it began and, once resolved, when it ended.
So the reminders that are sent every few hours, the same alert in a group that grew, a second Alertmanager of a cluster
and a repeated call are all the same notice. What fires after it was told as over is another occurrence, though it may
have begun at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from connectors._hook_json import Json, Unreadable, integer_of, text_of, texts_of, url_of
from connectors._hook_source import scope, sender
from connectors._hook_text import is_plain, line, link, passage, shortened
from parley.messages import Notice, derived_id

MOST_ALERTS = 1000
"""Alerts of one call that are read; Alertmanager's own `max_alerts` bounds them earlier."""

Severity = Literal["info", "warning", "critical"]

Language = Literal["en", "zh"]

Occurrence = tuple[str, str]
"""An alert's fingerprint, and when it began."""

_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "colon": ": ",
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
        "colon": "：",
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

_SOURCE = "generatorURL"
_ADDRESSES = (_SOURCE, "silenceURL", "dashboardURL", "panelURL", "imageURL")
_LINKS = {_SOURCE: "source", "dashboardURL": "dashboard", "panelURL": "panel", "silenceURL": "silence"}
"""The ways on from an alert, in the order in which they are shown, behind its runbook's."""


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
    listed = body.get("alerts")
    if not isinstance(listed, list):
        raise Unreadable("The payload has no list `alerts`: is a template of one's own set for it?")
    about: Json = {
        "receiver": text_of(body.get("receiver"), 200),
        "groupKey": text_of(body.get("groupKey"), 2000),
        "externalURL": url_of(body.get("externalURL")),
    }
    if "orgId" in body and (organisation := integer_of(body["orgId"])) is not None:  # only Grafana has it
        about["orgId"] = organisation
    words, told = _WORDS[language], over or {}
    found = [
        _notice(alert, about, service, account, words, told)
        for alert in listed[:MOST_ALERTS]
        if isinstance(alert, dict)
    ]
    left = len(listed) - len(listed[:MOST_ALERTS])
    if body.get("truncatedAlerts"):
        left += integer_of(body["truncatedAlerts"]) or 0
    if left > 0:
        found.append(_truncated(left, found, about, service, account))
    return tuple(found)


def occurrence_of(notice: Notice) -> Occurrence:
    """Which alert a notice of one is about."""
    return notice.key, str(notice.data.get("startsAt", ""))


def _notice(
    alert: Json,
    about: Json,
    service: str,
    account: str,
    words: dict[str, str],
    over: Mapping[Occurrence, str],
) -> Notice:
    """The notice of one alert; `about` is what all alerts of the call have in their data."""
    labels, annotations = texts_of(alert.get("labels")), texts_of(alert.get("annotations"))
    fingerprint = text_of(alert.get("fingerprint"), 100) or derived_id(*_flat(labels))
    began = text_of(alert.get("startsAt"), 60)
    if alert.get("status") == "resolved":
        status, ended, after = "resolved", _end_of(alert), ""
        state = _resolved(_lasted(began, ended, words), words)
    else:
        status, ended, after = "firing", "", over.get((fingerprint, began), "")
        state = words["is firing"]
    occurrence = ("alert", fingerprint, status, began, ended)
    name = labels.get("alertname") or "Alert"
    summary = annotations.get("summary") or annotations.get("message", "")
    urls = {key: url for key in _ADDRESSES if key in alert and (url := url_of(alert[key]))}
    source = urls.get(_SOURCE, "")
    title, described, where = _words_of(name, summary, annotations.get("description", ""), labels, words)
    ways = _ways(urls, annotations, words)
    return Notice(
        account=account,
        native_id=derived_id(*occurrence, after) if after else derived_id(*occurrence),
        sender=sender(service),
        route=scope(account, about["groupKey"]),
        topic=f"alert.{status}",
        title=shortened(f"{title} — {words[status]}", 500),
        text="\n\n".join(filter(None, (state, described, where, ways))),
        url=source or about["externalURL"],
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
            _SOURCE: source,
            **about,
            **urls,
            **(_values_of(alert) if "valueString" in alert else {}),
        },
    )


def _end_of(alert: Json) -> str:
    """When it ended; nothing where the service does not know."""
    ended = text_of(alert.get("endsAt"), 60)
    return "" if ended.startswith(_NEVER) else ended


def severity_of(label: str) -> Severity:
    """What the label `severity` means; none, or a word of the installation's own, is a warning."""
    word = label.strip().lower()
    return "critical" if word in _CRITICAL else "info" if word in _INFO else "warning"


def _resolved(lasted: str, words: dict[str, str]) -> str:
    return words["is resolved after"].format(lasted=lasted) if lasted else words["is resolved"]


def _words_of(
    name: str, summary: str, description: str, labels: dict[str, str], words: dict[str, str]
) -> tuple[str, str, str]:
    """The title, the description and the labels of an alert, each of bounded length and without any mark that works."""
    shown = [f"{key}={labels[key]}" for key in sorted(labels) if key not in _SHOWN_APART]
    where = ", ".join(shown[:_MOST_LABELS_SHOWN])
    fit = len(name) <= 120 and len(summary) <= 200 and len(description) <= 2000 and len(where) <= 600
    # Mostly there is nothing to be changed, which is told at once for all of them.
    if not (fit and is_plain(*filter(None, (name, summary, description, where)))):
        name, summary = line(name, 120), line(summary)
        description, where = passage(description, 2000), line(where, 600)
    return f"{name}{words['colon']}{summary}" if summary else name, description, where


def _ways(urls: dict[str, str], annotations: dict[str, str], words: dict[str, str]) -> str:
    """Links to where one can go on from here."""
    ways = [link(words.get(word, word), urls[key]) for key, word in _LINKS.items() if key in urls]
    if "runbook_url" in annotations and (runbook := url_of(annotations["runbook_url"])):
        ways.insert(0, link(words.get("runbook", "runbook"), runbook))
    return " · ".join(ways)


def _values_of(alert: Json) -> dict[str, str]:
    """What only Grafana sends: the values that made it fire."""
    values = text_of(alert.get("valueString"), 500)
    return {"valueString": values} if values else {}


def _truncated(left: int, told: list[Notice], about: Json, service: str, account: str) -> Notice:
    """That there are alerts which the call left out: nobody may take its list for all there is."""
    group, ids = about["groupKey"], [notice.native_id for notice in told]
    return Notice(
        account=account,
        native_id=derived_id("truncated", group, str(left), *ids),
        sender=sender(service),
        route=scope(account, group),
        topic="alert.truncated",
        title=f"{left} more alerts are not listed",
        text=f"{service} left out {left} alerts of this group: its own list has them.",
        url=about["externalURL"],
        severity="warning",
        data={"truncated": left, **about},
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
