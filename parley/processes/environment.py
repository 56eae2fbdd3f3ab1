"""What each process is told through its environment: its settings, and no secret that it has no use for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from parley import prefect_env
from parley.settings import RUNNING, Settings

HUB_ONLY: Final = (
    "PARLEY_KEY_FILE",
    "PARLEY_KEY",
    "PARLEY_KEY_PREVIOUS",
    "PARLEY_DATABASE_URL",
    "PARLEY_DATABASE_URL_FILE",
)
"""The hub alone opens the store. A listener's SDK or an automation that goes astray cannot open what it never hears
of: sealed values are opened by asking the hub, one at a time, with a token that says who asks."""

TOKENS: Final = (
    "PARLEY_LISTENERS_TOKEN",
    "PARLEY_WORKER_TOKEN",
    "PARLEY_CONTAINERS_TOKEN",
    "PARLEY_COMMAND_LINE_TOKEN",
    "PARLEY_RUN_TOKEN",
)

TRUST: Final = "PREFECT_API_SSL_CERT_FILE"

PREFECT_CREDENTIALS: Final = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY")


def hub_environment(settings: Settings, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The hub's: all of ours, and Prefect's address and password, which it uses without importing Prefect."""
    environment = _without(inherited, TOKENS)
    if settings.own_prefect:
        client = prefect_env.client_environment(
            settings.home, port=settings.prefect_port, certificate=settings.prefect_trust
        )
        environment = _beside_our_own(environment)
        environment |= {name: client[name] for name in (*PREFECT_CREDENTIALS, TRUST) if name in client}
    return environment | _common(settings)


def client_environment(
    settings: Settings, role: str, inherited: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """That of a process which imports Prefect: listeners, worker, register. `role` keeps its own token."""
    own_token = f"PARLEY_{role.upper()}_TOKEN"
    environment = _without(inherited, (*HUB_ONLY, *(name for name in TOKENS if name != own_token)))
    if settings.own_prefect:
        environment = _beside_our_own(environment)
        environment |= prefect_env.client_environment(
            settings.home, port=settings.prefect_port, certificate=settings.prefect_trust
        )
    else:
        # The user's server, the user's credentials for it: key, profile and certificate stay as they are.
        environment |= prefect_env.neutral_environment(settings.home)
    return environment | _common(settings)


def plain_environment(settings: Settings, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """That of a process which only passes connections on: settings, and nobody's password or token."""
    return _without(inherited, (*HUB_ONLY, *TOKENS, *PREFECT_CREDENTIALS)) | _common(settings)


def prefect_environment(inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """That of Prefect's server: nothing of ours; its launcher makes or reads its own password."""
    return {name: value for name, value in inherited.items() if not name.startswith("PARLEY_")}


def _common(settings: Settings) -> dict[str, str]:
    # Absolute, so that it means the same wherever a process goes. `settings.load` looks at PARLEY_OWN_PREFECT.
    common = {"PARLEY_HOME": str(settings.home), "PYTHONUNBUFFERED": "1", RUNNING: "1"}
    return common | ({"PARLEY_OWN_PREFECT": "1"} if settings.own_prefect else {})


def _beside_our_own(environment: Mapping[str, str]) -> dict[str, str]:
    return _without(environment, (*prefect_env.CONFLICTING, *PREFECT_CREDENTIALS, TRUST))


def _without(environment: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}
