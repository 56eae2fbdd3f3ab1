"""The work pool of runs in containers, as plain data: type `docker`, one per Prefect server."""

from __future__ import annotations

from typing import Any, Final

POOL_NAME: Final = "parley-containers"
POOL_TYPE: Final = "docker"

POOL_DESCRIPTION: Final = (
    "Runs automations one a container, without a network; started by parley, see [containers]."
)


def base_job_template() -> dict[str, Any]:
    """Return a fresh base job template: what one container may have, and no way to ask for more than that."""
    names = ("env", "labels", "name", "image", "memory_mb", "cpus", "egress", "blocks")
    configuration: dict[str, Any] = {name: "{{ " + name + " }}" for name in names}
    return {
        # Whatever else Docker could be asked for is set by the worker, whoever edits this pool.
        "job_configuration": {"command": None, **configuration},
        "variables": {"type": "object", "properties": _variables()},
    }


def work_pool() -> dict[str, Any]:
    """Return the body of `POST /work_pools/` that makes the pool."""
    return {
        "name": POOL_NAME,
        "type": POOL_TYPE,
        "description": POOL_DESCRIPTION,
        "base_job_template": base_job_template(),
    }


def _variables() -> dict[str, Any]:
    texts = {"type": "array", "items": {"type": "string"}, "default": []}
    return {
        "name": {"title": "Name", "anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "env": {
            "title": "Environment Variables",
            "description": "Variables of the container besides ours.",
            "type": "object",
            "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "labels": {"title": "Labels", "type": "object", "additionalProperties": {"type": "string"}},
        "image": {"title": "Image", "description": "As the engine knows it; never pulled.", "type": "string"},
        "memory_mb": {
            "title": "Memory",
            "description": "MB with swap; more ends the run.",
            "type": "integer",
            "minimum": 128,
        },
        "cpus": {"title": "Processors", "type": "number", "exclusiveMinimum": 0},
        "egress": texts | {"title": "Network", "description": "What may be reached, as host:port."},
        "blocks": texts | {"title": "Blocks", "description": "Blocks that may be read, as type/name."},
    }
