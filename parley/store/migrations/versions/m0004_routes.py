"""Routes: threads about one key, follows, readers of events, and what led to a request."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "event_reader",
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("pattern", name=op.f("pk_event_reader")),
    )
    op.create_table(
        "thread_link",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("conversation", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.String(length=36), nullable=False),
        sa.Column("native_id", sa.Text(), nullable=True),
        sa.Column("shown", sa.Text(), nullable=True),
        sa.Column("closed_at", sa.DateTime(), nullable=True),
        sa.Column("used_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_thread_link")),
        sa.UniqueConstraint(
            "scope",
            "key",
            "account",
            "conversation",
            name=op.f("uq_thread_link_scope_key_account_conversation"),
        ),
    )
    op.create_index(op.f("ix_thread_link_delivery_id"), "thread_link", ["delivery_id"], unique=False)
    op.create_index(
        "ix_thread_link_place", "thread_link", ["account", "conversation", "native_id"], unique=False
    )
    op.create_index("ix_thread_link_used_at", "thread_link", ["used_at"], unique=False)
    op.create_table(
        "follow",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("topics", sa.JSON(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("conversation", sa.Text(), nullable=False),
        sa.Column("route_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("by_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["by_id"], ["principal.id"], name=op.f("fk_follow_by_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_follow")),
        sa.UniqueConstraint(
            "repository", "account", "conversation", name=op.f("uq_follow_repository_account_conversation")
        ),
    )
    op.create_index("ix_follow_account_conversation", "follow", ["account", "conversation"], unique=False)
    op.add_column("event", sa.Column("source", sa.Text(), nullable=True))
    op.create_index("ix_event_source", "event", ["source"], unique=True)
    op.add_column("request", sa.Column("trail", sa.JSON(), nullable=True))
