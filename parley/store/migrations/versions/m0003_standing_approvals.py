"""Standing approvals; requests that run under one, and that are answered in the thread of a delivery."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "standing_approval",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("automation", sa.Text(), nullable=False),
        sa.Column("automation_version", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.String(length=36), nullable=False),
        sa.Column("patterns", sa.JSON(), nullable=False),
        sa.Column("most", sa.Integer(), nullable=False),
        sa.Column("per_seconds", sa.Integer(), nullable=False),
        sa.Column("given_by_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.Column("revoked_by_id", sa.String(length=36), nullable=True),
        sa.ForeignKeyConstraint(
            ["given_by_id"], ["principal.id"], name=op.f("fk_standing_approval_given_by_id")
        ),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principal.id"], name=op.f("fk_standing_approval_principal_id")
        ),
        sa.ForeignKeyConstraint(
            ["revoked_by_id"], ["principal.id"], name=op.f("fk_standing_approval_revoked_by_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_standing_approval")),
    )
    op.add_column("request", sa.Column("under_id", sa.String(length=36), nullable=True))
    op.add_column("request", sa.Column("standing_id", sa.String(length=36), nullable=True))
    op.create_index(op.f("ix_request_standing_id"), "request", ["standing_id"], unique=False)
