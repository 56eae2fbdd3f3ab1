"""Each metric and label that the rules and the dashboard ask for is one that a busy hub exports."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from parley.errors import ParleyError
from tests.deployments.test_prometheus import ROOT, RULES
from tests.hub.house import PATIENCE, House

pytestmark = pytest.mark.prefect

FROM_PROMETHEUS = {"instance", "job", "le"}
"""Labels that come of scraping, or of the format."""

WITH_TLS = {"ai_assistant_certificate_end_timestamp_seconds"}
"""There where a certificate is served: tests/tls looks at it."""

_SELECTOR = re.compile(r"\b(ai_assistant_\w+|up)\b(?:\{([^}]*)\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPED = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


def expressions() -> Iterator[tuple[str, str]]:
    """Everything that is asked of Prometheus, by where it stands."""
    for path in sorted(RULES.glob("*.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]
    dashboard = json.loads((ROOT / "deployments" / "grafana" / "parley.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            yield variable["name"], f"sum by ({label}) ({metric})"


async def fail(*_: Any) -> dict[str, Any]:
    return {"outcome": "failed", "reason": "out of paper", "kind": "error"}


async def be_busy(house: House) -> None:
    """Have something of everything happen once."""
    await house.say("/look 1")
    await house.say("look up 2")
    await house.answers_to(await house.from_mail("hello", sender="nobody@example.com"))
    house.worker.answer = fail
    for _ in range(2):
        await house.say("/change web1")  # alert_after = 2
    with pytest.raises(ParleyError):
        await house.hub.prefect.flow_run(str(uuid.uuid4()))
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.post(f"http://127.0.0.1:{house.hub.settings.hooks_port}/hooks/nobody")
    await house.hub.housekeeping.erase()
    for peer in house.hub.link.peers:
        await (await peer._connection._socket.ping())  # as happens every 20 s
    async with asyncio.timeout(PATIENCE):
        while "ai_assistant_children" not in await exported(house):  # noqa: ASYNC110 - looked at every ten seconds
            await asyncio.sleep(0.05)


async def exported(house: House) -> dict[str, set[str]]:
    """Each sample's name with its labels' names."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{house.hub.settings.metrics_port}/metrics")
    found: dict[str, set[str]] = {"up": set()}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


async def test_rules_and_dashboard_ask_for_what_there_is(house: House) -> None:
    await be_busy(house)
    found = await exported(house)
    asked = list(expressions())
    assert len(asked) > 40
    used = set()
    for where, expression in asked:
        names = {name for name, _ in _SELECTOR.findall(expression)}
        used |= names
        if names <= WITH_TLS:
            continue
        assert names, where
        assert names <= found.keys(), f"{where}: {names - found.keys()}"
        for name, labels in _SELECTOR.findall(expression):
            wrong = set(_LABEL.findall(labels)) - found[name] - FROM_PROMETHEUS
            assert not wrong, f"{where}: {name} has no {wrong}"
        known = set().union(*(found[name] for name in names)) | FROM_PROMETHEUS
        for group in _GROUPED.findall(expression):
            wrong = {label.strip() for label in group.split(",") if label.strip()} - known
            assert not wrong, f"{where}: nothing has {wrong}"
    assert len(used) > 35


async def test_every_figure_is_told_of_on_the_page(house: House) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    await be_busy(house)
    families = {
        re.sub(r"_(total|bucket|sum|count)$", "", name)
        for name in await exported(house)
        if name.startswith("ai_assistant_") and not name.startswith("ai_assistant_process_")
    }
    told = {re.sub(r"_total$", "", name) for name in re.findall(r"`(ai_assistant_\w+)", page)}
    assert families - told == set()
    assert {name for name in told - families if not name.startswith("ai_assistant_process_")} <= {
        "ai_assistant_children",
        *WITH_TLS,
    }
