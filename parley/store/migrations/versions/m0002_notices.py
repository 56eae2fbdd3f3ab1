"""Notices in the inbox; deliveries that stand under another one, or replace it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BEFORE = "type IN ('message', 'edit', 'action')"
_NOW = "type IN ('message', 'edit', 'action', 'notice')"


def upgrade() -> None:
    op.add_column("delivery", sa.Column("under_id", sa.String(length=36), nullable=True))
    op.add_column("delivery", sa.Column("edit_of_id", sa.String(length=36), nullable=True))
    if op.get_bind().dialect.name == "sqlite":
        _widen_check_in_place()
    else:
        op.drop_constraint(op.f("ck_message_type"), "message", type_="check")
        op.create_check_constraint(op.f("ck_message_type"), "message", _NOW)


def _widen_check_in_place() -> None:
    """The way that SQLite's documentation gives for a change of constraints alone (ALTER TABLE, section 7).

    A new table in place of the old one would, within a transaction, break the rows that refer to it.
    """
    connection = op.get_bind()
    version = connection.execute(sa.text("PRAGMA schema_version")).scalar_one()
    connection.execute(sa.text("PRAGMA writable_schema = ON"))
    changed = connection.execute(
        sa.text(
            "UPDATE sqlite_schema SET sql = replace(sql, :before, :now) WHERE type = 'table' AND name = 'message'"
        ),
        {"before": _BEFORE, "now": _NOW},
    )
    assert changed.rowcount == 1, "there is no table message"  # noqa: S101 - a step of ours, not input
    connection.execute(sa.text(f"PRAGMA schema_version = {version + 1}"))
    connection.execute(sa.text("PRAGMA writable_schema = OFF"))
