"""Which rule asks for which approvals, and how votes become voices."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from pydantic import ValidationError

from parley.people.approval_rules import Terms, may_need, terms_for
from parley.people.approvers import Approver, voices
from parley.runs.catalogue import AutomationSpec, Effect, Parameter
from parley.settings import ApprovalRule, File


def spec(effect: Effect = Effect.WRITE, command: str = "restart-web") -> AutomationSpec:
    return AutomationSpec(
        name=command,
        command=command,
        summary="",
        deployment="x/parley",
        effect=effect,
        parameters=(
            Parameter(name="host", json_schema={"type": "string"}),
            Parameter(name="zone", json_schema={"type": "string", "default": "blue"}, required=False),
            Parameter(name="hosts", json_schema={"type": "array"}, required=False),
        ),
    )


def rules(*given: dict[str, Any]) -> tuple[ApprovalRule, ...]:
    return File.model_validate({"approvals": given}).approvals


def test_without_a_rule_only_what_is_dangerous_needs_one() -> None:
    assert terms_for((), spec(Effect.DANGEROUS), {}) == Terms()
    assert terms_for((), spec(Effect.WRITE), {}) is None
    assert terms_for((), spec(Effect.READ), {}) is None


def test_the_first_rule_that_fits_counts() -> None:
    asked = rules(
        {
            "automations": "restart-*",
            "parameters": {"host": "db*"},
            "needed": 2,
            "roles": "owner",
            "within": "2h",
        },
        {"automations": "restart-*", "people": ["ann"], "to": "slack:C1"},
    )
    first = terms_for(asked, spec(), {"host": "db1"})
    assert first == Terms(needed=2, roles=("owner",), within=timedelta(hours=2))
    assert terms_for(asked, spec(), {"host": "web1"}) == Terms(people=("ann",), to=("slack:C1",))
    assert terms_for(asked, spec(command="order"), {"host": "db1"}) is None


@pytest.mark.parametrize(
    ("values", "needed"),
    [
        ({"host": "db1"}, True),
        ({"host": "DB1"}, True),
        ({"host": " db1 "}, True),
        ({"host": "web1"}, False),
        ({}, True),
        ({"host": None}, True),
        ({"host": 5}, False),
    ],
)
def test_a_rule_fits_all_that_may_be_meant(values: dict[str, Any], needed: bool) -> None:
    asked = rules({"automations": "*", "parameters": {"host": ["db*"]}})
    assert (terms_for(asked, spec(), values) is not None) is needed


def test_a_default_and_one_of_a_list_are_meant_too() -> None:
    assert terms_for(rules({"parameters": {"zone": "blue"}}), spec(), {"host": "a"}) is not None
    assert terms_for(rules({"parameters": {"zone": "green"}}), spec(), {"host": "a"}) is None
    listed = rules({"parameters": {"hosts": "db*"}})
    assert terms_for(listed, spec(), {"host": "a", "hosts": ["web1", "db1"]}) is not None
    assert terms_for(listed, spec(), {"host": "a", "hosts": ["web1"]}) is None
    assert terms_for(rules({"parameters": {"nothing-such": "*"}}), spec(), {"host": "a"}) is None


@pytest.mark.parametrize(
    "hosts",
    [
        ["web1", " " * 30_000 + "db1"],
        ["x" * 30_000 + " db1"],
        [["web1", ["db1"]]],
        [{"note": "x" * 30_000, "name": "the db1 of them"}],
        [],
        [None],
    ],
    ids=["blanks", "behind", "nested", "object", "none", "unknown"],
)
def test_nothing_slips_by_a_rule_by_its_length_or_shape(hosts: list[Any]) -> None:
    asked = rules({"parameters": {"hosts": ["db*", "* db*", "*the db1*"]}})
    assert terms_for(asked, spec(), {"host": "a", "hosts": hosts}) is not None


@pytest.mark.parametrize(
    "host", ["web" + "x" * 19_998 + "; db1", ["web1", ["db1"]], []], ids=["long", "nested", "none"]
)
def test_an_exception_is_none_for_what_cannot_be_seen_whole(host: Any) -> None:
    asked = rules({"parameters": {"host": ["web*x"]}, "needed": 0}, {"parameters": {"host": "*"}})
    assert terms_for(asked, spec(), {"host": host}) is not None


@pytest.mark.parametrize(
    ("values", "free"),
    [
        ({"host": "web1"}, True),
        ({"host": "WEB1"}, False),
        ({"host": "db1"}, False),
        ({"host": "web1\n; db1"}, False),
        ({}, False),
    ],
)
def test_an_exception_fits_only_what_is_surely_meant(values: dict[str, Any], free: bool) -> None:
    asked = rules({"automations": "restart-*", "parameters": {"host": "web*"}, "needed": 0})
    assert (terms_for(asked, spec(Effect.DANGEROUS), values) is None) is free


def test_what_can_never_need_one_is_known_without_its_values() -> None:
    asked = rules({"automations": "restart-*", "parameters": {"host": "db*"}})
    assert may_need(asked, spec())
    assert not may_need(asked, spec(command="order"))
    assert not may_need(asked, spec(Effect.READ))
    assert may_need((), spec(Effect.DANGEROUS))


@pytest.mark.parametrize(
    "given",
    [
        {"within": "0m"},
        {"within": "8d"},
        {"within": "soon"},
        {"needed": -1},
        {"needed": 21},
        {"to": "nowhere"},
        {"effects": []},
        {"unknown": 1},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rules(given)


def able(**lent: tuple[str, ...]) -> dict[str, Approver]:
    return {
        name: Approver(id=name, name=name, role="user", language=None, time_zone=None, own=not by, lent_by=by)
        for name, by in lent.items()
    }


def test_nobodys_right_counts_twice() -> None:
    people = able(bob=(), olga=(), cleo=("bob",), dan=("bob", "olga"))
    assert voices([], people) == 0
    assert voices(["bob", "olga"], people) == 2
    assert voices(["bob", "cleo"], people) == 1
    assert voices(["cleo", "dan"], people) == 2
    assert voices(["dan", "cleo"], people) == 2
    assert voices(["bob", "olga", "cleo", "dan"], people) == 2
    assert voices(["ann"], people) == 0


@pytest.mark.parametrize("order", list(permutations(["eve", "fay", "gus"])))
def test_no_voice_is_lost_whoever_votes_first(order: tuple[str, ...]) -> None:
    people = able(eve=("bob", "olga"), fay=("bob", "carl"), gus=("bob", "carl"))
    assert voices(order, people) == 3
    twice = able(bob=(), eve=("bob", "olga"), fay=("bob", "olga"), gus=("olga", "bob"))
    assert voices(("bob", *order), twice) == 2
