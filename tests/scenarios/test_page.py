"""The follower of pages finds what does not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from parley.messages import Button, File
from tests.fakes._driver import Sent
from tests.scenarios.page import Page, fits


class Echo:
    """A room in which we say what the test wrote down."""

    def __init__(self, *sent: Sent) -> None:
        self.heard: list[str] = []
        self._sent = list(sent)

    async def says(self, who: str, text: str, *, in_thread: bool = False) -> None:
        self.heard.append(f"{'> ' if in_thread else ''}{who}: {text}")

    async def presses(self, who: str, label: str) -> None:
        self.heard.append(f"{who} presses {label}")

    async def next(self) -> Sent:
        return self._sent.pop(0)

    async def changed(self) -> Sent:
        return self._sent.pop(0)


def page(tmp_path: Path, text: str, room: Echo) -> Page:
    path = tmp_path / "page.md"
    path.write_text(text)
    return Page(path, {}, tmp_path, rooms={"room": room})


CHAT = """
```chat
# room
ann: where is it?
> parley: Order **7**: … on its way
parley offers: Yes | No
> ann: yes?
ann presses: Yes
parley (privately): one
  two
parley sends: a.pdf
parley changes it: done
```
"""
OFFER = (Button(label="Yes", value="1"), Button(label="No", value="2"))


def sent() -> list[Sent]:
    return [
        Sent("Order 7: already\non its way", thread="t", buttons=OFFER),
        Sent("one two", private_to="ann"),
        Sent("", files=(File(name="a.pdf", content=b""),)),
        Sent("done"),
    ]


async def test_a_page_that_holds_is_followed(tmp_path: Path) -> None:
    room = Echo(*sent())
    await page(tmp_path, CHAT, room).follow()
    assert room.heard == ["ann: where is it?", "> ann: yes?", "ann presses Yes"]


@pytest.mark.parametrize(
    ("at", "instead"),
    [
        (0, Sent("Order 8: on its way", thread="t", buttons=OFFER)),
        (0, Sent("Order 7: x on its way", buttons=OFFER)),
        (0, Sent("Order 7: x on its way", thread="t")),
        (1, Sent("one two")),
        (1, Sent("one", private_to="ann")),
        (2, Sent("a.pdf")),
        (3, Sent("not done")),
    ],
)
async def test_whatever_is_otherwise_is_found(tmp_path: Path, at: int, instead: Sent) -> None:
    said = sent()
    said[at] = instead
    with pytest.raises(AssertionError, match=r"page\.md:2"):
        await page(tmp_path, CHAT, Echo(*said)).follow()


async def test_commands_are_typed_and_what_they_print_is_compared(tmp_path: Path) -> None:
    text = "```console\n$ echo one \\\n  two\none two\n$ cat note\nh…o\n$ true\n```\n"
    (tmp_path / "note").write_text("hello")
    await page(tmp_path, text, Echo()).follow()
    for wrong in (text.replace("one two\n$ cat", "two\n$ cat"), text.replace("$ true", "$ false")):
        with pytest.raises(AssertionError):
            await page(tmp_path, wrong, Echo()).follow()


def test_settings_are_all_of_the_pages_parts(tmp_path: Path) -> None:
    text = '```toml\n[owner]\n```\nand\n```toml\nname = "ann"\n```\n'
    assert page(tmp_path, text, Echo()).settings() == '[owner]\n\nname = "ann"\n'


def test_dots_stand_for_anything_and_nothing_else_does() -> None:
    assert fits("a … c", "a b b c")
    assert fits("`a`", "**a**")
    assert not fits("a", "a b")
    assert not fits("a.c", "abc")


async def test_a_page_is_followed_as_far_as_a_heading(tmp_path: Path) -> None:
    text = "# A page\n```console\n$ touch one\n```\n## Later\n```console\n$ touch two\n```\n"
    await page(tmp_path, text, Echo()).follow(until="Later")
    assert (tmp_path / "one").exists()
    assert not (tmp_path / "two").exists()


async def test_what_is_otherwise_here_is_so_in_files_and_commands(tmp_path: Path) -> None:
    followed = page(tmp_path, "```yaml\nurl: HOST/hook\n```\n```console\n$ echo HOST\nhere\n```\n", Echo())
    followed.instead = {"HOST": "here"}
    assert followed.file("yaml") == "url: here/hook\n"
    await followed.follow()
