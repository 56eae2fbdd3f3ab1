"""Discord as the people of a page use it: channels of one server, with their threads."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.fakes._discord_world import BOT, Json
from tests.fakes._driver import Sent, eventually
from tests.fakes.discord import DiscordDriver

WITHIN = 60.0
"""Seconds that an answer may take: the first one waits until everything is up."""

_OPTION = re.compile(r"(\w+):\s*(.*?)(?=\s+\w+:|$)")
_EDITED = re.compile(r"/channels/(\d+)/messages/(\d+)$")


class DiscordRoom:
    """One channel with its threads, or a direct conversation."""

    def __init__(self, discord: DiscordDriver, channel: str) -> None:
        self._discord = discord
        self._channel = channel
        self._read = 0
        self._edits_read = 0
        self._thread: str | None = None

    @classmethod
    def alone_with(cls, discord: DiscordDriver, who: str) -> DiscordRoom:
        """The direct conversation of somebody with us."""
        return cls(discord, discord.fake.direct(discord.fake.person(who)))

    async def says(self, who: str, text: str, *, in_thread: bool = False) -> None:
        """`@parley` becomes a mention; `/name option: value` is chosen in the menu, if it is in there."""
        place = (self._thread if in_thread else None) or self._channel
        if text.startswith("/"):
            name, _, rest = text[1:].partition(" ")
            self._choose(who, name, dict(_OPTION.findall(rest)), place)
        else:
            self._discord.fake.say(text.replace("@parley", f"<@{BOT}>"), person=who, channel=place)

    async def presses(self, who: str, label: str) -> None:
        for post in reversed(self._posts()):
            labels = [one["label"] for row in post["components"] for one in row["components"]]
            if label in labels:
                self._discord.fake.press(post, labels.index(label), person=who)
                return
        raise AssertionError(f"nothing here offers {label!r}")

    async def next(self) -> Sent:
        await eventually(lambda: len(self._posts()) > self._read, "another message", WITHIN)
        sent = self._discord.as_seen(self._posts()[self._read])
        self._read += 1
        self._thread = sent.thread or self._thread
        return sent

    async def changed(self) -> Sent:
        await eventually(lambda: len(self._edits()) > self._edits_read, "an edit", WITHIN)
        id_ = self._edits()[self._edits_read]
        self._edits_read += 1
        return self._discord.as_seen(next(post for post in self._posts() if post["id"] == id_))

    @property
    def read_all(self) -> bool:
        """Whether we wrote and edited nothing that `next` and `changed` have not given."""
        return (self._read, self._edits_read) == (len(self._posts()), len(self._edits()))

    def sent(self) -> list[Sent]:
        """All that we wrote here, read or not."""
        return [self._discord.as_seen(post) for post in self._posts()]

    def _choose(self, who: str, name: str, options: Mapping[str, str], place: str) -> None:
        menu = {command["name"]: command for command in self._discord.fake.commands.get("", [])}
        assert name in menu, f"/{name} is not in the menu: {sorted(menu)}"
        offered = {option["name"]: option for option in menu[name]["options"]}
        assert set(options) <= set(offered), f"/{name} has the options {sorted(offered)}"
        assert all(key in options for key, option in offered.items() if option.get("required"))
        self._discord.fake.slash(
            name,
            {key: _typed(offered[key], value) for key, value in options.items()},
            person=who,
            channel=place,
        )

    def _posts(self) -> list[Json]:
        posts = self._discord.fake.posts
        return [post for post in posts if self._discord.as_seen(post).conversation == self._channel]

    def _edits(self) -> list[str]:
        mine = {post["id"] for post in self._posts()}
        made = [_EDITED.search(path) for name, path in self._discord.fake.api.calls if name == "edit"]
        return [found[2] for found in made if found and found[2] in mine]


def _typed(option: Json, value: str) -> str | int | float | bool:
    """A value as Discord's own field for it gives it."""
    match option["type"]:
        case 4:
            return int(value)
        case 5:
            return value.lower() in {"true", "yes"}
        case 10:
            return float(value)
    return value
