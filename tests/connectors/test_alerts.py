"""Alertmanager and Grafana: what their alerts say, and a real Alertmanager that calls."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from connectors._hook_alerts import MOST_ALERTS, alerts, severity_of
from connectors._hook_json import Unreadable
from connectors._hook_source import HookSource
from connectors.alertmanager import Alertmanager
from connectors.grafana import Grafana
from parley.errors import BadSignature, ConfigurationError, StoreUnavailable
from parley.messages import Accepted, Event, HookRequest, Notice
from tests.fakes import alertmanager, grafana
from tests.fakes._alerting import BEGAN, ENDED, SITE, alert, call
from tests.fakes._driver import eventually
from tests.ports import free_port


def told(payload: Any) -> list[Notice]:
    connector = alertmanager.AlertmanagerCaller().connector("a")
    events = connector.events(alertmanager.delivery(payload))
    assert all(isinstance(event, Notice) for event in events)
    return list(events)


def test_an_alert() -> None:
    (notice,) = told(call(alert()))
    assert notice.title == "HighLatency: p99 is above 1 s — firing"
    assert notice.text == (
        f"Firing.\n\nIt is 1.7 s on web1.\n\ninstance=web1, job=app\n\n[source]({SITE}/graph?g0.expr=up%3D%3D0)"
    )
    assert (notice.key, notice.closes, notice.severity) == ("aa11bb22cc33dd44", False, "critical")
    assert notice.route.conversation == '{}:{alertname="HighLatency"}'
    assert notice.data == {
        "alertname": "HighLatency",
        "summary": "p99 is above 1 s",
        "labels": {"alertname": "HighLatency", "severity": "critical", "instance": "web1", "job": "app"},
        "annotations": {"summary": "p99 is above 1 s", "description": "It is 1.7 s on web1."},
        "status": "firing",
        "startsAt": BEGAN,
        "endsAt": "",
        "fingerprint": "aa11bb22cc33dd44",
        "generatorURL": f"{SITE}/graph?g0.expr=up%3D%3D0",
        "receiver": "parley",
        "groupKey": '{}:{alertname="HighLatency"}',
        "externalURL": SITE,
    }


def test_a_resolved_alert_ends_the_same_thread_with_the_same_severity() -> None:
    (firing,), (resolved,) = told(call(alert())), told(call(alert("resolved")))
    assert resolved.title == "HighLatency: p99 is above 1 s — resolved"
    assert resolved.text.startswith("Resolved after 12 min.")
    assert (resolved.key, resolved.closes) == (firing.key, True)
    assert resolved.severity == firing.severity == "critical"
    assert resolved.data["endsAt"] == ENDED
    assert resolved.native_id != firing.native_id


def test_each_alert_of_a_call_is_a_notice() -> None:
    one, two = alert(fingerprint="one"), alert("resolved", fingerprint="two")
    notices = told(call(one, two))
    assert [(notice.topic, notice.key) for notice in notices] == [
        ("alert.firing", "one"),
        ("alert.resolved", "two"),
    ]
    # In another group, or alone again after hours, it is the same.
    assert [told(call(part, groupKey="other"))[0].native_id for part in (one, two)] == [
        notice.native_id for notice in notices
    ]


def test_what_fires_again_is_told_again() -> None:
    later = alert(startsAt="2025-10-09T10:00:00Z")
    assert told(call(alert()))[0].native_id != told(call(later))[0].native_id
    other_end = alert("resolved", endsAt="2025-10-09T11:00:00Z")
    assert told(call(alert("resolved")))[0].native_id != told(call(other_end))[0].native_id


async def test_what_was_told_as_over_fires_again_with_the_same_beginning() -> None:
    """Nothing in the call tells it from a reminder, which says nothing new."""
    door = Door(alertmanager.AlertmanagerCaller().connector("a"))
    for status in ("firing", "firing", "resolved", "firing", "firing", "resolved", "firing"):
        await door.connector.handle_hook(alertmanager.delivery(call(alert(status))), door.accept)
        other = alert(status, fingerprint="other", startsAt="2025-10-09T07:00:00Z")
        await door.connector.handle_hook(alertmanager.delivery(call(other)), door.accept)
    told_of_one = [notice.topic for notice in door.notices if notice.key == "aa11bb22cc33dd44"]
    # The end is at the same time, so that it is the same end.
    assert told_of_one == ["alert.firing", "alert.resolved", "alert.firing"]
    assert len(door.notices) == 6


async def test_an_end_that_was_not_stored_is_no_end() -> None:
    door = Door(alertmanager.AlertmanagerCaller().connector("a"))
    firing, over = (alertmanager.delivery(call(alert(status))) for status in ("firing", "resolved"))
    await door.connector.handle_hook(firing, door.accept)
    door.down = True
    with pytest.raises(StoreUnavailable):
        await door.connector.handle_hook(over, door.accept)
    door.down = False
    await door.connector.handle_hook(firing, door.accept)
    assert [notice.topic for notice in door.notices] == ["alert.firing"]


def test_an_alert_without_a_fingerprint_is_known_by_its_labels() -> None:
    one, two = alert(), alert(labels={"alertname": "Other"})
    del one["fingerprint"], two["fingerprint"]
    first, second = told(call(one, two))
    assert first.key != second.key
    assert told(call(one))[0].native_id == first.native_id


def test_an_alert_with_nothing_in_it() -> None:
    (notice,) = told({"alerts": [{}]})
    assert (notice.title, notice.severity, notice.text) == ("Alert — firing", "warning", "Firing.")


def test_an_alert_in_chinese() -> None:
    firing, over = alerts(call(alert(), alert("resolved")), "Alertmanager", "a", "zh")
    assert firing.title == "HighLatency：p99 is above 1 s — 告警中"
    assert firing.text.startswith("告警中。\n\n")
    assert "[来源](https://alerts.example/" in firing.text
    assert over.title == "HighLatency：p99 is above 1 s — 已恢复"
    assert over.text.startswith("已恢复，持续 12 分钟。")
    assert (firing.key, over.key, firing.topic) == (over.key, firing.key, "alert.firing")
    (unnamed,) = alerts({"alerts": [{}]}, "Grafana", "a", "zh")
    assert (unnamed.title, unnamed.text) == ("Alert — 告警中", "告警中。")


def test_alerts_that_are_left_out_are_told_of() -> None:
    *_, last = told(call(alert(), truncatedAlerts=7))
    assert (last.topic, last.data["truncated"], last.key) == ("alert.truncated", 7, "")
    assert "7" in last.title
    many = told(call(*[alert(fingerprint=str(number)) for number in range(MOST_ALERTS + 5)]))
    assert (len(many), many[-1].data["truncated"]) == (MOST_ALERTS + 1, 5)
    assert told(call(truncatedAlerts=0)) == []


@pytest.mark.parametrize(
    ("label", "severity"),
    [
        ("critical", "critical"),
        ("PAGE", "critical"),
        ("warning", "warning"),
        ("error", "warning"),
        ("", "warning"),
        ("house-made", "warning"),
        (" info ", "info"),
        ("none", "info"),
    ],
)
def test_severities(label: str, severity: str) -> None:
    assert severity_of(label) == severity


@pytest.mark.parametrize(
    "payload", [{}, {"alerts": None}, {"alerts": {}}, {"text": "of a template of one's own"}]
)
def test_another_form_is_refused(payload: Any) -> None:
    with pytest.raises(Unreadable, match="alerts"):
        told(payload)


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {alertmanager.TOKEN}",
        f"Bearer {alertmanager.OLD_TOKEN}",
        alertmanager.basic(alertmanager.USER, alertmanager.PASSWORD),
    ],
)
def test_each_of_the_credentials_is_taken(authorization: str) -> None:
    connector = alertmanager.AlertmanagerCaller().connector("a")
    connector.prove(alertmanager.delivery(call(), authorization), 0)


@pytest.mark.parametrize("make", [Alertmanager, Grafana])
@pytest.mark.parametrize(
    "given", [{}, {"username": "am"}, {"password": "x"}, {"token": "t", "username": "am"}]
)
def test_credentials_are_whole_or_refused(make: Any, given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="username and password"):
        make("a", **given)


# --- Grafana ---------------------------------------------------------------------------------------------------------


def test_an_alert_of_grafana() -> None:
    (event,) = grafana.GrafanaCaller().connector("a").events(grafana.delivery(grafana.call(grafana.alert())))
    assert event.sender.name == "Grafana"
    for word in ("source", "dashboard", "panel", "silence"):
        assert f"[{word}](https://grafana.example/" in event.text
    assert event.data["orgId"] == 1
    assert event.data["panelURL"] == "https://grafana.example/d/dash?viewPanel=1"
    assert "1.7" in event.data["valueString"]


def test_a_signature_without_a_time_and_under_another_name() -> None:
    connector = Grafana("a", secret=grafana.SECRET, signature_header="X-House-Signature")
    connector.prove(grafana.delivery(grafana.call(), at=None, header="X-House-Signature"), 0)
    with pytest.raises(BadSignature):
        connector.prove(grafana.delivery(grafana.call(), at=None), 0)


def test_a_token_counts_only_where_nothing_is_signed() -> None:
    authorized = grafana.delivery(grafana.call(), secret="", authorization=f"Bearer {grafana.TOKEN}")
    Grafana("a", token=grafana.TOKEN).prove(authorized, 0)
    with pytest.raises(BadSignature):
        Grafana("a", token=grafana.TOKEN, secret=grafana.SECRET).prove(authorized, 0)


def test_a_secret_that_is_being_changed() -> None:
    connector = grafana.GrafanaCaller().connector("a")
    connector.prove(grafana.delivery(grafana.call(), secret=grafana.OLD_SECRET), connector._clock())


# --- a real Alertmanager ---------------------------------------------------------------------------------------------

PROGRAM = "prometheus-alertmanager"
CONFIG = """
route:
  receiver: parley
  group_by: [alertname]
  group_wait: 10ms
  group_interval: 200ms
  repeat_interval: 1h
