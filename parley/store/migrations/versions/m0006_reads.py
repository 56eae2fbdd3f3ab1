"""Reads that cost the same after a million messages: a conversation's history, a person's requests, told strangers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_message_conversation_id_received_at", "message", ["conversation_id", "received_at"], unique=False
    )
    op.create_index(
        "ix_delivery_conversation_id_created_at", "delivery", ["conversation_id", "created_at"], unique=False
    )
    op.create_index("ix_request_actor_id", "request", ["actor_id", "id"], unique=False)
    op.drop_index("ix_request_conversation_id_state", table_name="request")
    op.create_index(
        "ix_request_conversation_id_state", "request", ["conversation_id", "state", "id"], unique=False
    )
    told = sa.text("reason = 'unknown sender'")
    op.create_index(
        "ix_message_stranger",
        "message",
        ["account", "sender_id", "received_at"],
        unique=False,
        sqlite_where=told,
        postgresql_where=told,
    )
