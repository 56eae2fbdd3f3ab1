"""What WeCom's error codes mean for us (developer.work.weixin.qq.com/document/path/90313).

The vendor's texts beside the codes are not shown: they change, and hold addresses. One of them is worth reading: which
address of ours WeCom saw when it refused it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, NoReturn

from connectors import _waiting as waiting
from parley.errors import AuthError, RateLimited, Rejected, Unknown, Unreachable

REFUSED_TOKENS = {40014, 41001, 42001}
"""The access token is not, or no longer, valid: a new one may be."""

_AUTH = {
    40001: "The secret is not this company's application's: copy it again.",
    40013: "The corp id is wrong: it stands under My company.",
    40056: "The agent id is wrong: it stands on the application's page.",
    40082: "The secret is not one of an application.",
    41002: "The corp id is missing.",
    41004: "The secret is missing.",
    301002: "The secret is another application's than the agent id's.",
    **dict.fromkeys(REFUSED_TOKENS, "The access token was refused, and a new one too."),
}
# The limits are counted by the minute (45009) or by what runs at the same time (45033): neither says how long.
_WAIT = {45009: 60.0, 45011: 60.0, 45033: 2.0}
_NOT_BEGUN = {-1, 6000}  # "system busy" and "versions collide, later": the vendor asks to try again
_REJECTED = {
    40003: "nobody has this user id",
    40031: "nobody has this user id",
    40032: "too many people at once",
    40058: "a parameter is not as it should be",
    44004: "there is no text",
    45002: "the text is too long",
    48002: "the application may not do this: groups need one that the whole company sees",
    60011: "the application may not reach this person or department: widen its visible range",
    60111: "nobody has this user id",
    81013: "nobody there is in the application's visible range",
    93000: "the robot is no longer in its group, or its key is wrong",
    86001: "the chat is not one that this application made",
    86003: "the chat is not one that this application made",
}
_SEEN_FROM = re.compile(r"from ip: ([0-9a-fA-F:.]{3,45})")
_FROM_A_PROXY = {401, 403, 407, 408, 421, 425}


def raise_for(method: str, answer: dict[str, Any]) -> None:
    """Raise what the answer of a call means, unless it is that all is well."""
    code = code_of(answer)
    if code == 0:
        return
    if code == 60020:
        found = _SEEN_FROM.search(str(answer.get("errmsg", "")))
        address = f" {found[1]}" if found else ""
        raise AuthError(
            f"WeCom does not take calls from our address{address}: add it to the application's trusted IPs (60020)."
        )
    if code in _AUTH:
        raise AuthError(f"WeCom refuses us ({method}: {code}). {_AUTH[code]}")
    if code in _WAIT:
        raise RateLimited(f"WeCom wants us to wait ({method}: {code}).", _WAIT[code])
    if code in _NOT_BEGUN:
        raise Unreachable(f"WeCom is busy and did not take the request ({method}: {code}).")
    raise Rejected(
        f"WeCom refuses it ({method}: {code}{', ' + _REJECTED[code] if code in _REJECTED else ''})."
    )


def code_of(answer: dict[str, Any]) -> int:
    """The error code of an answer; one that has none or a strange one counts as a refusal."""
    code = answer.get("errcode", 0)
    return code if isinstance(code, int) and not isinstance(code, bool) else -2


def raise_for_status(method: str, status: int, retry_after: str | None, *, seen: bool) -> None:
    """Raise what an HTTP status means. WeCom itself always says 200: others are from something on the way.

    `seen`: people see what this call does, so that whether it was done matters.
    """
    if status == 200:
        return
    if status == 429:
        raise RateLimited(
            f"Something before WeCom wants us to wait ({method}).",
            waiting.retry_after(retry_after, datetime.now(UTC)),
        )
    if status in _FROM_A_PROXY or 300 <= status < 400:
        raise Unreachable(f"Something before WeCom did not let the request through ({method}: {status}).")
    if 400 <= status < 500:
        raise Rejected(f"WeCom refuses it ({method}: HTTP {status}).")
    raise_lost(method, f"HTTP {status}", seen=seen)


def raise_lost(method: str, why: str, *, seen: bool) -> NoReturn:
    """Raise what it means that the answer of a call did not come."""
    if seen:
        raise Unknown(f"WeCom's answer was lost ({method}: {why}); whether it was done is not known.")
    raise Unreachable(f"WeCom did not answer ({method}: {why}).")
