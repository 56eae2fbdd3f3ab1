"""Sample data, made at the first start, so that the flows here answer before anything of one's own is connected."""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from parley.settings import Script

Row = tuple[str | int, ...]

FIRST, LAST, SHOWN = 1000, 1060, 1024
"""Numbers of the sample's orders; 1024 is under way, with three legs behind it."""

_SCHEMA: Final = """
create table orders (
    id integer primary key, customer text not null, state text not null,
    ordered_at text not null, total_cents integer not null, currency text not null
);
create index orders_by_day on orders (ordered_at);
create table legs (
    order_id integer not null references orders (id), position integer not null,
    at text not null, place text not null, event text not null, primary key (order_id, position)
);
"""
_CUSTOMERS: Final = ("Ada Lovelace", "李雷", "Grace Hopper", "韩梅梅", "Alan Turing", "王小明")
_WAY: Final = (
    ("Warehouse Rotterdam", "packed"),
    ("Warehouse Rotterdam", "handed to the carrier"),
    ("Hub Duisburg", "arrived"),
    ("Hub Duisburg", "departed"),
    ("Depot Shanghai", "cleared by customs"),
    ("Front door", "delivered"),
)
_STATES: Final = ("new", "packed", "shipped", "in transit", "in transit", "in transit", "delivered")


def home() -> Path:
    """The folder of this installation."""
    return Path(os.environ.get("PARLEY_HOME", "data")).absolute()


def orders_database() -> Path:
    """The sample's SQLite file; made whole or not at all, once, whichever process is first."""
    path = home() / "samples" / "orders.db"
    if path.exists():
        return path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".orders.")
    os.close(handle)
    temporary = Path(name)
    try:
        _fill(temporary)
        # The first one stays: others may be reading it already.
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
    return path


def scripts() -> dict[str, Script]:
    """The script that can be run where parley.toml registers none: harmless, it writes one line to a file."""
    return {
        "restart-service": Script(
            argv=(
                sys.executable,
                "-I",
                "-m",
                "flows._sample_restart",
                str(home() / "samples"),
                "{host}",
                "{service}",
            ),
            summary="Restart a service on a host (a sample: it only writes down that it did).",
            parameters={
                "host": {
                    "type": "string",
                    "pattern": "^[a-z0-9][a-z0-9.-]{0,62}$",
                    "description": "Name of the host.",
                },
                "service": {"type": "string", "enum": ["web", "worker", "cache"], "default": "web"},
            },
            timeout=20,
        )
    }


def _fill(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(_SCHEMA)
        for order, legs in _orders():
            database.execute("insert into orders values (?, ?, ?, ?, ?, ?)", order)
            database.executemany("insert into legs values (?, ?, ?, ?, ?)", legs)
        database.commit()


def _orders() -> Iterator[tuple[Row, list[Row]]]:
    dice = random.Random(SHOWN)  # noqa: S311 - the same sample everywhere
    newest = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for number in range(FIRST, LAST + 1):
        ordered = newest - timedelta(hours=3 * (LAST - number))
        reached = 4 if number == SHOWN else dice.randrange(len(_WAY) + 1)
        legs: list[Row] = [
            (number, place, (ordered + timedelta(hours=2 * place)).isoformat(), *_WAY[place - 1])
            for place in range(1, reached + 1)
        ]
        order: Row = (
            number,
            dice.choice(_CUSTOMERS),
            _STATES[reached],
            ordered.isoformat(),
            dice.randrange(900, 90_000),
            "EUR",
        )
        yield order, legs
