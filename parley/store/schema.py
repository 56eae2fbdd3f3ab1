"""The tables of our own database. One schema for SQLite and PostgreSQL; Alembic migrations follow it.

Ids are uuid7 as text. Times are UTC (`UtcDateTime`). A column whose name ends in `_sealed` holds AES-256-GCM
ciphertext made by `parley.people.sealing` with (table, column, row id) as associated data. States are text with a
CHECK constraint, so that a database browser tells the story.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime, stored without zone."""

    impl: type[sa.DateTime] = sa.DateTime
    cache_ok: bool | None = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """UTC without its zone; a naive value is refused, because `astimezone` would take it for local time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A time without a zone cannot be stored.")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any | None, dialect: sa.Dialect) -> datetime | None:
        """Aware, in UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.String(36), primary_key=True)


def _state(*allowed: str, name: str = "state") -> tuple[sa.Column[str], sa.CheckConstraint]:
    listed = ", ".join(f"'{state}'" for state in allowed)
    return sa.Column(name, sa.String(20), nullable=False), sa.CheckConstraint(
        f"{name} IN ({listed})", name=name
    )


def _when(name: str, nullable: bool = True) -> sa.Column[datetime]:
    return sa.Column(name, UtcDateTime(), nullable=nullable)


def _due(name: str, column: str, condition: str) -> sa.Index:
    """An index of few rows: it holds only those of the condition, however long the table grows."""
    return sa.Index(name, column, sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))


def _text(name: str, nullable: bool = True, **more: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable, **more)


account = sa.Table(
    "account",
    metadata,
    _id(),
    _text("name", False, unique=True),
    _text("platform", False),
    _text("block"),
    sa.Column("enabled", sa.Boolean(), nullable=False, default=True),
    _when("created_at", False),
)

principal = sa.Table(
    "principal",
    metadata,
    _id(),
    _text("name", False, unique=True),
    *_state("person", "service", name="kind"),
    *_state("owner", "operator", "user", "auditor", "none", name="role"),
    # The role that people gave, where a group makes it more: `role` is what counts. Otherwise nothing.
    sa.Column("given_role", sa.String(20)),
    # A JSON list of globs over automation names; empty means every automation that the role's level allows.
    sa.Column("automations", sa.JSON(), nullable=False, default=list),
    _text("language"),
    _text("time_zone"),
    sa.Column("enabled", sa.Boolean(), nullable=False, default=True),
    _when("created_at", False),
)

identity = sa.Table(
    "identity",
    metadata,
    _id(),
    sa.Column("principal_id", sa.ForeignKey("principal.id"), nullable=False, index=True),
    _text("account", False),
    _text("native_user_id", False),
    sa.Column("verified", sa.Boolean(), nullable=False, default=False),
    # The conversation of this account in which they last wrote to us alone: where they can be reached.
    _text("direct"),
    # Who says so, where it was not people: what the directory links it unlinks.
    _text("source"),
    _when("created_at", False),
    sa.UniqueConstraint("account", "native_user_id"),
)

# A role of parley.toml, given to somebody besides the one that they have.
role_grant = sa.Table(
    "role_grant",
    metadata,
    _id(),
    sa.Column("principal_id", sa.ForeignKey("principal.id"), nullable=False),
    _text("role", False),
    # A source of `source_grant` that gives it, where nobody has given it by hand.
    _text("source"),
    _when("created_at", False),
    sa.UniqueConstraint("principal_id", "role"),
    sa.Index("ix_role_grant_role", "role"),
)

# What groups give, by the source that says who is in them: what counts is in `principal.role` and `role_grant`.
source_grant = sa.Table(
    "source_grant",
    metadata,
    _id(),
    sa.Column("principal_id", sa.ForeignKey("principal.id"), nullable=False),
    _text("source", False),
    _text("role", False),
    _when("created_at", False),
    sa.UniqueConstraint("principal_id", "source", "role"),
)

# Who somebody is in the directory: an entry, by the id of it that never changes. It is kept when they have left.
directory_person = sa.Table(
    "directory_person",
    metadata,
    _id(),
    _text("entry", False, unique=True),
    sa.Column("principal_id", sa.ForeignKey("principal.id"), nullable=False, unique=True),
    _when("created_at", False),
    # When the directory had them no more, and everything was taken from them.
    _when("gone_at"),
)

