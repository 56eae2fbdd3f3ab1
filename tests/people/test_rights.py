from __future__ import annotations

import ast
from itertools import product
from pathlib import Path

import pytest

from parley.messages.model import Assurance
from parley.people.policy import Policy
from parley.people.principals import Principal, PrincipalKind, Role
from parley.people.rights import _REASONS, Origin, Rights
from parley.runs.catalogue import Effect


def somebody(role: Role, *automations: str, enabled: bool = True) -> Principal:
    return Principal(
        id="1", name="ann", kind=PrincipalKind.PERSON, role=role, automations=automations, enabled=enabled
    )


POLICY = Policy()
allows = Rights(lambda: POLICY).allows

MAY = {
    (Role.OWNER, Effect.READ),
    (Role.OWNER, Effect.WRITE),
    (Role.OWNER, Effect.DANGEROUS),
    (Role.OPERATOR, Effect.READ),
    (Role.OPERATOR, Effect.WRITE),
    (Role.USER, Effect.READ),
}


@pytest.mark.parametrize(
    ("role", "effect", "origin", "assurance"), list(product(Role, Effect, Origin, Assurance))
)
def test_every_cell_of_the_matrix(role: Role, effect: Effect, origin: Origin, assurance: Assurance) -> None:
    decision = allows(somebody(role), effect, "order", origin, assurance)
    known = assurance is Assurance.VERIFIED or effect is Effect.READ
    assert decision.allowed == ((role, effect) in MAY and known)
    assert decision.confirm == (decision.allowed and origin is Origin.LANGUAGE and effect is not Effect.READ)
    assert decision.reason


@pytest.mark.parametrize(
    ("role", "effect", "origin", "assurance"), list(product(Role, Effect, Origin, Assurance))
)
def test_what_waits_for_an_approval_more_people_may_ask_for(
    role: Role, effect: Effect, origin: Origin, assurance: Assurance
) -> None:
    decision = allows(somebody(role), effect, "order", origin, assurance, approvals=True)
    known = assurance is Assurance.VERIFIED or effect is Effect.READ
    asks = (role, effect) in MAY or (role, effect) == (Role.OPERATOR, Effect.DANGEROUS)
    assert decision.allowed == (asks and known)
    assert decision.approval == (decision.allowed and effect is Effect.DANGEROUS)


@pytest.mark.parametrize(("effect", "origin"), list(product(Effect, Origin)))
def test_a_stranger_and_somebody_disabled_run_nothing(effect: Effect, origin: Origin) -> None:
    for principal in (None, somebody(Role.OWNER, enabled=False)):
        assert not allows(principal, effect, "order", origin, Assurance.VERIFIED).allowed


@pytest.mark.parametrize("role", list(Role))
def test_globs_only_ever_take_away(role: Role) -> None:
    for effect in Effect:
        free = allows(somebody(role), effect, "order-status", Origin.COMMAND, Assurance.VERIFIED)
        fits = allows(
            somebody(role, "x", "order-*"), effect, "order-status", Origin.COMMAND, Assurance.VERIFIED
        )
        misses = allows(
            somebody(role, "order", "Order-*"), effect, "order-status", Origin.COMMAND, Assurance.VERIFIED
        )
        assert fits.allowed == free.allowed
        assert not misses.allowed


def test_reasons_are_sentences_in_the_persons_language() -> None:
    def reason(language: str) -> str:
        user = somebody(Role.USER)
        return allows(user, Effect.WRITE, "re{0}start", Origin.COMMAND, Assurance.VERIFIED, language).reason

    assert reason("en") == "re{0}start changes something; your role may only look things up."
    assert reason("zh-CN") == "re{0}start 会做出更改，而您的角色只能查询。"
    assert reason("fr") == reason("en")
    assert all(
        english.endswith((".", "?")) and chinese.endswith("。") for english, chinese in _REASONS.values()
    )


def test_people_know_nothing_of_prefect() -> None:
    folder = Path(__file__).parents[2] / "parley" / "people"
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "prefect"], file
