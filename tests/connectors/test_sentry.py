"""What Sentry's calls say."""

from __future__ import annotations

import pytest

from connectors.sentry import Sentry
from parley.errors import BadSignature, ConfigurationError
from parley.messages import Notice
from tests.fakes import sentry
from tests.fakes._caller import NOW
from tests.fakes.sentry import Json, delivery, event, issue, metric, whole


def told(resource: str, payload: Json) -> Notice:
    connector = sentry.SentryCaller().connector("a")
    request = delivery(resource, payload)
    connector.prove(request, NOW)
    (notice,) = connector.events(request)
    return notice


@pytest.mark.parametrize(
    ("payload", "topic", "title", "text", "closes"),
    [
        (
            issue("created"),
            "created",
            "FRONT-END-9 ReferenceError: x is not defined — unresolved",
            "The issue is new, by Alice.",
            False,
        ),
        (
            issue("resolved", "resolved"),
            "resolved",
            "FRONT-END-9 ReferenceError: x is not defined — resolved",
            "The issue was resolved, by Alice.",
            True,
        ),
        (
            issue("ignored", "ignored"),
            "archived",
            "FRONT-END-9 ReferenceError: x is not defined — archived",
            "The issue was archived, by Alice.",
            True,
        ),
        (
            issue("assigned", assignedTo={"type": "user", "name": "Bob"}),
            "assigned",
            "FRONT-END-9 ReferenceError: x is not defined — unresolved",
            "The issue was assigned to Bob, by Alice.",
            False,
        ),
        (
            issue("unresolved", substatus="regressed"),
            "unresolved",
            "FRONT-END-9 ReferenceError: x is not defined — unresolved",
            "The issue is open again (regressed), by Alice.",
            False,
        ),
    ],
)
def test_an_issue(payload: Json, topic: str, title: str, text: str, closes: bool) -> None:
    notice = told("issue", payload)
    assert (notice.topic, notice.title) == (f"issue.{topic}", title)
    assert notice.text == f"{text}\n\nIn app.views in index"
    assert (notice.key, notice.closes, notice.severity) == ("issue:1170820242", closes, "warning")
    assert notice.route.conversation == notice.data["project"] == "front-end"
    assert notice.url == "https://sentry.example/organizations/org/issues/1170820242/"


def test_an_alert_stands_in_its_issues_thread() -> None:
    notice = told("event_alert", whole("triggered", {"event": event(), "triggered_rule": "Very *important*"}))
    assert (notice.topic, notice.key) == ("alert.firing", "issue:1117540176")
    assert notice.title == "ReferenceError: y is not defined — unresolved"
    assert notice.text.startswith("The alert rule Very ∗important∗ was triggered.")
    assert (notice.severity, notice.route.conversation) == ("critical", "front-end")
    assert notice.data["rule"] == "Very *important*"
    assert notice.data["tags"] == {"browser": "Chrome 75", "environment": "production"}


@pytest.mark.parametrize(
    ("action", "topic", "severity"),
    [
        ("critical", "alert.firing", "critical"),
        ("warning", "alert.firing", "warning"),
        ("resolved", "alert.resolved", "info"),
    ],
)
def test_a_metric_alert(action: str, topic: str, severity: str) -> None:
    notice = told("metric_alert", metric(action))
    assert (notice.topic, notice.severity, notice.key) == (topic, severity, "metric:4")
    assert notice.closes is (action == "resolved")
    assert notice.text == "1000 events in the last 10 minutes"
    assert (notice.data["rule"], notice.data["query"]) == ("Too many errors", "level:error")


@pytest.mark.parametrize(
    ("resource", "payload"),
    [
        ("issue", issue("touched")),
        ("issue", whole("created", {})),
        ("event_alert", whole("triggered", {"event": {}})),
        ("metric_alert", whole("critical", {"metric_alert": {}})),
        ("metric_alert", metric("changed")),
        ("comment", whole("created", {"comment": "x"})),
        ("", issue("created")),
    ],
)
def test_what_is_not_told(resource: str, payload: Json) -> None:
    assert not sentry.SentryCaller().connector("a").events(delivery(resource, payload))


def test_the_same_change_of_an_issue_on_another_day_is_another() -> None:
    """Resolved, open again and resolved: the bodies may be the same, the requests are not."""
    connector = sentry.SentryCaller().connector("a")
    first, second = (
        connector.events(delivery("issue", issue("resolved", "resolved"), request_id=one)) for one in "12"
    )
    assert first[0].native_id != second[0].native_id


def test_a_metric_alert_may_become_what_it_was() -> None:
    """Nothing in the calls tells the second time from the first; the same twice in a row is one that is sent again."""
    connector = sentry.SentryCaller().connector("a")
    said = ("critical", "critical", "warning", "warning", "critical", "resolved", "critical")
    ids = [connector.events(delivery("metric_alert", metric(action)))[0].native_id for action in said]
    assert ids[0] == ids[1]
    assert ids[2] == ids[3]
    assert len(set(ids)) == 5


def test_an_issue_is_new_once() -> None:
    """Sent again it is another request, and the issue may have been seen again meanwhile."""
    connector = sentry.SentryCaller().connector("a")
    first, again, other = (
        connector.events(delivery("issue", payload))[0].native_id
        for payload in (issue("created"), issue("created", count="9"), issue("created", id="2"))
    )
    assert first == again != other


def test_a_secret_that_is_being_changed() -> None:
    connector = sentry.SentryCaller().connector("a")
    connector.prove(delivery("issue", issue("created"), secret=sentry.OLD_SECRET), NOW)
    with pytest.raises(BadSignature):
        Sentry("a", client_secret=sentry.SECRET).prove(
            delivery("issue", issue("created"), secret=sentry.OLD_SECRET), NOW
        )
    with pytest.raises(ConfigurationError, match="client_secret"):
        Sentry("a", client_secret="")
