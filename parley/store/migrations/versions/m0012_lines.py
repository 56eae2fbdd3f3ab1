"""Requests that wait for their run, by automation: each has a line of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    queued = sa.text("state = 'queued'")
    op.create_index(
        "ix_request_waiting",
        "request",
        ["lane", "automation", "created_at"],
        unique=False,
        sqlite_where=queued,
        postgresql_where=queued,
    )