# What somebody sends from another account to be known there, once.
link_code = sa.Table(
    "link_code",
    metadata,
    _id(),
    sa.Column("principal_id", sa.ForeignKey("principal.id"), nullable=False, index=True),
    *_state("link", "invitation", name="kind"),
    # The first letters, by which it is found; of all of it only a keyed hash is kept.
    _text("selector", False, unique=True),
    _text("digest", False),
    sa.Column("tries", sa.Integer(), nullable=False, default=0),
    _when("created_at", False),
    _when("expires_at", False),
    # When it was used, or became void.
    _when("ended_at"),
)

token = sa.Table(
    "token",
    metadata,
    _id(),
    sa.Column("principal_id", sa.ForeignKey("principal.id"), nullable=False),
    # `session` is what it was before sessions had a table of their own.
    *_state("bearer", "session", "login", name="kind"),
    # Only a SHA-256 of the secret is kept; the secrets have 256 bits, so no slow hash is needed.
    _text("digest", False, unique=True),
    _text("label"),
    _when("created_at", False),
    _when("expires_at"),
    _when("revoked_at"),
)

# A browser that somebody is signed in with. A row is there as long as it is good: what ends is deleted, and audited.
session = sa.Table(
    "session",
    metadata,
    _id(),
    sa.Column("principal_id", sa.ForeignKey("principal.id"), nullable=False, index=True),
    *_state("code", "token", "password", "passkey", "oidc", name="kind"),
    # By the selector it is found; of the whole secret only a keyed hash is kept.
    _text("selector", False, unique=True),
    _text("digest", False),
    # Browser and system in two words, for the list.
    _text("agent", False),
    # With which passkey, where the provider knows it, or (`subject`, without an issuer) with which token: what ends
    # there ends here.
    _text("passkey_id"),
    _text("issuer"),
    _text("subject"),
    _text("provider_session"),
    _when("created_at", False),
    _when("used_at", False),
    _when("expires_at", False),
)

password = sa.Table(
    "password",
    metadata,
    sa.Column("principal_id", sa.ForeignKey("principal.id"), primary_key=True),
    sa.Column("hash_sealed", sa.LargeBinary(), nullable=False),
    _when("changed_at", False),
)

passkey = sa.Table(
    "passkey",
    metadata,
    _id(),
    sa.Column("principal_id", sa.ForeignKey("principal.id"), nullable=False, index=True),
    _text("credential_id", False, unique=True),
    # Whose it is and its public key: nobody who can write rows gives themselves another's.
    sa.Column("key_sealed", sa.LargeBinary(), nullable=False),
    sa.Column("sign_count", sa.BigInteger(), nullable=False),
    _text("name", False),
    _when("created_at", False),
    _when("used_at"),
)

# Challenges that were answered, until they would have run out: each is good once.
spent_challenge = sa.Table(
    "spent_challenge",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("expires_at", UtcDateTime(), nullable=False, index=True),
)

conversation = sa.Table(
    "conversation",
    metadata,
    _id(),
    _text("account", False),
    _text("native_id", False),
    _text("thread", False, default=""),
    *_state("direct", "group", "channel", "mail", name="kind"),
    _when("created_at", False),
    sa.UniqueConstraint("account", "native_id", "thread"),
)

message = sa.Table(
    "message",
    metadata,
    _id(),
    _text("account", False),
    _text("native_id", False),
    sa.Column("conversation_id", sa.ForeignKey("conversation.id"), nullable=False),
    sa.Column("principal_id", sa.ForeignKey("principal.id")),
    # For a message that one principal sent in another's name (`parley say --as`).
    sa.Column("acting_for_id", sa.ForeignKey("principal.id")),
    _text("sender_id", False),
    *_state("message", "edit", "action", "notice", name="type"),
    sa.Column("event_sealed", sa.LargeBinary()),
    sa.Column("route", sa.JSON(), nullable=False),
    *_state("received", "handled", "expired", "dead"),
    _text("reason"),
    _when("received_at", False),
    _when("handled_at"),
    _when("expires_at", False),
    # Retention: the body goes at `erase_after`; the key (account, native id) stays longer, so that a late
    # redelivery is still recognised.
    _when("erase_after", False),
    _when("forget_after", False),
    sa.UniqueConstraint("account", "native_id"),
    sa.Index("ix_message_state_received_at", "state", "received_at"),
    _due("ix_message_erase_after", "erase_after", "event_sealed IS NOT NULL"),
    sa.Index("ix_message_forget_after", "forget_after"),
    sa.Index("ix_message_conversation_id_received_at", "conversation_id", "received_at"),
    # Strangers who were answered, so that each is told once a day: a few rows of very many.
    sa.Index(
        "ix_message_stranger",
        "account",
        "sender_id",
        "received_at",
        sqlite_where=sa.text("reason = 'unknown sender'"),
        postgresql_where=sa.text("reason = 'unknown sender'"),
    ),
)

