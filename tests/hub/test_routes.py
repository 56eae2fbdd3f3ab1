"""What services report goes where parley.toml says: as threads, and to automations with the service's rights."""

from __future__ import annotations

from pathlib import Path

from parley.errors import Rejected
from parley.people.principals import Role
from parley.runs.requests import open_values
from parley.store import schema
from tests.hub.rooms import world_in

TO_DEV = {"from": "forge.#", "to": ["slack:C1"]}


async def test_a_notice_is_told_where_its_route_leads(home: Path) -> None:
    async with world_in(home, routes=[TO_DEV, {"from": "other.#", "to": "slack:C2"}]) as world:
        await world.platforms.notice("push", "ann pushed", text="2 commits", url="https://forge.example/1")
        await world.settled()
        assert world.platforms.texts() == ["**ann pushed**\n\n2 commits\n\nhttps://forge.example/1"]
        assert world.platforms.calls[0].route.conversation == "C1"
        assert [row.state for row in await world.rows(schema.message)] == ["handled"]


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
        assert (refused.state, refused.origin) == ("refused", "service")
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
