"""Automations that look around in their container; used by the tests beside this file."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import httpx
from prefect import flow

from parley import automation, say


@automation(command="reach", summary="Try to connect.", isolation="container")
@flow
def reach(targets: str) -> str:
    """`targets`: addresses as host:port, with commas between."""
    found = {}
    for target in targets.split(","):
        host, _, port = target.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), 3) as connection:
                connection.settimeout(3)
                connection.sendall(b"ping\n")
                found[target] = connection.recv(100).decode(errors="replace").strip()
        except OSError as error:
            found[target] = f"no: {type(error).__name__}"
    return json.dumps(found)


@automation(command="reach-nothing", summary="Try to connect without a network.", isolation="container")
@flow
def reach_nothing(targets: str) -> str:
    """As `reach`, which parley.toml gives a network."""
    return str(reach.fn(targets))


@automation(command="look", summary="Look around.", isolation="container", memory_mb=384, cpus=0.5)
@flow
def look() -> str:
    """What the container is like, from inside."""
    status = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    return json.dumps(
        {
            "uid": os.getuid(),
            "capabilities": status["CapEff"].strip(),
            "bounding": status["CapBnd"].strip(),
            "no_new_privileges": status["NoNewPrivs"].strip(),
            "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
            "root": _writes("/probe"),
            "folder": _writes("/run/parley/probe"),
            "scratch": _writes("/tmp/probe"),
            "engine": Path("/var/run/docker.sock").exists(),
            "secrets": sorted(
                name for name in os.environ if "AUTH" in name or "TOKEN" in name or "KEY" in name
            ),
            "sockets": sorted(path.name for path in Path("/run/parley").iterdir()),
        }
    )


def _writes(path: str) -> bool:
    try:
        Path(path).write_text("")
    except OSError:
        return False
    return True


@automation(command="ask-prefect", summary="Ask Prefect's API.", isolation="container")
@flow
def ask_prefect() -> str:
    """What the API answers to what a run has no business with, and to what it has."""
    from prefect.runtime import flow_run

    other = "00000000-0000-0000-0000-000000000000"
    line = {"name": "probe", "level": 20, "message": "hello", "timestamp": "2026-11-22T10:00:00Z"}
    wanted: dict[str, tuple[str, str, Any]] = {
        "own run": ("GET", f"/flow_runs/{flow_run.id}", None),
        "own logs": ("POST", "/logs/", [{**line, "flow_run_id": flow_run.id}]),
        "others' logs": ("POST", "/logs/", [{**line, "flow_run_id": other}]),
        "others": ("POST", "/flow_runs/filter", {}),
        "another": ("GET", f"/flow_runs/{other}", None),
        "its state": ("POST", f"/flow_runs/{other}/set_state", {"state": {"type": "CANCELLED"}}),
        "blocks": ("POST", "/block_documents/filter", {}),
        "pools": ("POST", "/work_pools/filter", {}),
        "new run": ("POST", f"/deployments/{other}/create_flow_run", {}),
        "variables": ("POST", "/variables/filter", {}),
        "dots": ("GET", f"/flow_runs/{flow_run.id}/../../work_pools/x", None),
        "more dots": ("GET", f"/flow_runs/{flow_run.id}/%2e%2e/%2e%2e/block_types/filter", None),
        "a retry of its own": ("POST", f"/flow_runs/{flow_run.id}/resume", {}),
    }
    with httpx.Client(base_url=os.environ["PREFECT_API_URL"], timeout=10) as client:
        # With what Prefect itself would want of a request, so that a refusal is the gate's.
        token = client.get("/csrf-token", params={"client": "probe"}).raise_for_status().json()["token"]
        client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "probe"})
        answers = {
            name: client.request(method, path, json=body) for name, (method, path, body) in wanted.items()
        }
    return json.dumps(
        {
            name: "gate" if "may not ask this" in answer.text else answer.status_code
            for name, answer in answers.items()
        }
    )


@automation(command="eat", summary="Eat memory.", isolation="container", memory_mb=256)
@flow
def eat() -> str:
    """More than there is."""
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(1024)) * 1024 * 16)


@automation(command="linger", summary="Stay for long.", isolation="container")
@flow
def linger() -> str:
    """Until it is ended."""
    say("lingering")
    time.sleep(300)
    return "not ended"
