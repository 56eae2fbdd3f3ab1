"""What `import connectors` costs a program that may never use one: milliseconds, each time in a fresh interpreter.

The clock runs inside the fresh process, so that the start of a bare interpreter, which takes as long for everybody, is
not in the figure. Beside it, in turn, the import of one large SDK: what each start would pay if a connector imported
what it may need. That no SDK is imported, neither with the package nor with all of its modules, is asserted here.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any, Final

from benchmarks.machine import watched
from benchmarks.rows import Row, scaled
from tests.stack import ROOT, plain_environment

PROCESSES: Final = 9
GOAL_MS: Final = 100

SDKS: Final = (
    "aibot",
    "aiosmtplib",
    "discord",
    "exchangelib",
    "imapclient",
    "lxml",
    "prefect",
    "slack_sdk",
    "slixmpp",
)
"""What connectors speak with, and Prefect: nothing of it belongs into the import of a connector."""

_PROGRAM: Final = """
import json, sys, time
began, worked = time.perf_counter(), time.process_time()
import connectors
package, processor = time.perf_counter() - began, time.process_time() - worked
for name in connectors.names():
    connectors.load(name)
every = time.perf_counter() - began
modules = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"package": package, "processor": processor, "every": every, "modules": modules}))
"""
_SDK_PROGRAM: Final = """
import time
began = time.perf_counter()
import %s
print(time.perf_counter() - began)
"""


def measure(effort: float = 1.0) -> list[Row]:
    """`import.connectors_ms`."""
    package, processor, every = list[float](), list[float](), list[float]()
    theirs: dict[str, list[float]] = {"exchangelib": [], "discord": []}
    with watched() as conditions:
        for _ in range(scaled(PROCESSES, effort)):
            took = json.loads(_printed(_PROGRAM))
            _check(took)
            package.append(took["package"] * 1e3)
            processor.append(took["processor"] * 1e3)
            every.append(took["every"] * 1e3)
            for sdk, times in theirs.items():
                times.append(float(_printed(_SDK_PROGRAM % sdk)) * 1e3)
        medians = {sdk: statistics.median(times) for sdk, times in theirs.items()}
        conditions |= {
            "goal_ms": GOAL_MS,
            "least_ms": round(min(package), 1),
            "processor_ms": round(statistics.median(processor), 1),
            "every_connector_ms": round(statistics.median(every), 1),
            "sdk_ms": {sdk: round(took) for sdk, took in medians.items()},
        }
    here = statistics.median(package)
    largest = max(medians, key=lambda sdk: medians[sdk])
    return [
        Row(
            name="import.connectors_ms",
            unit="ms",
            ours=here,
            peer=f"import {largest}",
            theirs=medians[largest],
            ratio=medians[largest] / here,
            n=len(package),
            conditions=conditions,
        )
    ]


def _check(took: dict[str, Any]) -> None:
    imported = sorted(set(SDKS) & set(took["modules"]))
    assert not imported, f"the import of connectors imports {', '.join(imported)}"


def _printed(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=plain_environment() | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout
