"""Binding: text and JSON to typed, validated values."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.errors import BadArguments
from parley.language.binding import bind, bind_json, read_value, refuse_prefect_markers
from parley.language.grammar import parse_command
from parley.runs.catalogue import AutomationSpec, Parameter
from tests.language.automations import ANYTHING, ORDER, REMEMBER, REPAIR, UNLOCK


def bound(line: str, spec: AutomationSpec) -> dict[str, Any]:
    command = parse_command(line)
    assert command is not None
    return bind(command, spec).values


def refusal(line: str, spec: AutomationSpec, language: Any = "en") -> str:
    command = parse_command(line)
    assert command is not None
    with pytest.raises(BadArguments) as refused:
        bind(command, spec, language)
    return str(refused.value)


def parameter(schema: dict[str, Any]) -> Parameter:
    return Parameter(name="it", json_schema=schema)


def test_values_fill_the_parameters_in_order_and_by_name() -> None:
    wanted = {"script": "restart-nginx", "host": "web1"}
    assert bound("/repair restart-nginx web1", REPAIR) == wanted
    assert bound("/repair host=web1 script=restart-nginx", REPAIR) == wanted
    assert bound("/repair host=web1 RESTART_NGINX", REPAIR) == wanted
    assert bound("/repair web1 script=restart-nginx", REPAIR) == wanted


def test_what_is_missing_is_told_not_guessed() -> None:
    command = parse_command("/repair restart-nginx")
    assert command is not None
    found = bind(command, REPAIR)
    assert found.values == {"script": "restart-nginx"}
    assert [one.name for one in found.missing] == ["host"]


def test_defaults_are_left_to_the_automation() -> None:
    assert bound("/anything", ANYTHING) == {}


def test_free_text_at_the_end_takes_the_rest_of_the_line() -> None:
    assert bound("/remember milk buy two  litres", REMEMBER) == {"subject": "milk", "note": "buy two litres"}
    assert "one too many" in refusal("/order 1 2", ORDER)
    assert "one too many" in refusal("/remember note=x milk two", REMEMBER)


def test_a_list_at_the_end_takes_the_rest_of_the_line() -> None:
    spec = AutomationSpec(
        name="n",
        command="n",
        summary="s",
        deployment="n/n",
        parameters=(Parameter(name="hosts", json_schema={"type": "array", "items": {"type": "string"}}),),
    )
    assert bound("/n a b c,d", spec) == {"hosts": ["a", "b", "c", "d"]}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("whole", "1024", 1024),
        ("whole", "#1024", 1024),
        ("whole", "－５", -5),
        ("real", "1.5", 1.5),
        ("real", "2", 2),
        ("real", "1e3", 1000.0),
        ("sure", "yes", True),
        ("sure", "ON", True),
        ("sure", "是", True),
        ("sure", "否", False),
        ("sure", "0", False),
        ("script", "clean_tmp", "clean_tmp"),
        ("script", "Clean-Tmp", "clean_tmp"),
        ("mixed", "2", 2),
        ("mixed", "X", "x"),
        ("day", "2026-11-05", "2026-11-05"),
        ("day", "2026/11/5", "2026-11-05"),
        ("day", "2026年11月5日", "2026-11-05"),
        ("day", "null", None),
        ("day", "无", None),
        ("moment", "2026-11-05 8:30", "2026-11-05T08:30:00"),
        ("moment", "2026-11-05T08:30:00+08:00", "2026-11-05T08:30:00+08:00"),
        ("clock", "8:30", "08:30:00"),
        ("clock", "８：３０", "08:30:00"),
        ("clock", "8点", "08:00:00"),
        ("clock", "8pm", "20:00:00"),
        ("clock", "12:05 am", "00:05:00"),
        ("period", "1h30m", "PT1H30M"),
        ("period", "2天", "P2D"),
        ("period", "PT5M", "PT5M"),
        ("key", "{12345678-1234-5678-1234-567812345678}", "12345678-1234-5678-1234-567812345678"),
        ("tags", "a,b，c、d", ["a", "b", "c", "d"]),
        ("tags", '["a,b", "c"]', ["a,b", "c"]),
        ("tags", "[ab]*", ["[ab]*"]),
        ("numbers", "1,2", [1, 2]),
        ("pair", "1,x", [1, "x"]),
        ("item", '{"sku": "A", "count": 2}', {"sku": "A", "count": 2}),
        ("free", "text", "text"),
        ("free", '{"a": [1]}', {"a": [1]}),
        ("either", "5", 5),
        ("either", "five", "five"),
        ("code", "AB", "AB"),
        ("note", "  as it is ｘ ", "  as it is ｘ "),
    ],
)
def test_reads_text_as_the_type_that_is_wanted(name: str, text: str, value: object) -> None:
    wanted = ANYTHING.parameter(name)
    assert wanted is not None
    found = read_value(text, wanted)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("whole", "abc", "`whole`: `abc` does not fit. It must be a whole number"),
        ("whole", "1.5", "a whole number"),
        ("whole", "9" * 30, "a whole number"),
        ("real", "nan", "a number"),
        ("real", "1e999", "a number"),
        ("sure", "perhaps", "yes or no"),
        ("script", "clean-tpm", "Did you mean `clean_tmp`?"),
        ("day", "2026-13-01", "2026-11-05"),
        ("day", "tomorrow", "a date"),
        ("moment", "2026-11-05", "a date and time"),
        ("clock", "25:00", "a time"),
        ("clock", "13pm", "a time"),
        ("key", "x", "a UUID"),
        ("numbers", "1,b", "of a whole number"),
        ("numbers", "1,2,3,4", "at most 3 items"),
        ("unique", "a,a", "no item twice"),
        ("pair", "x,y", "list"),
        ("item", "{", "a JSON object"),
        ("item", '{"sku": "A", "sku": "B"}', "a JSON object"),
        ("item", '{"sku": "A", "count": 0}', "`item.count`: `0` does not fit"),
        ("item", '{"count": 1}', "the field `sku` is missing"),
        ("item", '{"sku": "A", "x": 1}', "the field `x` is not known"),
        ("item", '{"sku": "A", "$ref": "b"}', "`$ref`"),
        ("free", '[{"a": {"__prefect_kind": "json"}}]', "`__prefect_kind`"),
        ("code", "ab", "of the form `^[A-Z]{2}$`"),
        ("code", "A" * 5000, "at most 4096"),
        ("note", "x" * 200_000, "too long: 200000"),
    ],
)
def test_a_refusal_names_the_parameter_and_what_is_allowed(name: str, text: str, told: str) -> None:
    wanted = ANYTHING.parameter(name)
    assert wanted is not None
    with pytest.raises(BadArguments) as refused:
        read_value(text, wanted)
    assert told in str(refused.value)
    assert f"`{name}" in str(refused.value)


def test_a_rule_of_the_automation_is_told_in_both_languages() -> None:
    assert (
        refusal("/order 0", ORDER)
        == "`order_id`: `0` does not fit. It must be a whole number greater than 0."
    )
    assert refusal("/order 0", ORDER, "zh") == "`order_id`：`0` 不合要求，应为整数，大于 0。"


def test_an_unknown_parameter_gets_the_nearest_and_the_list() -> None:
    told = refusal("/order ordr_id=5", ORDER)
    assert "no parameter `ordr_id`" in told
    assert "Did you mean `order_id`?" in told


def test_a_sealed_value_is_never_repeated() -> None:
    assert "abc" not in refusal("/unlock abc", UNLOCK)


def test_what_a_stranger_wrote_brings_no_markup_and_hides_nothing() -> None:
    told = refusal("/order `**x**\u202e", ORDER)
    assert "ˋ**x**<U+202E>`" in told


def test_json_is_validated_and_not_converted() -> None:
    assert bind_json({"order_id": 5}, ORDER).values == {"order_id": 5}
    assert bind_json({}, ORDER).missing == ORDER.parameters
    for wrong in ("5", True, 5.5, None, 0, 2**70):
        with pytest.raises(BadArguments, match="order_id"):
            bind_json({"order_id": wrong}, ORDER)
    with pytest.raises(BadArguments, match="no parameter `Order_ID`"):
        bind_json({"Order_ID": 5}, ORDER)


def nested(levels: int, inner: Any) -> Any:
    for level in range(levels):
        inner = [inner] if level % 2 else {"a": inner}
    return inner


@pytest.mark.parametrize(
    "value",
    [
        "\x00",
        "\ud800",
        float("nan"),
        float("inf"),
        2**63,
        b"x",
        {1: "a"},
        nested(40, 1),
        nested(10_000, 1),
        list(range(20_000)),
        ["x" * 60_000] * 2,
        {"x" * 200_000: 1},
    ],
    ids=[str(place) for place in range(12)],
)
def test_json_that_cannot_be_kept_is_refused(value: object) -> None:
    with pytest.raises(BadArguments, match="free"):
        bind_json({"free": value}, ANYTHING)


@pytest.mark.parametrize("key", ["__prefect_kind", "$ref"])
@pytest.mark.parametrize("levels", [0, 1, 5, 10_000])
def test_prefect_markers_are_refused_at_any_depth(key: str, levels: int) -> None:
    with pytest.raises(BadArguments, match="reserved"):
        refuse_prefect_markers(nested(levels, {key: 1}))
    refuse_prefect_markers(nested(levels, {"key": key}))


def test_deeply_nested_json_text_is_refused() -> None:
    wanted = ANYTHING.parameter("item")
    assert wanted is not None
    for text in ("[" * 90_000, '{"a":' * 15_000 + "1" + "}" * 15_000):
        with pytest.raises(BadArguments):
            read_value(text, wanted)


def test_alternatives_are_tried_strictest_first() -> None:
    wanted = parameter(
        {"anyOf": [{"type": "string"}, {"type": "boolean"}, {"type": "array", "items": {"type": "integer"}}]}
    )
    assert read_value("yes", wanted) is True
    assert read_value("1,2", wanted) == [1, 2]
    assert read_value("1,b", wanted) == "1,b"


def test_schemas_of_other_makers_are_understood() -> None:
    assert read_value("5", parameter({"type": ["integer", "null"]})) == 5
    assert read_value("null", parameter({"type": ["integer", "null"]})) is None
    assert read_value("a", parameter({"const": "a"})) == "a"
    assert (
        read_value("5", parameter({"$ref": "#/$defs/N", "$defs": {"N": {"allOf": [{"type": "integer"}]}}}))
        == 5
    )
    assert read_value("none", parameter({"type": ["string", "null"]})) == "none"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "("},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"$ref": "https://example.invalid/schema.json"},
        {"type": "nonsense"},
    ],
)
def test_a_broken_schema_is_the_authors_fault_and_said_so(schema: dict[str, Any]) -> None:
    with pytest.raises(BadArguments, match="Tell its author"):
        read_value("x", parameter(schema))


def test_a_list_in_a_union_with_itself_ends() -> None:
    schema = {
        "$ref": "#/$defs/A",
        "$defs": {"A": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/A"}}, {"type": "string"}]}},
    }
    assert read_value("a,b", parameter(schema))


def test_large_lists_are_checked_in_good_time() -> None:
    wanted = parameter({"type": "array", "uniqueItems": True, "items": {"type": "object"}})
    spec = ORDER.model_copy(update={"parameters": (wanted,)})
    started = time.process_time()
    bind_json({"it": [{"a": number} for number in range(3000)]}, spec)
    assert time.process_time() - started < 2


@given(st.text(max_size=40), st.sampled_from([one.name for one in ANYTHING.parameters]))
def test_any_text_gives_a_valid_value_or_bad_arguments(text: str, name: str) -> None:
    wanted = ANYTHING.parameter(name)
    assert wanted is not None
    try:
        value = read_value(text, wanted)
    except BadArguments:
        return
    assert bind_json({name: value}, ANYTHING).values == {name: value}