request = sa.Table(
    "request",
    metadata,
    _id(),
    sa.Column("message_id", sa.ForeignKey("message.id")),
    _text("automation", False),
    sa.Column("ordinal", sa.Integer(), nullable=False, default=0),
    sa.Column("conversation_id", sa.ForeignKey("conversation.id")),
    sa.Column("actor_id", sa.ForeignKey("principal.id")),
    *_state("command", "language", "rest", "schedule", "prefect", "service", name="origin"),
    _text("automation_version", False, default=""),
    sa.Column("parameters_sealed", sa.LargeBinary()),
    _text("digest", False, default=""),
    *_state(
        "needs-input",
        "awaiting-approval",
        "refused",
        "queued",
        "running",
        "done",
        "failed",
        "expired",
        "cancelled",
    ),
    *_state("control", "alerts", "people", "schedules", name="lane"),
    sa.Column("fell_back", sa.Boolean(), nullable=False, default=False),
    sa.Column("route", sa.JSON()),
    # The delivery in whose thread all of it is said, when that was not sent yet as this was asked.
    sa.Column("under_id", sa.String(36)),
    # The standing approval under which it runs by itself.
    sa.Column("standing_id", sa.String(36), index=True),
    # What is asked of the person while needs-input or awaiting-approval: {"kind": ..., "parameter": ..., ...}
    sa.Column("asking", sa.JSON()),
    _text("reason"),
    # What led to it, when events did: ["run:<automation>", ...]. An automation in it is not started once more.
    sa.Column("trail", sa.JSON()),
    _when("created_at", False),
    _when("queued_at"),
    _when("started_at"),
    _when("ended_at"),
    _when("expires_at", False),
    sa.UniqueConstraint("message_id", "automation", "ordinal"),
    sa.Index("ix_request_state_lane_created_at", "state", "lane", "created_at"),
    # What waits for its run: each automation has a line of its own.
    sa.Index(
        "ix_request_waiting",
        "lane",
        "automation",
        "created_at",
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    ),
    sa.Index("ix_request_conversation_id_state", "conversation_id", "state", "id"),
    sa.Index("ix_request_actor_id", "actor_id", "id"),
    _due("ix_request_forget", "created_at", "message_id IS NULL"),
    _due("ix_request_erase", "created_at", "message_id IS NULL AND parameters_sealed IS NOT NULL"),
)

batch = sa.Table(
    "batch",
    metadata,
    _id(),
    _text("automation", False),
    _text("flow_run_id", unique=True),
    *_state("open", "closed"),
    _when("created_at", False),
    sa.Index("ix_batch_state", "state", "created_at"),
)
"""A flow run that answers several requests; its id is Prefect's idempotency key. Each keeps a run of its own."""

run = sa.Table(
    "run",
    metadata,
    _id(),
    sa.Column("request_id", sa.ForeignKey("request.id"), nullable=False, index=True),
    # Of a run that has its flow run for itself; another one's is its batch's.
    _text("flow_run_id", unique=True),
    sa.Column("batch_id", sa.String(36)),
    _text("flow_run_name"),
    sa.Column("epoch", sa.Integer(), nullable=False, default=0),
    *_state("created", "started", "suspended", "finished", "lost"),
    _text("outcome"),
    _text("holder"),
    _when("lease_until"),
    # Only a digest: the token itself is handed to the process that runs it.
    _text("token_digest"),
    sa.Column("said", sa.Integer(), nullable=False, default=0),
    _when("cancel_requested_at"),
    _when("created_at", False),
    _when("started_at"),
    _when("ended_at"),
    sa.Index("ix_run_state_lease_until", "state", "lease_until"),
    sa.Index("ix_run_ended_at", "ended_at"),
    _due("ix_run_batch_id", "batch_id", "batch_id IS NOT NULL"),
)

