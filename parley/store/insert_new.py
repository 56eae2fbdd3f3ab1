"""INSERT ... ON CONFLICT (key) DO NOTHING, compiled once.

The same construct of SQLAlchemy's dialects is compiled anew each time it is executed, which costs more than anything
else that an accepted message does in the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal


class InsertNew(sa.Insert):
    """Inserts a row unless there is one with the same values in the columns `key`, which are unique together."""

    inherit_cache: bool | None = True
    _traverse_internals = [*sa.Insert._traverse_internals, ("key", InternalTraversal.dp_string_list)]  # noqa: RUF012, SLF001 - how SQLAlchemy wants to be told what the compiled text depends on

    def __init__(self, table: sa.Table, key: Sequence[str]) -> None:
        super().__init__(table)
        self.key: tuple[str, ...] = tuple(key)


@compiles(InsertNew)
def _compiled(element: InsertNew, compiler: SQLCompiler, **kw: Any) -> str:
    key = ", ".join(compiler.preparer.quote(name) for name in element.key)
    inserted = compiler.visit_insert(element, **kw)  # type: ignore[no-untyped-call]
    return f"{inserted} ON CONFLICT ({key}) DO NOTHING"


@lru_cache(maxsize=100)
def insert_new(table: sa.Table, key: tuple[str, ...]) -> sa.Insert:
    """The statement; the values are given to `execute`. The `rowcount` of its result tells whether a row was new."""
    # Inline: no RETURNING, which would have to stand behind the rest; whoever inserts gives the key.
    return InsertNew(table, key).inline()


__all__ = ["InsertNew", "insert_new"]
