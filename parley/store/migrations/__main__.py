"""`python -m parley.store.migrations "what it does"`: write the next step from the difference to the schema."""

from __future__ import annotations

import sys

import sqlalchemy as sa
from alembic import command

from parley.store.migrations import configured, upgrade


def main(message: str) -> None:
    """Write the step that leads from the newest one to parley/store/schema.py."""
    with sa.create_engine("sqlite://").connect() as connection:
        upgrade(connection)
        count = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one()
        command.revision(configured(connection), message, autogenerate=True, rev_id=f"{int(count) + 1:04}")


if __name__ == "__main__":
    main(sys.argv[1])
