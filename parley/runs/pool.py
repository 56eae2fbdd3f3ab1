"""The work pool in which automations run, as plain data shared by the server's launcher and the worker."""

from __future__ import annotations

from typing import Any, Final

POOL_NAME: Final = "parley"
POOL_TYPE: Final = "parley"

POOL_DESCRIPTION: Final = "Runs automations in warm processes of the parley worker; told of work at once."

TIME_LIMIT_SECONDS: Final = 3600
"""How long a run may take before its process is killed, unless its deployment says otherwise."""


def base_job_template() -> dict[str, Any]:
    """Return a fresh base job template: environment and time limit, no command.

    There is no command because the worker runs a flow inside a process that has imported it already; a deployment may
    set `env` and `time_limit_seconds` (None: no limit) in its job variables.
    """
    return {
        "job_configuration": {
            # Prefect expects the keys that all workers share; null is how a pool says that there is no command.
            "command": None,
            "env": "{{ env }}",
            "labels": "{{ labels }}",
            "name": "{{ name }}",
            "time_limit_seconds": "{{ time_limit_seconds }}",
        },
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


def worker_metadata() -> dict[str, Any]:
    """Return what Prefect's pages ask a collection to say about its worker type, keyed as in their registry."""
    return {
        "prefect-parley": {
            POOL_TYPE: {
                "type": POOL_TYPE,
                "display_name": "Parley",
                "description": POOL_DESCRIPTION,
                "documentation_url": "",
                "logo_url": "",
                "install_command": "pip install prefect-parley",
                "is_beta": False,
                "default_base_job_configuration": base_job_template(),
            }
        }
    }


def _variables() -> dict[str, Any]:
    return {
        "name": {
            "title": "Name",
            "description": "Name given to a run's process in the worker's log.",
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "default": None,
        },
        "env": {
            "title": "Environment Variables",
            "description": "Environment variables set while a run of the deployment lasts.",
            "type": "object",
            "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "labels": {
            "title": "Labels",
            "description": "Labels written to the worker's log with a run.",
            "type": "object",
            "additionalProperties": {"type": "string"},
        },
        "time_limit_seconds": {
            "title": "Time Limit",
            "description": "Seconds after which the run's process is killed; null for no limit.",
            "anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}],
            "default": TIME_LIMIT_SECONDS,
        },
    }
