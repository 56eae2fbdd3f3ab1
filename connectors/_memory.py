"""A dict that forgets: what a connector knows while it runs must not grow for ever."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

REMEMBERED = 10_000

K = TypeVar("K")
V = TypeVar("V")


class Memory(OrderedDict[K, V], Generic[K, V]):
    """Holds at most `most` entries; the one that was set or recalled longest ago goes first."""

    def __init__(self, most: int = REMEMBERED) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, key: K, value: V) -> None:
        if key in self:
            self.move_to_end(key)
        super().__setitem__(key, value)
        if len(self) > self.most:
            self.popitem(last=False)

    def recall(self, key: K) -> V | None:
        """The value, which is thereby used; None where it is not known."""
        if key not in self:
            return None
        self.move_to_end(key)
        return self[key]
