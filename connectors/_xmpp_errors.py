"""What error stanzas mean for sending again."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from connectors._xmpp_read import StanzaError
from parley.errors import ConnectorError, RateLimited, Rejected, Unknown, Unreachable

DEFAULT_RETRY_AFTER = 30.0
"""Seconds; XMPP names a moment only where files are put (XEP-0363)."""

LONGEST_RETRY_AFTER = 3600.0

_PERHAPS_DONE = {"internal-server-error", "undefined-condition"}


def meaning(error: StanzaError, moment: datetime | None = None) -> ConnectorError:
    """The error of the contract that this error stanza is. It came back: what it answers was not taken."""
    name = error.condition
    if name == "resource-constraint" or (name == "policy-violation" and error.kind == "wait"):
        return RateLimited(f"The XMPP server wants us to wait ({name}).", retry_after(error, moment))
    if name in _PERHAPS_DONE and error.kind != "wait":
        return Unknown(f"The XMPP server failed in the middle ({name}); whether it was done is not known.")
    if error.kind == "wait":
        return Unreachable(f"The XMPP server could not do it now ({name}).")
    return Rejected(f"It came back: {name}.")


def retry_after(error: StanzaError, moment: datetime | None = None) -> float:
    """Seconds to wait, finite."""
    if error.retry_at is None:
        return DEFAULT_RETRY_AFTER
    seconds = (error.retry_at - (moment or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if math.isfinite(seconds) else DEFAULT_RETRY_AFTER
