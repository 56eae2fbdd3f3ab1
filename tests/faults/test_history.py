"""The checker of histories finds each kind of broken promise, and nothing where all were kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.history import Ended, History, Kill, Sent, violations


def kept() -> History:
    """Two messages of one conversation, one sent again; the first failed, and people were told."""
    first = Sent(key="a", conversation="c", began=1, acknowledged=2, message_id="m1")
    second = Sent(key="b", conversation="c", began=3, acknowledged=4, message_id="m2")
    return History(
        sent=[first, second, replace(second, began=5, acknowledged=6)],
        ended={
            "m1": Ended(message_id="m1", state="failed", run_id="1", reason="it died", replies=("It died.",)),
            "m2": Ended(message_id="m2", state="done", run_id="2", reason=None, replies=("b",)),
        },
        effects=["b"],
        kills=[Kill(role="hub", at=0, back=3, allowed=10)],
    )


def end(history: History, message: str, **changes: object) -> None:
    history.ended[message] = replace(history.ended[message], **changes)  # type: ignore[arg-type]


FAULTS: dict[str, Callable[[History], object]] = {
    "a was acknowledged and is lost": lambda history: history.ended.pop("m1"),
    "a has not ended: running": lambda history: end(history, "m1", state="running"),
    "a has not ended: expired": lambda history: end(history, "m1", state="expired"),
    "a failed, and people were told ()": lambda history: end(history, "m1", replies=()),
    "the reason None": lambda history: end(history, "m1", reason=None),
    "b is done, and its answers are ('b', 'b')": lambda history: end(history, "m2", replies=("b", "b")),
    "b is done, and did not happen": lambda history: history.effects.clear(),
    "b happened 2 times": lambda history: history.effects.append("b"),
    "x happened, and nobody sent it": lambda history: history.effects.append("x"),
    "b was handled before a": lambda history: end(history, "m2", run_id="0"),
    "b became 2 messages": lambda history: history.sent.append(replace(history.sent[1], message_id="m3")),
    "message m1 stands for 2 keys": lambda history: history.sent.append(replace(history.sent[0], key="x")),
    "hub was not back": lambda history: history.kills.append(Kill(role="hub", at=0, back=None, allowed=10)),
    "left open in Prefect": lambda history: history.open_runs.append("mark-1 Running"),
    "a traceback in an answer": lambda history: history.texts.append("Traceback (most recent call last)"),
}


def test_a_history_in_order() -> None:
    assert violations(kept()) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise(fault: str) -> None:
    history = kept()
    FAULTS[fault](history)
    assert any(fault in one for one in violations(history)), violations(history)


def test_an_end_that_is_borne() -> None:
    history = kept()
    end(history, "m1", state="expired")
    assert violations(history, frozenset({"failed", "expired"})) == []
    end(history, "m1", replies=())
    assert violations(history, frozenset({"failed", "expired"})) == [
        "a expired, and people were told () for the reason 'it died'"
    ]


def test_what_was_sent_side_by_side_has_no_order() -> None:
    history = kept()
    history.sent[1:] = [replace(history.sent[1], began=1.5)]
    end(history, "m2", run_id="0")
    assert violations(history) == []
