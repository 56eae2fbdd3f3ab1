"""Values of labels that come from outside, bounded, so that nobody can make series without end."""

from __future__ import annotations

from collections import defaultdict

MOST_VALUES = 200
"""Most different values of one label that comes from outside."""

OTHER = "other"


class Bounded:
    """Remembers the values of each label; after `MOST_VALUES` different ones the rest are `other`."""

    def __init__(self) -> None:
        self._values: defaultdict[str, set[str]] = defaultdict(set)

    def __call__(self, label: str, value: str) -> str:
        """This value, or `other`."""
        known = self._values[label]
        if value not in known:
            if len(known) >= MOST_VALUES:
                return OTHER
            known.add(value)
        return value

    def forget(self, label: str, value: str) -> bool:
        """Make room for another value; whether this one was known."""
        known = value in self._values[label]
        self._values[label].discard(value)
        return known
