"""Slack as the people of a page use it: channels and direct conversations of one workspace."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fakes._driver import Sent, eventually
from tests.fakes.slack import BOT_USER, Json, SlackDriver, direct

WITHIN = 60.0
"""Seconds that an answer may take: the first one waits until everything is up."""


class SlackRoom:
    """One conversation. `people` are ids by the names that the page uses."""

    def __init__(self, slack: SlackDriver, channel: str, people: Mapping[str, str]) -> None:
        self._slack = slack
        self._channel = channel
        self._people = people
        self._read = 0
        self._edits_read = 0
        self._thread: str | None = None
        slack.fake.messages.setdefault(channel, [])
        slack.fake.members.add(channel)

    @classmethod
    def alone_with(cls, slack: SlackDriver, who: str, people: Mapping[str, str]) -> SlackRoom:
        """The direct conversation of somebody with us."""
        return cls(slack, direct(people[who]), people)

    async def says(self, who: str, text: str, *, in_thread: bool = False) -> None:
        """`@parley` becomes a mention; a text that begins with a slash is a command of the app."""
        if text.startswith("/"):
            command, _, rest = text.partition(" ")
            await self._slack.fake.slash(command, rest, user=self._people[who], channel=self._channel)
            return
        typed = text.replace("&", "&amp;").replace("<", "&lt;").replace("@parley", f"<@{BOT_USER}>")
        thread = self._thread if in_thread else None
        ts = await self._slack.fake.say(typed, user=self._people[who], channel=self._channel, thread=thread)
        self._thread = thread or ts

    async def presses(self, who: str, label: str) -> None:
        for post in reversed(self._posts()):
            labels = [
                e["text"]["text"] for block in post.get("blocks", []) for e in block.get("elements", [])
            ]
            if label in labels:
                await self._slack.fake.press(post, labels.index(label), user=self._people[who])
                return
        raise AssertionError(f"nothing here offers {label!r}")

    async def next(self) -> Sent:
        await eventually(
            lambda: len(self._posts()) > self._read, f"another message in {self._channel}", WITHIN
        )
        post = self._posts()[self._read]
        self._read += 1
        self._thread = post.get("thread_ts") or self._thread
        return self._slack.as_seen(post)

    async def changed(self) -> Sent:
        await eventually(lambda: len(self._edits()) > self._edits_read, "an edit", WITHIN)
        ts = self._edits()[self._edits_read]["ts"]
        self._edits_read += 1
        return self._slack.as_seen(next(post for post in self._posts() if post["ts"] == ts))

    @property
    def read_all(self) -> bool:
        """Whether we wrote nothing that `next` has not given."""
        return self._read == len(self._posts())

    def texts(self) -> list[str]:
        """All that we wrote here, read or not."""
        return [self._slack.as_seen(post).text for post in self._posts()]

    def _posts(self) -> list[Json]:
        return [post for post in self._slack.fake.posts if post["channel"] == self._channel]

    def _edits(self) -> list[Json]:
        made = [given for method, given in self._slack.fake.calls if method == "chat.update"]
        return [given for given in made if given["channel"] == self._channel]
