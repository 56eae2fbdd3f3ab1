"""What a hub writes in the audit: one intent and one outcome for each privileged action, whatever comes in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import AuditUnavailable, BadArguments, Denied, StoreUnavailable
from parley.link.calls import FinishCall, LogActionCall, RunEnded
from parley.messages.model import Reply, now
from parley.people import principals
from parley.people.anchors import Head
from parley.people.audit_reading import Wanted
from parley.people.principals import Role
from parley.processes.diagnosis import _anchors
from parley.processes.hub import open_hub
from parley.processes.open_actions import OpenActions
from parley.runs.requests import short
from parley.store import schema
from tests.fakes._driver import eventually
from tests.hub.test_ends import Quiet, quiet

__all__ = ["quiet"]


async def rows(quiet: Quiet, action: str | None = None) -> list[Any]:
    found = await quiet.rows(schema.audit)
    return [row for row in found if action in (None, row.action)]


async def phases(quiet: Quiet, action: str) -> list[str]:
    return [row.phase for row in await rows(quiet, action)]


async def is_whole(quiet: Quiet) -> None:
    found = await quiet.hub.admin.run("audit_verify", {})
    assert found["problems"] == []
    assert found["rows"] == len(await rows(quiet))


async def finish(quiet: Quiet) -> None:
    started = await quiet.start(await quiet.run())
    reply = Reply(text="ok")
    await quiet.hub.ledger.finish(FinishCall(**quiet.of(started), outcome="done", reply=reply))


async def still_open(quiet: Quiet) -> list[str]:
    return [row.action for row in await quiet.rows(schema.audit_open)]


# -- one intent, one outcome


async def test_of_a_run_that_was_asked_about_before(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.say("change web1", ann)
    assert await still_open(quiet) == ["run:change"]
    await quiet.say("yes", ann)
    assert await phases(quiet, "confirm:change") == ["outcome"]
    await finish(quiet)
    assert await phases(quiet, "run:change") == ["intent", "outcome"]
    assert await still_open(quiet) == []
    await is_whole(quiet)


async def test_of_a_run_that_was_dropped(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.say("change web1", ann)
    await quiet.say("no", ann)
    assert await phases(quiet, "run:change") == ["intent", "outcome"]
    assert await still_open(quiet) == []


async def test_of_an_end_that_was_asked_for(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.say("/change web1", ann)
    started = await quiet.start(await quiet.run())
    await quiet.hub.cancel((await quiet.request()).id, "bob")
    assert sorted(await still_open(quiet)) == ["cancel", "run:change"]
    await quiet.hub.ends.run_ended(RunEnded(flow_run_id=quiet.of(started)["flow_run_id"], how="cancelled"))
    cancels = await rows(quiet, "cancel")
    assert [(row.phase, row.actor) for row in cancels] == [("intent", "bob"), ("outcome", "bob")]
    assert cancels[1].details == {"state": "cancelled"}
    assert await still_open(quiet) == []


async def test_of_a_run_that_prefect_began(quiet: Quiet) -> None:
    await quiet.hub.admin.run("grant", {"automation": "change"})
    spec = quiet.hub.catalogue.find("change")
    assert spec is not None
    flow_run = {"id": "f1", "name": "odd-mole", "parameters": {"host": "web1"}, "auto_scheduled": True}
    run_id = await quiet.hub.store.write(lambda conn: quiet.hub.adopter._insert(conn, flow_run, spec))
    (intent,) = await rows(quiet, "run:change")
    assert (intent.phase, intent.actor, intent.details["origin"]) == ("intent", "prefect", "schedule")
    # Asked for once more, as after a lost answer, it is the same run.
    assert await quiet.hub.store.write(lambda conn: quiet.hub.adopter._insert(conn, flow_run, spec)) == run_id
    await quiet.hub.ends.fail(run_id, "no memory")
    assert await phases(quiet, "run:change") == ["intent", "outcome"]


@pytest.mark.parametrize(
    ("verb", "arguments", "action"),
    [
        ("person_add", {"name": "eve"}, "person-added"),
        ("person_role", {"name": "ann", "role": "user"}, "person-role:user"),
        ("person_disable", {"name": "ann"}, "person-disabled"),
        ("person_link", {"name": "ann", "account": "post", "user_id": "a@example.com"}, "person-linked"),
        ("person_unlink", {"account": "post", "user_id": "a@example.com"}, "person-unlinked"),
        ("token", {}, "token-issued"),
        ("login_link", {}, "log-in-link-issued"),
        ("grant", {"automation": "change"}, "granted"),
        ("ungrant", {"automation": "change"}, "grant-revoked"),
        ("add_account", {"name": "team", "platform": "slack", "block": "b/team"}, "account-added"),
    ],
)
async def test_of_what_is_done_at_the_machine(
    quiet: Quiet, verb: str, arguments: dict[str, Any], action: str
) -> None:
    await quiet.person("ann")
    await quiet.hub.admin.run(verb, arguments)
    assert await phases(quiet, action) == ["intent", "outcome"]
    assert await still_open(quiet) == []
    await is_whole(quiet)


@pytest.mark.parametrize(
    ("said", "action"), [("/silence change 1h", "alert-silenced"), ("/follow acme/shop", "follow")]
)
async def test_of_what_is_said(quiet: Quiet, said: str, action: str) -> None:
    await quiet.say(said, await quiet.person("ann"))
    assert await phases(quiet, action) == ["intent", "outcome"]


async def test_an_action_that_fails_leaves_neither(quiet: Quiet) -> None:
    await quiet.person("ann")
    with pytest.raises(Exception, match="ann"):
        await quiet.hub.admin.run("person_add", {"name": "ann"})
    assert await rows(quiet, "person-added") == []


# -- when no row can be written

REFUSE = "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room for the audit'); END"


async def test_nothing_privileged_happens_without_its_row(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.hub.store.write(lambda conn: conn.execute(sa.text(REFUSE)))
    message = await quiet.say("/change web1", ann)
    assert "could not be written in the audit" in await quiet.told(message)
    assert await quiet.rows(schema.request) == []
    assert await quiet.rows(schema.run) == []
    with pytest.raises(AuditUnavailable):
        await quiet.hub.admin.run("person_add", {"name": "eve"})
    assert "eve" not in [row.name for row in await quiet.rows(schema.principal)]
    with pytest.raises(AuditUnavailable):
        await quiet.hub.admin.run("token", {})
    assert await quiet.rows(schema.token) == []
    # What only looks goes on.
    await quiet.say("/look 1", ann)
    assert [row.automation for row in await quiet.rows(schema.request)] == ["look"]
    await quiet.hub.store.write(lambda conn: conn.execute(sa.text("DROP TRIGGER full")))
    await quiet.say("/change web1", ann)
    assert await phases(quiet, "run:change") == ["intent"]


async def test_a_run_does_not_end_without_its_row(quiet: Quiet) -> None:
    await quiet.say("/change web1", await quiet.person("ann"))
    started = await quiet.start(await quiet.run())
    await quiet.hub.store.write(lambda conn: conn.execute(sa.text(REFUSE)))
    call = FinishCall(**quiet.of(started), outcome="done", reply=Reply(text="ok"))
    with pytest.raises(AuditUnavailable):
        await quiet.hub.ledger.finish(call)
    assert (await quiet.request()).state == "running"
    await quiet.hub.store.write(lambda conn: conn.execute(sa.text("DROP TRIGGER full")))
    await quiet.hub.ledger.finish(call)
    await quiet.hub.ledger.finish(call)
    assert await phases(quiet, "run:change") == ["intent", "outcome"]


# -- after a crash


async def intent(quiet: Quiet, action: str, subject: str) -> None:
    await quiet.hub.store.write(
        lambda conn: quiet.hub.audit.append(conn, action=action, phase="intent", actor="ann", subject=subject)
    )


async def test_what_a_crash_left_open_gets_the_outcome_that_is_known(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.say("/change web1", ann)
    await intent(quiet, "keys-rotated", "keys")
    await intent(quiet, "cancel", f"request:{(await quiet.request()).id}")
    await intent(quiet, "cancel", "request:00000000-0000-7000-8000-000000000000")
    assert await quiet.hub.open_actions.settle() == 1  # the one that nothing is known of
    later = OpenActions(quiet.hub.store, quiet.hub.audit)
    assert await later.settle() == 1
    (_, rotated) = await rows(quiet, "keys-rotated")
    assert (rotated.phase, rotated.actor, rotated.details["state"]) == ("outcome", "ann", "unknown")
    # A run that is still to come stays open, and its own end closes it.
    assert sorted(await still_open(quiet)) == ["cancel", "run:change"]
    await finish(quiet)
    assert await later.settle() == 1
    assert (await rows(quiet, "cancel"))[-1].details["state"] == "done"
    assert await later.settle() == 0
    assert await still_open(quiet) == []
    counts = Counter((row.action, row.phase) for row in await rows(quiet))
    assert counts["keys-rotated", "intent"] == counts["keys-rotated", "outcome"] == 1
    assert counts["cancel", "intent"] == counts["cancel", "outcome"] == 2
    await is_whole(quiet)


async def test_settings_that_changed_while_nothing_ran_are_in_the_audit(quiet: Quiet) -> None:
    await quiet.hub.settings_record.read_at_start()
    assert await rows(quiet, "configuration-read") == []
    quiet.hub.settings.config.write_text("[owner]\nlanguage = 'zh'\n")
    await quiet.hub.settings_record.read_at_start()
    await quiet.hub.settings_record.read_at_start()
    assert await phases(quiet, "configuration-read") == ["intent", "outcome"]
    assert "zh" not in str([row.details for row in await rows(quiet)])


# -- reading


async def test_the_whole_story_of_a_request(quiet: Quiet) -> None:
    await quiet.say("/change web1", await quiet.person("ann"))
    run = await quiet.run()
    await finish(quiet)
    request = await quiet.request()
    for identifier in (request.id, short(request.id), f"`{short(request.id)}`"):
        told = await quiet.hub.admin.run("audit_request", {"identifier": identifier})
        assert [line["what"] for line in told] == [
            "message received",
            "asked for change",
            "run made",
            "run:change intent",
            "run started",
            "run finished",
            "request done",
            "answer pending",
            "run:change outcome",
        ] or {line["what"] for line in told} >= {
            "message received",
            "run:change intent",
            "run:change outcome",
        }
    assert {"ann", None} == {line["who"] for line in told}
    assert run.id in str(told)
    assert "web1" not in str(told)
    with pytest.raises(BadArguments, match="no request"):
        await quiet.hub.admin.run("audit_request", {"identifier": "ffffffff"})


async def test_export_goes_on_page_by_page(quiet: Quiet) -> None:
    for number in range(7):
        await quiet.hub.admin.run("person_add", {"name": f"p{number}"})
    await quiet.hub.admin.run("token", {})
    got: list[dict[str, Any]] = []
    while page := await quiet.hub.admin.run(
        "audit_page", {"after": got[-1]["sequence"] if got else 0, "limit": 4}
    ):
        got += page
    assert [row["sequence"] for row in got] == list(range(1, 17))
    only = await quiet.hub.admin.run("audit_page", {"action": "token-*"})
    assert [row["action"] for row in only] == ["token-issued"] * 2
    shown = await quiet.hub.admin.run("audit_show", {"limit": 3})
    assert shown == got[-3:]
    assert await quiet.hub.admin.run("audit_show", {"action": "person_add%"}) == []
    tomorrow = (now() + timedelta(days=1)).isoformat()
    assert await quiet.hub.admin.run("audit_show", {"since": tomorrow}) == []
    assert len(await quiet.hub.admin.run("audit_show", {"until": tomorrow})) == 16
    for time in ("yesterday", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        with pytest.raises(BadArguments, match="no time"):
            await quiet.hub.admin.run("audit_show", {"since": time})


@pytest.mark.parametrize("role", list(Role))
async def test_who_may_read_it(quiet: Quiet, role: Role) -> None:
    who = await quiet.person("kim", role)
    if role in (Role.OWNER, Role.AUDITOR):
        assert await quiet.hub.front.audit(who, Wanted(), limit=5, before=None) == []
        await quiet.hub.store.write(lambda conn: principals.disable(conn, who.id))
        who = await quiet.hub.store.read(lambda conn: principals.get(conn, who.id))
    with pytest.raises(Denied, match="owner and auditors"):
        await quiet.hub.front.audit(who, Wanted(), limit=5, before=None)


# -- what authors write


async def author(quiet: Quiet, details: dict[str, str], ordinal: int = 1) -> None:
    run = await quiet.run()
    started = await quiet.start(run)
    call = LogActionCall(**quiet.of(started), ordinal=ordinal, action="did", details=details)
    await quiet.hub.ledger.log_action(call)
    await quiet.hub.ledger.log_action(call)


async def test_what_is_sealed_is_a_keyed_hash_in_an_authors_row(quiet: Quiet) -> None:
    await quiet.say("/secret word=swordfish-7", await quiet.person("ann"))
    await author(quiet, {"argv": "login --with swordfish-7", "cut": "x" * 20 + "swordfi…", "host": "web1"})
    (row,) = await rows(quiet, "author:did")
    proof = quiet.hub.keyring.keyed_hash("swordfish-7")
    assert row.details == {
        "argv": f"login --with (sealed {proof})",
        "cut": "x" * 20 + f"(sealed {proof})",
        "host": "web1",
    }
    await is_whole(quiet)


async def test_the_hub_takes_up_an_audit_of_before(quiet: Quiet) -> None:
    await quiet.hub.admin.run("token", {})
    await quiet.hub.store.aclose()
    again = await open_hub(quiet.hub.settings)
    try:
        await again.admin.run("token", {})
        found = await again.admin.run("audit_verify", {})
        assert (found["rows"], found["problems"]) == (4, [])

        async def count(conn: AsyncConnection) -> int:
            return int(
                (await conn.execute(sa.select(sa.func.count()).select_from(schema.audit))).scalar_one()
            )

        assert await again.store.read(count) == 4
    finally:
        await again.prefect.aclose()
        await again.store.aclose()


async def test_a_full_disk_refuses_what_is_privileged(quiet: Quiet) -> None:
    """No page more for the database, as a full disk has it: nothing is promised, and nothing is done."""
    before = len(await rows(quiet))
    await quiet.hub.store.write(lambda conn: conn.execute(sa.text("PRAGMA max_page_count = 1")))
    refused = 0
    for number in range(60):
        try:
            await quiet.hub.admin.run("person_add", {"name": f"p{number}"})
        except StoreUnavailable:
            refused += 1
    assert refused > 0
    added = {row.name for row in await quiet.rows(schema.principal) if row.name.startswith("p")}
    audited = {row.subject.removeprefix("person:") for row in await rows(quiet, "person-added")}
    assert added == audited
    assert len(added) == 60 - refused
    assert len(await rows(quiet)) == before + 2 * len(added)
    await quiet.hub.store.write(lambda conn: conn.execute(sa.text("PRAGMA max_page_count = 1000000")))
    await quiet.hub.admin.run("person_add", {"name": "after"})
    await is_whole(quiet)


async def test_doctor_names_anchors_that_cannot_be_written_and_rows_that_are_gone(quiet: Quiet) -> None:
    anchors = quiet.hub.anchors
    await quiet.hub.admin.run("token", {})
    assert await anchors.add()
    assert [row["ok"] for row in _anchors(quiet.hub)] == [True]
    anchors.file.path.unlink()
    anchors.file.path.mkdir()
    await quiet.hub.admin.run("token", {})
    assert not await anchors.add()
    (row,) = _anchors(quiet.hub)
    assert (row["ok"], "Is a directory" in row["says"]) == (False, True)
    anchors.file.path.rmdir()
    anchors.file.add(Head(900, "00000001:x"))
    living = asyncio.create_task(anchors.run())
    await eventually(lambda: anchors.behind, "what is gone")
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    rows_ = _anchors(quiet.hub)
    assert [row["ok"] for row in rows_] == [True, False]
    assert "row 900 of the audit" in rows_[1]["says"]
