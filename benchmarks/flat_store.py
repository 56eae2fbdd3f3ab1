"""A store as it is after years: a million messages with their requests, runs and answers, thousands of people.

Written as SQL in one transaction, minutes faster than through the hub. What is sealed is random bytes of the usual
length, because nothing here opens it: the questions that are measured read what was said last, and that is said
through the hub.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from parley.runs.catalogue import AutomationSpec, Catalogue, Parameter

ACCOUNT: Final = "team"
SPAN: Final = timedelta(days=360)
"""Over which the messages came."""

_BODY: Final = 380
_NUMBERS: Final = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count)"
_MS: Final = ":first + i * :step"


_WHO: Final = (
    "(SELECT {column} FROM who WHERE rowid = 1 + CASE WHEN i % 50 THEN (i * 7919) % :people ELSE 0 END)"
)
"""Person 0 is a busy one: a fiftieth of everything is theirs."""


def _id(kind: int) -> str:
    return f"printf('%08x-%04x-7000-80{kind:02x}-%012x', ({_MS}) >> 16, ({_MS}) & 65535, i)"


def _at(later: int = 0) -> str:
    return f"strftime('%Y-%m-%d %H:%M:%f000', ({_MS} + {later}) / 1000.0, 'unixepoch')"


def _insert(table: str, **columns: str) -> str:
    # Names and expressions are those of this file.
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) {_NUMBERS} SELECT {', '.join(columns.values())} FROM n"  # noqa: S608
    )


_DAY: Final = 86_400_000
_PRINCIPAL, _CONVERSATION, _NATIVE = (
    _WHO.format(column=one) for one in ("principal", "conversation", "native")
)
_OUTCOME: Final = "CASE WHEN i % 20 THEN 'done' ELSE 'failed' END"

_FIRST: Final = (
    _insert(
        "principal",
        id=_id(1),
        name="'person ' || i",
        kind="'person'",
        role="'user'",
        automations="'[]'",
        enabled="1",
        created_at=_at(),
    ),
    _insert(
        "identity",
        id=_id(2),
        principal_id=_id(1),
        account=":account",
        native_user_id="'u' || i",
        verified="1",
        created_at=_at(),
    ),
    _insert(
        "conversation",
        id=_id(3),
        account=":account",
        native_id="'u' || i",
        thread="''",
        kind="'direct'",
        created_at=_at(),
    ),
)
_THEN: Final = (
    _insert(
        "message",
        id=_id(4),
        account=":account",
        native_id="'m' || i",
        conversation_id=_CONVERSATION,
        principal_id=_PRINCIPAL,
        sender_id=_NATIVE,
        type="'message'",
        event_sealed=f"randomblob({_BODY})",
        route="'{}'",
        state="'handled'",
        received_at=_at(),
        handled_at=_at(9),
        expires_at=_at(_DAY),
        erase_after=":due",
        forget_after=":due",
    ),
    _insert(
        "request",
        id=_id(5),
        message_id=_id(4),
        automation="'show-order'",
        ordinal="0",
        conversation_id=_CONVERSATION,
        actor_id=_PRINCIPAL,
        origin="'command'",
        automation_version="'1'",
        parameters_sealed="randomblob(60)",
        digest="hex(randomblob(32))",
        state=_OUTCOME,
        lane="'people'",
        fell_back="0",
        route="'{}'",
        created_at=_at(9),
        queued_at=_at(9),
        started_at=_at(90),
        ended_at=_at(150),
        expires_at=_at(_DAY),
    ),
    _insert(
        "run",
        id=_id(6),
        request_id=_id(5),
        flow_run_id=_id(7),
        epoch="1",
        state="'finished'",
        outcome=_OUTCOME,
        holder="'child'",
        said="0",
        created_at=_at(9),
        started_at=_at(90),
        ended_at=_at(150),
    ),
    _insert(
        "delivery",
        id=_id(8),
        source=f"'request:' || {_id(5)}",
        ordinal="100",
        account=":account",
        conversation_id=_CONVERSATION,
        message_id=_id(4),
        route="'{}'",
        body_sealed=f"randomblob({_BODY})",
        token=_id(8),
        state="'sent'",
        attempts="0",
        next_attempt_at=_at(150),
        receipt="'{}'",
        created_at=_at(150),
        sent_at=_at(160),
        erase_after=":due",
    ),
)


def fill(path: Path, messages: int, people: int) -> None:
    """Put so many messages of so many people into a store that nobody has open. Retention wants them all."""
    now = datetime.now(UTC)
    first, span = int((now - SPAN).timestamp() * 1000), int(SPAN.total_seconds() * 1000)
    values: dict[str, Any] = {
        "account": ACCOUNT,
        "people": people,
        "due": f"{now - timedelta(days=1):%Y-%m-%d %H:%M:%S}.000000",
    }
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for pragma in ("synchronous = OFF", "cache_size = -400000", "temp_store = MEMORY"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("CREATE TEMP TABLE who (principal TEXT, conversation TEXT, native TEXT)")
        database.execute("BEGIN")
        for statement in _FIRST:
            database.execute(statement, values | {"first": first - _DAY, "step": 1, "count": people})
        database.execute(
            "INSERT INTO who SELECT i.principal_id, c.id, i.native_user_id FROM identity i "
            "JOIN conversation c ON c.account = i.account AND c.native_id = i.native_user_id ORDER BY i.id"
        )
        for statement in _THEN:
            database.execute(
                statement, values | {"first": first, "step": span // messages, "count": messages}
            )
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


_VERBS: Final = """
show list check count compare restart stop start drain move copy archive restore export import sign
approve rotate measure test publish clean scale lock unlock
"""
_NOUNS: Final = """
order invoice parcel server backup ticket contract meter printer camera queue certificate license
truck pallet refund budget payroll sensor router firewall mailbox calendar meeting room badge shift
roster recipe batch furnace pump valve turbine crane warehouse shelf label scanner forklift
"""


def catalogue(automations: int) -> Catalogue:
    """So many automations, `show-order` the first, each with three examples like people write them."""
    names = [(verb, noun) for noun in _NOUNS.split() for verb in _VERBS.split()][:automations]
    return Catalogue(automations=tuple(_automation(verb, noun) for verb, noun in names))


def _automation(verb: str, noun: str) -> AutomationSpec:
    number = Parameter(
        name="number", json_schema={"type": "integer", "minimum": 1}, description="Which.", examples=(1024,)
    )
    return AutomationSpec(
        name=f"{verb}_{noun}",
        command=f"{verb}-{noun}",
        summary=f"{verb.capitalize()} a {noun}.",
        deployment=f"{verb}-{noun}/parley",
        parameters=(number,),
        examples=(
            f"{verb} the {noun} with number {{number}}",
            f"{verb} {noun} {{number}}",
            f"{noun} {{number}}: {verb} it",
        ),
        version="1",
    )
