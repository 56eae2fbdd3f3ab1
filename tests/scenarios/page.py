"""Following a page of docs/ word for word: its settings are written, its commands typed, its conversations held.

A page's fenced blocks are taken in their order:

- `toml` is parley.toml, each block a part of it; all of them are written before anything is run.
- `console`: lines that begin with `$ ` are typed in a shell; those below are what it prints.
- `yaml` is a file of another program's; the test that follows the page puts it in its place.
- `chat` begins with `# room`, as in `# Slack, #support`. Then each line is one of

      ann: where is order 1024?            somebody writes
      ann presses: Run it                  somebody presses a button, by its label
      parley: Order 1024: in transit …     what we write next
      parley (privately): …                the same, for one person's eyes
      parley sends: logistics-1024.pdf     a file of ours, with what we wrote last or by itself
      parley offers: Run it | Cancel       the buttons of what we wrote last
      parley changes it: …                 what we wrote before is edited in place

  An indented line belongs to the one above it. Lines that stand in the thread of what is above begin with `> `.

In what is expected, `…` is any text. What is compared is what people see: marks of emphasis and code are left out.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.fakes._driver import Sent

_BLOCK = re.compile(r"^```(toml|yaml|console|chat)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_OURS = re.compile(
    r"parley(?: \((?P<privately>privately)\))?(?: (?P<verb>sends|offers|changes it))?: ?(?P<text>.*)",
    re.DOTALL,
)
_THEIRS = re.compile(r"(?P<who>[\w-]+)(?P<presses> presses)?: (?P<text>.*)", re.DOTALL)
_MARKS = re.compile(r"[*_`~]|</?(?:font|b|i|code)[^>]*>")


class Room(Protocol):
    """A place on a platform, as the people in it use it."""

    async def says(self, who: str, text: str, *, in_thread: bool = False) -> None:
        """Somebody writes; in the thread of what was last said here where the page has `> `."""

    async def presses(self, who: str, label: str) -> None:
        """Somebody presses the button of this label on the newest message of ours that has one."""

    async def next(self) -> Sent:
        """The next message from us that was not asked for yet, as soon as it is there."""

    async def changed(self) -> Sent:
        """The next message of ours that was edited, as it is now."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, and the heading that it stands under."""

    kind: str
    text: str
    where: str
    heading: str


@dataclass
class Page:
    """A page, and how its words are said where it is followed.

    `instead`: what stands in the page for a reader's own installation, and what it is here: ports, addresses and
    folders only.
    `more`: words added behind commands that begin so, for the address of a vendor's cloud that is a fake here.
    """

    path: Path
    environment: Mapping[str, str]
    folder: Path
    rooms: Mapping[str, Room] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)

    def blocks(self) -> Iterable[Block]:
        """The page's blocks, in order."""
        text = self.path.read_text(encoding="utf-8")
        for found in _BLOCK.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            headings = _HEADING.findall(text, 0, found.start())
            yield Block(found[1], found[2], f"{self.path.name}:{line}", headings[-1] if headings else "")

    def settings(self) -> str:
        """All of the page's parley.toml."""
        return self.file("toml")

    def file(self, kind: str) -> str:
        """What the page's blocks of this kind are together, for here."""
        return self._here("\n".join(block.text for block in self.blocks() if block.kind == kind))

    async def follow(self, *, since: str = "", until: str = "") -> None:
        """Do all that the page says after its settings; from the heading `since` on, before the heading `until`.

        Raises `AssertionError` with the line that was not so.
        """
        begun = not since
        for block in self.blocks():
            if until and block.heading == until:
                break
            begun = begun or block.heading == since
            if not begun:
                continue
            if block.kind == "console":
                for command, printed in commands(block.text):
                    await asyncio.to_thread(self._type, command, printed, block.where)
            elif block.kind == "chat":
                await self._hold(block)

    def _type(self, command: str, printed: str, where: str) -> None:
        command = self._here(command)
        added = next((words for start, words in self.more.items() if command.startswith(start)), "")
        done = subprocess.run(
            ["bash", "-ec", f"{command} {added}"],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{where}: {command}\n{done.stdout}{done.stderr}"
        assert fits(printed, done.stdout), f"{where}: {command} printed\n{done.stdout}\nand not\n{printed}"

    def _here(self, text: str) -> str:
        for said, here in self.instead.items():
            text = text.replace(said, here)
        return text

    async def _hold(self, block: Block) -> None:
        title, *lines = block.text.splitlines()
        room = self.rooms[title.removeprefix("#").strip()]
        last = Sent("")
        for line in joined(lines):
            said = line.removeprefix("> ")
            ours, theirs = _OURS.fullmatch(said), _THEIRS.fullmatch(said)
            if ours:
                last = await self._ours(room, ours, last, f"{block.where}: {line}", threaded=line != said)
            elif theirs and theirs["presses"]:
                await room.presses(theirs["who"], theirs["text"])
            elif theirs:
                await room.says(theirs["who"], theirs["text"], in_thread=line != said)
            else:
                raise AssertionError(f"{block.where}: nobody says {line!r}")

    async def _ours(self, room: Room, line: re.Match[str], last: Sent, where: str, *, threaded: bool) -> Sent:
        text = line["text"]
        if line["verb"] == "offers":
            labels = [button.label for button in last.buttons]
            assert labels == [label.strip() for label in text.split("|")], f"{where}\noffered are {labels}"
            return last
        if line["verb"] == "sends" and text.strip() in [file.name for file in last.files]:
            sent = last
        else:
            sent = await (room.changed() if line["verb"] == "changes it" else room.next())
        if line["verb"] == "sends":
            names = [file.name for file in sent.files]
            assert text.strip() in names, f"{where}\nsent are {names}: {sent.text}"
        else:
            assert fits(text, sent.text), f"{where}\nwas\n{sent.text}"
        assert bool(sent.private_to) == bool(line["privately"]), f"{where}\nprivate to {sent.private_to}"
        assert not threaded or sent.thread, f"{where}\nis in no thread"
        return sent


def commands(text: str) -> Iterable[tuple[str, str]]:
    """Each command of a console block with what it prints; a line that ends with a backslash goes on."""
    command, printed, going_on = "", list[str](), False
    for line in text.splitlines():
        if going_on:
            command += "\n" + line
        elif line.startswith("$ "):
            if command:
                yield command, "\n".join(printed)
            command, printed = line[2:], []
        else:
            printed.append(line)
        going_on = (going_on or line.startswith("$ ")) and line.endswith("\\")
    if command:
        yield command, "\n".join(printed)


def joined(lines: Sequence[str]) -> Iterable[str]:
    """Lines of a conversation; an indented one belongs to the one above."""
    said: list[str] = []
    for line in lines:
        if line.startswith("  ") and said:
            said[-1] += "\n" + line.strip()
        elif line.strip():
            said.append(line)
    return said


def fits(expected: str, actual: str) -> bool:
    """Whether this is what was expected; nothing expected fits anything."""
    if not expected.strip():
        return True
    pattern = "(?s:.*)".join(re.escape(part) for part in _plain(expected).split("…"))
    return re.fullmatch(pattern, _plain(actual)) is not None


def _plain(text: str) -> str:
    return " ".join(_MARKS.sub("", text).split())
