"""Thousands of automations: what is found is the same, and finding it costs what it costs among a few."""

from __future__ import annotations

import json

from benchmarks.flat_store import catalogue
from parley.language.decision import Speaker
from parley.language.names import NameIndex, did_you_mean
from parley.language.offered import MOST_SORTS, Offered
from parley.language.template_index import TemplateIndex
from parley.language.templates import compile_template, match
from parley.language.tokens import tokens_of, without_politeness
from parley.language.understanding import Understander
from parley.messages.model import Assurance
from parley.people.policy import Policy
from parley.people.principals import Principal, PrincipalKind, Role
from parley.people.rights import Rights
from parley.runs.catalogue import Catalogue, Effect
from tests.language.automations import ANYTHING, CATALOGUE, ORDER, REPAIR

MANY = catalogue(1000)
POLICY = Policy()
RIGHTS = Rights(lambda: POLICY)


def speaker(role: Role = Role.USER, *globs: str, assurance: Assurance = Assurance.VERIFIED) -> Speaker:
    who = Principal(id="1", name="ada", kind=PrincipalKind.PERSON, role=role, automations=globs)
    return Speaker(who, assurance, "en")


def test_a_thousand_automations_are_told_apart() -> None:
    understander = Understander(MANY)
    for spec in MANY.automations[::37]:
        verb, noun = spec.command.split("-")
        for said in (f"{verb} the {noun} with number 7", f"please {verb} {noun} 7", f"{noun} 7: {verb} it"):
            sure = understander.understand(said, {spec.command}).sure
            assert sure is not None, said
            assert (sure.command, dict(sure.values)) == (spec.command, {"number": 7})


def test_the_nearest_of_a_thousand_are_those_that_say_it() -> None:
    understander = Understander(MANY)
    every = MANY.by_command()
    for said, wanted in (
        ("could the valve be rotated, number 5", "valve"),
        ("which invoice was archived", "archive-invoice"),
        ("compare printer numbers for me", "compare-printer"),
    ):
        assert any(wanted in one.command for one in understander.understand(said, every).nearest), said


def test_every_template_that_fits_is_tried() -> None:
    specs = [*CATALOGUE, *MANY.automations[:200]]
    templates = [
        template
        for spec in specs
        for example in spec.examples
        if (template := compile_template(example, spec)) is not None
    ]
    index = TemplateIndex(templates)
    for text in (
        "where is order 1024",
        "查一下订单 1024 的物流",
        "order 1024: show it",
        "show order 3",
        "list the queue with number 9 please",
        "",
        "show",
    ):
        tokens = without_politeness(tokens_of(text))
        fitting = [one for one in templates if match(one, tokens, text) is not None]
        tried = index.worth_trying(tokens)
        assert all(any(one is other for other in tried) for one in fitting), text
        assert len(tried) < len(templates) / 20


def test_a_mistyped_name_is_found_among_a_thousand() -> None:
    names = NameIndex(MANY.by_command())
    for name, meant in (
        ("shwo-order", "show-order"),
        ("restart_srever", "restart-server"),
        ("approve-budgt", "approve-budget"),
        ("unlock-bagde", "unlock-badge"),
    ):
        assert meant in did_you_mean(name, names), name
    assert did_you_mean("zzz", names) == ()
    assert did_you_mean("", names) == ()
    assert did_you_mean("ordr", NameIndex(["order", "report"])) == did_you_mean("ordr", ["order", "report"])


def test_a_catalogue_finds_by_command_before_name_and_after_a_copy_too() -> None:
    assert MANY.find("SHOW_order") is MANY.automations[0]
    assert MANY.find("nothing") is None
    both = Catalogue(automations=(ORDER.model_copy(update={"name": "repair"}), REPAIR))
    assert both.find("repair") is REPAIR
    copied = MANY.model_copy(update={"automations": (REPAIR,)})
    assert copied.find("show-order") is None
    assert list(copied.by_command()) == [REPAIR.command]
    assert MANY.model_copy() == MANY
    assert Catalogue.model_validate_json(MANY.model_dump_json()) == MANY
    assert set(json.loads(MANY.model_dump_json())) == {"automations", "broken"}


def test_an_offer_is_worked_out_once_for_each_sort_of_speaker() -> None:
    asked: list[bool] = []
    held = [Catalogue(automations=(ORDER, REPAIR, ANYTHING.model_copy(update={"effect": Effect.WRITE})))]
    offered = Offered(lambda: held[0], RIGHTS, asked.append)
    assert list(offered.to(speaker()).specs) == ["order"]
    assert list(offered.to(speaker(Role.OPERATOR)).specs) == ["anything", "order", "repair"]
    assert list(offered.to(speaker(Role.OWNER)).specs) == ["anything", "order", "repair"]
    assert list(offered.to(speaker(Role.OWNER, "re*")).specs) == ["repair"]
    assert list(offered.to(speaker(Role.OWNER, assurance=Assurance.CLAIMED)).specs) == ["order"]
    assert offered.to(speaker()) is offered.to(speaker())
    assert "order" in offered.to(speaker())
    assert "repair" not in offered.to(speaker())
    assert asked.count(False) == 5
    held[0] = Catalogue(automations=(ORDER,))
    assert list(offered.to(speaker(Role.OWNER)).specs) == ["order"]


def test_sorts_of_speakers_are_bounded() -> None:
    asked: list[bool] = []
    offered = Offered(lambda: MANY, RIGHTS, asked.append)
    for number in range(MOST_SORTS + 1):
        offered.to(speaker(Role.USER, f"glob-{number}"))
    offered.to(speaker(Role.USER, f"glob-{MOST_SORTS}"))
    offered.to(speaker(Role.USER, "glob-0"))
    assert asked[-2:] == [True, False]
