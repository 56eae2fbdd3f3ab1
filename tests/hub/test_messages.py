"""What a message leads to."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.link.calls import RunOrder, Started
from parley.messages.model import Reply, now
from parley.people.principals import link_identity
from parley.web.front import MessageView
from tests.hub.house import House, house_in, text_of
from tests.prefect_fixture import PrefectServer

pytestmark = pytest.mark.prefect


async def test_a_command_is_a_flow_run_and_its_result_the_answer(
    house: House, deployed: PrefectServer
) -> None:
    """The answer is the run's, and the run is in Prefect under our run's id."""
    view = await house.say("/look 7")
    assert (view.state, text_of(view)) == ("done", "ok")
    with deployed.client() as client:
        flow_run = client.get(f"/flow_runs/{view.flow_run_id}").raise_for_status().json()
    assert flow_run["idempotency_key"] == view.run_id
    assert flow_run["parameters"] == {"n": 7}
    assert {"parley", "command:look", "by:owner"} <= set(flow_run["tags"])


async def test_a_redelivered_message_runs_once(house: House) -> None:
    """The same native id gives the same message, and no second order."""
    first = await house.say("/look 7", native_id="key")
    second = await house.say("/look 7", native_id="key")
    assert first.id == second.id
    assert house.worker.orders.qsize() == 1


async def test_plain_language_runs_a_read(house: House) -> None:
    """An example sentence, in either language, runs a read automation with the value that it gives."""
    for text in ("look up 12", "查 12"):
        assert (await house.say(text)).state == "done"
        assert (await house.worker.next_order()).flow_run["parameters"] == {"n": 12}


async def test_plain_language_confirms_a_write(house: House) -> None:
    """What changes something is confirmed before it runs, and the confirmation's sender gets the outcome."""
    asked = await house.say("change web1")
    assert asked.state == "awaiting-approval"
    assert house.worker.orders.empty()
    confirmed = await house.say("yes")
    assert (confirmed.state, text_of(confirmed)) == ("done", "ok")
    assert (await house.worker.next_order()).flow_run["parameters"] == {"host": "web1"}


async def test_a_confirmation_can_be_declined(house: House) -> None:
    """No is no."""
    await house.say("修改 web2")
    await house.say("取消")
    assert (await house.say("yes")).state == "refused"
    assert house.worker.orders.empty()


async def test_a_button_confirms_just_its_own_request(house: House) -> None:
    """An older card's button does not run what a newer card asks about."""
    owner = await house.owner()
    older = await house.say("change web1")
    newer = await house.say("change web2")
    old_button = older.replies[-1].reply.buttons[0].value
    pressed = await house.outcome((await house.hub.front.press(owner, old_button)).id)
    assert house.worker.orders.empty(), text_of(pressed)
    button = newer.replies[-1].reply.buttons[0].value
    assert (await house.outcome((await house.hub.front.press(owner, button)).id)).state == "done"
    assert (await house.worker.next_order()).flow_run["parameters"] == {"host": "web2"}


async def test_a_stray_button_confirms_nothing(house: House) -> None:
    """A second click on an earlier question's "yes" is not a yes to what is asked now; typing it is."""
    await house.say("change web1")
    pressed = await house.hub.front.press(await house.owner(), "yes")
    assert "nothing" in text_of(await house.outcome(pressed.id)).lower()
    assert house.worker.orders.empty()
    assert (await house.say("yes")).state == "done"