question = sa.Table(
    "question",
    metadata,
    _id(),
    sa.Column("run_id", sa.ForeignKey("run.id"), nullable=False, index=True),
    sa.Column("ordinal", sa.Integer(), nullable=False),
    sa.Column("conversation_id", sa.ForeignKey("conversation.id"), nullable=False, index=True),
    sa.Column("asked_of_id", sa.ForeignKey("principal.id")),
    sa.Column("json_schema", sa.JSON(), nullable=False),
    sa.Column("answer_sealed", sa.LargeBinary()),
    *_state("open", "answered", "expired"),
    _when("created_at", False),
    _when("expires_at", False),
    sa.UniqueConstraint("run_id", "ordinal"),
)

delivery = sa.Table(
    "delivery",
    metadata,
    _id(),
    # "request:<id>", "run:<id>", "message:<id>" or "alert:<id>", and a number within it.
    _text("source", False),
    sa.Column("ordinal", sa.Integer(), nullable=False),
    _text("account", False),
    sa.Column("conversation_id", sa.ForeignKey("conversation.id")),
    sa.Column("message_id", sa.ForeignKey("message.id"), index=True),
    sa.Column("route", sa.JSON(), nullable=False),
    sa.Column("body_sealed", sa.LargeBinary()),
    _text("token", False),
    *_state("pending", "sending", "sent", "ambiguous", "dead"),
    sa.Column("attempts", sa.Integer(), nullable=False, default=0),
    _when("next_attempt_at", False),
    # Deliveries that must arrive before this one: the one in whose thread it is shown, and the one it replaces in
    # place. Both are of the same account; the outbox takes the native ids from their receipts when it sends.
    sa.Column("under_id", sa.String(36)),
    sa.Column("edit_of_id", sa.String(36)),
    sa.Column("receipt", sa.JSON()),
    _text("reason"),
    _when("created_at", False),
    _when("sent_at"),
    _when("erase_after", False),
    sa.UniqueConstraint("source", "ordinal"),
    sa.Index("ix_delivery_state_account_next_attempt_at", "state", "account", "next_attempt_at"),
    sa.Index("ix_delivery_conversation_id_created_at", "conversation_id", "created_at"),
    _due("ix_delivery_erase_after", "erase_after", "body_sealed IS NOT NULL"),
    _due("ix_delivery_forget", "created_at", "message_id IS NULL"),
)

approval = sa.Table(
    "approval",
    metadata,
    _id(),
    sa.Column("request_id", sa.ForeignKey("request.id"), nullable=False, index=True),
    # What people type; it is never given twice while the row is kept.
    _text("code", unique=True),
    # A keyed hash over automation, version, parameters and who asks.
    _text("digest", False),
    sa.Column("needed", sa.Integer(), nullable=False, default=1),
    # A JSON list of principals who may not vote: who asks, and whoever speaks for them.
    sa.Column("excluded", sa.JSON(), nullable=False, default=list),
    # Nobody else could approve it: the owner who asks confirms it.
    sa.Column("alone", sa.Boolean(), nullable=False, default=False),
    *_state("open", "granted", "refused", "expired", "withdrawn", "void"),
    # A JSON list of what shows it: {"delivery": ..., "language": ..., "at": ...}
    sa.Column("cards", sa.JSON(), nullable=False, default=list),
    _text("decided_by"),
    sa.Column("reason_sealed", sa.LargeBinary()),
    _when("created_at", False),
    _when("expires_at", False),
    _when("decided_at"),
    sa.Index("ix_approval_state_expires_at", "state", "expires_at"),
)

vote = sa.Table(
    "vote",
    metadata,
    _id(),
    sa.Column("approval_id", sa.ForeignKey("approval.id"), nullable=False),
    sa.Column("principal_id", sa.ForeignKey("principal.id"), nullable=False),
    sa.Column("granted", sa.Boolean(), nullable=False),
    # A JSON list of principals who lent the right that it uses; nothing where it is one of their own.
    sa.Column("lent_by", sa.JSON(none_as_null=True)),
    _when("created_at", False),
    sa.UniqueConstraint("approval_id", "principal_id"),
)

