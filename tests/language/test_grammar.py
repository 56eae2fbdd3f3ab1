"""The command grammar."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.errors import BadArguments
from parley.language.grammar import Command, parse_command


def parsed(text: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    command = parse_command(text)
    assert command is not None
    assert command.raw == text
    return command.name, command.positional, command.named


@pytest.mark.parametrize(
    ("text", "name", "positional", "named"),
    [
        ("/order 1024", "order", ("1024",), {}),
        ("  /order\t1024\n", "order", ("1024",), {}),
        ("／ｏｒｄｅｒ　１０２４", "order", ("1024",), {}),
        ("、order 1024", "order", ("1024",), {}),
        ("/order，1024", "order", ("1024",), {}),
        ("/help。", "help", (), {}),
        ("/Daily_Report", "daily-report", (), {}),
        ("/order@parley_bot 1024", "order", ("1024",), {}),
        ("@parley /order 1024", "order", ("1024",), {}),
        ("<@U012AB3CD> @you  /order 1024", "order", ("1024",), {}),
        ("/run restart-service host=web1", "restart-service", (), {"host": "web1"}),
        ("/run /Restart_Service web1", "restart-service", ("web1",), {}),
        ("/a b key=value", "a", ("b",), {"key": "value"}),
        ("/a --key=value —other=2", "a", (), {"key": "value", "other": "2"}),
        ("/a Ｋｅｙ－Ｎａｍｅ＝ｖ１", "a", (), {"key_name": "v1"}),
        ("/a key= b", "a", ("b",), {"key": ""}),
        ('/a k="b c" \'d "e\'', "a", ('d "e',), {"k": "b c"}),
        ("/a “一 二” 「三 四」 『五』 ‘六’", "a", ("一 二", "三 四", "五", "六"), {}),
        (r'/a "say \"hi\" \\ C:\new"', "a", (r'say "hi" \ C:\new',), {}),
        (r"/a 'C:\new \"'", "a", (r"C:\new \"",), {}),
        ("/a “ｆｕｌｌ　ｗｉｄｔｈ”", "a", ("ｆｕｌｌ　ｗｉｄｔｈ",), {}),
        ("/a don't 5'10", "a", ("don't", "5'10"), {}),
        ("/a https://x.example/?q=1&r=2", "a", ("https://x.example/?q=1&r=2",), {}),
        ("/note 注意：磁盘已满！", "note", ("注意：磁盘已满！",), {}),
        ('/a "k=v"', "a", ("k=v",), {}),
        ("/a k=v=w", "a", (), {"k": "v=w"}),
        ('/a ""', "a", ("",), {}),
        ("/订单 1024", "订单", ("1024",), {}),
    ],
)
def test_reads(text: str, name: str, positional: tuple[str, ...], named: dict[str, str]) -> None:
    assert parsed(text) == (name, positional, named)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "/",
        "//",
        "/ order",
        "/etc/passwd is full",
        "hi /order 1",
        "where is it?",
        "/？？",
        "、然后呢",
        "1/2",
    ],
)
def test_leaves_plain_language_alone(text: str) -> None:
    assert parse_command(text) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/a 'b c", "position 4"),
        ('/a k="b \\"', "position 6"),
        ("/a “b", "Add ”"),
        ('/a "b"c', "position 7"),
        ("/a k=1 K=2", "`k` is given twice"),
        ("/a my-key=1 my_key=2", "`my_key` is given twice"),
        ("/a --force", "force=value"),
        ("/a b\x00c", "U+0000 at position 5"),
        ("/a \ud83d", "U+D83D"),
        ("/run", "/run NAME"),
        ("/订单 '一", "第 5 个字符"),
    ],
)
def test_says_what_cannot_be_read_and_where(text: str, told: str) -> None:
    with pytest.raises(BadArguments, match=r".") as refused:
        parse_command(text)
    assert told in str(refused.value)


@given(
    st.text(
        alphabet=st.one_of(st.sampled_from("/／a1 =＝\"'“”\\-@<>、_\x00\n　"), st.characters()), max_size=60
    )
)
def test_raises_nothing_but_bad_arguments(text: str) -> None:
    try:
        command = parse_command("/" + text)
    except BadArguments:
        return
    assert command is None or isinstance(command, Command)


MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        "/a " + "a " * (MEGABYTE // 2),
        "/a " + '"' * MEGABYTE,
        '/a "' + "\\" * MEGABYTE,
        '/a "' + '\\"' * (MEGABYTE // 2),
        "/a " + "'" * MEGABYTE,
        "/a " + "“" * MEGABYTE,
        "/" + "a" * MEGABYTE,
        "@" * MEGABYTE,
        "@a " * (MEGABYTE // 3),
        "<@" * (MEGABYTE // 2),
        "<@" + "a" * MEGABYTE,
        " " * MEGABYTE + "/",
        "/a " + "k-" * (MEGABYTE // 2),
        "/a" + "@" * MEGABYTE,
        "/a " + "—" * MEGABYTE,
        "/a" + "，" * MEGABYTE,
        "/a " + " ".join(f"k{n}=" for n in range(MEGABYTE // 8)),
    ],
    ids=lambda text: text[:8],
)
def test_takes_linear_time(text: str) -> None:
    """A megabyte in well under the seconds that anything quadratic would take."""
    started = time.process_time()
    with contextlib.suppress(BadArguments):
        parse_command(text)
    assert time.process_time() - started < 3
