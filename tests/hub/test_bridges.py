"""Bridges in a living hub: rooms on several platforms are one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parley.messages.model import File
from parley.people.principals import Role
from parley.store import schema
from tests.fakes._driver import eventually
from tests.hub.rooms import World, world_in

DEV: dict[str, Any] = {"name": "dev", "rooms": ["slack:C1", "chat:R1", "post:dev@example.org"]}
PAIR: dict[str, Any] = {"name": "pair", "rooms": ["slack:C1", "chat:R1"]}


def native_of(world: World, account: str, at: int = -1) -> str:
    """The native id of something that was sent on this account."""
    call = [one for one in world.platforms.calls if one.account == account and not one.edits][at]
    return world.platforms.ids[call.token]


async def test_what_is_said_in_one_room_appears_in_the_others_with_the_name(home: Path) -> None:
    async with world_in(home, bridges=[DEV]) as world:
        file = File(name="a.txt", content=b"x")
        await world.platforms.say("slack:C1", "hello", files=(file,))
        await world.settled()
        assert world.platforms.texts("slack") == []
        assert world.platforms.texts("chat", "R1") == ["**Ann**: hello"]
        assert world.platforms.texts("post", "dev@example.org") == ["**Ann**: hello"]
        assert all(call.reply.files == (file,) for call in world.platforms.calls)
        await world.platforms.say("chat:R1", "hello back", person="bob")
        await world.settled()
        assert world.platforms.texts("slack", "C1") == ["**Bob**: hello back"]


async def test_threads_meet_from_both_sides(home: Path) -> None:
    async with world_in(home, bridges=[PAIR]) as world:
        origin = await world.platforms.say("slack:C1", "who knows?")
        await world.settled()
        copy = native_of(world, "chat")
        # A reply under the copy reaches the original's own thread, and one under the original that of the copy.
        await world.platforms.say("chat:R1", "I do", person="bob", thread=copy, addressed=True)
        await world.settled()
        assert world.platforms.texts("slack") == [f"under {origin}: **Bob**: I do"]
        await world.platforms.say("slack:C1", "tell", thread=origin)
        await world.settled()
        assert world.platforms.texts("chat")[1:] == [f"under {copy}: **Ann**: tell"]
        # Nobody was answered that they were not understood, or are not known.
        assert len(world.platforms.calls) == 3


async def test_a_reply_before_its_copy_arrived_finds_the_thread(home: Path) -> None:
    async with world_in(home, holding=False, bridges=[PAIR]) as world:
        origin = await world.platforms.say("slack:C1", "one")
        await world.platforms.say("slack:C1", "two", thread=origin)
        await world.hub.intake_is_empty()
        world.platforms.held.set()
        await world.settled()
        copy = native_of(world, "chat", 0)
        assert world.platforms.texts("chat") == ["**Ann**: one", f"under {copy}: **Ann**: two"]


async def test_a_change_is_a_change_there_too(home: Path) -> None:
    async with world_in(home, bridges=[DEV]) as world:
        origin = await world.platforms.say("slack:C1", "helo")
        await world.settled()
        copy = native_of(world, "chat")
        await world.platforms.change("slack:C1", origin, "hello")
        await world.settled()
        assert world.platforms.texts("chat") == ["**Ann**: helo", f"edit {copy}: **Ann**: hello"]
        assert world.platforms.texts("post") == ["**Ann**: helo"], "a mail cannot be changed"


async def test_a_ring_of_bridges_ends(home: Path) -> None:
    ring = [
        {"name": "ab", "rooms": ["slack:A", "chat:B"]},
        {"name": "bc", "rooms": ["chat:B", "third:C"]},
        {"name": "ca", "rooms": ["third:C", "slack:A"]},
    ]
    async with world_in(home, bridges=ring) as world:
        await world.platforms.say("slack:A", "once")
        await world.settled()
        assert world.platforms.texts() == ["**Ann**: once"] * 2
        # A platform that tells us of our own copies, as if a person had written them, starts nothing.
        for call in list(world.platforms.calls):
            place = f"{call.account}:{call.route.conversation}"
            native = world.platforms.ids[call.token]
            await world.platforms.say(place, call.reply.text, person="parley", native_id=native)
        await world.settled()
        assert len(world.platforms.calls) == 2


async def test_a_very_long_text_floods_no_room_and_takes_nothing_from_the_next_one(home: Path) -> None:
    three = {"name": "three", "rooms": ["slack:C1", "chat:R1", "third:R2"]}
    async with world_in(home, bridges=[three]) as world:
        await world.platforms.say("slack:C1", "word " * 90_000)
        await world.settled()
        for account in ("chat", "third"):
            parts = world.platforms.texts(account)
            assert 5 <= len(parts) <= 7
            assert parts[0].startswith("**Ann**: word word")
            assert parts[-1].endswith("(430,000 characters more)")


async def test_bots_are_not_carried(home: Path) -> None:
    async with world_in(
        home, bridges=[PAIR, {"name": "b", "rooms": ["slack:C2", "chat:R2"], "bots": True}]
    ) as world:
        await world.platforms.say("slack:C1", "beep", bot=True)
        await world.platforms.say("slack:C2", "boop", bot=True)
        await world.settled()
        assert world.platforms.texts() == ["**Ann**: boop"]


async def test_too_much_stops_the_bridge_and_the_people_on_duty_are_told_once(home: Path) -> None:
    async with world_in(home, bridges=[{**PAIR, "per_minute": 3}]) as world:
        for n in range(8):
            await world.platforms.say("slack:C1", str(n))
        await world.settled()
        assert len(world.platforms.texts("chat")) == 3
        notes = await world.rows(schema.delivery, account="console")
        assert ["bridge pair" in world.hub.outbox.opened(row).reply.text for row in notes] == [True]


async def test_what_is_said_to_us_stays_here_and_commands_work_in_carried_threads(home: Path) -> None:
    async with world_in(home, bridges=[PAIR]) as world:
        await world.person("ann", Role.OPERATOR)
        await world.platforms.say("slack:C1", "/whoami", addressed=True)
        await world.settled()
        assert world.platforms.texts("chat") == []
        assert "ann (operator)" in world.platforms.texts("slack")[0]
        origin = await world.platforms.say("slack:C1", "hello")
        await world.platforms.say("slack:C1", "/whoami", thread=origin, addressed=True)
        await world.settled()
        assert world.platforms.texts("chat") == ["**Ann**: hello"]
        assert "ann (operator)" in world.platforms.texts("slack")[1]


async def test_an_answer_to_our_question_in_a_carried_thread_is_an_answer(home: Path) -> None:
    async with world_in(home, bridges=[PAIR]) as world:
        await world.person("ann", Role.OPERATOR)
        origin = await world.platforms.say("slack:C1", "hello")
        await world.platforms.say("slack:C1", "/look", thread=origin, addressed=True)
        await world.settled()
        await world.platforms.say("slack:C1", "7", thread=origin, addressed=True)
        await world.settled()
        assert world.platforms.texts("chat") == ["**Ann**: hello"]
        assert [row.state for row in await world.rows(schema.request)] == ["queued"]


async def test_what_nobody_wants_is_not_even_stored(home: Path) -> None:
    async with world_in(home, bridges=[PAIR], routes=[{"from": "message.third", "to": "slack:C9"}]) as world:
        for _ in range(2):
            await world.platforms.say("slack:C7", "said to others", native_id="same")
        assert await world.rows(schema.message) == []
        await world.platforms.say("third:X", "one way")
        await world.settled()
        assert world.platforms.texts() == ["**Ann**: one way"]
        await world.platforms.say("slack:C9", "no way back")
        await world.settled()
        assert len(world.platforms.calls) == 1


async def test_what_was_not_carried_yet_is_carried_after_a_restart(home: Path) -> None:
    async with world_in(home, holding=False, bridges=[PAIR]) as world:
        await world.platforms.say("slack:C1", "before")
        await world.hub.intake_is_empty()
    async with world_in(home, bridges=[PAIR]) as world:
        await world.settled()
        assert world.platforms.texts() == ["**Ann**: before"]


async def test_a_bridge_is_taken_up_from_a_changed_file(home: Path) -> None:
    async with world_in(home) as world:
        await world.platforms.say("slack:C1", "nobody hears")
        old = world.hub.file
        new = old.model_copy(update={"bridges": type(old).model_validate({"bridges": [PAIR]}).bridges})
        world.hub.configuration.file = new
        await world.hub._file_changed(old, new)
        await world.platforms.say("slack:C1", "somebody hears")
        await eventually(lambda: world.platforms.texts() == ["**Ann**: somebody hears"], "carried")
