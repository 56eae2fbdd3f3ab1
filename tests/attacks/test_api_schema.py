"""All that our OpenAPI allows, and what it does not, sent to a running installation: no answer is an error of ours.

Schemathesis makes the calls. Only `make pentest` brings it, into an environment of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.attacks.effort import PENTEST
from tests.stack import ROOT, Stack, plain_environment

pytestmark = [pytest.mark.serial, pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(1200)]

TOOL: Final = ROOT / "build/pentest/bin/st"
LOG: Final = ROOT / "build/pentest/schemathesis.log"
MOST_SECONDS: Final = 180

ENDLESS: Final = "/api/v1/events"
"""Waits for events as long as it is told: called too, but it would use up the time."""


@pytest.mark.skipif(not PENTEST, reason="`make pentest` brings what makes the calls")
def test_no_call_of_the_api_is_an_error_of_ours(stack: Stack, tmp_path: Path) -> None:
    assert TOOL.exists(), "run `make pentest`, which sets it up"
    report = tmp_path / "calls.ndjson"
    done = subprocess.run(
        [
            TOOL, "run", f"{stack.url}/api/v1/openapi.json", "--header", f"Authorization: Bearer {stack.token}",
            "--checks", "not_a_server_error", "--max-examples", "200", "--max-time", str(MOST_SECONDS),
            "--request-timeout", "20", "--workers", "1", "--seed", "1", "--generation-database", "none",
            "--exclude-path", ENDLESS, "--suppress-health-check", "all", "--no-color", "--output-sanitize", "true",
            "--report-har-path", str(report), "--continue-on-failure",
        ],
        cwd=tmp_path, env=plain_environment(), capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    LOG.write_text(done.stdout + done.stderr)
    # Not by its exit code: that also says where the tool itself failed, which is no answer of ours.
    assert " FAILURES " not in done.stdout, f"{done.stdout[:6000]}\nall of it is in {LOG}"
    calls = json.loads(report.read_text())["log"]["entries"]
    statuses = Counter(entry["response"]["status"] // 100 for entry in calls)
    assert len(calls) > 500, done.stdout[-3000:]
    assert statuses[2] > 0, "nothing was allowed: the token did not get in"
    assert statuses[5] == 0


def test_every_operation_says_what_it_refuses(stack: Stack) -> None:
    """A client that reads the document knows every status it may get."""
    document = httpx.get(f"{stack.url}/api/v1/openapi.json", headers=stack.headers, trust_env=False).json()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert {"401", "403", "429", "503"} <= set(operation["responses"]), (method, path)
