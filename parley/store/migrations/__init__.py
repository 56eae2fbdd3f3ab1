"""The way of our own database from nothing to the present schema, by Alembic.

A new step: change parley/store/schema.py, then `python -m parley.store.migrations "what it does"`, read what it
wrote, and set `HEAD`. A test compares the schema with what the steps build, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from parley.errors import ConfigurationError

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0015"
"""The newest step. Known here so that an ordinary start need not import Alembic."""

_ADVISORY_LOCK = 0x7061726C6579  # "parley": of two hubs that start at once on PostgreSQL, one migrates


def upgrade(connection: sa.Connection) -> None:
    """Bring the database to `HEAD`, inside the caller's transaction: all of it or nothing.

    Raises ConfigurationError when the database is newer than this code, or belongs to something else.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
    present = _revision(connection)
    if present == HEAD:
        return
    from alembic import command

    config = configured(connection)
    _refuse_unknown(config, present)
    command.upgrade(config, HEAD)


def configured(connection: sa.Connection) -> Config:
    """Alembic, told of our scripts by where this package lies, and of an open connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("file_template", "m%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def _revision(connection: sa.Connection) -> str | None:
    tables = sa.inspect(connection).get_table_names()
    if "alembic_version" in tables:
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    if tables:
        raise ConfigurationError(
            f"This database already holds tables that are not parley's ({', '.join(sorted(tables)[:3])} ...). "
            "Give parley a database of its own."
        )
    return None


def _refuse_unknown(config: Config, present: str | None) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if present is not None and present not in known:
        raise ConfigurationError(
            f"The database is at revision {present}, which this version of parley does not know (it knows up to "
            f"{HEAD}): it was made by a newer version, or belongs to another program. Install the newer version, "
            "or restore the backup that was made before the upgrade."
        )
