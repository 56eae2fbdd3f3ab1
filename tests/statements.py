"""Statements that were compiled once are not compiled again for every hub that a test opens.

SQLAlchemy keeps a statement's text with the engine that it was first made for. A hub has it for weeks; hundreds of
hubs that live for a second each would spend a third of their time on it. An engine of the same kind finds it here.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

MOST: Final = 5000
"""What is known is forgotten at so many, for the sake of memory."""


class Statements(dict[Hashable, Any]):
    """A `compiled_cache` for engines of all kinds: by the dialect's kind where SQLAlchemy has the engine's own one."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_of_any(key), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        if len(self) >= MOST:
            self.clear()
        super().__setitem__(_of_any(key), compiled)


_shared: Final = Statements()


def _of_any(key: tuple[Dialect, ...]) -> Hashable:
    dialect, *rest = key
    return (type(dialect), dialect.server_version_info, *rest)


def _connected(connection: sa.Connection) -> None:
    connection.execution_options(compiled_cache=_shared)


def share() -> None:
    """All engines of this process, from now on."""
    if not sa.event.contains(sa.Engine, "engine_connect", _connected):
        sa.event.listen(sa.Engine, "engine_connect", _connected)
