"""Approvals with codes and cards, delegations, freezes, and where people can be reached.

The tables of approvals and votes were there and empty: nothing wrote them. They are made anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("identity", sa.Column("direct", sa.Text(), nullable=True))
    op.drop_table("vote")
    op.drop_table("approval")
    op.create_table(
        "approval",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("needed", sa.Integer(), nullable=False),
        sa.Column("excluded", sa.JSON(), nullable=False),
        sa.Column("alone", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("cards", sa.JSON(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("reason_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("decided_at", sa.DateTime(), nullable=True),
        sa.CheckConstraint(
            "state IN ('open', 'granted', 'refused', 'expired', 'withdrawn', 'void')",
            name=op.f("ck_approval_state"),
        ),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_approval_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approval")),
        sa.UniqueConstraint("code", name=op.f("uq_approval_code")),
    )
    op.create_index(op.f("ix_approval_request_id"), "approval", ["request_id"], unique=False)
    op.create_index("ix_approval_state_expires_at", "approval", ["state", "expires_at"], unique=False)
    op.create_table(
        "vote",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("approval_id", sa.String(length=36), nullable=False),
        sa.Column("principal_id", sa.String(length=36), nullable=False),
        sa.Column("granted", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["approval_id"], ["approval.id"], name=op.f("fk_vote_approval_id")),
        sa.ForeignKeyConstraint(["principal_id"], ["principal.id"], name=op.f("fk_vote_principal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vote")),
        sa.UniqueConstraint("approval_id", "principal_id", name=op.f("uq_vote_approval_id_principal_id")),
    )
    op.create_table(
        "delegation",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("from_id", sa.String(length=36), nullable=False),
        sa.Column("to_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["from_id"], ["principal.id"], name=op.f("fk_delegation_from_id")),
        sa.ForeignKeyConstraint(["to_id"], ["principal.id"], name=op.f("fk_delegation_to_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delegation")),
    )
    op.create_index("ix_delegation_expires_at", "delegation", ["expires_at"], unique=False)
    op.create_table(
        "freeze",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("automations", sa.Text(), nullable=False),
        sa.Column("reason_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("by_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("ended_by_id", sa.String(length=36), nullable=True),
        sa.ForeignKeyConstraint(["by_id"], ["principal.id"], name=op.f("fk_freeze_by_id")),
        sa.ForeignKeyConstraint(["ended_by_id"], ["principal.id"], name=op.f("fk_freeze_ended_by_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_freeze")),
    )
    in_force = sa.text("ended_at IS NULL")
    op.create_index(
        "ix_freeze_in_force",
        "freeze",
        ["created_at"],
        unique=False,
        sqlite_where=in_force,
        postgresql_where=in_force,
    )
