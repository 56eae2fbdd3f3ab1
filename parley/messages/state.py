"""The public state of a message: one pure function of what the tables say."""

from __future__ import annotations

from collections.abc import Sequence

FINAL = frozenset(
    {"done", "failed", "refused", "expired", "cancelled", "needs-input", "awaiting-approval", "dead"}
)
"""States in which the person has, or is about to have, an answer: nothing more happens by itself."""

_ORDER = (
    "running",
    "queued",
    "awaiting-approval",
    "needs-input",
    "failed",
    "refused",
    "expired",
    "cancelled",
    "done",
)


MISTAKEN = "it cannot be carried out as it stands"
"""The reason of a message that was answered with what is wrong with it."""


def public_state(message: str, requests: Sequence[str] = (), reason: str | None = None) -> str:
    """`message` is the message's own state and `reason` its own, `requests` the states of what it led to.

    A message that became no request (a built-in command, a question back) is done once it is handled, or refused when
    it was mistaken; of several requests the one that is furthest from its end decides.
    """
    if message == "received":
        return "received"
    if message in ("expired", "dead"):
        return message
    if not requests and reason == MISTAKEN:
        return "refused"
    return next((state for state in _ORDER if state in requests), "done")