receivers:
  - name: parley
    webhook_configs:
      - url: {url}
        send_resolved: true
        http_config:
          authorization:
            credentials: {token}
"""


class Door:
    """The hooks' port as the service sees it: requests go to the connector, its errors become 401 and 503."""

    def __init__(self, connector: HookSource) -> None:
        self.connector = connector
        self.notices: list[Notice] = []
        self.statuses: list[int] = []
        self.down = False
        self.url = ""

    async def accept(self, event: Event) -> Accepted:
        if self.down:
            raise StoreUnavailable("down")
        assert isinstance(event, Notice)
        new = event.native_id not in {known.native_id for known in self.notices}
        if new:
            self.notices.append(event)
        return Accepted(id=event.native_id, new=new)

    async def take(self, request: web.Request) -> web.Response:
        asked = HookRequest(
            method=request.method,
            path=request.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.read(),
        )
        try:
            answer = await self.connector.handle_hook(asked, self.accept)
            status, body = answer.status, answer.body
        except StoreUnavailable:
            status, body = 503, b""
        except BadSignature:
            status, body = 401, b""
        self.statuses.append(status)
        return web.Response(status=status, body=body)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/hooks/{account}", self.take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks/a"
            yield
        finally:
            await runner.cleanup()


@asynccontextmanager
async def real_alertmanager(home: Path, url: str, token: str) -> AsyncIterator[httpx.AsyncClient]:
    """Alertmanager on a port of its own, which calls this address."""
    program = shutil.which(PROGRAM)
    if program is None:
        message = f"{PROGRAM} is not installed: `make test-servers` brings it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    (home / "alertmanager.yml").write_text(CONFIG.format(url=url, token=token))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        str(program),
        f"--config.file={home / 'alertmanager.yml'}",
        f"--storage.path={home / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            await _ready(client)
            yield client
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                if (await client.get("/-/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


def _moment(minutes: float = 0) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()


def raised(host: str) -> dict[str, Any]:
    return {
        "labels": {"alertname": "HighLatency", "severity": "critical", "instance": host},
        "annotations": {"summary": "p99 is above 1 s"},
        "generatorURL": "http://prometheus.example/graph",
        "startsAt": _moment(-5),
    }


@pytest.mark.servers
async def test_a_real_alertmanager_is_understood(tmp_path: Path) -> None:
    door = Door(Alertmanager("a", token=alertmanager.TOKEN))
    async with door.open(), real_alertmanager(tmp_path, door.url, alertmanager.TOKEN) as client:
        door.down = True
        web1 = raised("web1")
        (await client.post("/api/v2/alerts", json=[web1])).raise_for_status()
        await eventually(lambda: 503 in door.statuses, "a call while the store is down", within=20)
        assert door.notices == []
        door.down = False
        await eventually(lambda: door.notices, "the same call again", within=20)
        (await client.post("/api/v2/alerts", json=[raised("web2")])).raise_for_status()
        await eventually(lambda: len(door.notices) == 2, "the second alert of the group", within=20)
        (await client.post("/api/v2/alerts", json=[{**web1, "endsAt": _moment()}])).raise_for_status()
        await eventually(lambda: len(door.notices) == 3, "the end of the first", within=20)
        (await client.post("/api/v2/alerts", json=[web1])).raise_for_status()
        await eventually(lambda: len(door.notices) == 4, "the first again", within=20)
    first, second, end, again = door.notices
    assert (first.topic, first.data["labels"]["instance"]) == ("alert.firing", "web1")
    assert (second.topic, second.data["labels"]["instance"]) == ("alert.firing", "web2")
    assert (end.topic, end.key, end.closes) == ("alert.resolved", first.key, True)
    assert first.key != second.key
    # Prometheus goes on sending what Alertmanager took for over: it began when it began.
    assert (again.topic, again.key, again.data["startsAt"]) == (
        "alert.firing",
        first.key,
        first.data["startsAt"],
    )
    assert end.text.startswith("Resolved after ")
    assert first.title == "HighLatency: p99 is above 1 s — firing"
    assert set(door.statuses) <= {200, 503}


@pytest.mark.servers
async def test_a_real_alertmanager_with_another_token_is_refused(tmp_path: Path) -> None:
    door = Door(Alertmanager("a", token=alertmanager.TOKEN))
    async with door.open(), real_alertmanager(tmp_path, door.url, alertmanager.WRONG_TOKEN) as client:
        (await client.post("/api/v2/alerts", json=[raised("web1")])).raise_for_status()
        await eventually(lambda: door.statuses, "the call", within=20)
    assert (set(door.statuses), door.notices) == ({401}, [])
