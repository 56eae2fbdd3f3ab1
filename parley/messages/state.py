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


def public_state(message: str, requests: Sequence[str] = ()) -> str:
    """`message` is the message's own state, `requests` those of the requests that it led to.

    A message that became no request (a built-in command, a question back) is done once it is handled; of several
    requests the one that is furthest from its end decides.
    """
    if message == "received":
        return "received"
    if message in ("expired", "dead"):
        return message
    return next((state for state in _ORDER if state in requests), "done")