async def test_what_is_missing_is_asked_for_over_a_restart(
    home: Path, deployed: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question and what is known so far outlive the hub; a wrong answer says what is allowed."""
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", deployed.environment["PREFECT_API_AUTH_STRING"])
    async with house_in(home, deployed) as house:
        assert (await house.say("/look")).state == "needs-input"
    async with house_in(home, deployed) as house:
        wrong = await house.say("many")
        assert "whole number" in text_of(wrong)
        assert (await house.say("5")).state == "done"
        assert (await house.worker.next_order()).flow_run["parameters"] == {"n": 5}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/lok 7", "/look"),
        ("/look x", "`n`"),
        ("/look 0", "at least 1"),
        ("/look 1 2", "one too many"),
        ("/look n=1 m=2", "no parameter `m`"),
        ("", "empty"),
        ("   ", "empty"),
        ("what is the meaning of life", "not understand"),
        ('/look "1', "never closed"),
        ("/change host=web9", "web1"),
    ],
)
async def test_errors_help(house: House, text: str, says: str) -> None:
    """Whatever is wrong is named with what is allowed, and nothing runs."""
    view = await house.say(text)
    assert view.state == "refused"
    assert says.lower() in text_of(view).lower()
    assert house.worker.orders.empty()


async def test_a_megabyte_of_text_gets_an_answer(house: House) -> None:
    """It is too long to be understood, and says so."""
    assert "too long" in text_of(await house.say("x" * 1_000_000))


async def test_an_old_message_is_too_late(house: House) -> None:
    """What was sent long ago is answered, not run."""
    owner = await house.owner()
    await house.hub.store.write(lambda conn: _link(conn, owner.id))
    message = await house.from_mail("/look 7", sent_at=now() - timedelta(days=2))
    assert "too old" in (await house.answers_to(message))[0]
    assert house.worker.orders.empty()


async def test_a_stranger_is_told_once_a_day(house: House) -> None:
    """Nobody whom we do not know may do anything, nor make us talk."""
    first, second = await house.from_mail("/look 7"), await house.from_mail("/look 7")
    told = await house.answers_to(first) + await house.answers_to(second)
    assert len(told) == 1
    assert "do not know you" in told[0]
    assert house.worker.orders.empty()


async def test_automatic_mail_is_never_answered(house: House) -> None:
    """Two machines must not talk to each other."""
    assert await house.answers_to(await house.from_mail("/look 7", automatic=True)) == []


async def test_a_claimed_sender_only_reads(house: House) -> None:
    """A mail's From proves nothing: it may look things up, and change nothing even for the owner."""
    owner = await house.owner()
    await house.hub.store.write(lambda conn: _link(conn, owner.id))
    refused = await house.from_mail("/change web1")
    assert "cannot prove who you are" in (await house.answers_to(refused))[0]
    await house.from_mail("/look 7")
    assert (await house.worker.next_order()).automation == "look"


async def test_an_automation_can_ask(house: House) -> None:
    """A question of a run is answered in its thread, typed; a wrong answer asks again."""
    schema = {"type": "object", "properties": {"size": {"type": "integer", "description": "Which size?"}}}

    async def ask(order: RunOrder, started: Started) -> dict[str, object]:
        call = {
            "token": started.token,
            "flow_run_id": order.flow_run_id,
            "run_id": started.run_id,
            "epoch": started.epoch,
            "ordinal": 1,
            "text": "One thing.",
            "json_schema": schema,
        }
        given = await house.worker.client.call("ask", call, timeout=None)
        return {"outcome": "done", "reply": Reply(text=f"size {given['size']}")}

    house.worker.answer = ask
    owner = await house.owner()
    asked = await house.hub.front.say(owner, "/look 1")
    async with house.hub.watch.on(asked.id) as changed:
        while "Which size?" not in text_of(await _now(house, asked.id)):
            await asyncio.wait_for(changed.wait(), 10)
            changed.clear()
    assert "whole number" in text_of(await house.say("large"))
    await house.say("42")
    assert text_of(await house.outcome(asked.id)).endswith("size 42")


async def test_a_button_answers_just_its_own_question(house: House) -> None:
    """A second click on a first question's "yes" is no answer to the next; nobody else's click is one either."""
    choice = {"type": "string", "enum": ["yes", "no way"]}
    schema = {"type": "object", "properties": {"stop": choice, "wipe": choice}}

    async def ask(order: RunOrder, started: Started) -> dict[str, object]:
        call = {
            "token": started.token,
            "flow_run_id": order.flow_run_id,
            "run_id": started.run_id,
            "epoch": started.epoch,
            "ordinal": 1,
            "text": "",
            "json_schema": schema,
        }
        given = await house.worker.client.call("ask", call, timeout=None)
        return {"outcome": "done", "reply": Reply(text=f"stop {given['stop']}, wipe {given['wipe']}")}

    house.worker.answer = ask
    owner, other = await house.owner(), await house.person("olga", "operator")
    asked = await house.hub.front.say(owner, "/look 1")
    async with house.hub.watch.on(asked.id) as changed:
        while not (await _now(house, asked.id)).replies:
            await asyncio.wait_for(changed.wait(), 10)
            changed.clear()
    stop = (await _now(house, asked.id)).replies[-1].reply.buttons
    assert [(button.label, button.code) for button in stop] == [("yes", "yes"), ("no way", "no way")]

    pressed = await house.outcome((await house.hub.front.press(other, stop[0].value)).id, other)
    assert "Only the person who asked" in text_of(pressed)
    following = await house.outcome((await house.hub.front.press(owner, stop[0].value)).id)
    wipe = following.replies[-1].reply.buttons
    again = await house.outcome((await house.hub.front.press(owner, stop[0].value)).id)
    assert "nothing" in text_of(again).lower()
    await house.hub.front.press(owner, wipe[1].value)
    assert text_of(await house.outcome(asked.id)).endswith("stop yes, wipe no way")


async def test_sealed_parameters_are_opened_only_for_the_run(house: House, deployed: PrefectServer) -> None:
    """Prefect sees a reference; the run that was granted its start gets the value."""
    seen: list[object] = []

    async def look(order: RunOrder, started: Started) -> dict[str, object]:
        seen.append(started.sealed)
        return {"outcome": "done", "reply": Reply(text="ok")}

    house.worker.answer = look
    view = await house.say("/secret hunter2")
    assert seen == [{"word": "hunter2"}]
    with deployed.client() as client:
        assert "hunter2" not in client.get(f"/flow_runs/{view.flow_run_id}").text
    assert b"hunter2" not in b"".join(
        path.read_bytes() for path in house.hub.settings.home.glob("parley.db*")
    )


async def test_a_full_house_of_messages_keeps_their_order(house: House) -> None:
    """Messages of one conversation are handled in the order of their arrival."""
    owner = await house.owner()
    ids = [(await house.hub.front.say(owner, f"/look {n}")).id for n in range(1, 21)]
    outcomes = [await house.outcome(identity) for identity in ids]
    assert {(one.state, one.reason) for one in outcomes} == {("done", None)}
    got = [(await house.worker.next_order()).flow_run["parameters"]["n"] for _ in ids]
    assert sorted(got) == list(range(1, 21))


async def _now(house: House, message_id: str) -> MessageView:
    view = await house.hub.front.message(await house.owner(), message_id)
    assert view is not None
    return view


async def _link(conn: AsyncConnection, owner_id: str) -> None:
    await link_identity(conn, owner_id, "post", "bob@example.com")
