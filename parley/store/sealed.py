"""Which columns are sealed, and whether a keyring fits what is stored."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError, SealError
from parley.people.sealing import Keyring
from parley.store.schema import metadata

SEALED_COLUMNS: tuple[sa.Column[bytes], ...] = tuple(
    column for table in metadata.sorted_tables for column in table.columns if column.name.endswith("_sealed")
)
"""Every column that holds ciphertext, by its name."""

ROUTE_COLUMNS: tuple[sa.Column[Any], ...] = tuple(
    table.c.route for table in metadata.sorted_tables if "route" in table.c
)
"""Columns of JSON with one sealed value in it, under `ROUTE_KEY`: `parley.messages.kept_routes` writes them."""

ROUTE_KEY: Final = "context_sealed"

_SAMPLE: Final = 5


async def holds_sealed_rows(conn: AsyncConnection) -> bool:
    """Whether anything sealed is stored: then a missing key file is a loss, not a first start."""
    for column in SEALED_COLUMNS:
        if (await conn.execute(sa.select(1).where(column.is_not(None)).limit(1))).first():
            return True
    return False


async def refuse_wrong_key(conn: AsyncConnection, keyring: Keyring) -> None:
    """Raises ConfigurationError when no newest sealed value of any column opens: it is another key file.

    One that opens proves the key; others that do not are damaged, and are dealt with where they are read.
    """
    wrong: SealError | None = None
    for column in SEALED_COLUMNS:
        key = next(iter(column.table.primary_key))
        newest = sa.select(key, column).where(column.is_not(None)).order_by(key.desc()).limit(_SAMPLE)
        for row, sealed in await conn.execute(newest):
            try:
                keyring.open(column.table.name, column.name, str(row), sealed)
            except SealError as error:
                wrong = error
            else:
                return
    if wrong is not None:
        raise ConfigurationError(
            f"The key file does not fit the store: {wrong} Restore the key file that was used with this store."
        ) from wrong
