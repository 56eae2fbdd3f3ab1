"""`/follow` in a living hub: who may, what is told where, and that it survives a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parley.messages.follows import repository
from parley.messages.model import ConversationKind
from parley.people import principals
from parley.people.principals import Role
from parley.store import schema
from tests.hub.rooms import World, world_in

DIRECT = {"kind": ConversationKind.DIRECT}


async def say(world: World, place: str, text: str, **more: Any) -> str:
    """Somebody writes to us; what they are answered."""
    before = len(world.platforms.calls)
    await world.platforms.say(place, text, addressed=True, **more)
    await world.settled()
    return "\n".join(call.reply.text for call in world.platforms.calls[before:])


async def push(world: World, name: str = "Octo/App", topic: str = "push") -> list[str]:
    """Something happens in a repository; where it is told."""
    before = len(world.platforms.calls)
    await world.platforms.notice(topic, f"{topic} in {name}", data={"repository": name})
    await world.settled()
    return [f"{call.account}:{call.route.conversation}" for call in world.platforms.calls[before:]]


async def test_what_is_followed_is_told_here_until_it_is_followed_no_more(home: Path) -> None:
    async with world_in(home) as world:
        await world.person("ann", Role.USER)
        assert "octo/app" in await say(world, "slack:D1", "/follow octo/app", **DIRECT)
        assert await push(world) == ["slack:D1"]
        assert await push(world, "octo/other") == []
        assert await push(world, topic="issue.opened") == []
        assert await push(world, topic="pipeline.failed") == ["slack:D1"]
        assert await push(world, topic="pipeline.succeeded") == []
        assert "octo/app" in await say(world, "slack:D1", "/following", **DIRECT)
        assert "no repository" in await say(world, "slack:D2", "/following", **DIRECT)
    async with world_in(home) as world:
        assert await push(world) == ["slack:D1"]
        assert "no more" in await say(world, "slack:D1", "/unfollow octo/app", **DIRECT)
        assert await push(world) == []
        assert "does not follow" in await say(world, "slack:D1", "/unfollow octo/app", **DIRECT)
        actions = [row.action for row in await world.rows(schema.audit) if row.phase == "outcome"]
        assert [one for one in actions if "follow" in one] == ["follow", "unfollow"]


async def test_what_was_told_as_open_is_told_as_closed(home: Path) -> None:
    """A success is news where the failure was told, and nowhere else."""
    pipeline: dict[str, Any] = {"key": "octo/app pipeline CI main", "data": {"repository": "octo/app"}}
    async with world_in(home) as world:
        await world.person("ann", Role.USER)
        await say(world, "slack:D1", "/follow octo/app", **DIRECT)
        await say(world, "slack:D2", "/follow octo/app release", **DIRECT)

        async def told(topic: str, **more: Any) -> list[str]:
            before = len(world.platforms.calls)
            await world.platforms.notice(topic, topic, **pipeline, **more)
            await world.settled()
            return [call.route.conversation for call in world.platforms.calls[before:]]

        assert await told("pipeline.succeeded", closes=True) == []
        assert await told("pipeline.failed", severity="warning") == ["D1"]
        assert set(await told("pipeline.succeeded", closes=True)) == {"D1"}
        assert await told("pipeline.succeeded", closes=True) == []
        assert await told("pipeline.failed", severity="warning") == ["D1"]


async def test_what_is_followed_is_no_answer_to_the_command(home: Path) -> None:
    """A slash command's answer goes by a token that is good for minutes: what is told for months does not."""
    async with world_in(home) as world:
        await world.person("ann", Role.USER)
        await say(world, "slack:D1", "/follow octo/app", thread="t1", context={"token": "t"}, **DIRECT)
        assert await push(world) == ["slack:D1"]
        route = world.platforms.calls[-1].route
        assert (route.thread, route.context) == (None, {})


async def test_what_is_chosen_in_a_menu_is_followed_too(home: Path) -> None:
    async with world_in(home) as world:
        await world.person("ann", Role.OPERATOR)
        text = '/follow repository=octo/app events="release, ci"'
        assert "release, pipeline" in await say(world, "slack:C1", text)
        assert await push(world, topic="pipeline.cancelled") == ["slack:C1"]
        assert "no more" in await say(world, "slack:C1", "/unfollow repository=octo/app")
        (menu,) = world.platforms.menus[-1:]
        names = [entry.name for entry in menu.commands]
        assert {"follow", "unfollow", "following"} <= set(names)
        assert len(names) == len(set(names))


