"""What groups give, by the source that says who is in them; and who somebody is in the directory."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("principal", sa.Column("given_role", sa.String(length=20), nullable=True))
    op.add_column("role_grant", sa.Column("source", sa.Text(), nullable=True))
    op.add_column("identity", sa.Column("source", sa.Text(), nullable=True))
    op.create_table(
        "directory_person",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("gone_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principal.id"], name=op.f("fk_directory_person_principal_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_directory_person")),
        sa.UniqueConstraint("entry", name=op.f("uq_directory_person_entry")),
        sa.UniqueConstraint("principal_id", name=op.f("uq_directory_person_principal_id")),
    )
    op.create_table(
        "source_grant",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("principal_id", sa.String(length=36), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["principal_id"], ["principal.id"], name=op.f("fk_source_grant_principal_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_source_grant")),
        sa.UniqueConstraint(
            "principal_id", "source", "role", name=op.f("uq_source_grant_principal_id_source_role")
        ),
    )
