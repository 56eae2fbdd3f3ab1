"""Every reader of what comes from outside: what it is fed with here, and which errors it may answer with.

A reader of a connector is named after it: `slack.hook`. tests/attacks/test_parsers.py fails where a connector has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from hypothesis.strategies import SearchStrategy

from parley.messages import Event

Read = Callable[[Any], object]

LONGEST_REFUSAL = 3000


@dataclass(frozen=True, slots=True)
class Reader:
    """One reader; it raises nothing but `refuses`. `opened` makes one that needs something set up around it.

    A refusal is one line, but for those that list several mistakes (`lines`).
    """

    name: str
    hostile: SearchStrategy[Any]
    read: Read | None = None
    refuses: tuple[type[Exception], ...] = ()
    opened: Callable[[], AbstractContextManager[Read]] | None = None
    lines: bool = False

    @contextmanager
    def ready(self) -> Iterator[Read]:
        """What reads one value, or refuses it."""
        if self.opened is not None:
            with self.opened() as read:
                yield self._taking(read)
        elif self.read is not None:
            yield self._taking(self.read)

    def _taking(self, read: Read) -> Read:
        def take(value: Any) -> None:
            try:
                read(value)
            except self.refuses as error:
                said = str(error)
                most = LONGEST_REFUSAL * (7 if self.lines else 1)
                assert len(said) <= most, f"a refusal of {len(said)} characters"
                assert self.lines or "\n" not in said, f"a refusal of several lines: {said[:300]!r}"

        return take


def keepable(*events: Event | None) -> None:
    """Whatever was made of it can be handed to another process and stored."""
    for event in events:
        if event is not None:
            keys = (event.native_id, event.sender.id, event.route.conversation, event.route.thread or "")
            assert not any("\x00" in key for key in keys), "PostgreSQL keeps no zero character"
            assert type(event).model_validate_json(event.model_dump_json()) == event
