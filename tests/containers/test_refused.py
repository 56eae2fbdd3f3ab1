"""An automation that cannot have its container is not offered, and the owner reads why. No engine is needed here."""

from __future__ import annotations

import pytest

from tests.stack import Stack

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(240)]

MODULES = '[automations]\nmodules = ["flows.order_status", "tests.containers.probes"]\n'


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        (MODULES, "parley.toml has no [containers]"),
        (MODULES + "[containers]\n", "no container engine answers"),
    ],
    ids=["no table", "no engine"],
)
def test_the_reason_is_told_and_the_rest_goes_on(toml: str, reason: str) -> None:
    with Stack(toml=toml, extra={"DOCKER_HOST": "tcp://127.0.0.1:1"}) as stack:  # nothing listens there
        stack.until(lambda: reason in str(stack.admin("catalogue")["broken"]), 60, "the reason is there")
        sources = [one["source"] for one in stack.admin("catalogue")["broken"]]
        assert "tests.containers.probes.look" in sources
        assert stack.say("/look")["state"] == "refused"
        assert "Order 1024" in stack.say("/order 1024")["replies"][-1]["text"]
        assert reason in str(stack.admin("doctor"))
        roles = [row["role"] for row in stack.processes()]
        assert ("containers" in roles) is ("[containers]" in toml)
