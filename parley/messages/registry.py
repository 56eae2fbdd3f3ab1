"""Finding connectors by name. The engine knows them only through this, never by import.

The package `connectors` keeps the contract `names() -> tuple[str, ...]` and `load(name) -> type[Connector]`, and
imports no platform's SDK for either.
"""

from __future__ import annotations

import importlib
from functools import cache

from parley.errors import ConfigurationError
from parley.messages.connector import Connector
from parley.messages.model import Capabilities


def platforms() -> tuple[str, ...]:
    """Names of the platforms there are connectors for."""
    return tuple(importlib.import_module("connectors").names())


@cache
def connector_class(platform: str) -> type[Connector]:
    """The connector of this platform. Raises `ConfigurationError` when there is none."""
    if platform not in platforms():
        raise ConfigurationError(f"there is no connector {platform!r}; there are {', '.join(platforms())}.")
    found: type[Connector] = importlib.import_module("connectors").load(platform)
    return found


def capabilities(platform: str) -> Capabilities:
    """What this platform can show."""
    return connector_class(platform).capabilities
