"""Connectors: one file a platform, found by name and loaded only when asked for.

A connector is a module of this package whose name has no leading underscore, or an entry point of the group
`parley.connectors` of any installed distribution. Either names a `Connector` class: the module by its constant
`CONNECTOR`, the entry point by its value.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from parley.errors import ConfigurationError

if TYPE_CHECKING:
    from parley.messages import Connector

GROUP = "parley.connectors"
"""The entry point group in which other distributions offer connectors."""

__all__ = ["GROUP", "load", "names"]


def names() -> tuple[str, ...]:
    """Names of all connectors there are, sorted. Imports none. Raises `ConfigurationError` when two share a name."""
    own, others = _own(), _others()
    for name in sorted(own.intersection(others)):
        raise ConfigurationError(
            f"Two connectors are called {name!r}: this project's and that of {others[name].value}. Uninstall one."
        )
    return tuple(sorted(own.union(others)))


def load(name: str) -> type[Connector]:
    """The connector of this name. Raises `ConfigurationError` for a name that does not exist or a broken module."""
    if name not in names():
        raise ConfigurationError(
            f"No connector is called {name!r}. There are: {', '.join(names()) or 'none'}."
        )
    if name in _own():
        return _checked(name, getattr(import_module(f"{__name__}.{name}"), "CONNECTOR", None))
    return _checked(name, _others()[name].load())


def _own() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}


def _others() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        # The same distribution may be seen twice (a wheel and its editable twin): only two values are a clash.
        if found.setdefault(point.name, point).value != point.value:
            raise ConfigurationError(
                f"Two connectors are called {point.name!r}: {found[point.name].value} and {point.value}. Uninstall one."
            )
    return found


def _checked(name: str, found: object) -> type[Connector]:
    from parley.messages import Connector

    if isinstance(found, type) and issubclass(found, Connector):
        return found
    raise ConfigurationError(
        f"The connector {name!r} names no Connector class: its module needs CONNECTOR = TheClass."
    )
