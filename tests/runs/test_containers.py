"""Runs in containers, as far as no engine is needed: who may ask what, what is offered, what a container is told."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from parley import automation
from parley.errors import ConfigurationError
from parley.runs import container_engine, container_file
from parley.runs._container_job import ContainerJob, arrange
from parley.runs.automation import declaration_of
from parley.runs.container_rules import Rules
from parley.runs.describe import find
from parley.settings import Automations, ContainerLimits, Containers, File, read_file

RUN, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
RULES = Rules(flow_run_id=RUN, flow_id="f", deployment_id="d", work_queue_id="q", blocks=("rest/shop",))


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("GET", f"/flow_runs/{RUN}", b"", True),
        ("POST", f"/flow_runs/{RUN}/set_state", b"{}", True),
        ("PATCH", f"/flow_runs/{RUN}", b'{"name": "order 7"}', True),
        ("PATCH", f"/flow_runs/{RUN}", b'{"job_variables": {"egress": ["db:5432"]}}', False),
        ("PATCH", f"/flow_runs/{RUN}", b'{"name": "x", "job\\u005fvariables": {"env": {"A": "b"}}}', False),
        ("PATCH", f"/flow_runs/{RUN}", b'{"parameters": {}}', False),
        ("PATCH", f"/flow_runs/{RUN}", b"[]", False),
        ("PATCH", f"/flow_runs/{RUN}", b"[" * 100_000, False),
        ("GET", f"/flow_runs/{OTHER}", b"", False),
        ("DELETE", f"/flow_runs/{RUN}", b"", False),
        ("POST", f"/flow_runs/{RUN}/resume", b"{}", False),
        ("POST", f"/flow_runs/{OTHER}/set_state", b"{}", False),
        ("POST", "/flow_runs/", b"{}", False),
        ("POST", "/deployments/d/create_flow_run", b"{}", False),
        ("GET", "/deployments/d", b"", True),
        ("GET", "/deployments/other", b"", False),
        ("POST", "/block_documents/filter", b"{}", False),
        ("GET", "/block_types/slug/rest/block_documents/name/shop", b"", True),
        ("GET", "/block_types/slug/rest/block_documents/name/other", b"", False),
        ("GET", "/variables/name/x", b"", False),
        ("GET", "/work_pools/parley-containers", b"", True),
        ("GET", "/work_pools/parley", b"", False),
        ("POST", "/logs/", json.dumps([{"flow_run_id": RUN}, {"flow_run_id": RUN}]).encode(), True),
        ("POST", "/logs/", json.dumps([{"flow_run_id": RUN}, {"flow_run_id": OTHER}]).encode(), False),
        ("POST", "/logs/", b"not json", False),
        ("POST", "/logs/", b"[1]", False),
        ("POST", "/artifacts/", json.dumps({"flow_run_id": RUN, "key": "k"}).encode(), True),
        ("POST", "/artifacts/", json.dumps({"key": "k"}).encode(), False),
    ],
)
def test_a_run_asks_about_itself_only(method: str, path: str, body: bytes, allowed: bool) -> None:
    assert RULES.allow(method, path, body) is allowed


def _event(*ids: str) -> dict[str, Any]:
    return {
        "resource": {"prefect.resource.id": f"prefect.task-run.{OTHER}"},
        "related": [{"prefect.resource.id": one} for one in ids],
    }


def test_an_event_speaks_of_its_own_run_only() -> None:
    assert RULES.allow_event(_event(f"prefect.flow-run.{RUN}"))
    assert not RULES.allow_event(_event(f"prefect.flow-run.{OTHER}"))
    assert not RULES.allow_event(_event(f"prefect.flow-run.{RUN}", f"prefect.flow-run.{OTHER}"))
    assert not RULES.allow_event(_event())
    assert not RULES.allow_event({"resource": None, "related": ["x", 1]})


def test_no_setting_of_a_deployment_opens_a_container(tmp_path: Path) -> None:
    job = ContainerJob(
        image="mine",
        env={"PREFECT_API_AUTH_STRING": "parley:secret", "PREFECT_API_URL": "http://x", "OWN": "1"},
        networks=["bridge"],
        network_mode="host",
        privileged=True,
        volumes=["/:/host", "/var/run/docker.sock:/var/run/docker.sock"],
        container_create_kwargs={"cap_add": ["ALL"], "devices": ["/dev/kmsg"], "pid_mode": "host"},
        command="sh",
        memory_mb=256,
    )
    arrange(job, Containers(), tmp_path, ("db.example:5432", "api.example:443", "api.example:80"), {"a": "b"})
    made = job.container_create_kwargs or {}
    assert (job.network_mode, job.networks, job.privileged, job.command) == ("none", [], False, None)
    assert job.volumes == [f"{tmp_path}:/run/parley:ro"]
    assert (job.mem_limit, job.memswap_limit, made["nano_cpus"]) == ("256m", "256m", 10**9)
    assert not {"cap_add", "devices", "pid_mode"} & set(made)
    assert made["read_only"]
    assert made["cap_drop"] == ["ALL"]
    assert made["extra_hosts"] == {"api.example": "127.0.1.1", "db.example": "127.0.1.2"}
    assert job.env["OWN"] == "1"
    assert "PREFECT_API_AUTH_STRING" not in job.env
    assert job.env["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"


def test_limits_are_the_files_then_the_authors_then_the_defaults() -> None:
    containers = Containers(image="base", automations={"a": ContainerLimits(memory_mb=200, network=())})
    author = ContainerLimits(memory_mb=300, cpus=2, network=("x.example:1",))
    assert container_engine.limits_of(containers, "a", author) == ContainerLimits(
        image="base", memory_mb=200, cpus=2, network=()
    )
    assert container_engine.limits_of(containers, "b", author) == ContainerLimits(
        image="base", memory_mb=300, cpus=2, network=("x.example:1",)
    )
    assert container_engine.limits_of(containers, "b", None) == ContainerLimits(
        image="base", memory_mb=512, cpus=1, network=()
    )


def test_an_author_declares_it() -> None:
    @automation(isolation="container", memory_mb=256, cpus=0.5, network=("db.example:5432",))
    @flow
    def shut() -> None:
        """Nothing."""

    declared = declaration_of(shut)
    assert declared is not None
    assert declared.isolation == "container"
    assert declared.limits == ContainerLimits(memory_mb=256, cpus=0.5, network=("db.example:5432",))


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory_mb": 256},
        {"network": ("a.example:1",)},
        {"isolation": "vm"},
        {"isolation": "container", "memory_mb": 1},
        {"isolation": "container", "network": ("10.0.0.1:80",)},
        {"isolation": "container", "network": ("localhost:80",)},
        {"isolation": "container", "network": ("a.example:0",)},
        {"isolation": "container", "network": ("a.example",)},
    ],
)
def test_what_could_not_be_kept_is_refused(wrong: dict[str, Any]) -> None:
    @flow
    def plain() -> None:
        """Nothing."""

    with pytest.raises(ConfigurationError):
        automation(**wrong)(plain)


def test_the_file_may_have_an_automation_run_in_one() -> None:
    modules = Automations(modules=("flows.order_status",), entry_points=False)
    plain = find(modules)[1].find("order")
    shut = find(modules, Containers(automations={"order": ContainerLimits()}))[1].find("order")
    assert plain is not None
    assert shut is not None
    assert (plain.isolation, shut.isolation) == ("process", "container")
    assert plain.version != shut.version
    assert plain.core != shut.core


def test_without_the_table_or_an_engine_the_reason_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "[containers]" in container_engine.missing(None, set())
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")  # nothing listens there
    assert "no container engine answers" in container_engine.missing(Containers(), {"prefect-parley"})


def test_a_container_gets_the_scripts_and_nothing_else_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "parley.toml"
    path.write_text(
        '[owner]\nname = "ada"\n[accounts.work]\nplatform = "slack"\nblock = "slack/work"\n'
        "[scripts.\"a b\"]\nargv = ['sh', '-c', 'echo \"é😀\\\\\"\\u007f', '{host}']\ncwd = '/srv'\n"
        'environment = { A = "1", "B C" = "line\\nline" }\n'
        '[scripts."a b".parameters.host]\ntype = "string"\nenum = ["web1", "web2"]\nminLength = 1\n'
        "[scripts.c]\nargv = ['true']\ntimeout = 1.5\n"
    )
    file = read_file(path)
    told = tomllib.loads(container_file.reduced(file))
    assert set(told) == {"scripts"}
    assert File.model_validate(told).scripts == file.scripts
    assert tomllib.loads(container_file.reduced(File())) == {}