# Lets somebody approve in another's place, for a while.
delegation = sa.Table(
    "delegation",
    metadata,
    _id(),
    sa.Column("from_id", sa.ForeignKey("principal.id"), nullable=False),
    sa.Column("to_id", sa.ForeignKey("principal.id"), nullable=False),
    _when("created_at", False),
    _when("expires_at", False),
    _when("revoked_at"),
    sa.Index("ix_delegation_expires_at", "expires_at"),
)

# `/lock`: automations of these names that change something are not started.
freeze = sa.Table(
    "freeze",
    metadata,
    _id(),
    # A glob over automation names.
    _text("automations", False),
    sa.Column("reason_sealed", sa.LargeBinary(), nullable=False),
    sa.Column("by_id", sa.ForeignKey("principal.id"), nullable=False),
    _when("created_at", False),
    _when("expires_at"),
    _when("ended_at"),
    sa.Column("ended_by_id", sa.ForeignKey("principal.id")),
    _due("ix_freeze_in_force", "created_at", "ended_at IS NULL"),
)

grant = sa.Table(
    "grant_",
    metadata,
    _id(),
    # Lets a run without a message (Prefect UI, API, schedule) start, as this principal.
    _text("automation", False),
    sa.Column("principal_id", sa.ForeignKey("principal.id"), nullable=False),
    sa.Column("granted_by_id", sa.ForeignKey("principal.id"), nullable=False),
    sa.Column("route", sa.JSON()),
    _when("created_at", False),
    _when("expires_at"),
    _when("revoked_at"),
)

standing_approval = sa.Table(
    "standing_approval",
    metadata,
    _id(),
    # Lets this principal run this version of this automation by itself, within the patterns and the rate.
    _text("automation", False),
    _text("automation_version", False),
    sa.Column("principal_id", sa.ForeignKey("principal.id"), nullable=False),
    # A glob for each parameter, by its name.
    sa.Column("patterns", sa.JSON(), nullable=False),
    sa.Column("most", sa.Integer(), nullable=False),
    sa.Column("per_seconds", sa.Integer(), nullable=False),
    sa.Column("given_by_id", sa.ForeignKey("principal.id"), nullable=False),
    _when("created_at", False),
    _when("expires_at", False),
    _when("revoked_at"),
    sa.Column("revoked_by_id", sa.ForeignKey("principal.id")),
)

event = sa.Table(
    "event",
    metadata,
    sa.Column(
        "sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
    ),
    _text("topic", False),
    # What makes it happen once: "message:<id>", "run:<id>:<ordinal>", "rest:<principal>:<key>"; unique.
    _text("source"),
    sa.Column("body_sealed", sa.LargeBinary()),
    _when("created_at", False),
    sa.Index("ix_event_source", "source", unique=True),
    # Otherwise SQLite hands out a sequence again after retention deleted the newest event: a reader's place is lost.
    sqlite_autoincrement=True,
)

# Patterns that programs read events by (REST): what only they want is kept while somebody asks for it.
event_reader = sa.Table(
    "event_reader",
    metadata,
    _text("pattern", False, primary_key=True),
    _when("seen_at", False),
)

# Which message of ours shows what: the first of a thread about one key, or the copy of what was said elsewhere.
thread_link = sa.Table(
    "thread_link",
    metadata,
    _id(),
    # "notice:<account>" and the notice's key, or "room:<account>:<conversation>" and the native id of what was said.
    _text("scope", False),
    _text("key", False),
    _text("account", False),
    _text("conversation", False),
    sa.Column("delivery_id", sa.String(36), nullable=False, index=True),
    # Known once it is delivered.
    _text("native_id"),
    # A digest of the title that it shows, so that it is edited only when there is another.
    _text("shown"),
    _when("closed_at"),
    _when("used_at", False),
    sa.UniqueConstraint("scope", "key", "account", "conversation"),
    sa.Index("ix_thread_link_place", "account", "conversation", "native_id"),
    sa.Index("ix_thread_link_used_at", "used_at"),
)

