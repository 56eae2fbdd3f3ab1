"""A group of WeCom with our robot in it, as the people there use it: over the fake of WeCom's gateway."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fakes._driver import Sent, eventually
from tests.fakes.wecom_bot import Post, WecomBotDriver

PATIENCE = 60.0
"""Seconds that what comes next may take: a real Alertmanager waits before it calls, and runs are started."""


class WecomRoom:
    """One group. `people`: the user ids of those who are called otherwise in a page.

    WeCom's robots know no threads and no edits: `> ` and `changes it` cannot be said of them.
    """

    def __init__(self, driver: WecomBotDriver, chat: str, people: Mapping[str, str]) -> None:
        self._driver = driver
        self._chat = chat
        self._people = people
        self._seen = 0

    async def says(self, who: str, text: str, *, in_thread: bool = False) -> None:
        """Somebody writes; the robot hears it only where the text begins with its mention."""
        assert not in_thread, "WeCom has no threads"
        assert text.startswith("@"), f"nobody mentions the robot: {text}"
        body = {"msgtype": "text", "text": {"content": text}}
        await self._driver.fake.say(user=self._people[who], chat=self._chat, body=body)

    async def presses(self, who: str, label: str) -> None:
        """Somebody presses a button of the newest card that has it."""
        for post in reversed(self._posts()):
            card = post.body.get("template_card", {})
            for button in card.get("button_list", []):
                if button["text"] == label:
                    user = self._people[who]
                    await self._driver.fake.press(card["task_id"], button["key"], user=user, chat=self._chat)
                    return
        raise AssertionError(f"there is no button {label!r}")

    async def next(self) -> Sent:
        """The next bubble in the group: a text, a card or a file."""
        await eventually(lambda: len(self._posts()) > self._seen, "what comes next in the group", PATIENCE)
        self._seen += 1
        return self._driver.as_seen(self._posts()[self._seen - 1])

    async def changed(self) -> Sent:
        """Nothing that a robot wrote is ever changed."""
        raise AssertionError("WeCom's robots edit nothing")

    def _posts(self) -> list[Post]:
        return [post for post in self._driver.fake.posts if post.chat == self._chat]
