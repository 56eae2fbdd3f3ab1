"""Sentry: webhooks of an integration (internal or public), signed with its client secret.

By https://docs.sentry.io/organization/integrations/integration-platform/webhooks/: Sentry-Hook-Signature is the
hexadecimal HMAC-SHA256 of the body. Sentry-Hook-Timestamp and Request-ID are not covered by it, and Sentry makes a new
Request-ID whenever it sends (getsentry/sentry, AppPlatformEvent.headers): events that hold an id of their own are
known by their body, a new issue by its number, and only changes of an issue, whose bodies may be the same twice, by the
request. Sentry waits a second for an answer. It sends again only for public integrations, after five minutes, where it
had none or a 5xx (tasks/sentry_apps.py there): then a change of an issue may be told twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from connectors._hook_json import Json, id_of, json_body, object_of, text_of, texts_of, url_of
from connectors._hook_proofs import prove_hex_hmac, prove_recent
from connectors._hook_source import HookSource, delivery_id, required, scope, sender
from connectors._hook_text import line, passage, shortened
from connectors._memory import Memory
from parley.messages import HookRequest, Notice, derived_id

__all__ = ["CONNECTOR", "Sentry", "parse"]

Severity = Literal["info", "warning", "critical"]

_ISSUE = {
    "created": "created",
    "resolved": "resolved",
    "assigned": "assigned",
    "archived": "archived",
    "ignored": "archived",  # as it was called before
    "unresolved": "unresolved",
}
_LEVELS: dict[str, Severity] = {"fatal": "critical", "error": "warning", "warning": "warning"}
_OF_PROJECT = re.compile(r"/projects/[^/]{1,100}/([^/]{1,100})/")


def parse(headers: Mapping[str, str], body: Json, account: str, native_id: str) -> tuple[Notice, ...]:
    """What a call reports; nothing for resources without use here (installations, comments)."""
    read = _RESOURCES.get(headers.get("sentry-hook-resource", ""))
    found = read(body, object_of(body.get("data")), account, native_id) if read else None
    return (found,) if found else ()


def _issue(body: Json, data: Json, account: str, native_id: str) -> Notice | None:
    issue, action = object_of(data.get("issue")), text_of(body.get("action"), 40)
    number = id_of(issue.get("id"))
    if action not in _ISSUE or not number:
        return None
    project = text_of(object_of(issue.get("project")).get("slug"), 100)
    title, short_id = text_of(issue.get("title"), 500), text_of(issue.get("shortId"), 100)
    status, substatus = text_of(issue.get("status"), 40), text_of(issue.get("substatus"), 60)
    shown = "archived" if status == "ignored" else status or _ISSUE[action]
    said = {"created": "is new", "assigned": f"was assigned to {_assigned(issue)}"}.get(
        _ISSUE[action],
        f"was {_ISSUE[action]}" if action != "unresolved" else f"is open again ({line(substatus, 60)})",
    )
    culprit = line(text_of(issue.get("culprit"), 500))
    return _notice(
        account,
        native_id,
        project,
        topic=f"issue.{_ISSUE[action]}",
        title=f"{line(f'{short_id} {title}'.strip(), 250) or 'Issue'} — {line(shown, 40)}",
        text=f"The issue {said}{_by(body)}." + (f"\n\nIn {culprit}" if culprit else ""),
        url=url_of(issue.get("web_url")) or url_of(issue.get("permalink")),
        key=f"issue:{number}",
        closes=_ISSUE[action] in ("resolved", "archived"),
        severity=_LEVELS.get(text_of(issue.get("level"), 20), "info"),
        data={
            "issue_id": number,
            "short_id": short_id,
            "title": title,
            "culprit": text_of(issue.get("culprit"), 500),
            "level": text_of(issue.get("level"), 20),
            "status": status,
            "substatus": substatus,
            "actor": _actor(body),
            "action": action,
            "count": id_of(issue.get("count")),
        },
    )


def _event_alert(body: Json, data: Json, account: str, native_id: str) -> Notice | None:
    rule = text_of(data.get("triggered_rule"), 300)
    text = f"The alert rule {line(rule)} was triggered."
    return _of_event(
        object_of(data.get("event")), body, account, native_id, "alert.firing", text, {"rule": rule}
    )


def _error(body: Json, data: Json, account: str, native_id: str) -> Notice | None:
    return _of_event(
        object_of(data.get("error")), body, account, native_id, "error.created", "An error came in.", {}
    )


def _of_event(
    event: Json, body: Json, account: str, native_id: str, topic: str, text: str, more: Json
) -> Notice | None:
    """Something about one event of an issue: it belongs into the issue's thread, and the issue is open."""
    number, event_id = id_of(event.get("issue_id")), text_of(event.get("event_id"), 64)
    if not (number and event_id):
        return None
    title = text_of(event.get("title"), 500)
    of_project = _OF_PROJECT.search(text_of(event.get("url"), 500))
    culprit = passage(text_of(event.get("culprit"), 500), 300)
    return _notice(
        account,
        native_id,
        of_project[1] if of_project else id_of(event.get("project")),
        topic=topic,
        title=f"{line(title, 250) or 'Error'} — unresolved",
        text=text + (f"\n\nIn {culprit}" if culprit else ""),
        url=url_of(event.get("web_url")),
        key=f"issue:{number}",
        severity=_LEVELS.get(text_of(event.get("level"), 20), "info"),
        data={
            "issue_id": number,
            "event_id": event_id,
            "title": title,
            "culprit": text_of(event.get("culprit"), 500),
            "level": text_of(event.get("level"), 20),
            "environment": text_of(event.get("environment"), 100),
            "release": text_of(event.get("release"), 200),
            "platform": text_of(event.get("platform"), 60),
            "tags": _tags(event.get("tags")),
            "actor": _actor(body),
            "action": text_of(body.get("action"), 40),
            **more,
        },
    )


