"""The public state of a message is one pure function of what the tables say."""

from __future__ import annotations

from itertools import permutations

import pytest
import sqlalchemy as sa

from parley.messages.state import FINAL, public_state
from parley.store import schema


def stored(table: str) -> set[str]:
    """The states that the store allows."""
    constraints = schema.metadata.tables[table].constraints
    checks = [str(check.sqltext) for check in constraints if isinstance(check, sa.CheckConstraint)]
    (check,) = [text for text in checks if text.startswith("state IN")]
    return {word.strip(" '") for word in check.partition("(")[2].rstrip(")").split(",")}


def test_what_is_not_handled_is_received() -> None:
    assert public_state("received") == "received"
    assert public_state("received", ["done"]) == "received"


def test_a_message_without_a_request_is_done_once_it_is_handled() -> None:
    assert public_state("handled") == "done"


@pytest.mark.parametrize("state", ["expired", "dead"])
def test_the_end_of_a_message_is_its_own(state: str) -> None:
    assert public_state(state, ["done"]) == state


@pytest.mark.parametrize("state", sorted(stored("request")))
def test_one_request_gives_its_state(state: str) -> None:
    assert public_state("handled", [state]) == state


def test_of_several_the_one_furthest_from_its_end_decides_in_any_order() -> None:
    for states in permutations(["done", "failed", "running"]):
        assert public_state("handled", states) == "running"
    for states in permutations(["done", "refused", "needs-input"]):
        assert public_state("handled", states) == "needs-input"
    for states in permutations(["done", "failed"]):
        assert public_state("handled", states) == "failed"


def test_only_what_goes_on_by_itself_is_not_final() -> None:
    possible = {public_state(message, [r]) for message in stored("message") for r in stored("request")}
    assert possible - FINAL == {"received", "queued", "running"}
    assert possible >= FINAL
