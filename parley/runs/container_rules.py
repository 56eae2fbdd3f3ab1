"""What a run in a container may ask of Prefect's API: its own run, and nothing that would show or start another.

The engine of one flow run reads that run, its deployment and its flow, sets the run's state, and leaves logs, artifacts
and events. Blocks, Variables, other runs, work pools and everything that makes a run of a deployment are not for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from parley.runs.container_pool import POOL_NAME

_UUID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

_FOR_ALL: Final = tuple(
    re.compile(text)
    for text in (
        r"GET /health",
        r"GET /hello",
        r"GET /version",
        r"GET /admin/version",
        r"GET /admin/storage",
        r"GET /csrf-token",
        r"POST /logs/",
        r"POST /artifacts/",
        # Concurrency limits of steps with tags.
        r"POST /v2/concurrency_limits/(increment|increment-with-lease|decrement|decrement-with-lease)",
        rf"POST /v2/concurrency_limits/leases/{_UUID}/renew",
    )
)

_MAY_CHANGE: Final = frozenset({"name", "tags", "flow_version", "empirical_policy"})
"""What the engine changes of its own run. Its job variables would be another container's: see `_container_worker`."""

MOST_BODY: Final = 4 * 1024 * 1024
"""Largest request, in bytes; Prefect's own limit for one batch of logs is 1 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of one flow run."""

    flow_run_id: str
    flow_id: str
    deployment_id: str
    work_queue_id: str
    blocks: tuple[str, ...] = ()

    def allow(self, method: str, path: str, body: bytes) -> bool:
        """Whether this request may go to the server; `path` is without `/api`."""
        wanted = f"{method} {path}"
        if any(rule.fullmatch(wanted) for rule in _FOR_ALL):
            return path not in ("/logs/", "/artifacts/") or self._is_own(body)
        return wanted in self._own() and (method != "PATCH" or _changes_only(body, _MAY_CHANGE))

    def allow_event(self, event: dict[str, Any]) -> bool:
        """Whether this event speaks of this run: of its task runs, or of itself."""
        resources = [event.get("resource") or {}, *(event.get("related") or ())]
        ids = {one.get("prefect.resource.id") for one in resources if isinstance(one, dict)}
        runs = {one for one in ids if isinstance(one, str) and one.startswith("prefect.flow-run.")}
        return runs == {f"prefect.flow-run.{self.flow_run_id}"}

    def _own(self) -> frozenset[str]:
        run = f"/flow_runs/{self.flow_run_id}"
        return frozenset(
            {
                f"GET {run}",
                f"PATCH {run}",
                f"POST {run}/set_state",
                f"GET {run}/graph",
                f"GET /flows/{self.flow_id}",
                f"GET /deployments/{self.deployment_id}",
                # Where it came from, which its events say.
                f"GET /work_queues/{self.work_queue_id}",
                f"GET /work_pools/{POOL_NAME}",
                *self._of_blocks(),
            }
        )

    def _of_blocks(self) -> Iterable[str]:
        for block in self.blocks:
            slug, _, name = block.partition("/")
            yield f"GET /block_types/slug/{slug}"
            yield f"GET /block_types/slug/{slug}/block_documents/name/{name}"

    def _is_own(self, body: bytes) -> bool:
        """Whether every log line, or the artifact, is this run's."""
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            return False
        entries = said if isinstance(said, list) else [said]
        return all(isinstance(one, dict) and one.get("flow_run_id") == self.flow_run_id for one in entries)


def _changes_only(body: bytes, names: frozenset[str]) -> bool:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.keys() <= names
