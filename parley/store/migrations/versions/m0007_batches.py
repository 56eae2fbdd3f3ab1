"""Batches: a flow run that answers several requests of one automation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batch",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("automation", sa.Text(), nullable=False),
        sa.Column("flow_run_id", sa.Text(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint("state IN ('open', 'closed')", name=op.f("ck_batch_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch")),
        sa.UniqueConstraint("flow_run_id", name=op.f("uq_batch_flow_run_id")),
    )
    op.create_index("ix_batch_state", "batch", ["state", "created_at"], unique=False)
    op.add_column("run", sa.Column("batch_id", sa.String(length=36), nullable=True))
    present = sa.text("batch_id IS NOT NULL")
    op.create_index(
        "ix_run_batch_id",
        "run",
        ["batch_id"],
        unique=False,
        sqlite_where=present,
        postgresql_where=present,
    )
