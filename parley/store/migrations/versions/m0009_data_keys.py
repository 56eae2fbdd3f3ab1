"""Data keys: what is sealed is sealed with keys that lie wrapped in the store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "data_key",
        sa.Column("id", sa.String(length=8), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("kek_id", sa.Text(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("retired_at", sa.DateTime(), nullable=True),
        sa.Column("reseal_asked_at", sa.DateTime(), nullable=True),
        sa.Column("resealed_at", sa.DateTime(), nullable=True),
        sa.CheckConstraint("kind IN ('data', 'root', 'former')", name=op.f("ck_data_key_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_key")),
    )
