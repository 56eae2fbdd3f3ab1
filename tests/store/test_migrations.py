from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError
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
