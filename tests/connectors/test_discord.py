"""What is Discord's own: how its events are read, how replies are put, and how its menu of commands is made."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors._discord_commands import PRIVATE, menu, offered, same, suggestions, typed, written
from connectors._discord_read import Me, Place, concerns_us, moment_of, parse, place_of, plain, snowflake_at
from connectors._discord_rest import same_host
from connectors._discord_write import (
    MAX_FILE,
    MAX_SENT,
    custom_id,
    long_values,
    markdown,
    nonce,
    render,
    thread_name,
    value_of,
)
from connectors.discord import Discord
from parley.errors import Rejected, Unsupported
from parley.language.grammar import parse_command
from parley.messages import (
    Action,
    Button,
    CommandEntry,
    CommandParameter,
    ConversationKind,
    Edit,
    Event,
    File,
    Message,
    Reply,
    Route,
    Table,
)
from tests.fakes._discord_world import check_commands
from tests.fakes.discord import APPLICATION, BOT, GENERAL, GUILD, OWN_ROLE

ME = Me(BOT, APPLICATION, {GUILD: OWN_ROLE})
ALICE = {"id": "1001", "username": "alice", "global_name": "Alice"}
DIRECT = Place("600", 1)
CHANNEL = Place(GENERAL, 0, GUILD)
THREAD = Place("77", 11, GUILD, GENERAL)
OURS = Place("77", 11, GUILD, GENERAL, ours=True)
VOICE = Place("78", 2, GUILD)
ID = "1443870000000000000"
# Many tests share few cores: how long one example takes says nothing.
UNHURRIED = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


def said(**fields: Any) -> dict[str, Any]:
    """A message as the gateway tells it, with these fields changed."""
    base = {"id": ID, "type": 0, "channel_id": "600", "author": ALICE, "content": "hi", "mentions": []}
    return {key: value for key, value in {**base, **fields}.items() if value is not None}


def answering(author: str) -> dict[str, Any]:
    return {"referenced_message": {"id": "5", "author": {"id": author}}}


def read(place: Place = DIRECT, name: str = "MESSAGE_CREATE", **fields: Any) -> Event | None:
    return parse(name, said(**fields), "a", ME, place)


def message(place: Place = DIRECT, **fields: Any) -> Message:
    found = read(place, **fields)
    assert isinstance(found, Message)
    return found


# --- messages --------------------------------------------------------------------------------------------------------


def test_a_message_is_known_by_discords_id_and_its_moment_is_in_it() -> None:
    found = message()
    assert found.native_id == ID
    assert found.sent_at == moment_of(ID)
    assert abs((found.sent_at - datetime(2025, 11, 28, tzinfo=UTC)).days) < 400
    assert (found.sender.id, found.sender.name, found.automatic) == ("1001", "Alice", False)


def test_the_first_snowflake_of_a_moment_is_of_that_moment() -> None:
    moment = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert moment_of(str(snowflake_at(moment.timestamp()))) == moment
    assert snowflake_at(0.0) == 0


@pytest.mark.parametrize(
    ("place", "fields", "kind", "conversation", "thread", "reply_to"),
    [
        (DIRECT, {}, ConversationKind.DIRECT, "600", None, None),
        (Place("601", 3), {}, ConversationKind.GROUP, "601", None, None),
        (CHANNEL, {}, ConversationKind.CHANNEL, GENERAL, ID, None),
        (THREAD, {}, ConversationKind.CHANNEL, GENERAL, "77", None),
        (VOICE, {}, ConversationKind.CHANNEL, "78", None, ID),
        (CHANNEL, answering(BOT), ConversationKind.CHANNEL, GENERAL, "5", None),
        (CHANNEL, answering("1001"), ConversationKind.CHANNEL, GENERAL, ID, None),
    ],
)  # fmt: skip
def test_the_answers_way_is_fixed(
    place: Place,
    fields: dict[str, Any],
    kind: ConversationKind,
    conversation: str,
    thread: str | None,
    reply_to: str | None,
) -> None:
    route = message(place, **fields).route
    assert (route.kind, route.conversation, route.thread, route.reply_to) == (
        kind,
        conversation,
        thread,
        reply_to,
    )


@pytest.mark.parametrize(
    ("place", "fields", "ours"),
    [
        (DIRECT, {}, True),
        (CHANNEL, {}, False),
        (THREAD, {}, False),
        (OURS, {}, True),
        (CHANNEL, {"mentions": [{"id": BOT}]}, True),
        (CHANNEL, {"mentions": [ALICE]}, False),
        (CHANNEL, {"mention_roles": [OWN_ROLE]}, True),
        (CHANNEL, {"mention_roles": ["1"]}, False),
        (Place("1", 0, "another server"), {"mention_roles": [OWN_ROLE]}, False),
        (CHANNEL, {"referenced_message": {"author": {"id": BOT}}}, True),
        (CHANNEL, {"referenced_message": {"author": ALICE}}, False),
        (CHANNEL, {"mention_everyone": True}, False),
    ],
)
def test_what_is_said_to_us(place: Place, fields: dict[str, Any], ours: bool) -> None:
    assert concerns_us(said(**fields), ME, place) is ours


@pytest.mark.parametrize(
    ("fields", "automatic"),
    [({"author": {**ALICE, "bot": True}}, True), ({"webhook_id": "5"}, True), ({"type": 19}, False)],
)
def test_other_bots_are_marked(fields: dict[str, Any], automatic: bool) -> None:
    found = message(**fields)
    assert (found.automatic, found.sender.is_bot) == (automatic, automatic)


@pytest.mark.parametrize(
    "fields",
    [
        {"author": {"id": BOT}},
        {"type": 7},
        {"type": 21},
        {"type": "0"},
        {"author": None},
        {"author": {"id": "x"}},
        {"author": {"id": 5}},
        {"id": None},
        {"id": "../x"},
        {"id": "٣"},
        {"id": "9" * 21},
        {"content": "x" * 1_000_001},
    ],
)
def test_what_is_no_message_of_a_person_is_left_out(fields: dict[str, Any]) -> None:
    assert read(**fields) is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (f"<@{BOT}> /order 1024", "/order 1024"),
        (f" <@!{BOT}>: hello", "hello"),
        (f"<@&{OWN_ROLE}>，查一下订单", "查一下订单"),
        (f"ask <@{BOT}> about it", f"ask @{BOT} about it"),
        ("<@1001> said <#5> <:smile:6> <a:wave:7> </order:8>", "@alice said #5 :smile: :wave: /order"),
        ("a <b> & <unknown> <t:1>", "a <b> & <unknown> <t:1>"),
        ("NUL \x00 and half \ud83d a pair", "NUL \ufffd and half \ufffd a pair"),
        ("", ""),
    ],
)
def test_discords_marks_become_plain_text(content: str, text: str) -> None:
    assert message(CHANNEL, content=content, mentions=[ALICE]).text == text


def test_a_forwarded_message_says_what_was_forwarded() -> None:
    assert message(content="", message_snapshots=[{"message": {"content": "look"}}]).text == "look"


@pytest.mark.parametrize("changed", [None, 5, "yesterday", ""])
def test_an_update_that_nobody_made_is_no_edit(changed: Any) -> None:
    assert read(name="MESSAGE_UPDATE", edited_timestamp=changed) is None


def test_an_edit_names_its_message_and_is_known_by_its_moment() -> None:
    stamp = "2026-11-22T12:00:00.123456+00:00"
    found = read(name="MESSAGE_UPDATE", edited_timestamp=stamp, content="better")
    assert isinstance(found, Edit)
    assert (found.target, found.text, found.sent_at) == (ID, "better", datetime.fromisoformat(stamp))
    again = read(name="MESSAGE_UPDATE", edited_timestamp=stamp, content="better", embeds=[{"url": "x"}])
    assert again == found
    assert read(name="MESSAGE_UPDATE", edited_timestamp=stamp, author={"id": BOT}) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([ID, BOT, "1001"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
KEYS = st.sampled_from([*said(), "member", "attachments", "referenced_message", "data", "message", "token", "user",
                        "application_id", "edited_timestamp", "message_snapshots", "locale", "flags"])  # fmt: skip


@given(
    st.sampled_from(["MESSAGE_CREATE", "MESSAGE_UPDATE", "INTERACTION_CREATE"]), st.dictionaries(KEYS, JSON)
)
@UNHURRIED
def test_whatever_comes_never_raises(name: str, changed: dict[str, Any]) -> None:
    data = {**said(), **changed}
    parse(name, data, "a", ME, place_of(data, ME) or CHANNEL)
    concerns_us(data, ME, CHANNEL)
    suggestions(changed, {})


@pytest.mark.parametrize("value", [None, 5, [], "x", {"id": "1"}, {"id": 1, "type": 0}, {"type": 0}])
def test_what_is_no_channel_is_none(value: Any) -> None:
    assert place_of(value, ME) is None


def test_a_thread_is_ours_when_we_began_it_or_are_in_it() -> None:
    thread = {"id": "77", "type": 11, "parent_id": GENERAL, "owner_id": "1001"}
    assert place_of(thread, ME, GUILD) == THREAD
    assert place_of({**thread, "owner_id": BOT}, ME, GUILD) == OURS
    assert place_of({**thread, "member": {"user_id": BOT}}, ME, GUILD) == OURS


def test_names_of_people_are_taken_from_the_message() -> None:
    assert plain("<@1001> <@9>", {"mentions": [ALICE]}) == "@alice @9"


# --- interactions ----------------------------------------------------------------------------------------------------


def interaction(place: Place = CHANNEL, **fields: Any) -> Event | None:
    base = {
        "id": ID, "type": 2, "token": "tok_en-1", "application_id": APPLICATION, "locale": "zh-CN",
        "member": {"user": ALICE, "nick": "Al"}, "data": {"name": "order", "type": 1, "options": []},
    }  # fmt: skip
    return parse("INTERACTION_CREATE", {**base, **fields}, "a", ME, place, values={"d" * 64: "long"})


def option(name: str, value: Any, kind: int = 3) -> dict[str, Any]:
    return {"name": name, "value": value, "type": kind}


def test_a_slash_command_is_what_would_have_been_typed() -> None:
    options = [
        option("order_id", 7, 4),
        option("note", 'say "hi" \\o/'),
        option("fast", True, 5),
        option("n", 0.5, 10),
    ]
    found = interaction(data={"name": "order", "options": options})
    assert isinstance(found, Message)
    assert found.text == r'/order order_id=7 note="say \"hi\" \\o/" fast=true n=0.5'
    assert (found.native_id, found.sender.id, found.sender.name, found.sender.language) == (
        ID,
        "1001",
        "Al",
        "zh",
    )
    command = parse_command(found.text)
    assert command is not None
    assert command.named == {"order_id": "7", "note": r'say "hi" \o/', "fast": "true", "n": "0.5"}


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
@UNHURRIED
def test_any_value_is_read_back_by_the_grammar(value: str) -> None:
    command = parse_command(f"/order note={written(value)} next=1")
    assert command is not None
    assert (command.named, command.positional) == ({"note": value, "next": "1"}, ())


def test_an_answer_goes_through_the_interaction_for_fourteen_minutes() -> None:
    found = interaction()
    assert found is not None
    until = datetime.fromtimestamp(int(found.route.context["until"]), UTC)
    assert timedelta(minutes=13) < until - moment_of(ID) <= timedelta(minutes=14)
    assert found.route.context == {
        "application": APPLICATION, "interaction": "tok_en-1", "user": "1001", "channel": GENERAL,
        "until": found.route.context["until"],
    }  # fmt: skip
    assert (found.route.thread, found.route.private_to) == (None, None)


def test_asked_privately_is_answered_privately() -> None:
    found = interaction(data={"name": "order", "options": [option(PRIVATE, True, 5)]})
    assert isinstance(found, Message)
    assert (found.text, found.route.private_to) == ("/order", "1001")
    direct = interaction(DIRECT, data={"name": "order", "options": [option(PRIVATE, True, 5)]})
    assert direct is not None
    assert direct.route.private_to is None


def test_a_slash_command_in_a_thread_stays_there() -> None:
    found = interaction(THREAD)
    assert found is not None
    assert (found.route.conversation, found.route.thread) == (GENERAL, "77")


@pytest.mark.parametrize(
    ("pressed", "value"), [("3:yes", "yes"), ("0:a:b\nc", "a:b\nc"), ("12~" + "d" * 64, "long")]
)
def test_a_press_is_an_action(pressed: str, value: str) -> None:
    found = interaction(type=3, data={"custom_id": pressed}, message={"id": "5", "flags": 64})
    assert isinstance(found, Action)
    assert (found.value, found.target, found.route.private_to) == (value, "5", "1001")


@pytest.mark.parametrize(
    "fields",
    [
        {"token": "with/slash"},
        {"token": None},
        {"application_id": "x"},
        {"member": {}},
        {"type": 5},
        {"type": 3, "data": {"custom_id": "not ours"}},
        {"type": 3, "data": {"custom_id": "0~" + "e" * 64}},
        {"data": {"name": "user menu", "type": 2}},
    ],
)
def test_other_interactions_are_none(fields: dict[str, Any]) -> None:
    assert interaction(**fields) is None


# --- the menu --------------------------------------------------------------------------------------------------------


def entry(*parameters: CommandParameter, name: str = "order", summary: str = "Where is it?") -> CommandEntry:
    return CommandEntry(name=name, summary=summary, parameters=parameters)


def test_parameters_become_typed_options() -> None:
    made = menu(
        [
            entry(
                CommandParameter(name="note", required=False, description=" two\nlines "),
                CommandParameter(name="id", type="integer", minimum=0.5, maximum=10.5),
                CommandParameter(name="share", type="number", minimum=0.5, required=False),
                CommandParameter(name="fast", type="boolean", required=False, choices=("true", "false")),
                CommandParameter(name="state", required=False, choices=("open", "late")),
            )
        ]
    )
    assert made[0]["options"] == [
        {"type": 4, "name": "id", "description": "id", "required": True, "min_value": 1, "max_value": 10},
        {"type": 3, "name": "note", "description": "two lines"},
        {"type": 10, "name": "share", "description": "share", "min_value": 0.5},
        {"type": 5, "name": "fast", "description": "fast"},
        {
            "type": 3, "name": "state", "description": "state",
            "choices": [{"name": "open", "value": "open"}, {"name": "late", "value": "late"}],
        },
        {"type": 5, "name": "private", "description": "Only you see the answer."},
    ]  # fmt: skip


# Long ones by repetition: what matters is the length.
WORDS = st.builds(lambda text, times: text * times, st.text(max_size=6), st.sampled_from([1, 1, 25]))
NAMES = st.from_regex(r"\A[a-z][a-z_-]{0,8}\Z") | st.text(min_size=1, max_size=4) | st.just("x" * 33)
PARAMETERS = st.builds(
    CommandParameter,
    name=NAMES,
    type=st.sampled_from(["string", "integer", "number", "boolean"]),
    description=WORDS,
    required=st.booleans(),
    choices=st.builds(
        lambda some, times: tuple(f"{one}{n}" for one in some for n in range(times)),
        st.lists(WORDS | st.just(""), max_size=3),
        st.sampled_from([1, 9, 30]),
    ),
    minimum=st.none() | st.floats(allow_nan=False),
    maximum=st.none() | st.floats(allow_nan=False),
)
ENTRIES = st.builds(
    CommandEntry,
    name=NAMES,
    summary=WORDS,
    parameters=st.lists(PARAMETERS, max_size=4, unique_by=lambda p: p.name.lower()).map(tuple),
)


@given(st.lists(ENTRIES, max_size=3))
@UNHURRIED
def test_discord_takes_every_menu_that_we_make(commands: list[CommandEntry]) -> None:
    made = menu(commands)
    assert same(made, check_commands(made))


def test_a_menu_that_differs_is_another() -> None:
    order = menu([entry(CommandParameter(name="id", type="integer", minimum=0))])
    kept = check_commands(order)
    assert same(order, kept)
    assert not same(menu([entry(CommandParameter(name="id", type="integer", minimum=1))]), kept)
    assert not same(menu([entry(CommandParameter(name="id", type="integer"))]), kept)
    assert not same(
        menu([entry(CommandParameter(name="id", type="integer", required=False, minimum=0))]), kept
    )
    assert not same(
        menu([entry(CommandParameter(name="id", type="integer", minimum=0), summary="Else")]), kept
    )
    assert not same([], kept)


def test_a_hundred_commands_and_each_name_once() -> None:
    made = menu([entry(name=f"c{n}") for n in range(120)] + [entry(name="C0")])
    assert len(made) == 100


def test_what_the_menu_cannot_show_is_left_out() -> None:
    assert menu([entry(name="two words"), entry(name="x" * 33)]) == []
    must = [CommandParameter(name=f"p{n}") for n in range(26)]
    assert menu([entry(*must)]) == []
    may = [parameter.model_copy(update={"required": False}) for parameter in must]
    assert [option["name"] for option in menu([entry(*may)])[0]["options"]] == [p.name for p in may[:25]]


def test_many_choices_are_offered_while_typing() -> None:
    cities = (*(f"city-{n}" for n in range(40)), "Ulm", "Neu-Ulm")
    commands = [entry(CommandParameter(name="city", choices=cities))]
    (option_,) = [one for one in menu(commands)[0]["options"] if one["name"] == "city"]
    assert (option_["autocomplete"], "choices" in option_) == (True, False)
    typing = {"name": "order", "options": [{"name": "city", "type": 3, "value": "ulm", "focused": True}]}
    assert [c["value"] for c in suggestions(typing, offered(commands))] == ["Ulm", "Neu-Ulm"]
    everything = {"name": "order", "options": [{"name": "city", "type": 3, "value": "", "focused": True}]}
    assert len(suggestions(everything, offered(commands))) == 25
    other = {"name": "other", "options": [{"name": "city", "value": "u", "focused": True}]}
    assert suggestions(other, offered(commands)) == []


def test_offered_numbers_are_numbers() -> None:
    commands = [entry(CommandParameter(name="n", type="integer", choices=tuple(map(str, range(30)))))]
    typing = {"name": "order", "options": [{"name": "n", "type": 4, "value": "29", "focused": True}]}
    assert suggestions(typing, offered(commands)) == [{"name": "29", "value": 29}]


def test_a_command_that_is_too_long_offers_instead_of_listing() -> None:
    listed = tuple(f"{n:02}" + "x" * 90 for n in range(20))
    made = menu([entry(*(CommandParameter(name=f"p{n}", choices=listed) for n in range(5)))])
    assert all(one["autocomplete"] for one in made[0]["options"] if one["name"] != PRIVATE)


def test_options_that_are_none_of_ours_are_left_out() -> None:
    assert (
        typed({"name": "order", "options": [{"name": "sub", "type": 1, "options": []}, "x", None]})
        is not None
    )
    assert typed({"name": 5}) is None


# --- replies ---------------------------------------------------------------------------------------------------------

ROUTE = Route(account="a", conversation=GENERAL, kind=ConversationKind.CHANNEL)


@pytest.mark.parametrize(
    ("ours", "discords"),
    [
        ("**bold** *italic* `a_b` [site](https://example.org/a_b)", None),
        ("```python\n__init__\n```", None),
        ("see https://example.org/_x_?a=~~b", None),
        ("- one\n  - two\n1. three", None),
        ("snake_case 5 * 3 a|b ~1 x # y 2 > 1", None),
        ("__init__ _private", r"\_\_init\_\_ \_private"),
        ("~~gone~~ ||hidden||", r"\~\~gone\~\~ \|\|hidden\|\|"),
        ("# title\n> quote\n-# small", "\\# title\n\\> quote\n\\-# small"),
        ("2*3*4 and `", r"2\*3\*4 and \`"),
        ("* one\n* two", "- one\n- two"),
        (r"a\*b C:\new", r"a\\\*b C:\new"),
        ("@everyone @here", "@\u200beveryone @\u200bhere"),
        ("<@1> <@&2> <#3> <:x:4> <t:5> </x:6>", r"\<@1> \<@&2> \<#3> \<:x:4> \<t:5> \</x:6>"),
        ("**a_b_ c**", r"**a_b\_ c**"),
    ],
)  # fmt: skip
def test_our_markup_in_discords(ours: str, discords: str | None) -> None:
    assert markdown(ours) == (ours if discords is None else discords)


@given(st.text(alphabet="_*~|`\\<>#@- \nab[](:/.everyoneh", max_size=80))
@UNHURRIED
def test_escapes_lose_no_character(text: str) -> None:
    shown = markdown(text).replace("\u200b", "")
    for character in set(text) - {"*", "-"}:
        assert shown.count(character) >= text.count(character)


def test_nobody_is_ever_pinged() -> None:
    body = render(Reply(text="@everyone <@1>"), ROUTE)
    assert body["allowed_mentions"] == {"parse": []}
    assert "@everyone" not in body["content"]


def test_a_text_whose_escapes_do_not_fit_is_sent_as_it_is() -> None:
    text = "_" * 1900
    assert render(Reply(text=text), ROUTE)["content"] == text
    with pytest.raises(Rejected):
        render(Reply(text="x" * (MAX_SENT + 1)), ROUTE)


def test_buttons_stand_in_rows_of_five() -> None:
    buttons = tuple(Button(label=f"{n}", value="same", style="danger") for n in range(7))
    rows = render(Reply(buttons=buttons), ROUTE)["components"]
    assert [len(row["components"]) for row in rows] == [5, 2]
    made = [one for row in rows for one in row["components"]]
    assert len({one["custom_id"] for one in made}) == 7
    assert [value_of(one["custom_id"], {}) for one in made] == ["same"] * 7
    assert render(Reply(buttons=buttons), ROUTE)["content"]


@given(st.integers(0, 24), st.text(min_size=1, max_size=255))
@UNHURRIED
def test_every_value_comes_back(number: int, value: str) -> None:
    made = custom_id(number, value)
    assert 1 <= len(made) <= 100
    buttons = tuple(Button(label="x", value=value) for _ in range(number + 1))
    assert value_of(made, long_values(buttons)) == value


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(), Rejected),
        (Reply(text="x", table=Table(columns=("a",), rows=())), Unsupported),
        (Reply(text="x", files=tuple(File(name=f"{n}", content=b"") for n in range(11))), Unsupported),
        (Reply(files=(File(name="x", content=b"x" * (MAX_FILE + 1)),)), Rejected),
    ],
)
def test_what_discord_cannot_show_is_refused(reply: Reply, error: type[Exception]) -> None:
    with pytest.raises(error):
        render(reply, ROUTE)


def test_a_reply_is_a_reply() -> None:
    body = render(Reply(text="x"), ROUTE.model_copy(update={"reply_to": "5"}))
    assert body["message_reference"] == {"message_id": "5", "fail_if_not_exists": False}


def test_a_nonce_is_the_same_at_each_attempt_and_another_for_each_part() -> None:
    assert nonce("t", 0) == nonce("t", 0)
    assert len({nonce("t", 0), nonce("t", 1), nonce("u", 0)}) == 3
    assert len(nonce("t" * 500, 0)) == 25


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("**Order 1024** is [late](https://example.org)\nmore", "Order 1024 is late"),
        ("\n\n```\nx\n```", "x"),
        ("", "…"),
        ("# Title", "Title"),
        ("x" * 200, "x" * 99 + "…"),
    ],
)
def test_a_thread_is_named_after_what_is_said(text: str, name: str) -> None:
    assert thread_name(text) == name


# --- the rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "same_"),
    [
        ("http://fake:80/x", True),
        ("http://fake:81/x", False),
        ("https://fake:80/x", False),
        ("http://fake.evil:80/", False),
        ("http://[", False),
        ("http://fake:port/", False),
    ],
)
def test_hosts_are_compared_whole(url: str, same_: bool) -> None:
    assert same_host(url, "http://fake:80/api") is same_


def test_importing_the_connector_does_not_import_the_sdk() -> None:
    program = "import sys, connectors.discord; print(sorted({'discord', 'aiohttp'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_says_what_it_can() -> None:
    can = Discord.capabilities
    assert not can.idempotent_send  # Discord finds doubles for some minutes only
    assert (can.max_files, can.max_file) == (10, 10 * 1024 * 1024)
