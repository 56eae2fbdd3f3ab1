"""What a service may not run by itself is offered where its event is told; or a standing approval runs it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from parley.link.calls import StartCall
from parley.messages.model import Action, ConversationKind, Route, Sender, now
from parley.people import standing
from parley.people.principals import Role
from parley.people.standing import Terms
from parley.runs.requests import open_values, run_token
from parley.store import schema
from parley.store.ids import new_id
from tests.hub.house import CATALOGUE
from tests.hub.rooms import World, world_in

ALERTS = {"from": "forge.alert.#", "to": "slack:C1"}
MEND = ALERTS | {"run": "change", "with": {"host": "{labels.host}"}, "where": {"severity": "critical"}}
DATA = {"labels": {"host": "web1"}}


async def fire(world: World, key: str = "web1", **more: Any) -> None:
    await world.platforms.notice("alert.firing", "down", data=DATA, severity="critical", key=key, **more)
    await world.settled()


async def press(world: World, value: str, person: str) -> list[str]:
    """Somebody presses a button in the room; what was said in the room because of it."""
    before = len(world.platforms.calls)
    head = next(iter(world.platforms.ids.values()))
    route = Route(account="slack", conversation="C1", kind=ConversationKind.CHANNEL, thread=head)
    press = Action(
        account="slack", native_id=f"press-{new_id()}", sender=Sender(id=person), route=route, value=value
    )
    await world.platforms.hear(press)
    await world.settled()
    return [call.reply.text for call in world.platforms.calls[before:]]


async def test_it_is_offered_with_the_alert_and_the_first_who_may_takes_it(home: Path) -> None:
    async with world_in(home, routes=[MEND]) as world:
        olga = await world.person("olga", Role.OPERATOR)
        await world.person("pete", Role.OPERATOR)
        await world.person("vera", Role.USER)
        await fire(world)
        (button,) = world.platforms.calls[0].reply.buttons
        assert button.label == "/change web1"
        (offer,) = await world.rows(schema.request)
        assert (offer.state, offer.origin) == ("awaiting-approval", "service")
        assert await world.rows(schema.run) == []

        (refused,) = await press(world, button.value, "vera")
        assert "your role may only look things up" in refused
        assert (await world.rows(schema.request))[0].state == "awaiting-approval"
        assert await press(world, button.value, "olga") == []
        (taken,) = await world.rows(schema.request)
        assert (taken.state, taken.actor_id, taken.origin) == ("queued", olga.id, "command")
        assert open_values(world.hub.keyring, taken) == {"host": "web1"}
        (late,) = await press(world, button.value, "pete")
        assert late == "olga has taken this already: `/change`."
        assert len(await world.rows(schema.run)) == 1
        actions = [(row.action, row.phase, row.actor) for row in await world.rows(schema.audit)]
        assert ("run:change", "intent", "olga") in actions


async def test_what_follows_is_said_where_it_was_taken(home: Path) -> None:
    async with world_in(home, routes=[MEND]) as world:
        await world.person("olga", Role.OPERATOR)
        await fire(world)
        await press(world, world.platforms.calls[0].reply.buttons[0].value, "olga")
        (taken,) = await world.rows(schema.request)
        assert taken.route["thread"] == next(iter(world.platforms.ids.values()))


async def test_a_repeated_alert_offers_it_once_and_the_end_withdraws_it(home: Path) -> None:
    async with world_in(home, routes=[MEND, ALERTS]) as world:
        await world.person("olga", Role.OPERATOR)
        await fire(world)
        await fire(world, text="still down")
        buttons = [call.reply.buttons for call in world.platforms.calls]
        assert [len(one) for one in buttons] == [1, 0]
        assert [row.state for row in await world.rows(schema.request)] == ["awaiting-approval", "refused"]
        await world.platforms.notice("alert.resolved", "up", key="web1", closes=True)
        await world.settled()
        assert (await world.rows(schema.request))[0].state == "expired"
        (over,) = await press(world, buttons[0][0].value, "olga")
        assert "is over" in over
        assert await world.rows(schema.run) == []


async def test_another_alerts_end_withdraws_nothing(home: Path) -> None:
    async with world_in(home, routes=[MEND]) as world:
        await fire(world)
        await world.platforms.notice("alert.resolved", "up", key="web2", closes=True)
        await world.settled()
        assert [row.state for row in await world.rows(schema.request)] == ["awaiting-approval"]


async def test_the_button_shows_what_the_route_calls_it(home: Path) -> None:
    named = MEND | {"label": "重启 {labels.host}\n{text}"}
    async with world_in(home, routes=[named]) as world:
        await fire(world, text="a\u202eb`c" + "d" * 200)
        (button,) = world.platforms.calls[0].reply.buttons
        assert button.label.startswith("重启 web1 a<U+202E>bˋcddd")
        assert len(button.label) <= 75


async def test_two_things_that_would_mend_it_are_both_offered(home: Path) -> None:
    other = MEND | {"name": "other", "with": {"host": "web2"}}
    async with world_in(home, routes=[MEND | {"name": "one"}, other]) as world:
        await fire(world)
        labels = [button.label for button in world.platforms.calls[0].reply.buttons]
        assert labels == ["/change web1", "/change web2"]


async def test_what_was_taken_and_runs_is_not_offered_again(home: Path) -> None:
    async with world_in(home, routes=[MEND, ALERTS]) as world:
        await world.person("olga", Role.OPERATOR)
        await fire(world)
        await press(world, world.platforms.calls[0].reply.buttons[0].value, "olga")
        await fire(world, text="still down")
        assert [len(call.reply.buttons) for call in world.platforms.calls] == [1, 0]
        assert [row.state for row in await world.rows(schema.request)] == ["queued", "refused"]
        other = {"labels": {"host": "web2"}}
        await world.platforms.notice("alert.firing", "down", data=other, severity="critical", key="web2")
        await world.settled()
        assert len(world.platforms.calls[-1].reply.buttons) == 1


async def test_a_new_title_takes_no_offer_away_and_the_end_does(home: Path) -> None:
    async with world_in(home, routes=[MEND, ALERTS]) as world:
        await fire(world)
        offered = world.platforms.calls[0].reply.buttons
        await world.platforms.notice("alert.firing", "down on 2 hosts", severity="critical", key="web1")
        await world.settled()
        edit = world.platforms.calls[-1]
        assert edit.edits
        assert edit.reply.buttons == offered
        await world.platforms.notice("alert.resolved", "up", key="web1", closes=True)
        await world.settled()
        assert world.platforms.calls[-1].edits
        assert world.platforms.calls[-1].reply.buttons == ()


async def test_two_routes_that_come_to_the_same_offer_it_once(home: Path) -> None:
    same = MEND | {"name": "other", "with": {"host": "web1"}}
    async with world_in(home, routes=[MEND | {"name": "one"}, same]) as world:
        await fire(world)
        assert [button.label for button in world.platforms.calls[0].reply.buttons] == ["/change web1"]
        offered, refused = await world.rows(schema.request)
        assert (offered.state, refused.state) == ("awaiting-approval", "refused")
        assert "already" in refused.reason


async def test_what_is_said_is_offered_to_nobody(home: Path) -> None:
    route = {"from": "message.chat", "to": "slack:C1", "run": "change", "with": {"host": "web1"}}
    async with world_in(home, routes=[route]) as world:
        await world.platforms.say("chat:R1", "it is down")
        await world.settled()
        (refused,) = await world.rows(schema.request)
        assert refused.state == "refused"
        assert world.platforms.texts() == ["**Ann**: it is down"]


async def given(world: World, **changed: Any) -> str:
    """A standing approval for the only service there is; its id."""
    (service,) = await world.rows(schema.principal, kind="service")
    spec = CATALOGUE.find("change")
    assert spec is not None
    terms = Terms(
        automation="change",
        version=spec.version,
        principal_id=service.id,
        **{
            "patterns": {"host": "web*"},
            "most": 1,
            "per": timedelta(hours=1),
            "expires_at": now() + timedelta(days=1),
            **changed,
        },
    )
    identity = new_id()
    await world.hub.store.write(lambda conn: standing.give(conn, terms, world.hub.owner_id, identity))
    return identity


async def test_one_event_uses_no_more_of_a_standing_approval_than_there_is(home: Path) -> None:
    other = MEND | {"name": "other", "with": {"host": "web2"}}
    async with world_in(home, routes=[MEND | {"name": "one"}, other]) as world:
        await world.platforms.notice("push", "makes the service known")
        await world.settled()
        identity = await given(world)
        await fire(world)
        first, second = sorted(await world.rows(schema.request), key=lambda row: row.ordinal)
        assert (first.state, first.standing_id) == ("queued", identity)
        assert (second.state, second.standing_id) == ("awaiting-approval", None)
        assert "as often as" in second.reason
        (started,) = [row for row in await world.rows(schema.audit) if row.action == "run:change"][:1]
        assert started.details["standing"] == identity


async def test_a_standing_approval_runs_it_by_itself_as_often_as_it_says(home: Path) -> None:
    async with world_in(home, routes=[MEND]) as world:
        await fire(world, key="first")
        (service,) = await world.rows(schema.principal, kind="service")
        spec = CATALOGUE.find("change")
        assert spec is not None
        terms = Terms(
            automation="change",
            version=spec.version,
            principal_id=service.id,
            patterns={"host": "web*"},
            most=1,
            per=timedelta(hours=1),
            expires_at=now() + timedelta(days=1),
        )
        owner = world.hub.owner_id
        identity = new_id()
        await world.hub.store.write(lambda conn: standing.give(conn, terms, owner, identity))
        await world.platforms.notice("alert.resolved", "up", key="first", closes=True)
        await fire(world, key="second")
        by_itself = (await world.rows(schema.request))[1]
        assert (by_itself.state, by_itself.standing_id) == ("queued", identity)
        heads = await world.rows(schema.delivery, account="slack")
        assert by_itself.under_id == heads[-1].id
        assert world.platforms.calls[-1].reply.buttons == ()

        (run,) = await world.rows(schema.run)
        world.hub.dispatcher._flow_runs[f"flow-{run.id}"] = run.id
        call = StartCall(
            token=run_token(world.hub.keyring, run.id),
            flow_run_id=f"flow-{run.id}",
            holder="h",
            automation="x",
        )
        assert (await world.hub.ledger.start(call)).principal == "forge"

        other = {"labels": {"host": "web2"}}
        await world.platforms.notice("alert.firing", "down", data=other, severity="critical", key="third")
        await world.settled()
        third = (await world.rows(schema.request))[2]
        assert third.state == "awaiting-approval"
        assert "as often as" in third.reason
        assert len(world.platforms.calls[-1].reply.buttons) == 1


async def test_a_standing_approval_that_was_revoked_meanwhile_refuses_the_start(home: Path) -> None:
    async with world_in(home, routes=[MEND]) as world:
        await world.platforms.notice("push", "makes the service known")
        await world.settled()
        (service,) = await world.rows(schema.principal, kind="service")
        spec = CATALOGUE.find("change")
        assert spec is not None
        identity = new_id()
        terms = Terms(
            automation="change",
            version=spec.version,
            principal_id=service.id,
            patterns={"host": "*"},
            most=9,
            per=timedelta(hours=1),
            expires_at=now() + timedelta(days=1),
        )
        owner = world.hub.owner_id
        await world.hub.store.write(lambda conn: standing.give(conn, terms, owner, identity))
        await fire(world)
        (run,) = await world.rows(schema.run)
        await world.hub.store.write(lambda conn: standing.revoke(conn, identity, owner))
        world.hub.dispatcher._flow_runs[f"flow-{run.id}"] = run.id
        call = StartCall(
            token=run_token(world.hub.keyring, run.id),
            flow_run_id=f"flow-{run.id}",
            holder="h",
            automation="x",
        )
        refused = await _refusal(world, call)
        assert "No standing approval" in refused
        assert (await world.rows(schema.request))[0].state in ("refused", "failed")


async def _refusal(world: World, call: StartCall) -> str:
    try:
        await world.hub.ledger.start(call)
    except Exception as error:  # noqa: BLE001 - whichever it is, its text is looked at
        return str(error)
    raise AssertionError("it was granted")
