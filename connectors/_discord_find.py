"""After a lost answer: whether a message of ours arrived.

Discord keeps no nonce with a message (only the gateway's report of it carries one), so that our messages are looked
through by what they say.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from connectors._discord_known import Attempt, Known
from connectors._discord_read import id_of, is_own, snowflake_at
from connectors._discord_rest import UNKNOWN_CHANNEL, WRONG_CHANNEL_TYPE, Rest
from connectors._discord_send import ORIGINAL, channel_of
from connectors._discord_write import nonce
from connectors._json import object_of, objects_of, text_of
from parley.errors import Unknown
from parley.messages import ConversationKind, Receipt, Route

LOOK_BACK = 24 * 3600.0
CLOCKS_APART = 60.0
PAGES = 10
PAGE = 100
LOADING = 1 << 7  # the flag of a message that says an answer is being made


class Finder:
    """Looks for deliveries of one account."""

    def __init__(self, rest: Rest, known: Known) -> None:
        self._rest, self._known = rest, known

    async def find(self, token: str, route: Route) -> Receipt | None:
        """Look whether the last attempt arrived; None when it surely did not. Raises `Unknown` where that is open."""
        attempt = self._known.attempts.recall(token)
        if attempt is None:
            await self._nothing_lately(route)
            return None
        if attempt.original is not None:
            found = await self._filled_in(attempt, attempt.original)
        else:
            found = self._known.nonces.recall(nonce(token, attempt.part)) or await self._in_history(attempt)
        if found is None:
            return None
        attempt.sent = (*attempt.sent[: attempt.part], found)
        return Receipt(native_ids=attempt.sent) if len(attempt.sent) == attempt.whole else None

    async def _filled_in(self, attempt: Attempt, interaction: tuple[str, str]) -> str | None:
        answer = await self._rest.ask("GET", ORIGINAL, *interaction, by_token=True)
        if not answer.ok:
            raise Unknown("Discord does not say any more whether the answer was filled in.")
        message = object_of(answer.data)
        flags = message.get("flags")
        if isinstance(flags, int) and flags & LOADING:
            return None
        self._known.waiting.pop(interaction[1], None)
        return id_of(message.get("id")) or None

    async def _in_history(self, attempt: Attempt) -> str | None:
        if attempt.hidden:
            raise Unknown("Discord keeps no answers for one person that could be looked among.")
        if not attempt.channel:
            return None  # it was never posted
        for said in await self._own_since(attempt.channel, attempt.began - CLOCKS_APART):
            names = sorted(text_of(about.get("filename")) for about in objects_of(said.get("attachments")))
            same_text = text_of(said.get("content")).strip() == attempt.content.strip()
            if same_text and len(names) == len(attempt.files) and said["id"] not in self._known.own:
                self._known.own[said["id"]] = True
                return str(said["id"])
        return None

    async def _nothing_lately(self, route: Route) -> None:
        """Raises `Unknown` unless we wrote nothing there that we cannot account for."""
        if route.private_to and route.kind is not ConversationKind.DIRECT:
            raise Unknown("Whether an answer for one person arrived cannot be told after a restart.")
        channels = [channel_of(route)]
        if route.thread and route.kind is ConversationKind.CHANNEL:
            channels.append(route.thread)
        for channel in channels:
            said = await self._own_since(channel, time.time() - LOOK_BACK)
            if any(message["id"] not in self._known.own for message in said):
                raise Unknown(
                    "We wrote here lately: whether that was this answer cannot be told after a restart."
                )

    async def _own_since(self, channel: str, moment: float) -> list[Mapping[str, Any]]:
        me = await self._known.who(self._rest)
        own: list[Mapping[str, Any]] = []
        after = snowflake_at(moment)
        for _ in range(PAGES):
            params = {"after": str(after), "limit": str(PAGE)}
            answer = await self._rest.patiently("GET", "/channels/{}/messages", channel, params=params)
            if answer.code in {UNKNOWN_CHANNEL, WRONG_CHANNEL_TYPE}:
                return own  # no thread was begun
            if not answer.ok:
                raise Unknown("Discord does not let us read the conversation that it would be in.")
            page = sorted(
                (said for said in objects_of(answer.data) if id_of(said.get("id"))),
                key=lambda m: int(m["id"]),
            )
            own += [said for said in page if is_own(said, me)]
            if len(page) < PAGE:
                return own
            after = int(page[-1]["id"])
        raise Unknown("The conversation is too long to look for one message in it.")
