from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from parley.errors import ConfigurationError
from parley.store import schema
from parley.store.engine import Store
from parley.store.migrations import HEAD, configured
from parley.store.schema import metadata


def _differences(connection: sa.Connection) -> list[object]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True}
    )
    return list(compare_metadata(context, metadata))


async def test_the_steps_build_exactly_the_schema(store: Store) -> None:
    async def differences(conn: AsyncConnection) -> list[object]:
        return await conn.run_sync(_differences)

    assert await store.read(differences) == []


async def test_the_steps_build_the_schemas_check_constraints(store: Store) -> None:
    """Alembic's comparison passes over them."""

    def checks(connection: sa.Connection) -> set[tuple[str, str | None]]:
        inspector = sa.inspect(connection)
        return {
            (table, check["name"])
            for table in metadata.tables
            for check in inspector.get_check_constraints(table)
        }

    wanted = {
        (table.name, str(check.name))
        for table in metadata.tables.values()
        for check in table.constraints
        if isinstance(check, sa.CheckConstraint)
    }
    assert await store.read(lambda conn: conn.run_sync(checks)) == wanted


def test_head_is_the_newest_step() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        assert ScriptDirectory.from_config(configured(connection)).get_heads() == [HEAD]
    engine.dispose()


async def test_opening_again_changes_nothing_and_keeps_what_is_there(store_url: str) -> None:
    for _ in range(2):
        await (await Store.open(store_url)).aclose()


async def test_a_newer_database_is_refused_and_left_alone(store_url: str) -> None:
    opened = await Store.open(store_url)
    await opened.write(lambda conn: conn.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    await opened.aclose()
    with pytest.raises(ConfigurationError, match=r"revision 9999.*newer version"):
        await Store.open(store_url)


async def test_somebody_elses_database_is_refused(store_url: str) -> None:
    opened = await Store.open(store_url)
    await opened.write(lambda conn: conn.execute(sa.text("DROP TABLE alembic_version")))
    await opened.aclose()
    with pytest.raises(ConfigurationError, match="database of its own"):
        await Store.open(store_url)


_AT = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - as the first step's columns hold it
_ROUTE = {"account": "slack", "conversation": "C1", "kind": "channel", "context": {}}
_MESSAGE = {
    "id": "m1",
    "account": "slack",
    "native_id": "n1",
    "conversation_id": "c1",
    "sender_id": "U1",
    "type": "message",
    "event_sealed": b"sealed",
    "route": _ROUTE,
    "state": "handled",
    "received_at": _AT,
    "expires_at": _AT,
    "erase_after": _AT,
    "forget_after": _AT,
}
_FIRST_ROWS: Sequence[tuple[str, dict[str, Any]]] = (
    ("conversation", {"id": "c1", "account": "slack", "native_id": "C1", "thread": "", "kind": "channel"}),
    ("message", _MESSAGE),
    (
        "request",
        {
            "id": "r1",
            "message_id": "m1",
            "automation": "order",
            "ordinal": 0,
            "conversation_id": "c1",
            "origin": "command",
            "automation_version": "1",
            "digest": "d",
            "state": "queued",
            "lane": "people",
            "fell_back": False,
            "route": _ROUTE,
            "created_at": _AT,
            "expires_at": _AT,
        },
    ),
    (
        "delivery",
        {
            "id": "d1",
            "source": "message:m1",
            "ordinal": 0,
            "account": "slack",
            "conversation_id": "c1",
            "message_id": "m1",
            "route": _ROUTE,
            "body_sealed": b"sealed",
            "token": "t",
            "state": "pending",
            "attempts": 0,
            "next_attempt_at": _AT,
            "created_at": _AT,
            "erase_after": _AT,
        },
    ),
    ("event", {"topic": "run.done.order", "body_sealed": b"one", "created_at": _AT}),
    ("event", {"topic": "run.done.order", "body_sealed": b"two", "created_at": _AT}),
)


def _as_the_first_version_left_it(connection: sa.Connection) -> None:
    command.upgrade(configured(connection), "0001")
    then = sa.MetaData()
    then.reflect(connection)
    for name, row in _FIRST_ROWS:
        table = then.tables[name]
        needed = {
            column.name: _AT
            for column in table.columns
            if not column.nullable and column.name.endswith("_at") and column.name not in row
        }
        connection.execute(sa.insert(table).values(row | needed))


async def test_what_the_first_version_stored_is_there_in_this_one(store_url: str) -> None:
    driver = store_url if "://" in store_url else f"sqlite+aiosqlite:///{store_url}"
    engine = create_async_engine(driver.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.begin() as conn:
        await conn.run_sync(_as_the_first_version_left_it)
    await engine.dispose()
    opened = await Store.open(store_url)
    try:
        await _holds_what_it_held(opened)
        notice = _MESSAGE | {"id": "m2", "native_id": "n2", "type": "notice"}
        now = {
            name: value.replace(tzinfo=UTC) for name, value in notice.items() if isinstance(value, datetime)
        }
        await opened.write(lambda conn: conn.execute(sa.insert(schema.message).values(notice | now)))
        wrong = notice | now | {"id": "m3", "native_id": "n3", "type": "rumour"}
        with pytest.raises(IntegrityError):
            await opened.write(lambda conn: conn.execute(sa.insert(schema.message).values(wrong)))
    finally:
        await opened.aclose()
    # And what was changed in place is read by whoever opens it next.
    await (await Store.open(store_url)).aclose()


async def _holds_what_it_held(opened: Store) -> None:
    async def everything(conn: AsyncConnection) -> None:
        assert await conn.run_sync(_differences) == []
        for name, row in _FIRST_ROWS:
            table = metadata.tables[name]
            key = table.c.body_sealed == row["body_sealed"] if name == "event" else table.c.id == row["id"]
            found = (await conn.execute(sa.select(table).where(key))).one()._mapping
            for column, value in row.items():
                kept = found[column]
                assert (kept.replace(tzinfo=None) if isinstance(kept, datetime) else kept) == value
        if conn.dialect.name == "sqlite":
            assert (await conn.execute(sa.text("PRAGMA foreign_key_check"))).all() == []
            assert (await conn.execute(sa.text("PRAGMA integrity_check"))).scalar() == "ok"

    await opened.read(everything)


@pytest.mark.slow
def test_the_steps_are_in_the_wheel_and_run_from_it(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=root,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(installed)], check=True)
    program = (
        "import asyncio\n"
        "import parley.store.migrations as migrations\n"
        "from parley.store.engine import Store\n"
        "async def main():\n"
        f"    assert migrations.__file__.startswith({str(installed)!r}), migrations.__file__\n"
        f"    await (await Store.open({str(tmp_path / 'parley.db')!r})).aclose()\n"
        "asyncio.run(main())\n"
    )
    # -S leaves out the editable install; what the wheel needs is named by hand.
    path = f"{installed}:{sysconfig.get_path('purelib')}"
    subprocess.run([sys.executable, "-S", "-c", program], check=True, env={"PYTHONPATH": path}, cwd=tmp_path)
