"""What reception decided about one event, before anything is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.language.characters import Language
from parley.messages.model import Assurance, Reply
from parley.messages.published import Published
from parley.people.principals import Principal
from parley.runs.requests import NewRequest, QueuedRun

Change = Callable[[AsyncConnection], Awaitable[list[QueuedRun]]]
"""Something to write in the same transaction; the runs that it queued."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who wrote, how well we know it, the language to answer in, and where: `account:conversation`.

    `moved`: they write to us alone, and elsewhere than before.
    """

    principal: Principal
    assurance: Assurance
    language: Language
    place: str | None = None
    moved: bool = False


@dataclass(slots=True)
class Decision:
    """Replies to write, a request to make, other changes; all in one transaction. `afterwards` runs after it.

    `events` are published in it. `carried`: it was said to the room, so bridges carry it on.
    """

    replies: list[Reply] = field(default_factory=list)
    request: NewRequest | None = None
    changes: list[Change] = field(default_factory=list)
    afterwards: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    state: str = "handled"
    reason: str | None = None
    events: list[Published] = field(default_factory=list)
    carried: bool = False

    @classmethod
    def answer(cls, text: str, *, state: str = "handled", reason: str | None = None) -> Decision:
        """Only say this."""
        return cls(replies=[Reply(text=text)], state=state, reason=reason)

    @classmethod
    def silent(cls, reason: str) -> Decision:
        """Say nothing; the reason is kept."""
        return cls(reason=reason)
