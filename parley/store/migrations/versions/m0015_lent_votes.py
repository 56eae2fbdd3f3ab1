"""Votes: whose right a word uses that was said in somebody else's place."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("vote", sa.Column("lent_by", sa.JSON(), nullable=True))