def _metric_alert(body: Json, data: Json, account: str, native_id: str) -> Notice | None:
    alert, action = object_of(data.get("metric_alert")), text_of(body.get("action"), 40)
    number = id_of(alert.get("id"))
    if action not in ("critical", "warning", "resolved", "open") or not number:
        return None
    rule = object_of(alert.get("alert_rule"))
    projects = alert.get("projects")
    project = text_of(projects[0], 100) if isinstance(projects, list) and projects else ""
    title = text_of(data.get("description_title"), 300) or text_of(rule.get("name"), 300)
    resolved = action == "resolved"
    severity: Severity = "critical" if action == "critical" else "info" if resolved else "warning"
    return _notice(
        account,
        native_id,
        project,
        topic="alert.resolved" if resolved else "alert.firing",
        title=f"{line(title, 250) or 'Metric alert'} — {'resolved' if resolved else 'firing'}",
        text=passage(text_of(data.get("description_text"), 2000)) or "The metric alert changed.",
        url=url_of(data.get("web_url")),
        key=f"metric:{number}",
        closes=resolved,
        severity=severity,
        data={
            "alert_id": number,
            "rule": text_of(rule.get("name"), 300),
            "title": title,
            "description": text_of(data.get("description_text"), 2000),
            "query": text_of(rule.get("query"), 1000),
            "aggregate": text_of(rule.get("aggregate"), 300),
            "environment": text_of(rule.get("environment"), 100),
            "actor": _actor(body),
            "action": action,
        },
    )


_RESOURCES: dict[str, Callable[[Json, Json, str, str], Notice | None]] = {
    "issue": _issue,
    "event_alert": _event_alert,
    "metric_alert": _metric_alert,
    "error": _error,
}


def _notice(
    account: str,
    native_id: str,
    project: str,
    *,
    topic: str,
    title: str,
    text: str,
    url: str,
    key: str,
    severity: Severity,
    data: Json,
    closes: bool = False,
) -> Notice:
    return Notice(
        account=account,
        native_id=native_id,
        sender=sender(Sentry.service),
        route=scope(account, project),
        topic=topic,
        title=shortened(title, 500),
        text=text,
        url=url,
        key=key,
        closes=closes,
        severity=severity,
        data={"project": project, "url": url, **data},
    )


def _actor(body: Json) -> str:
    return text_of(object_of(body.get("actor")).get("name"), 100)


def _by(body: Json) -> str:
    """By whom, where it was a person: of what Sentry does itself nobody needs to be told who did it."""
    person = object_of(body.get("actor")).get("type") == "user"
    return f", by {line(_actor(body), 80)}" if person and _actor(body) else ""


def _assigned(issue: Json) -> str:
    return line(text_of(object_of(issue.get("assignedTo")).get("name"), 100), 80) or "somebody"


def _tags(value: object) -> dict[str, str]:
    pairs = value[:50] if isinstance(value, list) else []
    named = {
        pair[0]: pair[1]
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
    }
    return texts_of(named, limit=300)


class Sentry(HookSource):
    """One integration of a Sentry organisation."""

    name: ClassVar[str] = "sentry"
    service: ClassVar[str] = "Sentry"

    def __init__(
        self,
        account: str,
        *,
        client_secret: str,
        old_client_secret: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`old_client_secret` is still taken while the secret is being changed. Raises `ConfigurationError`."""
        super().__init__(account, clock=clock)
        self._secrets = required(client_secret=client_secret, old_client_secret=old_client_secret)
        self._changes: Memory[str, tuple[str, str]] = Memory()

    def prove(self, request: HookRequest, now: float) -> None:
        """Sentry-Hook-Signature over the body, and a time that is near."""
        prove_hex_hmac(self._secrets, request.body, request.headers.get("sentry-hook-signature", ""))
        prove_recent(request.headers.get("sentry-hook-timestamp", ""), now)

    def events(self, request: HookRequest) -> tuple[Notice, ...]:
        """The notice in a call."""
        body = json_body(request)
        return parse(request.headers, body, self.account, self._native_id(request, body))

    def _native_id(self, request: HookRequest, body: Json) -> str:
        resource, data = request.headers.get("sentry-hook-resource", ""), object_of(body.get("data"))
        if resource == "metric_alert":
            return self._change_of(id_of(object_of(data.get("metric_alert")).get("id")), request.body)
        if resource != "issue":
            return derived_id(resource, request.body)
        number = id_of(object_of(data.get("issue")).get("id"))
        if body.get("action") == "created" and number:
            return derived_id("issue.created", number)
        return delivery_id(request, "request-id")

    def _change_of(self, alert: str, body: bytes) -> str:
        """The id of a metric alert's change; the same twice in a row is one, sent again.

        Critical, a warning, critical again: the first and the last may look the same, what was told between tells them
        apart.
        """
        before, change = self._changes.recall(alert) or ("", ""), derived_id("metric_alert", body)
        if before[0] == change:
            return before[1]
        id_ = derived_id(change, before[1]) if before[1] else change
        self._changes[alert] = (change, id_)
        return id_


CONNECTOR = Sentry
