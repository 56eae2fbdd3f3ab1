"""Slash commands, presses and typing in Discord's menu: stored, and answered within the three seconds it gives."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from connectors._discord_commands import INTERACTION_AUTOCOMPLETE, Choices, suggestions
from connectors._discord_known import Known
from connectors._discord_read import Me, Place, id_of, moment_of, parse, token_of
from connectors._discord_rest import Rest
from connectors._discord_write import EPHEMERAL
from connectors._json import Json, object_of, text_of
from connectors._waiting import pause
from parley.errors import ConnectorError
from parley.messages import Accept, Event, Message

ANSWERS_WITHIN = 2.0  # of the three seconds that Discord gives

_TEXTS = {
    "en": ("This could not be taken just now. Please try again.", "This button is not known here any more."),
    "zh": ("暂时无法受理，请稍后再试。", "这个按钮已失效。"),
}

log = logging.getLogger(__name__)


class Interactions:
    """What people choose from one account's menu and buttons."""

    def __init__(
        self, account: str, rest: Rest, known: Known, accept: Accept, choices: Callable[[], Choices]
    ) -> None:
        self._account, self._rest, self._known, self._accept = account, rest, known, accept
        self._choices = choices

    async def take(self, data: Json, me: Me) -> None:
        """Store and answer one INTERACTION_CREATE. What cannot be stored in time is refused, and the person told."""
        began = time.monotonic()
        if data.get("type") == INTERACTION_AUTOCOMPLETE:
            found = suggestions(object_of(data.get("data")), self._choices())
            await self._answer(data, {"type": 8, "data": {"choices": found}})
            return
        place = await self._place(data, me)
        event = parse("INTERACTION_CREATE", data, self._account, me, place, values=self._known.values)
        if event is None:
            await self._refuse(data, 1)
        elif await self._stored(event, began):
            await self._acknowledge(data, event)
        else:
            # The person is told at once, and may try again: nothing is carried out behind their back later.
            await self._refuse(data, 0)

    async def _place(self, data: Json, me: Me) -> Place:
        try:
            return await self._known.place(self._rest, me, data)
        except ConnectorError:
            channel, guild = id_of(data.get("channel_id")), id_of(data.get("guild_id"))
            return Place(channel, 0 if guild else 1, guild)

    async def _stored(self, event: Event, began: float) -> bool:
        failures = 0
        while True:
            try:
                # What cannot be handed on now must not be stored when nobody waits for it any more.
                async with asyncio.timeout(max(0.1, ANSWERS_WITHIN - (time.monotonic() - began))):
                    await self._accept(event)
                return True
            except Exception as error:  # noqa: BLE001 - whatever it was, it is not stored
                failures += 1
                wait = pause(failures, longest=ANSWERS_WITHIN)
                if time.monotonic() + wait - began > ANSWERS_WITHIN:
                    log.warning(
                        "discord %s: a command was not stored in time (%s)",
                        self._account,
                        type(error).__name__,
                    )
                    return False
                await asyncio.sleep(wait)

    async def _acknowledge(self, data: Json, event: Event) -> None:
        """Tell Discord that it is taken: the person sees that an answer is being made."""
        private = event.route.private_to is not None
        if not isinstance(event, Message):
            # Not locked: more than one person may have to press it, and not everybody may.
            await self._answer(data, {"type": 6})
        elif await self._answer(data, {"type": 5, "data": {"flags": EPHEMERAL if private else 0}}):
            self._known.waiting[event.route.context["interaction"]] = private

    async def _refuse(self, data: Json, which: int) -> None:
        language = "zh" if text_of(data.get("locale")).startswith("zh") else "en"
        said = {"content": _TEXTS[language][which], "flags": EPHEMERAL, "allowed_mentions": {"parse": []}}
        await self._answer(data, {"type": 4, "data": said})

    async def _answer(self, data: Json, body: Json) -> bool:
        id_, token = id_of(data.get("id")), token_of(data.get("token"))
        if not (id_ and token):
            return False
        try:
            answer = await self._rest.ask(
                "POST", "/interactions/{}/{}/callback", id_, token, body=body, by_token=True
            )
        except ConnectorError as error:
            log.warning("discord %s: an interaction was not answered: %s", self._account, error)
            return False
        if not answer.ok:
            # Most likely too late: what is stored is answered all the same, by a message.
            age = time.time() - moment_of(id_).timestamp()
            log.warning(
                "discord %s: Discord did not take an answer after %.1f s (%s)",
                self._account,
                age,
                answer.code,
            )
        return answer.ok
