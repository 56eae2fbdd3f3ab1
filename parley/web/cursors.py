"""Cursors of long lists: where the next page begins, as one opaque word."""

from __future__ import annotations

import base64
import binascii

from parley.web.problems import Problem


def cursor(last: str) -> str:
    """The cursor of the page behind this item."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def read_cursor(given: str | None) -> str | None:
    """The item behind which a page begins. Raises `Problem` for what was never given out."""
    if given is None:
        return None
    try:
        last = base64.b64decode(given + "=" * (-len(given) % 4), altchars=b"-_", validate=True).decode(
            "ascii"
        )
    except (binascii.Error, ValueError):
        last = ""
    if not last or not last.isprintable():
        raise Problem(400, "This cursor is not one that was given here.", kind="bad-cursor")
    return last
