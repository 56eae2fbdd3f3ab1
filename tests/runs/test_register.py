"""Deployments: made once, mended when the code changes, left alone where people changed them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from ruamel.yaml import YAML

from parley.runs.automation import declaration_of
from parley.runs.catalogue import Catalogue
from parley.runs.describe import find
from parley.runs.pool import POOL_TYPE
from parley.runs.register import ensure, entrypoint_of_listener, tags_of
from parley.settings import Automations, File, Prefect, Settings
from tests.prefect_fixture import PrefectServer
from tests.prefect_fixture import own_server as prefect_server
from tests.runs.fake_hub import FakeHub, hub
from tests.runs.prefect_client import IN_PREFECT, prefect_api

__all__ = ["hub", "prefect_api", "prefect_server"]

ROOT = Path(__file__).parents[2]

FLOWS, CATALOGUE = find(Automations(entry_points=False))


def settings(home: Path, **file: Any) -> Settings:
    return Settings(home=home, config=home / "parley.toml", key_file=home / "key", file=File(**file))


async def deployment(name: str) -> DeploymentResponse:
    async with get_client() as client:
        return await client.read_deployment_by_name(name)


def test_prefect_yaml_says_what_the_code_says() -> None:
    """Whoever deploys by file gets what a running parley makes by itself."""
    entries = YAML(typ="safe").load(ROOT / "prefect.yaml")["deployments"]
    written = {entry["entrypoint"]: entry for entry in entries}
    listener = entrypoint_of_listener()
    assert set(written) == {spec.entrypoint for spec in CATALOGUE} | ({listener[1]} if listener else set())
    for spec in CATALOGUE:
        entry = written[spec.entrypoint]
        declared = declaration_of(FLOWS[spec.name])
        assert declared is not None
        assert f"{FLOWS[spec.name].name}/{entry['name']}" == spec.deployment
        assert entry["tags"] == tags_of(spec)
        assert entry["description"] == spec.summary
        assert entry["work_pool"]["name"] == Prefect().pool
        said = {
            (s["slug"], s.get("cron"), s.get("interval"), s["timezone"]) for s in entry.get("schedules", [])
        }
        assert said == {
            (s.slug, s.cron, s.interval.total_seconds() if s.interval else None, s.timezone)
            for s in declared.schedules
        }


class TestEnsure:
    pytestmark = IN_PREFECT

    async def test_every_automation_gets_its_deployment(self, tmp_path: Path) -> None:
        full = await ensure(FLOWS, CATALOGUE, settings(tmp_path))
        assert full.broken == ()
        made = await deployment("order_status/parley")
        assert made.entrypoint == "flows.order_status.order_status"
        assert made.tags == ["parley", "read"]
        assert made.work_pool_name == "parley"
        assert made.enforce_parameter_schema
        report = await deployment("daily_report/parley")
        assert {schedule.slug for schedule in report.schedules} == {"every-half-hour", "every-morning"}

    async def test_doing_it_again_changes_nothing(self, tmp_path: Path) -> None:
        await ensure(FLOWS, CATALOGUE, settings(tmp_path))
        before = await deployment("daily_report/parley")
        await ensure(FLOWS, CATALOGUE, settings(tmp_path))
        after = await deployment("daily_report/parley")
        assert after.updated == before.updated
        assert [s.id for s in after.schedules] == [s.id for s in before.schedules]

    async def test_a_paused_schedule_stays_paused_when_the_code_changes(self, tmp_path: Path) -> None:
        await ensure(FLOWS, CATALOGUE, settings(tmp_path))
        there = await deployment("daily_report/parley")
        paused = next(s for s in there.schedules if s.slug == "every-morning")
        async with get_client() as client:
            await client.update_deployment_schedule(there.id, paused.id, active=False)
        changed = Catalogue(
            automations=tuple(
                spec.model_copy(update={"version": "another"}) for spec in CATALOGUE.automations
            )
        )
        await ensure(FLOWS, changed, settings(tmp_path))
        after = await deployment("daily_report/parley")
        assert after.version == "another"
        assert {s.slug: s.active for s in after.schedules} == {
            "every-half-hour": True,
            "every-morning": False,
        }
        async with get_client() as client:
            await client.update_deployment_schedule(there.id, paused.id, active=True)

    async def test_a_stock_worker_is_told_whose_installation_it_serves(self, tmp_path: Path) -> None:
        stock = settings(tmp_path, prefect={"worker": "stock", "pool": "parley"})
        await ensure(FLOWS, CATALOGUE, stock)
        made = await deployment("order_status/parley")
        assert made.job_variables == {"env": {"PARLEY_HOME": str(tmp_path)}}
        (tmp_path / "parley.toml").touch()
        await ensure(FLOWS, CATALOGUE, stock)
        made = await deployment("order_status/parley")
        assert made.job_variables["env"]["PARLEY_CONFIG"] == str(tmp_path / "parley.toml")

    async def test_what_people_added_in_prefect_stays(self, tmp_path: Path) -> None:
        """Tags, and job variables beside those that are ours, which follow the installation."""
        stock = settings(tmp_path, prefect={"worker": "stock", "pool": "parley"})
        await ensure(FLOWS, CATALOGUE, stock)
        there = await deployment("order_status/parley")
        theirs = {"time_limit_seconds": 60, "env": {"PARLEY_HOME": "/moved", "TZ": "UTC"}}
        added = DeploymentUpdate(tags=["nightly", *there.tags], job_variables=theirs, work_pool_name="parley")
        async with get_client() as client:
            await client.update_deployment(there.id, added)
        await ensure(FLOWS, CATALOGUE, stock)
        after = await deployment("order_status/parley")
        assert after.tags == ["parley", "read", "nightly"]
        assert after.job_variables == {
            "time_limit_seconds": 60,
            "env": {"PARLEY_HOME": str(tmp_path), "TZ": "UTC"},
        }
        plain = DeploymentUpdate(tags=there.tags, job_variables={}, work_pool_name="parley")
        async with get_client() as client:
            await client.update_deployment(there.id, plain)

    async def test_a_missing_pool_is_named(self, tmp_path: Path) -> None:
        stock = settings(tmp_path, prefect={"worker": "stock", "pool": "no-such-pool"})
        full = await ensure(FLOWS, CATALOGUE, stock)
        assert full.automations == ()
        assert "no-such-pool" in full.broken[0].reason

    async def test_our_own_workers_pool_is_made_where_it_is_missing(self, tmp_path: Path) -> None:
        full = await ensure(FLOWS, CATALOGUE, settings(tmp_path, prefect={"pool": "ours-elsewhere"}))
        assert full.broken == ()
        async with get_client() as client:
            assert (await client.read_work_pool("ours-elsewhere")).type == POOL_TYPE

    async def test_an_existing_deployment_becomes_a_command(self, tmp_path: Path) -> None:
        @flow(name="search")
        async def search(depth: int, where: str = "all") -> None:
            """Index it.

            Args:
                depth: How deep.
            """

        async with get_client() as client:
            schema = search.parameters.model_dump_for_openapi()
            await client.create_deployment(
                await client.create_flow(search),
                "nightly",
                description="Index.",
                parameter_openapi_schema=schema,
            )
        own = settings(
            tmp_path,
            automations={
                "reindex": {"deployment": "search/nightly", "effect": "write"},
                "gone": {"deployment": "search/never"},
                "order": {"deployment": "search/nightly"},
            },
        )
        full = await ensure(FLOWS, CATALOGUE, own)
        spec = full.find("reindex")
        assert spec is not None
        assert not spec.wrapped
        assert spec.deployment == "search/nightly"
        assert [(p.name, p.required, p.description) for p in spec.parameters] == [
            ("depth", True, "How deep."),
            ("where", False, ""),
        ]
        assert {broken.source for broken in full.broken} == {
            "parley.toml [automations.gone]",
            "parley.toml [automations.order]",
        }


@pytest.mark.prefect
def test_prefect_deploy_all_works_by_itself(prefect_server: PrefectServer, tmp_path: Path) -> None:
    """Non-interactively, from the files of a clone; a second time it starts nothing that somebody paused."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PARLEY_"))
    }

    def deploy() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
            cwd=ROOT,
            env={**environment, **prefect_server.environment, "PARLEY_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        made: dict[str, Any] = client.get("/deployments/name/daily_report/parley").raise_for_status().json()
        return made

    with prefect_server.client() as client:
        made = deploy()
        assert made["entrypoint"] == "flows.daily_report.daily_report"
        assert not made["pull_steps"]
        assert {s["slug"]: s["active"] for s in made["schedules"]} == {
            "every-half-hour": True,
            "every-morning": True,
        }
        paused = next(s["id"] for s in made["schedules"] if s["slug"] == "every-morning")
        url = f"/deployments/{made['id']}/schedules/{paused}"
        client.patch(url, json={"active": False}).raise_for_status()
        assert {s["slug"]: s["active"] for s in deploy()["schedules"]} == {
            "every-half-hour": True,
            "every-morning": False,
        }
        client.patch(url, json={"active": True}).raise_for_status()


@pytest.mark.prefect
def test_the_command_deploys_and_tells_the_hub(prefect_server: PrefectServer, hub: FakeHub) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PARLEY_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "parley.runs.register"],
        cwd=ROOT,
        env={**environment, **prefect_server.environment, "PARLEY_HOME": str(hub.home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (told,) = hub.of("publish_catalogue")
    assert {"order", "repair", "report"} <= set(Catalogue.model_validate(told).by_command())
