"""The rules for Prometheus, in the words of its own `promtool`, and the dashboard for Grafana."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from parley.settings import Settings

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deployments" / "prometheus"
PAGE = ROOT / "docs" / "monitoring.md"
CASES = Path(__file__).with_name("alert_cases.yaml")


def promtool(*arguments: str) -> str:
    """What it says; fails with that when it is not content. Skips where it is not installed, except in CI."""
    if shutil.which("promtool") is None:
        message = "promtool is not installed: `make test-servers` brings it with prometheus"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules(name: str) -> list[dict[str, Any]]:
    """The rules of one file."""
    loaded = yaml.safe_load((RULES / name).read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


@pytest.mark.servers
def test_prometheus_takes_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", *map(str, sorted(RULES.glob("*.yaml"))))


@pytest.mark.servers
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    # An expected alert names all of its annotations, and these are sentences with figures in them: left out on both
    # sides, so that a better sentence breaks no test.
    for path in RULES.glob("*.yaml"):
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in loaded["groups"]:
            for rule in group["rules"]:
                rule.pop("annotations", None)
        (tmp_path / path.name).write_text(yaml.safe_dump(loaded), encoding="utf-8")
    shutil.copy(CASES, tmp_path)
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / CASES.name))


@pytest.mark.servers
def test_the_page_shows_a_configuration_that_prometheus_takes(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "deployments").symlink_to(ROOT / "deployments")
    config = tmp_path / "prometheus.yml"
    config.write_text(example, encoding="utf-8")
    said = promtool("check", "config", str(config))
    assert "SUCCESS: 2 rule files found" in said
    job = yaml.safe_load(example)["scrape_configs"][0]
    assert job["job_name"] == "parley"
    assert job["static_configs"] == [
        {"targets": [f"127.0.0.1:{Settings.model_fields['metrics_port'].default}"]}
    ]


def test_every_alert_has_cases_in_which_it_fires_and_in_which_it_does_not() -> None:
    cases = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    fires: dict[str, set[bool]] = {}
    for case in cases:
        for check in case["alert_rule_test"]:
            fires.setdefault(check["alertname"], set()).add(bool(check["exp_alerts"]))
    alerts = {rule["alert"] for rule in rules("parley-alerts.yaml")}
    assert set(fires) == alerts
    assert {name for name, seen in fires.items() if True not in seen} == set()


def test_every_alert_says_what_to_do() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for rule in rules("parley-alerts.yaml"):
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert rule["annotations"]["description"], rule["alert"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/monitoring.md"
        assert anchor in anchors, rule["alert"]


def test_every_panel_of_the_dashboard_asks_the_chosen_prometheus() -> None:
    dashboard = json.loads((ROOT / "deployments" / "grafana" / "parley.json").read_text(encoding="utf-8"))
    panels = [one for one in dashboard["panels"] if one["type"] != "row"]
    assert len({one["id"] for one in dashboard["panels"]}) == len(dashboard["panels"])
    assert [one["type"] for one in dashboard["templating"]["list"]][:1] == ["datasource"]
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel["targets"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