async def test_kinds_of_events_and_whole_owners(home: Path) -> None:
    async with world_in(home) as world:
        await world.person("ann", Role.OPERATOR)
        await say(world, "slack:C1", "/follow octo/* PRs,releases issues")
        assert await push(world, topic="pull_request.opened") == ["slack:C1"]
        assert await push(world, "octo/lib", topic="issue.closed") == ["slack:C1"]
        assert await push(world, "octo/lib") == []
        assert await push(world, "octopus/lib", topic="issue.closed") == []
        await say(world, "slack:C1", "/follow octo/app all")
        assert await push(world) == ["slack:C1"]
        # Both follows fit: it is told once.
        assert await push(world, topic="issue.closed") == ["slack:C1"]
        # Asked for again it is followed instead, not besides.
        await say(world, "slack:C1", "/follow octo/app release")
        assert await push(world) == []


@pytest.mark.parametrize(
    ("role", "more", "says"),
    [
        (Role.USER, {"kind": ConversationKind.CHANNEL}, "only operators"),
        (Role.NONE, DIRECT, "may not"),
        (Role.AUDITOR, DIRECT, "may not"),
    ],
)
async def test_who_may_not(home: Path, role: Role, more: dict[str, Any], says: str) -> None:
    async with world_in(home) as world:
        await world.person("ann", role)
        assert says in await say(world, "slack:X", "/follow octo/app", **more)
        assert await push(world) == []


async def test_who_may_no_longer_is_told_no_longer(home: Path) -> None:
    async with world_in(home) as world:
        ann = await world.person("ann", Role.OPERATOR)
        await say(world, "slack:D1", "/follow octo/app", **DIRECT)
        await say(world, "slack:C1", "/follow octo/app")
        assert await push(world) == ["slack:D1", "slack:C1"]
        await world.give_role("ann", Role.USER)
        assert await push(world) == ["slack:D1"], "a user decides nothing for a room"
        await world.give_role("ann", Role.NONE)
        assert await push(world) == []
        await world.give_role("ann", Role.OPERATOR)
        await world.hub.store.write(lambda conn: principals.disable(conn, ann.id))
        assert await push(world) == []
        await world.hub.store.write(lambda conn: principals.enable(conn, ann.id))
        assert await push(world) == ["slack:D1", "slack:C1"]


async def test_who_only_claims_to_be_somebody_changes_nothing(home: Path) -> None:
    async with world_in(home) as world:
        ann = await world.person("ann", Role.OWNER)
        await world.link_claimed(ann, "post", "ann@example.com")
        text = await say(
            world, "post:ann@example.com", "/follow octo/app", person="ann@example.com", claimed=True
        )
        assert "cannot prove" in text
        assert await world.rows(schema.follow) == []


@pytest.mark.parametrize(
    "text",
    ["/follow", "/follow app", "/follow octo/", "/follow ../..", "/follow octo/app nonsense", "/follow */*"],
)
async def test_what_cannot_be_followed_is_refused_with_how_to_write_it(home: Path, text: str) -> None:
    async with world_in(home) as world:
        await world.person("ann", Role.OWNER)
        answer = await say(world, "slack:D1", text, **DIRECT)
        assert "owner/name" in answer or "kind of event" in answer
        assert await world.rows(schema.follow) == []


async def test_it_is_said_when_no_forge_is_connected(home: Path) -> None:
    async with world_in(home, accounts={"slack": {"platform": "slack", "block": "b/slack"}}) as world:
        await world.person("ann", Role.OWNER)
        assert "connected" in await say(world, "slack:D1", "/follow octo/app", **DIRECT)


def test_names_of_repositories() -> None:
    assert repository("Octo/App.git") == "octo/app"
    assert repository("group/sub/project") == "group/sub/project"
    assert repository("octo/*") == "octo/*"
    for wrong in (
        "",
        "octo",
        "/app",
        "octo//app",
        "octo/a b",
        "*",
        "*/app",
        "a/" * 20 + "b",
        "x" * 300 + "/y",
        "octo/ä",
    ):
        assert repository(wrong) is None, wrong
