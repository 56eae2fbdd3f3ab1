"""Runs whose process died: nobody starts them again but a person, who is asked once, and does it once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from parley.link.calls import RunOrder
from parley.messages.model import Button, Reply
from parley.people.principals import Principal
from parley.processes import views
from parley.runs import dead_letters
from parley.settings import Duty
from parley.web.front import MessageView
from tests.hub.house import House, house_in, text_of
from tests.prefect_fixture import PrefectServer

pytestmark = pytest.mark.prefect


async def interrupted(house: House, text: str, who: Principal | None = None) -> MessageView:
    """Somebody asks for something, and its process dies in the middle."""
    house.worker.manual = True
    asked = await house.hub.front.say(who or await house.owner(), text)
    order = await house.worker.next_order()
    await house.worker.start(order)
    await house.worker.ended(order.flow_run_id, "crashed")
    return await house.outcome(asked.id, who)


async def duty(house: House, name: str = "duty") -> list[Reply]:
    """What the people on duty were told, oldest first."""
    rows = await house.hub.store.read(
        lambda conn: views.history(conn, house.hub.keyring, "console", name, 50)
    )
    return [row["reply"] for row in rows if row["who"] == "parley"]


async def press(house: House, button: Button, who: Principal | None = None) -> MessageView:
    """Somebody presses a button."""
    person = who or await house.owner()
    accepted = await house.hub.front.press(person, button.value)
    return await house.outcome(accepted.id, person)


def listed(view: MessageView) -> list[list[str]]:
    """The rows of a table as the console shows it, word by word."""
    lines = [line.split() for line in text_of(view).splitlines()]
    return [words for words in lines if words and re.fullmatch(r"[0-9a-f]{8}", words[0])]


async def open_ones(house: House) -> dict[str, int]:
    return await house.hub.store.read(dead_letters.counts)


async def test_the_people_on_duty_are_asked_once_and_run_it_again_once(house: House) -> None:
    view = await interrupted(house, "/change web1")
    assert (view.state, len(view.replies)) == ("failed", 1)
    assert "interrupted" in text_of(view)
    (asked,) = await duty(house)
    assert "may have had effects" in asked.text
    assert [button.label for button in asked.buttons] == ["Run again", "Close"]
    assert house.worker.orders.empty()
    assert await open_ones(house) == {"message": 0, "run": 1, "delivery": 0, "expired": 0}

    otto = await house.person("otto", "operator")
    assert "run again" in text_of(await press(house, asked.buttons[0], otto))
    order = await house.worker.next_order()
    assert order.flow_run_id != view.flow_run_id
    await house.worker.carry_out(order)
    again = await house.outcome(view.id)
    assert again.state == "done"
    assert text_of(again).endswith("\nok")
    assert "otto has done this again already" in text_of(await press(house, asked.buttons[0]))
    assert "otto has done this again already" in text_of(await press(house, asked.buttons[1]))
    assert house.worker.orders.empty()
    assert len(await duty(house)) == 1
    assert (await open_ones(house))["run"] == 0
    trail = await house.hub.admin.run("audit_show", {})
    assert [
        (row["action"], row["phase"], row["actor"]) for row in trail if row["actor"] != "command line"
    ] == [
        ("run:change", "intent", "owner"),
        ("run:change", "outcome", "owner"),
        ("dead-letter-replayed", "intent", "otto"),
        ("dead-letter-replayed", "outcome", "otto"),
        ("run:change", "intent", "owner"),
        ("run:change", "outcome", "owner"),
    ]


async def test_one_that_dies_again_is_asked_about_again(house: House) -> None:
    await interrupted(house, "/change web1")
    (first,) = await duty(house)
    await press(house, first.buttons[0])
    order = await house.worker.next_order()
    await house.worker.start(order)
    await house.worker.ended(order.flow_run_id, "crashed")
    asked = await duty(house)
    assert len(asked) == 2
    assert asked[1].buttons[0].value != first.buttons[0].value
    await press(house, asked[1].buttons[0])
    await house.worker.carry_out(await house.worker.next_order())


async def test_an_effect_is_confirmed_and_a_look_is_not(house: House) -> None:
    await interrupted(house, "/change web1")
    await interrupted(house, "/look 1")
    changed, looked = await duty(house)
    assert "may have had effects" not in looked.text
    code = changed.buttons[0].value.split()[2]
    asked = await house.say(f"/dlq replay {code}")
    assert "Look first" in text_of(asked)
    assert house.worker.orders.empty()
    assert asked.replies[0].reply.buttons[0].value == changed.buttons[0].value
    code = looked.buttons[0].value.split()[2]
    assert "run again" in text_of(await house.say(f"/dlq replay {code}"))
    assert (await house.worker.next_order()).automation == "look"


async def test_it_is_closed_and_the_record_stays(house: House) -> None:
    await interrupted(house, "/look 1")
    (asked,) = await duty(house)
    assert "Closed" in text_of(await press(house, asked.buttons[1]))
    assert "no dead letters" in text_of(await house.say("/dlq"))
    (row,) = listed(await house.say("/dlq list all"))
    assert row[1:5] == ["run", "/look", "owner", "discarded"]
    shown = text_of(await house.say(f"/dlq show {row[0]}"))
    assert "/look n=1" in shown
    assert "**by**: owner" in shown


async def test_who_may_do_what(house: House) -> None:
    """Operators look and decide; nobody runs again what they may not run themselves; users see nothing."""
    await interrupted(house, "/change web1")
    (asked,) = await duty(house)
    user = await house.person("uma", "user")
    operator = await house.person("otto", "operator", automations=["look"])
    auditor = await house.person("aud", "auditor")
    for verb in ("/dlq", asked.buttons[0].value, asked.buttons[1].value):
        assert "for the owner and operators" in text_of(await house.say(verb, user))
    assert len(listed(await house.say("/dlq list", auditor))) == 1
    assert "for the owner and operators" in text_of(await press(house, asked.buttons[1], auditor))
    assert "not among the automations" in text_of(await press(house, asked.buttons[0], operator))
    spoken = await house.hub.front.say(await house.owner(), asked.buttons[0].value, acting_as="otto")
    await house.hub.intake_is_empty()
    view = await house.hub.front.message(operator, spoken.id)
    assert view is not None
    assert "for the owner and operators" in text_of(view)
    assert (await open_ones(house))["run"] == 1
    assert "run again" in text_of(await press(house, asked.buttons[0]))
    await house.worker.carry_out(await house.worker.next_order())


async def test_what_was_approved_for_one_run_is_not_run_again(house: House) -> None:
    house.worker.manual = True
    asked = await house.say("/harm")
    await house.approve(asked)
    order = await house.worker.next_order()
    await house.worker.start(order)
    await house.worker.ended(order.flow_run_id, "crashed")
    assert (await house.outcome(asked.id)).state == "failed"
    (told,) = await duty(house)
    assert "was for one run" in text_of(await press(house, told.buttons[0]))
    assert house.worker.orders.empty()
    assert (await open_ones(house))["run"] == 1


async def test_a_right_that_is_gone_meanwhile_stops_the_start(house: House) -> None:
    """It runs with the rights of who asked, looked at anew, not with those of who runs it again."""
    otto = await house.person("otto", "operator")
    view = await interrupted(house, "/change web1", otto)
    await house.hub.admin.run("person_role", {"name": "otto", "role": "user"})
    (asked,) = await duty(house)
    await press(house, asked.buttons[0])
    order: RunOrder = await house.worker.next_order()
    with pytest.raises(Exception, match="look things up"):
        await house.worker.start(order)
    assert (await house.outcome(view.id, otto)).state == "refused"


async def test_where_the_people_on_duty_are_those_who_asked_it_is_said_once(
    home: Path, deployed: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", deployed.environment["PREFECT_API_AUTH_STRING"])
    async with house_in(home, deployed) as house:
        house.hub.configuration.file = house.hub.file.model_copy(
            update={"duty": Duty(conversations=("console:owner",))}
        )
        view = await interrupted(house, "/change web1")
        (said,) = await duty(house, "owner")
        assert said.buttons
        assert text_of(view) == said.text
        house.worker.manual = False

        async def fails(*_: object) -> dict[str, str]:
            return {"outcome": "failed", "reason": "it broke", "kind": "error"}

        house.worker.answer = fails
        again = await house.say("/change web2")
        assert len(await duty(house, "owner")) == 2
        assert "failed 2 times in a row" in text_of(again)
        assert "/ack change" in text_of(again)


async def test_what_could_not_be_started_is_kept_too(house: House) -> None:
    house.worker.manual = True
    asked = await house.hub.front.say(await house.owner(), "/look 1")
    for _ in range(5):
        order = await house.worker.next_order()
        await house.worker.ended(order.flow_run_id, "crashed", "no memory")
    view = await house.outcome(asked.id)
    assert view.state == "failed"
    (row,) = listed(await house.say("/dlq list run"))
    assert row[-2:] == ["no", "memory"]
    await house.say(f"/dlq replay {row[0]}")
    await house.worker.carry_out(await house.worker.next_order())
    assert text_of(await house.outcome(asked.id)).endswith("ok")
