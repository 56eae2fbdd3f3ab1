"""Which rooms a message reaches, and when a bridge stands still."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from parley.messages.bridges import STOPPED_FOR, Bridges
from parley.messages.carrying import copy_of
from parley.messages.model import ConversationKind, Message, Route, Sender
from parley.settings import Bridge

AT = datetime(2026, 1, 1, tzinfo=UTC)
ROOMS = st.sampled_from([f"a:{n}" for n in range(8)])


def bridge(*rooms: str, name: str = "b", **more: object) -> Bridge:
    return Bridge.model_validate({"name": name, "rooms": rooms, **more})


@given(st.lists(st.lists(ROOMS, min_size=2, max_size=4, unique=True), max_size=6), ROOMS)
def test_every_room_that_is_joined_is_reached_once_and_never_the_first(
    joined: list[list[str]], room: str
) -> None:
    bridges = Bridges([bridge(*rooms, name=str(n)) for n, rooms in enumerate(joined)])
    reached = bridges.cross(room, AT).rooms
    known = {room}
    while grown := {r for rooms in joined if known & set(rooms) for r in rooms} - known:
        known |= grown
    assert len(set(reached)) == len(reached)
    assert set(reached) == known - {room}


def test_too_much_in_a_minute_stops_the_bridge_and_says_so_once() -> None:
    bridges = Bridges([bridge("a:1", "a:2", per_minute=3)])
    crossings = [bridges.cross("a:1", AT + timedelta(seconds=n)) for n in range(6)]
    assert [bool(one.rooms) for one in crossings] == [True, True, True, False, False, False]
    assert [one.stopped for one in crossings] == [(), (), (), ("b",), (), ()]
    assert bridges.cross("a:2", AT).rooms == ("a:1",), "the other direction goes on"
    assert bridges.cross("a:1", AT + timedelta(seconds=3) + STOPPED_FOR).rooms == ("a:2",)


def test_a_steady_pace_below_the_limit_is_never_stopped() -> None:
    bridges = Bridges([bridge("a:1", "a:2", per_minute=3)])
    for n in range(200):
        assert bridges.cross("a:1", AT + timedelta(seconds=21 * n)).rooms


def test_a_clock_that_is_set_back_stops_no_bridge() -> None:
    bridges = Bridges([bridge("a:1", "a:2", per_minute=3)])
    for n in range(4):
        bridges.cross("a:1", AT + timedelta(seconds=n))
    earlier = AT - timedelta(hours=1)
    for n in range(200):
        assert bridges.cross("a:1", earlier + timedelta(seconds=21 * n)).rooms


def test_other_bots_are_carried_only_where_that_is_wanted() -> None:
    bridges = Bridges([bridge("a:1", "a:2", name="x"), bridge("a:1", "a:3", name="y", bots=True)])
    assert bridges.cross("a:1", AT, bot=True).rooms == ("a:3",)


def said(text: str, name: str = "Ann") -> Message:
    route = Route(account="a", conversation="1", kind=ConversationKind.CHANNEL)
    return Message(account="a", native_id="1", sender=Sender(id="u1", name=name), route=route, text=text)


def test_a_name_cannot_write_markup_and_nobody_rings_everybody() -> None:
    copy = copy_of(said("@everyone @here hi @annabel @所有人", name="**Boss**\n@channel [x](http://y)"))
    name, _, text = copy.text.partition("**: ")
    assert "*" not in name[2:]
    assert "\n" not in name
    assert "@channel" not in name
    assert "@everyone" not in text
    assert "@here" not in text
    assert "@所有人" not in text
    assert "@annabel" in text


def test_somebody_without_a_name_has_an_id() -> None:
    assert copy_of(said("hi", name="")).text == "**u1**: hi"
