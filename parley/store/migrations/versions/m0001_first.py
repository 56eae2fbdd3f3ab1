"""Every table of design.md 3a, and the audit that can only grow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=False),
        sa.Column("block", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("name", name=op.f("uq_account_name")),
    )
    op.create_table(
        "alert_state",
        sa.Column("automation", sa.Text(), nullable=False),
        sa.Column("streak", sa.Integer(), nullable=False),
        sa.Column("alerts", sa.Integer(), nullable=False),
        sa.Column("alerting", sa.Boolean(), nullable=False),
        sa.Column("last_reason", sa.Text(), nullable=True),
        sa.Column("acknowledged_by", sa.Text(), nullable=True),
        sa.Column("silenced_until", sa.DateTime(), nullable=True),
        sa.Column("changed_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("automation", name=op.f("pk_alert_state")),
    )
    op.create_table(
        "audit",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("phase", sa.String(length=20), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.CheckConstraint("phase IN ('intent', 'outcome')", name=op.f("ck_audit_phase")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit")),
    )
    op.create_table(
        "conversation",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("native_id", sa.Text(), nullable=False),
        sa.Column("thread", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('direct', 'group', 'channel', 'mail')", name=op.f("ck_conversation_kind")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversation")),
        sa.UniqueConstraint(
            "account", "native_id", "thread", name=op.f("uq_conversation_account_native_id_thread")
        ),
    )
    op.create_table(
        "event",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("body_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_event")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("until", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )
    op.create_table(
        "principal",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("automations", sa.JSON(), nullable=False),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("time_zone", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint("kind IN ('person', 'service')", name=op.f("ck_principal_kind")),
        sa.CheckConstraint(
            "role IN ('owner', 'operator', 'user', 'auditor', 'none')", name=op.f("ck_principal_role")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_principal")),
        sa.UniqueConstraint("name", name=op.f("uq_principal_name")),
    )
    op.create_table(
        "grant_",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("automation", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.String(length=36), nullable=False),
        sa.Column("granted_by_id", sa.String(length=36), nullable=False),
        sa.Column("route", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["granted_by_id"], ["principal.id"], name=op.f("fk_grant__granted_by_id")),
        sa.ForeignKeyConstraint(["principal_id"], ["principal.id"], name=op.f("fk_grant__principal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grant_")),
    )
    op.create_table(
        "identity",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("principal_id", sa.String(length=36), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("native_user_id", sa.Text(), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["principal_id"], ["principal.id"], name=op.f("fk_identity_principal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity")),
        sa.UniqueConstraint("account", "native_user_id", name=op.f("uq_identity_account_native_user_id")),
    )
    op.create_index(op.f("ix_identity_principal_id"), "identity", ["principal_id"], unique=False)
    op.create_table(
        "message",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("native_id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.String(length=36), nullable=False),
        sa.Column("principal_id", sa.String(length=36), nullable=True),
        sa.Column("acting_for_id", sa.String(length=36), nullable=True),
        sa.Column("sender_id", sa.Text(), nullable=False),
        sa.Column("type", sa.String(length=20), nullable=False),
        sa.Column("event_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("route", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.Column("handled_at", sa.DateTime(), nullable=True),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("erase_after", sa.DateTime(), nullable=False),
        sa.Column("forget_after", sa.DateTime(), nullable=False),
        sa.CheckConstraint(
            "state IN ('received', 'handled', 'expired', 'dead')", name=op.f("ck_message_state")
        ),
        sa.CheckConstraint("type IN ('message', 'edit', 'action')", name=op.f("ck_message_type")),
        sa.ForeignKeyConstraint(["acting_for_id"], ["principal.id"], name=op.f("fk_message_acting_for_id")),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversation.id"], name=op.f("fk_message_conversation_id")
        ),
        sa.ForeignKeyConstraint(["principal_id"], ["principal.id"], name=op.f("fk_message_principal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message")),
        sa.UniqueConstraint("account", "native_id", name=op.f("uq_message_account_native_id")),
    )
    op.create_index(
        "ix_message_erase_after",
        "message",
        ["erase_after"],
        unique=False,
        sqlite_where=sa.text("event_sealed IS NOT NULL"),
        postgresql_where=sa.text("event_sealed IS NOT NULL"),
    )
    op.create_index("ix_message_forget_after", "message", ["forget_after"], unique=False)
    op.create_index("ix_message_state_received_at", "message", ["state", "received_at"], unique=False)
    op.create_table(
        "token",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("principal_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.CheckConstraint("kind IN ('bearer', 'session', 'login')", name=op.f("ck_token_kind")),
        sa.ForeignKeyConstraint(["principal_id"], ["principal.id"], name=op.f("fk_token_principal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token")),
        sa.UniqueConstraint("digest", name=op.f("uq_token_digest")),
    )
    op.create_table(
        "delivery",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.String(length=36), nullable=True),
        sa.Column("message_id", sa.String(length=36), nullable=True),
        sa.Column("route", sa.JSON(), nullable=False),
        sa.Column("body_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(), nullable=False),
        sa.Column("receipt", sa.JSON(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("sent_at", sa.DateTime(), nullable=True),
        sa.Column("erase_after", sa.DateTime(), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'sending', 'sent', 'ambiguous', 'dead')", name=op.f("ck_delivery_state")
        ),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversation.id"], name=op.f("fk_delivery_conversation_id")
        ),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], name=op.f("fk_delivery_message_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint("source", "ordinal", name=op.f("uq_delivery_source_ordinal")),
    )
    op.create_index(
        "ix_delivery_erase_after",
        "delivery",
        ["erase_after"],
        unique=False,
        sqlite_where=sa.text("body_sealed IS NOT NULL"),
        postgresql_where=sa.text("body_sealed IS NOT NULL"),
    )
    op.create_index(
        "ix_delivery_forget",
        "delivery",
        ["created_at"],
        unique=False,
        sqlite_where=sa.text("message_id IS NULL"),
        postgresql_where=sa.text("message_id IS NULL"),
    )
    op.create_index(op.f("ix_delivery_message_id"), "delivery", ["message_id"], unique=False)
    op.create_index(
        "ix_delivery_state_account_next_attempt_at",
        "delivery",
        ["state", "account", "next_attempt_at"],
        unique=False,
    )
    op.create_table(
        "request",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("message_id", sa.String(length=36), nullable=True),
        sa.Column("automation", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("conversation_id", sa.String(length=36), nullable=True),
        sa.Column("actor_id", sa.String(length=36), nullable=True),
        sa.Column("origin", sa.String(length=20), nullable=False),
        sa.Column("automation_version", sa.Text(), nullable=False),
        sa.Column("parameters_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("lane", sa.String(length=20), nullable=False),
        sa.Column("fell_back", sa.Boolean(), nullable=False),
        sa.Column("route", sa.JSON(), nullable=True),
        sa.Column("asking", sa.JSON(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("queued_at", sa.DateTime(), nullable=True),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint(
            "lane IN ('control', 'alerts', 'people', 'schedules')", name=op.f("ck_request_lane")
        ),
        sa.CheckConstraint(
            "origin IN ('command', 'language', 'rest', 'schedule', 'prefect', 'service')",
            name=op.f("ck_request_origin"),
        ),
        sa.CheckConstraint(
            "state IN ('needs-input', 'awaiting-approval', 'refused', 'queued', 'running', "
            "'done', 'failed', 'expired', 'cancelled')",
            name=op.f("ck_request_state"),
        ),
        sa.ForeignKeyConstraint(["actor_id"], ["principal.id"], name=op.f("fk_request_actor_id")),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversation.id"], name=op.f("fk_request_conversation_id")
        ),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], name=op.f("fk_request_message_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_request")),
        sa.UniqueConstraint(
            "message_id", "automation", "ordinal", name=op.f("uq_request_message_id_automation_ordinal")
        ),
    )
    op.create_index("ix_request_conversation_id_state", "request", ["conversation_id", "state"], unique=False)
    op.create_index(
        "ix_request_erase",
        "request",
        ["created_at"],
        unique=False,
        sqlite_where=sa.text("message_id IS NULL AND parameters_sealed IS NOT NULL"),
        postgresql_where=sa.text("message_id IS NULL AND parameters_sealed IS NOT NULL"),
    )
    op.create_index(
        "ix_request_forget",
        "request",
        ["created_at"],
        unique=False,
        sqlite_where=sa.text("message_id IS NULL"),
        postgresql_where=sa.text("message_id IS NULL"),
    )
    op.create_index(
        "ix_request_state_lane_created_at", "request", ["state", "lane", "created_at"], unique=False
    )
    op.create_table(
        "approval",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("needed", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint(
            "state IN ('open', 'granted', 'refused', 'expired')", name=op.f("ck_approval_state")
        ),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_approval_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approval")),
        sa.UniqueConstraint("request_id", "digest", name=op.f("uq_approval_request_id_digest")),
    )
    op.create_table(
        "file",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("delivery_id", sa.String(length=36), nullable=True),
        sa.Column("message_id", sa.String(length=36), nullable=True),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("name_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("content_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("erase_after", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["delivery_id"], ["delivery.id"], name=op.f("fk_file_delivery_id")),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], name=op.f("fk_file_message_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_file")),
    )
    op.create_index(op.f("ix_file_delivery_id"), "file", ["delivery_id"], unique=False)
    op.create_index("ix_file_erase_after", "file", ["erase_after"], unique=False)
    op.create_index(op.f("ix_file_message_id"), "file", ["message_id"], unique=False)
    op.create_table(
        "run",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("flow_run_id", sa.Text(), nullable=True),
        sa.Column("flow_run_name", sa.Text(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(), nullable=True),
        sa.Column("token_digest", sa.Text(), nullable=True),
        sa.Column("said", sa.Integer(), nullable=False),
        sa.Column("cancel_requested_at", sa.DateTime(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.CheckConstraint(
            "state IN ('created', 'started', 'suspended', 'finished', 'lost')", name=op.f("ck_run_state")
        ),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("fk_run_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
        sa.UniqueConstraint("flow_run_id", name=op.f("uq_run_flow_run_id")),
    )
    op.create_index(op.f("ix_run_request_id"), "run", ["request_id"], unique=False)
    op.create_index("ix_run_state_lease_until", "run", ["state", "lease_until"], unique=False)
    op.create_index("ix_run_ended_at", "run", ["ended_at"], unique=False)
    op.create_table(
        "question",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("conversation_id", sa.String(length=36), nullable=False),
        sa.Column("asked_of_id", sa.String(length=36), nullable=True),
        sa.Column("json_schema", sa.JSON(), nullable=False),
        sa.Column("answer_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint("state IN ('open', 'answered', 'expired')", name=op.f("ck_question_state")),
        sa.ForeignKeyConstraint(["asked_of_id"], ["principal.id"], name=op.f("fk_question_asked_of_id")),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversation.id"], name=op.f("fk_question_conversation_id")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_question_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_question")),
        sa.UniqueConstraint("run_id", "ordinal", name=op.f("uq_question_run_id_ordinal")),
    )
    op.create_index(op.f("ix_question_conversation_id"), "question", ["conversation_id"], unique=False)
    op.create_index(op.f("ix_question_run_id"), "question", ["run_id"], unique=False)
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
    _make_audit_append_only()


def _make_audit_append_only() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_refuses_{verb.lower()} BEFORE {verb} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END"
            )
        # INSERT OR REPLACE deletes without firing the trigger above.
        op.execute(
            "CREATE TRIGGER audit_refuses_replace BEFORE INSERT ON audit "
            "WHEN EXISTS (SELECT 1 FROM audit WHERE sequence = NEW.sequence) "
            "BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END"
        )
        return
    op.execute(
        "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'audit is append-only'; END $$"
    )
    # A statement trigger fires for TRUNCATE too, and for a statement that would touch no row.
    op.execute(
        "CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()"
    )
