"""Sentry, as far as it calls us: payloads with the members of its documentation, a new Request-ID at each call."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from typing import Any, ClassVar

from connectors.sentry import Sentry
from parley.messages import HookRequest
from tests.fakes._caller import NOW, posted

Json = dict[str, Any]

SECRET, OLD_SECRET, WRONG_SECRET = "sentry-Secret-1a2b", "sentry-Old-3c4d", "sentry-Wrong-5e6f"
SITE = "https://sentry.example"


def delivery(
    resource: str, payload: Json, *, secret: str = SECRET, at: int | str = NOW, request_id: str = ""
) -> HookRequest:
    """One call."""
    body = json.dumps(payload).encode()
    headers = {
        "Request-ID": request_id or uuid.uuid4().hex,
        "Sentry-Hook-Resource": resource,
        "Sentry-Hook-Timestamp": str(at),
        "Sentry-Hook-Signature": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
    }
    return posted(body, headers)


def whole(action: str, data: Json, actor: Json | None = None) -> Json:
    return {
        "action": action,
        "installation": {"uuid": "a8e5d37a-696c-4c54-adb5-b3f28d64c7de"},
        "data": data,
        "actor": actor or {"type": "application", "id": "sentry", "name": "Sentry"},
    }


def issue(action: str, status: str = "unresolved", **changes: Any) -> Json:
    about = {
        "id": "1170820242",
        "shortId": "FRONT-END-9",
        "title": "ReferenceError: x is not defined",
        "culprit": "app.views in index",
        "level": "error",
        "status": status,
        "substatus": "new" if status == "unresolved" else None,
        "statusDetails": {},
        "type": "error",
        "platform": "javascript",
        "project": {"id": "1", "name": "Front End", "slug": "front-end", "platform": "javascript"},
        "metadata": {"type": "ReferenceError", "value": "x is not defined"},
        "assignedTo": None,
        "count": "1",
        "userCount": 1,
        "firstSeen": "2025-10-09T08:00:00.391000Z",
        "lastSeen": "2025-10-09T08:00:00.391000Z",
        "permalink": None,
        "web_url": f"{SITE}/organizations/org/issues/1170820242/",
        **changes,
    }
    return whole(action, {"issue": about}, {"type": "user", "id": 3, "name": "Alice"})


def event(**changes: Any) -> Json:
    return {
        "event_id": "e4874d664c3540c1a32eab185f12c5ab",
        "issue_id": "1117540176",
        "title": "ReferenceError: y is not defined",
        "culprit": "?(<anonymous>)",
        "level": "fatal",
        "platform": "javascript",
        "project": 1,
        "release": "1.2.3",
        "tags": [["browser", "Chrome 75"], ["environment", "production"]],
        "url": f"{SITE}/api/0/projects/org/front-end/events/e4874d664c3540c1a32eab185f12c5ab/",
        "web_url": f"{SITE}/organizations/org/issues/1117540176/events/e4874d664c3540c1a32eab185f12c5ab/",
        "timestamp": 1566248777.677,
        **changes,
    }


def metric(action: str) -> Json:
    rule = {"id": "7", "name": "Too many errors", "query": "level:error", "aggregate": "count()"}
    data = {
        "metric_alert": {"id": "4", "identifier": "1", "projects": ["bar"], "status": 2, "alert_rule": rule},
        "description_title": f"{action.title()}: Too many errors",
        "description_text": "1000 events in the last 10 minutes",
        "web_url": f"{SITE}/organizations/org/alerts/1/",
    }
    return whole(action, data)


class SentryCaller:
    """Sentry for the contract suite."""

    name: ClassVar[str] = "sentry"
    cannot_age: ClassVar[str] = ""
    cannot_sign: ClassVar[str] = ""

    def connector(self, account: str) -> Sentry:
        return Sentry(account, client_secret=SECRET, old_client_secret=OLD_SECRET, clock=lambda: NOW)

    def secrets(self) -> tuple[str, ...]:
        return (SECRET, OLD_SECRET)

    def calls(self) -> dict[str, HookRequest]:
        rule = {"event": event(), "triggered_rule": "Very *important*"}
        return {
            "issue.created": delivery("issue", issue("created"), request_id="r-1"),
            "issue.resolved": delivery("issue", issue("resolved", "resolved"), request_id="r-2"),
            "issue.assigned": delivery("issue", issue("assigned"), request_id="r-3"),
            "issue.archived": delivery("issue", issue("archived", "ignored"), request_id="r-4"),
            "issue.unresolved": delivery("issue", issue("unresolved"), request_id="r-5"),
            "alert.firing": delivery("event_alert", whole("triggered", rule)),
            "alert.resolved": delivery("metric_alert", metric("resolved")),
            "error.created": delivery("error", whole("created", {"error": event()})),
        }

    def aged(self, seconds: int) -> HookRequest:
        return delivery("issue", issue("created"), at=NOW - seconds)

    def again(self, topic: str) -> HookRequest:
        """Of what has an id of its own a new request; of an issue's changes only the same request is the same."""
        first = self.calls()[topic]
        resource, request_id = first.headers["sentry-hook-resource"], first.headers["request-id"]
        payload = json.loads(first.body)
        return delivery(resource, payload, at=NOW + 20, request_id=request_id if resource == "issue" else "")

    def idle(self) -> HookRequest:
        return delivery("installation", whole("created", {"installation": {"status": "installed"}}))

    def forged(self) -> dict[str, HookRequest]:
        good = delivery("issue", issue("created"))
        timeless = {name: value for name, value in good.headers.items() if name != "sentry-hook-timestamp"}
        return {
            "another secret": delivery("issue", issue("created"), secret=WRONG_SECRET),
            "no time": good.model_copy(update={"headers": timeless}),
            "a time that is none": delivery("issue", issue("created"), at="soon"),
        }


DRIVER = SentryCaller
