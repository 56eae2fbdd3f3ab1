"""A mailbox that answers each mail by itself, and says so in no header, is not answered for ever."""

from __future__ import annotations

from pathlib import Path

from parley.language.mail_loops import ANSWERED, MISUNDERSTOOD
from parley.messages.model import ConversationKind
from parley.people.principals import Role
from parley.store import schema
from tests.hub.rooms import World, world_in

BOB = "bob@example.org"


async def mailed(world: World, text: str) -> list[str]:
    """What bob's mail is answered."""
    before = len(world.platforms.calls)
    await world.platforms.say(f"post:{BOB}", text, person=BOB, kind=ConversationKind.MAIL, addressed=True)
    await world.settled()
    return [call.reply.text for call in world.platforms.calls[before:]]


async def known(world: World) -> None:
    await world.link_claimed(await world.person("bob", Role.USER), "post", BOB)


async def until_silent(world: World, text: str) -> int:
    """The mailbox answers each answer with this; how often it was answered."""
    answers = 0
    while answers < 50 and await mailed(world, text.format(answers)):
        answers += 1
    return answers


async def test_the_same_words_are_answered_twice_and_run_nothing_after_that(home: Path) -> None:
    async with world_in(home) as world:
        await known(world)
        assert await until_silent(world, "Thank you, I am away. Somebody will look up 5.") == 2
        assert await mailed(world, "/help"), "a command is no loop"
        assert not await mailed(world, "Thank you, I am away. Somebody will look up 5.")
        (*_, message) = await world.rows(schema.message)
        assert message.reason == "mail that comes again and again is not answered"


async def test_a_mailbox_that_never_says_the_same_stops_too(home: Path) -> None:
    async with world_in(home) as world:
        await known(world)
        assert await until_silent(world, "Qwertz uiop {0} asdf ghjk.") == MISUNDERSTOOD
        assert await until_silent(world, "look up 1{0}") <= ANSWERED
        for _ in range(3):
            assert await mailed(world, "/help")


async def test_chat_is_not_mail(home: Path) -> None:
    async with world_in(home) as world:
        await world.person("ann", Role.USER)
        for _ in range(MISUNDERSTOOD + 2):
            before = len(world.platforms.calls)
            await world.platforms.say("slack:D-ann", "qwertz", kind=ConversationKind.DIRECT, addressed=True)
            await world.settled()
            assert len(world.platforms.calls) > before
