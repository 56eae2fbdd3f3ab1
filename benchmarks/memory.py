"""Memory of the whole stack at rest, by process: proportional set size, so that shared pages count once.

Measured after the stack has worked, when every warm child has run something and those beyond the warm ones are gone
again: what a machine gives up for it from then on. Beside it the stock Prefect server with one `flow.serve()`, which
answers nobody, after one run. Pages of a library file count by the share of each process that has it mapped, also of
processes that are not ours: `file_mb` says how much of the sum that could touch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import stacks
from benchmarks.machine import watched
from benchmarks.rows import Row, scaled
from benchmarks.runs import said
from parley.processes.memory import descendants, pss_mb
from tests.stack import Stack

AT_WORK = 48
REST_SECONDS = 45
READINGS = 5


def measure(effort: float = 1.0) -> list[Row]:
    """`memory.rest_mb`."""
    with watched() as conditions:
        with stacks.stack(effort) as stack:
            asyncio.run(said(stack, scaled(AT_WORK, effort, least=8), "/order 1024"))
            time.sleep(REST_SECONDS * min(1.0, effort))
            readings = [_reading(stack) for _ in range(scaled(READINGS, min(1.0, effort)))]
        theirs = _stock(effort)
        worst = max(readings, key=lambda reading: float(reading["mb"]))
        conditions |= {
            **worst,
            "rested_s": round(REST_SECONDS * min(1.0, effort), 1),
            "theirs_by_process": theirs,
        }
    total = sum(theirs.values())
    return [
        Row(
            name="memory.rest_mb",
            unit="MB",
            ours=worst["mb"],
            peer="prefect server start, flow.serve()",
            theirs=total,
            ratio=total / worst["mb"],
            n=len(readings),
            conditions=conditions,
        )
    ]


def _reading(stack: Stack) -> dict[str, Any]:
    time.sleep(1)
    roles: dict[str, list[float]] = {}
    rows = stack.processes()
    for row in rows:
        roles.setdefault(row["role"], []).append(row["pss_mb"] or 0.0)
    return {
        "mb": sum(sum(each) for each in roles.values()),
        "by_role": {
            role: {"mb": round(sum(each), 1), "processes": len(each)} for role, each in roles.items()
        },
        "file_mb": round(_of_files([row["pid"] for row in rows]), 1),
    }


def _of_files(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss_File:"))
    return total * 1024 / 1e6


def _stock(effort: float) -> dict[str, float]:
    with stacks.stock_alone(effort) as (server, serve):
        if not stacks.shared(effort):  # where it is shared, it has had a run
            serve.run_order()
        time.sleep(REST_SECONDS * min(1.0, effort))
        return {"server": _family(server.pid), "serve": _family(serve.process.pid)}


def _family(pid: int) -> float:
    return round(sum(pss_mb(one) or 0.0 for one in (pid, *descendants(pid))), 1)