# `/follow`: routes that people made for the conversation they were in.
follow = sa.Table(
    "follow",
    metadata,
    _id(),
    # Lower case: "octo/app", or "octo/*".
    _text("repository", False),
    # A JSON list of patterns of topics.
    sa.Column("topics", sa.JSON(), nullable=False),
    _text("account", False),
    _text("conversation", False),
    sa.Column("route_sealed", sa.LargeBinary(), nullable=False),
    sa.Column("by_id", sa.ForeignKey("principal.id"), nullable=False),
    _when("created_at", False),
    sa.UniqueConstraint("repository", "account", "conversation"),
    sa.Index("ix_follow_account_conversation", "account", "conversation"),
)

# What ended without having been carried out or delivered. No foreign keys: it is forgotten by its own age.
dead_letter = sa.Table(
    "dead_letter",
    metadata,
    _id(),
    *_state("message", "run", "delivery", "expired", name="kind"),
    # "message:<id>", "run:<id>" or "delivery:<id>".
    _text("subject", False, unique=True),
    _text("automation"),
    _text("account"),
    sa.Column("actor_id", sa.String(36)),
    _text("reason", False),
    # Whether it may have had effects, or may have arrived: then nobody does it again without being asked twice.
    sa.Column("doubtful", sa.Boolean(), nullable=False, default=False),
    *_state("open", "replayed", "discarded"),
    _when("created_at", False),
    _when("settled_at"),
    _text("settled_by"),
    sa.Index("ix_dead_letter_created_at", "created_at"),
    sa.Index("ix_dead_letter_state_kind", "state", "kind"),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column(
        "sequence",
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    _when("at", False),
    _text("action", False),
    *_state("intent", "outcome", name="phase"),
    _text("actor", False),
    _text("subject"),
    sa.Column("details", sa.JSON(), nullable=False, default=dict),
    _text("chain", False),
    sa.Index("ix_audit_subject", "subject"),
)

# Intents whose outcome is not written yet. Only `audit` proves anything; this says where to look.
audit_open = sa.Table(
    "audit_open",
    metadata,
    sa.Column(
        "sequence",
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    _when("at", False),
    _text("action", False),
    _text("actor", False),
    _text("subject", False),
    sa.Index("ix_audit_open_subject", "subject"),
)

alert_state = sa.Table(
    "alert_state",
    metadata,
    _text("automation", False, primary_key=True),
    sa.Column("streak", sa.Integer(), nullable=False, default=0),
    sa.Column("alerts", sa.Integer(), nullable=False, default=0),
    sa.Column("alerting", sa.Boolean(), nullable=False, default=False),
    _text("last_reason"),
    _text("acknowledged_by"),
    _when("silenced_until"),
    _when("changed_at", False),
)

lease = sa.Table(
    "lease",
    metadata,
    _text("name", False, primary_key=True),
    _text("holder", False),
    sa.Column("epoch", sa.Integer(), nullable=False),
    _when("until", False),
)

# What seals the columns that end in `_sealed`, wrapped by a key that is not in this database.
data_key = sa.Table(
    "data_key",
    metadata,
    sa.Column("id", sa.String(8), primary_key=True),
    *_state("data", "root", "former", name="kind"),
    # The key of the key file or the environment, or "command:<key id>" of a KMS.
    _text("kek_id", False),
    sa.Column("wrapped", sa.LargeBinary(), nullable=False),
    # Values that it sealed, counted before they are, many at once.
    sa.Column("reserved", sa.BigInteger(), nullable=False, default=0),
    _when("created_at", False),
    _when("retired_at"),
    # Values of other keys are to be sealed anew with this one.
    _when("reseal_asked_at"),
    _when("resealed_at"),
)

file = sa.Table(
    "file",
    metadata,
    _id(),
    sa.Column("delivery_id", sa.ForeignKey("delivery.id"), index=True),
    sa.Column("message_id", sa.ForeignKey("message.id"), index=True),
    sa.Column("ordinal", sa.Integer(), nullable=False, default=0),
    sa.Column("name_sealed", sa.LargeBinary()),
    _text("media_type", False),
    sa.Column("size", sa.Integer(), nullable=False),
    sa.Column("content_sealed", sa.LargeBinary()),
    _when("created_at", False),
    _when("erase_after", False),
    sa.Index("ix_file_erase_after", "erase_after"),
)
