"""What could not be delivered, handled or begun: people are told, and a person does it again, once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from parley.errors import BadArguments, Denied, NeedsConfirmation, ParleyError, Rejected, Unknown
from parley.language.understanding import Understander
from parley.link.calls import DeliverCall
from parley.messages.model import ConversationKind, now
from parley.people import tokens
from parley.people.principals import Principal, Role
from parley.people.tokens import TokenKind
from parley.runs import dead_letters
from parley.settings import Limits
from parley.store import schema
from parley.web.client import AsyncClient, NotThere
from tests.fakes._driver import eventually
from tests.hub.rooms import World, world_in

DUTY: dict[str, Any] = {"duty": {"conversations": ("chat:duty",)}}


async def rest(world: World, who: Principal | None = None) -> AsyncClient:
    """The REST API as this person; the owner by default."""
    holder = who.id if who else world.hub.owner_id
    secret = await world.hub.store.write(
        lambda conn: tokens.issue(conn, holder, TokenKind.BEARER, "test", timedelta(days=1))
    )
    return AsyncClient(f"http://127.0.0.1:{world.hub.settings.port}", secret, patience=5)


async def ask(world: World, text: str, **more: Any) -> str:
    """Ann writes it to the assistant."""
    return await world.platforms.say("slack:D1", text, kind=ConversationKind.DIRECT, addressed=True, **more)


def fails_at(conversation: str, error: ParleyError, only: str = "") -> object:
    def fail(call: DeliverCall) -> ParleyError | None:
        return error if call.route.conversation == conversation and only in call.reply.text else None

    return fail


async def test_a_dead_answer_is_told_to_who_asked_and_on_duty_and_sent_again(home: Path) -> None:
    async with world_in(home, **DUTY) as world:
        await world.person("ann", Role.OPERATOR)
        world.platforms.fails = fails_at("D1", Rejected("not in this channel"), "/help")  # type: ignore[assignment]
        await ask(world, "/help")
        await world.settled()
        (told,) = world.platforms.texts("slack", "D1")
        assert "An answer to you could not be delivered on slack" in told
        (on_duty,) = [call.reply for call in world.platforms.calls if call.account == "chat"]
        assert "could not be delivered" in on_duty.text
        assert [button.label for button in on_duty.buttons] == ["Send again", "Close"]

        world.platforms.fails = lambda _call: None
        (row,) = await world.rows(schema.delivery, state="dead")
        client = await rest(world)
        async with client:
            (letter,) = [one async for one in client.dead_letters()]
            assert (letter.kind, letter.doubtful, letter.actor) == ("delivery", False, "ann")
            assert (await client.dead_letter(letter.id)).facts["place"] == "slack:D1"
            assert (await client.replay(letter.id)).state == "replayed"
            with pytest.raises(BadArguments, match="owner has done this again"):
                await client.replay(letter.id)
            assert [one async for one in client.dead_letters()] == []
            with pytest.raises(NotThere):
                await client.discard("00000000")
        await world.settled()
        (again,) = [call for call in world.platforms.calls if "/help" in call.reply.text]
        assert (again.token, again.route.conversation) == (row.token, "D1")
        assert (await world.hub.vitals.status())["queue"]["dead_letters"] == 0


async def test_one_that_may_have_arrived_wants_a_second_word(home: Path) -> None:
    async with world_in(home, **DUTY) as world:
        ann = await world.person("ann", Role.OPERATOR)
        uma = await world.person("uma", Role.USER)
        world.platforms.fails = fails_at("D1", Unknown("no answer"), "/help")  # type: ignore[assignment]
        await ask(world, "/help")
        await eventually(lambda: world.platforms.texts("slack", "D1"), "ann is told", 20)
        assert "may not have arrived" in world.platforms.texts("slack", "D1")[0]
        world.platforms.fails = lambda _call: None
        async with await rest(world, uma) as client:
            with pytest.raises(Denied):
                _ = [one async for one in client.dead_letters()]
        async with await rest(world, ann) as client:
            (letter,) = [one async for one in client.dead_letters("delivery")]
            with pytest.raises(NeedsConfirmation, match="may have arrived"):
                await client.replay(letter.id)
            await client.replay(letter.id, confirm=True)
        await world.settled()
        assert sum("/help" in call.reply.text for call in world.platforms.calls) == 1
        assert await world.hub.admin.run("dead_letters", {}) == []
        (kept,) = await world.hub.admin.run("dead_letters", {"settled": True})
        assert (kept["state"], kept["settled_by"]) == ("replayed", "ann")


class Broken:
    """An understanding that fails."""

    def understand(self, *_: object) -> object:
        raise RuntimeError("broken")


async def test_a_message_that_could_not_be_handled_is_handled_again(home: Path) -> None:
    async with world_in(home, **DUTY) as world:
        await world.person("ann", Role.OPERATOR)
        world.hub.understander = Broken()  # type: ignore[assignment]
        await ask(world, "look up 7")
        await world.settled()
        assert "went wrong" in world.platforms.texts("slack", "D1")[0]
        (letter,) = await world.hub.admin.run("dead_letters", {})
        assert (letter["kind"], letter["account"]) == ("message", "slack")
        assert "RuntimeError" in letter["reason"]
        assert "look up" not in str(await world.hub.admin.run("dead_letter", {"identifier": letter["id"]}))

        await world.hub.admin.run("dead_letter_replay", {"identifier": letter["code"]})
        await eventually(lambda: len(world.platforms.texts("slack", "D1")) == 2, "broken as before")
        (letter,) = await world.hub.admin.run("dead_letters", {})  # open again, the same one

        world.hub.understander = Understander(world.hub.catalogue)
        await world.hub.admin.run("dead_letter_replay", {"identifier": letter["code"]})
        await world.hub.backlog.take_up()
        await world.settled()
        assert [row.automation for row in await world.rows(schema.request)] == ["look"]
        with pytest.raises(BadArguments, match="already"):
            await world.hub.admin.run("dead_letter_replay", {"identifier": letter["code"]})
        assert [row.automation for row in await world.rows(schema.request)] == ["look"]


async def test_a_message_that_came_too_late_is_answered_kept_and_may_be_handled_after_all(home: Path) -> None:
    async with world_in(home, **DUTY) as world:
        await world.person("ann", Role.OPERATOR)
        await ask(world, "/look 7", sent_at=now() - timedelta(hours=9))
        await world.settled()
        assert "too old" in world.platforms.texts("slack", "D1")[0]
        (letter,) = await world.hub.admin.run("dead_letters", {"kind": "expired"})
        await world.hub.admin.run("dead_letter_replay", {"identifier": letter["id"]})
        await world.hub.backlog.take_up()
        await world.settled()
        assert [row.state for row in await world.rows(schema.request)] == ["queued"]
        assert len(world.platforms.texts("slack", "D1")) == 1


async def test_what_waits_beyond_its_time_is_answered_counted_and_may_run_after_all(home: Path) -> None:
    """Prefect is away for longer than a message may wait."""
    async with world_in(home, limits=Limits(message_age=3), **DUTY) as world:
        await world.person("ann", Role.OPERATOR)
        await ask(world, "/change web1")
        await eventually(lambda: world.platforms.texts("slack", "D1"), "ann is told", 20)
        assert "its time was over before it could start" in world.platforms.texts("slack", "D1")[0]
        (request,) = await world.rows(schema.request)
        assert (request.state, request.reason) == ("expired", "its time was over before it could start")
        assert await world.hub.store.read(dead_letters.counts) == {
            "message": 0,
            "run": 0,
            "delivery": 0,
            "expired": 1,
        }
        assert not world.hub.dispatcher.in_flight
        assert sum(world.hub.dispatcher.queue_sizes().values()) == 0
        assert b'ai_assistant_requests_total{command="change",outcome="expired"' in world.hub.metrics.text()
        (letter,) = await world.hub.admin.run("dead_letters", {})
        assert not letter["doubtful"]
        await world.hub.admin.run("dead_letter_replay", {"identifier": letter["id"]})
        (request,) = await world.rows(schema.request)
        assert request.state == "queued"
        assert sum(world.hub.dispatcher.queue_sizes().values()) + len(world.hub.dispatcher.in_flight) == 1
        # Told once more when its time is over once more: it is another end.
        await eventually(lambda: len(world.platforms.texts("slack", "D1")) == 2, "ann is told again", 20)
