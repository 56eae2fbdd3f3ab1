"""A command line that is written reads back as the same values."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.errors import BadArguments
from parley.language.binding import bind
from parley.language.command_line import command_line
from parley.language.grammar import parse_command
from parley.runs.catalogue import AutomationSpec
from tests.language.automations import ANYTHING, ORDER, REMEMBER, REPAIR


def read_back(line: str, spec: AutomationSpec) -> dict[str, Any]:
    command = parse_command(line)
    assert command is not None
    assert command.name == spec.command
    return bind(command, spec).values


@pytest.mark.parametrize(
    ("spec", "values", "line"),
    [
        (ORDER, {"order_id": 1024}, "/order 1024"),
        (REPAIR, {"script": "clean_tmp", "host": "web1"}, "/repair clean_tmp web1"),
        (REPAIR, {"host": "web1"}, "/repair host=web1"),
        (REMEMBER, {"subject": "a b", "note": 'say "x" \\ y'}, '/remember "a b" "say \\"x\\" \\\\ y"'),
        (ANYTHING, {"tags": ["a", "b"], "sure": True}, "/anything sure=true tags=a,b"),
        (ANYTHING, {}, "/anything"),
    ],
)
def test_writes_what_a_person_would(spec: AutomationSpec, values: dict[str, Any], line: str) -> None:
    assert command_line(spec, values) == line
    assert read_back(line, spec) == values


@pytest.mark.parametrize(
    "value", ["5", "null", '{"a":1}', '"x"', "true", 'a"b', "[1]", "x", "", 5, None, [1, "5"]]
)
def test_text_that_looks_like_json_stays_text(value: object) -> None:
    assert read_back(command_line(ANYTHING, {"free": value}), ANYTHING) == {"free": value}


def test_a_control_character_has_no_command_line() -> None:
    with pytest.raises(BadArguments, match=r"U\+0007"):
        command_line(REMEMBER, {"subject": "\x07", "note": "x"})


TYPEABLE = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\n\t\"'\\=-,[]“”/　"), max_size=20
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TYPEABLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(string.ascii_letters, max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "whole": st.integers(-(2**63), 2**63 - 1),
        "real": st.floats(allow_nan=False, allow_infinity=False),
        "sure": st.booleans(),
        "script": st.sampled_from(["restart-nginx", "clean_tmp", "restart-db"]),
        "mixed": st.sampled_from([1, 2, "x"]),
        "day": st.none() | st.dates().map(lambda day: day.isoformat()),
        "moment": st.none() | st.datetimes().map(lambda moment: moment.isoformat()),
        "clock": st.none() | st.times().map(lambda clock: clock.isoformat()),
        "key": st.none() | st.uuids().map(str),
        "tags": st.none() | st.lists(TYPEABLE, max_size=4),
        "numbers": st.none() | st.lists(st.integers(-9, 9), max_size=3),
        "unique": st.none() | st.lists(TYPEABLE, max_size=4, unique=True),
        "pair": st.none() | st.tuples(st.integers(-9, 9), TYPEABLE).map(list),
        "item": st.none() | st.fixed_dictionaries({"sku": TYPEABLE}),
        "free": JSON,
        "code": st.text(string.ascii_uppercase, min_size=2, max_size=2),
        "note": TYPEABLE,
    },
)


@given(VALUES)
def test_every_command_line_reads_back(values: dict[str, Any]) -> None:
    assert read_back(command_line(ANYTHING, values), ANYTHING) == values


@given(st.fixed_dictionaries({"subject": TYPEABLE, "note": TYPEABLE}))
def test_values_by_place_read_back(values: dict[str, str]) -> None:
    assert read_back(command_line(REMEMBER, values), REMEMBER) == values
