"""What services report goes where parley.toml says: as threads, and to automations with the service's rights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parley.errors import BadArguments, Rejected, StartRefused
from parley.link.calls import FinishCall, PublishCall, StartCall, Started
from parley.messages.model import ConversationKind, Reply
from parley.people.principals import Role
from parley.runs.catalogue import Catalogue, Subscription
from parley.runs.requests import open_values, run_token
from parley.store import schema
from tests.hub.house import CATALOGUE
from tests.hub.rooms import World, world_in

TO_DEV = {"from": "forge.#", "to": ["slack:C1"]}


async def test_a_notice_is_told_where_its_route_leads(home: Path) -> None:
    async with world_in(home, routes=[TO_DEV, {"from": "other.#", "to": "slack:C2"}]) as world:
        await world.platforms.notice("push", "ann pushed", text="2 commits", url="https://forge.example/1")
        await world.settled()
        assert world.platforms.texts() == ["**ann pushed**\n\n2 commits\n\nhttps://forge.example/1"]
        assert world.platforms.calls[0].route.conversation == "C1"
        link = "[2 commits](https://forge.example/1)"
        await world.platforms.notice("push", "ann pushed", text=link, url="https://forge.example/1")
        await world.settled()
        assert world.platforms.texts()[1:] == [f"**ann pushed**\n\n{link}"], "where to look is said once"
        assert {row.state for row in await world.rows(schema.message)} == {"handled"}


async def test_conditions_decide_and_a_conversation_is_told_once(home: Path) -> None:
    routes = [
        {"from": "*.alert.*", "where": {"labels.severity": "critical"}, "to": ["slack:C1", "chat:R1"]},
        {"from": "forge.#", "where": {"repository": ["octo/app", "octo/*"]}, "to": "slack:C1"},
    ]
    async with world_in(home, routes=routes) as world:
        labels = {"labels": {"severity": "critical"}, "repository": "octo/shop"}
        await world.platforms.notice("alert.firing", "disk", data=labels)
        await world.platforms.notice("alert.firing", "cpu", data={"labels": {"severity": "info"}})
        await world.settled()
        assert sorted(world.platforms.texts()) == ["**disk**", "**disk**"]
        assert {call.account for call in world.platforms.calls} == {"slack", "chat"}


async def test_one_key_is_one_thread_whose_head_is_edited(home: Path) -> None:
    async with world_in(home, routes=[TO_DEV]) as world:
        notice = world.platforms.notice
        await notice("pull_request.opened", "#1 Add x (open)", text="ann wants x", key="octo/app#1")
        await world.settled()
        head = world.platforms.ids[world.platforms.calls[0].token]
        await notice("pull_request.commented", "#1 Add x (open)", text="bob: nice", key="octo/app#1")
        await notice(
            "pull_request.merged", "#1 Add x (merged)", text="bob merged", key="octo/app#1", closes=True
        )
        await world.settled()
        assert world.platforms.texts() == [
            "**#1 Add x (open)**\n\nann wants x",
            f"under {head}: bob: nice",
            f"under {head}: bob merged",
            f"edit {head}: **#1 Add x (merged)**\n\nann wants x",
        ]
        # Opened again it goes on in its thread.
        await notice("pull_request.reopened", "#1 Add x (open)", text="ann reopened", key="octo/app#1")
        await world.settled()
        assert world.platforms.texts()[4:] == [
            f"under {head}: ann reopened",
            f"edit {head}: **#1 Add x (open)**\n\nann wants x",
        ]


async def test_an_alert_that_comes_back_makes_a_new_head(home: Path) -> None:
    async with world_in(home, routes=[TO_DEV]) as world:
        fire = {"key": "disk", "severity": "critical"}
        await world.platforms.notice("alert.firing", "disk fires", **fire)
        await world.platforms.notice("alert.resolved", "disk is well", key="disk", closes=True)
        await world.platforms.notice("alert.firing", "disk fires", **fire)
        await world.platforms.notice("alert.firing", "disk fires", text="still", **fire)
        await world.settled()
        first, second = (world.platforms.ids[world.platforms.calls[at].token] for at in (0, 3))
        assert world.platforms.texts() == [
            "**disk fires**",
            f"under {first}: **disk is well**",
            f"edit {first}: **disk is well**",
            "**disk fires**",
            f"under {second}: still",
        ]


async def test_what_follows_waits_for_its_head_and_outlives_the_hub(home: Path) -> None:
    async with world_in(home, holding=False, routes=[TO_DEV]) as world:
        await world.platforms.notice("pull_request.opened", "one", key="k")
        await world.platforms.notice("pull_request.closed", "two", text="closed", key="k", closes=True)
        await world.hub.intake_is_empty()
        assert world.platforms.texts() == []
    async with world_in(home, routes=[TO_DEV]) as world:
        await world.settled()
        # The head may have been under way when the hub died: whether it arrived is asked, and it has its token.
        head = next(iter(world.platforms.ids.values()))
        assert world.platforms.texts() == ["**one**", f"under {head}: closed", f"edit {head}: **two**"]


async def test_a_notice_that_was_stored_when_the_hub_died_is_told_by_the_next(home: Path) -> None:
    async with world_in(home, routes=[TO_DEV]) as world:
        # Nothing is handled any more from here on: the hub dies between the commit and what follows from it.
        await world.hub.intake.aclose()
        world.hub.inbox.arrived = lambda _received: None
        await world.platforms.notice("push", "p", native_id="guid")
        assert [row.state for row in await world.rows(schema.message)] == ["received"]
    async with world_in(home, routes=[TO_DEV]) as world:
        await world.platforms.notice("push", "p", native_id="guid")
        await world.settled()
        assert world.platforms.texts() == ["**p**"]
        assert len(await world.rows(schema.event)) == 1


async def test_under_a_dead_head_things_are_said_plainly_and_edits_are_dropped(home: Path) -> None:
    async with world_in(home, holding=False, routes=[TO_DEV]) as world:
        world.platforms.fails = lambda call: Rejected("no") if call.reply.text == "**one**" else None
        await world.platforms.notice("pull_request.opened", "one", key="k")
        await world.platforms.notice("pull_request.closed", "two", text="closed", key="k", closes=True)
        await world.hub.intake_is_empty()
        world.platforms.held.set()
        await world.settled()
        assert world.platforms.texts("slack") == ["closed"]
        states = [row.state for row in await world.rows(schema.delivery, account="slack")]
        assert states == ["dead", "sent", "dead"]


async def test_a_redelivery_is_told_once(home: Path) -> None:
    async with world_in(home, routes=[TO_DEV]) as world:
        for _ in range(3):
            await world.platforms.notice("push", "once", native_id="guid-1")
        await world.settled()
        assert world.platforms.texts() == ["**once**"]


async def test_a_service_may_run_nothing_until_the_owner_gives_it_a_role(home: Path) -> None:
    route = {"from": "forge.alert.#", "run": "change", "with": {"host": "{labels.host}"}, "to": "slack:C1"}
    async with world_in(home, routes=[route]) as world:
        data = {"labels": {"host": "web1"}}
        await world.platforms.notice("alert.firing", "web1 is down", data=data)
        await world.settled()
        refused = (await world.rows(schema.request))[0]
        assert (refused.state, refused.origin) == ("awaiting-approval", "service")
        assert refused.reason
        services = await world.rows(schema.principal, kind="service")
        assert [(row.name, row.role) for row in services] == [("forge", "none")]
        await world.give_role("forge", Role.OPERATOR)
        await world.platforms.notice("alert.firing", "web1 is down", data=data, severity="critical")
        await world.settled()
        queued = (await world.rows(schema.request))[1]
        assert (queued.state, queued.lane, queued.actor_id) == ("queued", "alerts", services[0].id)
        assert open_values(world.hub.keyring, queued) == {"host": "web1"}
        heads = await world.rows(schema.delivery, account="slack")
        assert queued.under_id == heads[1].id
        assert len(await world.rows(schema.run)) == 1


async def test_parameters_that_do_not_fit_are_refused_with_the_reason(home: Path) -> None:
    route = {"from": "forge.#", "run": "look", "with": {"n": "{number}"}}
    async with world_in(home, routes=[route]) as world:
        for number in (7, "7", "x", None):
            await world.platforms.notice("push", "p", data={"number": number})
        await world.settled()
        rows = await world.rows(schema.request)
        values = [open_values(world.hub.keyring, row) for row in rows]
        assert values[:2] == [{"n": 7}, {"n": 7}]
        assert "`n`" in rows[2].reason
        assert "`n`" in rows[3].reason


async def test_a_route_to_an_account_that_is_not_there_leads_nowhere_and_the_others_go_on(home: Path) -> None:
    async with world_in(home, routes=[{"from": "#", "to": ["nowhere:x", "slack:C1"]}]) as world:
        await world.platforms.notice("push", "p")
        await world.settled()
        assert world.platforms.texts() == ["**p**"]


# -- what runs and programs publish


async def _started(world: World, text: str = "/look 1") -> Started:
    """A run of `text` by an operator, granted its start."""
    people = {row.name for row in await world.rows(schema.principal)}
    if "ann" not in people:
        await world.person("ann", Role.OPERATOR)
    await world.platforms.say("slack:D1", text, addressed=True, kind=ConversationKind.DIRECT)
    await world.hub.intake_is_empty()
    run = (await world.rows(schema.run))[-1]
    world.hub.dispatcher._flow_runs[f"flow-{run.id}"] = run.id
    token = run_token(world.hub.keyring, run.id)
    call = StartCall(token=token, flow_run_id=f"flow-{run.id}", holder="h", automation="x")
    return await world.hub.ledger.start(call)


def _of(started: Started) -> dict[str, Any]:
    return {
        "token": started.token,
        "flow_run_id": f"flow-{started.run_id}",
        "run_id": started.run_id,
        "epoch": started.epoch,
    }


async def test_what_a_run_publishes_happens_once_however_often_it_is_said(home: Path) -> None:
    routes = [{"from": "shop.order.*", "to": "slack:C1", "run": "again"}]
    async with world_in(home, routes=routes) as world:
        started = await _started(world)
        call = PublishCall(**_of(started), ordinal=1, topic="shop.order.late", title="late", data={"n": 7})
        for _ in range(3):
            await world.hub.ledger.publish(call)
        await world.hub.ledger.publish(call.model_copy(update={"ordinal": 2, "title": "later"}))
        await world.settled()
        assert world.platforms.texts("slack", "C1") == ["**late**", "**later**"]
        assert [row.topic for row in await world.rows(schema.event)] == ["shop.order.late"] * 2
        assert [row.state for row in await world.rows(schema.request, automation="again")] == [
            "awaiting-approval",
            "refused",
        ]


@pytest.mark.parametrize("topic", ["forge.push", "run.done.x", "alert.x", "message.slack", "Bad", "a..b"])
async def test_nobody_publishes_in_the_name_of_another(home: Path, topic: str) -> None:
    async with world_in(home) as world:
        started = await _started(world)
        with pytest.raises(BadArguments):
            await world.hub.ledger.publish(PublishCall(**_of(started), ordinal=1, topic=topic))
        assert await world.rows(schema.event) == []


async def test_a_run_that_is_over_publishes_nothing(home: Path) -> None:
    async with world_in(home) as world:
        started = await _started(world)
        await world.hub.ledger.finish(FinishCall(**_of(started), outcome="done", reply=Reply(text="x")))
        with pytest.raises(StartRefused):
            await world.hub.ledger.publish(PublishCall(**_of(started), ordinal=1, topic="shop.late"))


async def test_ends_and_alerts_are_events(home: Path) -> None:
    routes = [{"from": "run.failed.*", "to": "chat:R1"}, {"from": "alert.change", "to": "chat:R2"}]
    async with world_in(home, routes=routes) as world:
        for outcome in ("failed", "failed", "done"):
            started = await _started(world, "/change web1")
            call = FinishCall(**_of(started), outcome=outcome, reason="boom", reply=Reply(text="x"))
            await world.hub.ledger.finish(call)
        await world.settled()
        assert world.platforms.texts("chat", "R1") == ["**/change: failed**\n\nboom"] * 2
        alert, recovery, edit = world.platforms.texts("chat", "R2")
        assert alert.startswith("**/change keeps failing**")
        assert recovery.startswith("under ")
        assert edit.startswith("edit ")
        # Alerts are kept for programs; the end of every run only when one asks.
        assert [row.topic for row in await world.rows(schema.event)] == ["alert.change", "alert.change"]


async def test_nobody_has_the_rights_of_what_people_say_by_their_name(home: Path) -> None:
    route = {"from": "message.slack", "run": "change", "with": {"host": "web1"}}
    async with world_in(home, routes=[route]) as world:
        await world.platforms.say("slack:C1", "hello")
        await world.settled()
        await world.give_role("slack", Role.OPERATOR)
        await world.platforms.say("slack:C1", "hello")
        await world.platforms.say("slack:D1", "/change web2", person="service", addressed=True)
        await world.settled()
        states = [row.state for row in await world.rows(schema.request)]
        assert states == ["refused", "queued", "queued"], "each by the route, none by the command"
        values = [open_values(world.hub.keyring, row) for row in await world.rows(schema.request)]
        assert values == [{"host": "web1"}] * 3


@pytest.mark.parametrize("came", ["notice", "other account", "same account"])
async def test_a_private_answer_is_for_who_asked_there_and_for_nobody_of_another_account(
    home: Path, came: str
) -> None:
    route = {"from": ["forge.push", "message.chat", "message.slack"], "run": "again", "to": "slack:C1"}
    async with world_in(home, routes=[route]) as world:
        account = {"notice": "forge", "other account": "chat", "same account": "slack"}[came]
        if account == "forge":
            await world.platforms.notice("push", "p")
        else:
            await world.platforms.say(f"{account}:R1", "hello", person="U1")
        await world.settled()
        await world.give_role(account, Role.USER)
        if account == "forge":
            await world.platforms.notice("push", "p")
        else:
            await world.platforms.say(f"{account}:R1", "hello", person="U1")
        await world.settled()
        (run,) = await world.rows(schema.run)
        token = run_token(world.hub.keyring, run.id)
        world.hub.dispatcher._flow_runs["flow-1"] = run.id
        start = StartCall(token=token, flow_run_id="flow-1", holder="h", automation="x")
        of = {**_of(await world.hub.ledger.start(start)), "flow_run_id": "flow-1"}
        reply = Reply(text="secret", private=True)
        await world.hub.ledger.finish(FinishCall(**of, outcome="done", reply=reply))
        await world.settled()
        answer = next(call for call in world.platforms.calls if call.reply.text == "secret")
        assert answer.reply.private
        assert answer.route.private_to == ("U1" if came == "same account" else None)


async def test_an_automation_is_never_started_by_what_it_led_to_itself(home: Path) -> None:
    routes = [{"from": "run.#", "run": "again"}, {"from": "shop.#", "run": "again"}]
    async with world_in(home, routes=routes) as world:
        started = await _started(world)
        await world.give_role_to_the_bus()
        await world.hub.ledger.finish(FinishCall(**_of(started), outcome="done", reply=Reply(text="x")))
        (queued,) = await world.rows(schema.request, automation="again")
        assert (queued.state, queued.trail) == ("queued", ["run:look", "run:again"])
        run = (await world.rows(schema.run, request_id=queued.id))[0]
        token = run_token(world.hub.keyring, run.id)
        world.hub.dispatcher._flow_runs["flow-2"] = run.id
        again = await world.hub.ledger.start(
            StartCall(token=token, flow_run_id="flow-2", holder="h", automation="x")
        )
        of = {**_of(again), "flow_run_id": "flow-2"}
        await world.hub.ledger.publish(PublishCall(**of, ordinal=1, topic="shop.late"))
        await world.hub.ledger.finish(FinishCall(**of, outcome="done", reply=Reply(text="x")))
        assert len(await world.rows(schema.request, automation="again")) == 1


async def test_on_of_an_automation_is_a_route(home: Path) -> None:
    on = Subscription(pattern="forge.push", where={"branch": "main"}, parameters={"n": "{count}"})
    look = CATALOGUE.automations[0].model_copy(update={"on": (on,)})
    async with world_in(home) as world:
        world.hub.publish(Catalogue(automations=(look,)))
        await world.platforms.notice("push", "p", data={"branch": "main", "count": 3})
        await world.platforms.notice("push", "p", data={"branch": "other", "count": 3})
        await world.settled()
        assert len(await world.rows(schema.request, automation="look")) == 1


async def test_doctor_names_routes_that_lead_nowhere(home: Path) -> None:
    routes = [{"from": "#", "to": "nowhere:x", "run": "missing", "name": "lost"}, TO_DEV]
    async with world_in(home, routes=routes) as world:
        rows = [row for row in await world.hub.vitals.doctor() if "lost" in row["check"]]
        assert [row["ok"] for row in rows] == [False, False]
        assert "nowhere" in rows[0]["says"]
        assert "missing" in rows[1]["says"]
