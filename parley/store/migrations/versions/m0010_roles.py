"""Roles of parley.toml that were given to people, and codes by which accounts are linked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "role_grant",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("principal_id", sa.String(length=36), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["principal_id"], ["principal.id"], name=op.f("fk_role_grant_principal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_role_grant")),
        sa.UniqueConstraint("principal_id", "role", name=op.f("uq_role_grant_principal_id_role")),
    )
    op.create_index("ix_role_grant_role", "role_grant", ["role"], unique=False)
    op.create_table(
        "link_code",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("principal_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.CheckConstraint("kind IN ('link', 'invitation')", name=op.f("ck_link_code_kind")),
        sa.ForeignKeyConstraint(["principal_id"], ["principal.id"], name=op.f("fk_link_code_principal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_link_code")),
        sa.UniqueConstraint("selector", name=op.f("uq_link_code_selector")),
    )
    op.create_index(op.f("ix_link_code_principal_id"), "link_code", ["principal_id"], unique=False)
