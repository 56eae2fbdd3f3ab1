"""Which routes take an event, for any routes and any topics; what of parley.toml is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.errors import ConfigurationError
from parley.messages.filters import MAX_VALUE, Template
from parley.messages.model import ConversationKind, Message, Route, Sender
from parley.messages.published import Published, of_message
from parley.messages.routes import Routes, places_of
from parley.messages.topics import Pattern
from parley.runs.catalogue import Catalogue
from parley.settings import File, read_file

WORDS = st.sampled_from(["forge", "push", "run", "x"])
TOPICS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from(["*", "#"])), min_size=1, max_size=4).map(".".join)


@given(st.lists(st.lists(PATTERNS, min_size=1, max_size=3), max_size=8), TOPICS)
def test_an_event_goes_wherever_a_pattern_matches_in_the_order_of_the_file(
    listed: list[list[str]], topic: str
) -> None:
    file = File.model_validate({"routes": [{"from": one, "to": f"a:{n}"} for n, one in enumerate(listed)]})
    routes = Routes(file, Catalogue())
    wanted = [f"a:{n}" for n, one in enumerate(listed) if any(Pattern(p).matches(topic) for p in one)]
    event = Published(source="s", topic=topic, account="forge")
    assert list(routes.for_event(event).places) == wanted
    assert routes.may_take(topic) == bool(wanted)


def test_an_events_own_fields_come_before_those_of_its_data() -> None:
    route = {"from": "#", "where": {"account": "forge", "title": "real"}, "to": "a:1"}
    routes = Routes(File.model_validate({"routes": [route]}), Catalogue())
    forged = {"account": "forge", "title": "real", "topic": "x"}
    event = Published(source="s", topic="a", account="other", title="other", data=forged)
    assert not routes.for_event(event).places


def test_what_bots_say_is_taken_only_where_that_is_wanted_and_notices_always() -> None:
    routes = [{"from": "#", "to": "a:1"}, {"from": "#", "to": "a:2", "bots": True}]
    taken = Routes(File.model_validate({"routes": routes}), Catalogue())
    said = Published(source="s", topic="message.slack", account="slack", data={"bot": True})
    assert taken.for_event(said).places == ("a:2",)
    notice = Published(source="s", topic="forge.push", account="forge", data={"bot": True})
    assert taken.for_event(notice).places == ("a:1", "a:2")


def test_what_was_said_in_private_goes_only_where_a_route_means_that() -> None:
    routes = [
        {"from": "#", "to": "a:1", "run": "note"},
        {"from": "message.*", "where": {"name": "*"}, "to": "a:2"},
        {"from": "message.*", "where": {"kind": ["direct", "mail"]}, "to": "a:3"},
        {"from": "message.*", "where": {"conversation": "D1"}, "to": "a:4"},
        {"from": "message.*", "where": {"private": True}, "to": "a:5"},
    ]
    taken = Routes(File.model_validate({"routes": routes}), Catalogue())
    sender = Sender(id="u1", name="Ann")
    direct = Route(account="slack", conversation="D1", kind=ConversationKind.DIRECT)
    room = Route(account="slack", conversation="C1", kind=ConversationKind.CHANNEL)
    alone = room.model_copy(update={"private_to": "u1"})

    def places(route: Route) -> tuple[str, ...]:
        said = Message(account="slack", native_id="1", sender=sender, route=route, text="my password")
        event = of_message("m", said)
        assert len(taken.for_event(event).starts) == 1
        return taken.for_event(event).places

    assert places(direct) == ("a:3", "a:4", "a:5")
    assert places(alone) == ("a:5",)
    assert places(room) == ("a:1", "a:2")
    notice = Published(source="s", topic="forge.push", account="forge", data={"private": True})
    assert taken.for_event(notice).places == ("a:1",)


def test_names_are_unique_and_derived_where_they_are_missing() -> None:
    file = File.model_validate(
        {
            "routes": [
                {"from": "a", "to": "x:1"},
                {"from": "a", "to": "x:2"},
                {"from": "b", "to": "x:3", "name": "n"},
            ],
            "bridges": [{"name": "dev", "rooms": ["x:4", "x:5"]}],
        }
    )
    assert [route.name for route in file.routes] == ["a", "a-2", "n"]
    assert File.model_validate(file.model_dump(by_alias=True)) == file
    assert len(list(places_of(file))) == 5


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('[[routes]]\nfrom = "Forge.push"\nto = "a:b"', "no pattern"),
        ('[[routes]]\nfrom = []\nto = "a:b"', "routes.0.from"),
        ('[[routes]]\nto = "a:b"', "routes.0.from"),
        ('[[routes]]\nfrom = "a"', "leads nowhere"),
        ('[[routes]]\nfrom = "a"\nto = "slack"', "no conversation"),
        ('[[routes]]\nfrom = "a"\nto = "a:b"\nwith = { x = "1" }', "there is none"),
        ('[[routes]]\nfrom = "a"\nrun = "No such name"', "routes.0.run"),
        ('[[routes]]\nfrom = "a"\nto = "a:b"\nwhere = { x = [] }', "routes.0.where.x"),
        ('[[routes]]\nfrom = "a"\nto = "a:b"\nname = "n"\n' * 2, "called 'n'"),
        ('[[routes]]\nfrom = "a"\nto = "a:b"\ntwo = 1', "routes.0.two"),
        ('[[bridges]]\nname = "x"\nrooms = ["a:1"]', "bridges.0.rooms"),
        ('[[bridges]]\nname = "x"\nrooms = ["a:1", "a:1"]', "named twice"),
        ('[[bridges]]\nname = "x"\nrooms = ["a:1", "a:2"]\n' * 2, "same name"),
        ('[accounts.bus]\nplatform = "slack"\nblock = "b/x"', "'bus'"),
        ('[accounts.Run]\nplatform = "slack"\nblock = "b/x"', "'Run'"),
        ('[accounts.message]\nplatform = "slack"\nblock = "b/x"', "'message'"),
        ('[accounts."a:b"]\nplatform = "slack"\nblock = "b/x"', "'a:b'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, toml: str, says: str) -> None:
    path = tmp_path / "parley.toml"
    path.write_text(toml)
    with pytest.raises(ConfigurationError, match=says):
        read_file(path)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{count} of {nothing}!", "1 of !"),
        ("{count}{long}{count}", "1" + "x" * (MAX_VALUE - 1)),
        ("{long}" * 1000, "x" * MAX_VALUE),
        ("plain", "plain"),
        ("p" * 30_000, "p" * MAX_VALUE),
        ("{count}", 1),
        ("{nothing}", None),
    ],
    ids=["fields", "long", "many", "plain", "long text", "alone", "not there"],
)
def test_a_template_is_filled_as_far_as_a_value_may_go(text: str, filled: object) -> None:
    assert Template(text).filled({"count": 1, "long": "x" * 30_000}) == filled
