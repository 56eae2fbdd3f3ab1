"""Which deliveries wait in memory: so many of a conversation, so many conversations of an account; the others are left.

Left is what waits in the store alone. Once something of a conversation is left, what comes for it is left too, and is
read in its order: nobody overtakes, and a million answers for a platform that is away need no more memory than ten
thousand.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from parley.messages.model import Reply

if TYPE_CHECKING:
    from datetime import datetime

    from parley.messages.deliveries import Delivery

MOST_CONVERSATIONS: Final = 500
"""Of one account."""

MOST_OF_ONE: Final = 20
"""Deliveries of one conversation."""

MOST_IN_MEMORY: Final = 64 * 1024
"""Bytes of a reply that may wait in memory; a larger one is read from the store when it is its turn."""

MOST_BYTES: Final = 32 * 1024 * 1024
"""Of all replies that wait in memory."""

IN_STORE: Final = Reply()
"""Stands for a reply that is not in memory."""


class WaitingList:
    """Knows what is here and what is left; reads nothing itself."""

    def __init__(
        self, *, most_conversations: int = MOST_CONVERSATIONS, most_of_one: int = MOST_OF_ONE
    ) -> None:
        self.most_conversations = most_conversations
        self.most_of_one = most_of_one
        self._here: dict[str, deque[Delivery]] = {}
        self._account_of: dict[str, str] = {}
        self._conversations: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._left: dict[str, int] = {}
        self._left_out: dict[str, int] = {}
        self._being_read: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many wait, here and left; what an earlier process left counts once its account was looked at."""
        return len(self._sizes) + sum(self._left.values()) + sum(self._left_out.values())

    def __contains__(self, delivery_id: object) -> bool:
        return delivery_id in self._sizes

    @property
    def oldest(self) -> datetime | None:
        """When the oldest that is here was written."""
        return min((queue[0].created_at for queue in self._here.values() if queue), default=None)

    def add(self, one: Delivery) -> bool:
        """One that was just written; whether it is here now."""
        conversation, account = one.conversation_id, one.route.account
        if one.id in self._sizes:
            return False
        if conversation not in self._here and not self._enter(conversation, account):
            self._left_out[account] = self._left_out.get(account, 0) + 1
            return False
        is_full = len(self._here[conversation]) >= self.most_of_one
        if is_full or conversation in self._left or self._being_read[conversation]:
            self._left[conversation] = self._left.get(conversation, 0) + 1
            return False
        self._append(one)
        return True

    def first(self, conversation: str) -> Delivery | None:
        """Whose turn it is."""
        queue = self._here.get(conversation)
        return queue[0] if queue else None

    def replace_first(self, one: Delivery) -> Delivery:
        """Change what is known of the first; returns it as it is kept."""
        kept = self._here[one.conversation_id][0] = _light(one)
        return kept

    def remove_first(self, conversation: str) -> None:
        """It is settled."""
        one = self._here[conversation].popleft()
        self._bytes -= self._sizes.pop(one.id)

    # -- what is left of a conversation

    def is_left(self, conversation: str) -> bool:
        """Whether something of it is in the store alone."""
        return conversation in self._left

    def begin_page(self, conversation: str) -> int:
        """From now on the next of it are read, with nothing of it here; returns how many are left, at a guess."""
        self._being_read[conversation] += 1
        return self._left.get(conversation, 0)

    def add_read(self, one: Delivery) -> None:
        """One of the page."""
        if one.id not in self._sizes:
            self._append(one)

    def end_page(self, conversation: str, before: int, left: int) -> None:
        """The page is read. `left`: of those `before`, how many are behind it, at a guess; 0 where that was all."""
        self._being_read -= Counter((conversation,))
        # What has come meanwhile may have been in the page or not: it is looked for once more.
        _set(self._left, conversation, left + self._left.get(conversation, 0) - before)

    def leave(self, conversation: str) -> str | None:
        """It has nothing any more: make room. Returns its account if more of that should be looked for now."""
        del self._here[conversation]
        account = self._account_of.pop(conversation)
        self._conversations -= Counter((account,))
        few = self._conversations[account] <= self.most_conversations * 9 // 10
        return account if account in self._left_out and few else None

    # -- what is left of an account

    def begin_look(self, account: str) -> int:
        """From now on conversations of it are looked for; returns how many deliveries are left out, at a guess."""
        self._being_read[account] += 1
        return self._left_out.get(account, 0)

    def wanted(self, account: str) -> int:
        """How many conversations to look for, so that its room is filled whichever are here already."""
        return self.most_conversations + self._conversations[account]

    def found(self, account: str, conversation: str, count: int) -> bool:
        """A conversation that has so many in the store, those here included; whether there is room for it."""
        if conversation not in self._here and not self._enter(conversation, account, looked_for=True):
            return False
        # What came while a page of it was read is counted already: it must not be forgotten for a smaller guess.
        left = max(count - len(self._here[conversation]), self._left.get(conversation, 0))
        if left > 0:
            self._left[conversation] = left
        return True

    def end_look(self, account: str, before: int, left_out: int) -> None:
        """As `end_page`: so many deliveries belong to conversations for which there is no room."""
        self._being_read -= Counter((account,))
        _set(self._left_out, account, left_out + self._left_out.get(account, 0) - before)

    def is_forgotten(self, account: str) -> bool:
        """Whether deliveries of it were left out while nothing is here whose end would have them looked for."""
        return (
            account in self._left_out and not self._conversations[account] and not self._being_read[account]
        )

    def _enter(self, conversation: str, account: str, *, looked_for: bool = False) -> bool:
        if not looked_for and (account in self._left_out or self._being_read[account]):
            return False  # something of this conversation may be in the store, before it
        if self._conversations[account] >= self.most_conversations:
            return False
        self._here[conversation] = deque()
        self._account_of[conversation] = account
        self._conversations[account] += 1
        return True

    def _append(self, one: Delivery) -> None:
        size = _size(one.reply)
        if size > MOST_IN_MEMORY or self._bytes + size > MOST_BYTES:
            one, size = replace(one, reply=IN_STORE), 0
        self._sizes[one.id] = size
        self._bytes += size
        self._here[one.conversation_id].append(one)


def _set(counts: dict[str, int], key: str, count: int) -> None:
    if count > 0:
        counts[key] = count
    else:
        counts.pop(key, None)


def _size(reply: Reply) -> int:
    return len(reply.text) + sum(len(file.content) for file in reply.files)


def _light(one: Delivery) -> Delivery:
    return replace(one, reply=IN_STORE) if _size(one.reply) > MOST_IN_MEMORY else one


__all__ = ["IN_STORE", "MOST_CONVERSATIONS", "MOST_IN_MEMORY", "MOST_OF_ONE", "WaitingList"]
