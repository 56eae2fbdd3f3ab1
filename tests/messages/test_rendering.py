"""Rendering down loses nothing and breaks nothing, whatever is said and however little a platform can show."""

from __future__ import annotations

import csv
import io
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parley.language.grammar import parse_command
from parley.messages import MAX_FILE, Button, Capabilities, File, Reply, Table
from parley.messages.rendering import MOST_PARTS, render_down, split_text, table_csv, table_text

FAMILY = "👨‍👩‍👧‍👦"
CLUSTERS = (FAMILY, "e\u0301", "🇩🇪", "👍🏽", "❤️", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "ก็", "नि")
"""What people see as one character and computers as several; none has more than 14 code points."""

PIECES = (
    *CLUSTERS,
    "word",
    "中文，字",
    " ",
    "\n",
    "\n\n",
    "```\n",
    "\n```python\n",
    "\n```\n",
    "`x`",
    "````\n",
    "a" * 30,
)
texts = st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(max_size=400)
units = st.sampled_from(["characters", "bytes", "utf16"])
places = st.builds(
    Capabilities,
    max_text=st.integers(64, 200),
    text_unit=units,
    max_file=st.sampled_from([0, 50, 10_000]),
    max_files=st.sampled_from([1, 2, 10]),
    max_buttons=st.sampled_from([0, 2, 25]),
    markup=st.sampled_from(["none", "markdown"]),
)
files = st.builds(File, name=st.sampled_from(["a.txt", "b.png"]), content=st.binary(max_size=100))
buttons = st.builds(
    Button, label=st.sampled_from(["Yes", "No"]), value=st.sampled_from(["/yes 1", "/no `a`"])
)
tables = st.builds(
    Table,
    columns=st.tuples(st.text(max_size=8), st.text(max_size=8)),
    rows=st.lists(st.lists(st.text(max_size=8), max_size=4).map(tuple), max_size=6).map(tuple),
)
replies = st.builds(
    Reply,
    text=texts,
    table=st.none() | tables,
    files=st.lists(files, max_size=3).map(tuple),
    buttons=st.lists(buttons, max_size=4).map(tuple),
    private=st.booleans(),
)


def size(text: str, can: Capabilities) -> int:
    if can.text_unit == "utf16":
        return len(text.encode("utf-16-le")) // 2
    return len(text) if can.text_unit == "characters" else len(text.encode())


def words(text: str) -> str:
    """What is said, without blanks and the marks of code, which parts may have more of."""
    return re.sub(r"\s|`{3,}(?:python)?", "", text)


def is_balanced(part: str) -> bool:
    opened = ""
    for line in part.split("\n"):
        found = re.fullmatch(r"(`{3,})([^`]*)", line)
        if found and not opened:
            opened = found[1]
        elif found and len(found[1]) >= len(opened) and not found[2].strip():
            opened = ""
    return not opened


PATIENT = settings(max_examples=200, deadline=None)
"""A machine that is busy with other tests is slow, not wrong."""


# --- long text -------------------------------------------------------------------------------------------------------


@PATIENT
@given(text=texts, most=st.integers(1, 200), unit=units)
@example(text="\ud800" * 100, most=10, unit="bytes")
def test_every_part_fits(text: str, most: int, unit: str) -> None:
    can = Capabilities.model_validate({"max_text": most, "text_unit": unit})
    for part in split_text(text, can):
        # A place with room for less than one character gets one character all the same.
        assert len(part.encode("utf-8", "replace") if unit == "bytes" else part) <= max(most, 4)


@PATIENT
@given(text=texts, most=st.integers(1, 200), unit=units)
def test_no_word_is_lost_or_said_twice(text: str, most: int, unit: str) -> None:
    can = Capabilities.model_validate({"max_text": most, "text_unit": unit})
    if most < 64:
        assert re.sub(r"\s", "", "".join(split_text(text, can))) == re.sub(r"\s", "", text)
    else:
        assert words("\n".join(split_text(text, can))) == words(text)


@PATIENT
@given(text=texts, most=st.integers(64, 200), unit=units)
@example(text="```python\n" + "x = 1\n" * 50 + "```\nafter", most=64, unit="characters")
@example(text="````\n```\n" + "x\n" * 100 + "```\n````", most=64, unit="bytes")
@example(text="aaa ```" + "b" * 100, most=64, unit="characters")
def test_code_that_was_closed_is_closed_in_every_part(text: str, most: int, unit: str) -> None:
    can = Capabilities.model_validate({"max_text": most, "text_unit": unit})
    parts = split_text(text, can)
    assert all(is_balanced(part) for part in parts[:-1])
    assert is_balanced(parts[-1]) or not is_balanced(text)


@PATIENT
@given(
    pieces=st.lists(st.sampled_from((*CLUSTERS, "a", "中")), max_size=200),
    most=st.integers(64, 100),
    unit=units,
)
def test_no_character_is_cut(pieces: list[str], most: int, unit: str) -> None:
    can = Capabilities.model_validate({"max_text": most, "text_unit": unit})
    for part in split_text("".join(pieces), can):
        rest = part
        while rest:
            whole = next((cluster for cluster in CLUSTERS if rest.startswith(cluster)), None)
            assert whole or rest[0] in "a中", f"cut: {rest[:8]!r}"
            rest = rest[len(whole or "a") :]


@PATIENT
@given(text=texts)
def test_what_fits_stays_as_it_is(text: str) -> None:
    assert split_text(text, Capabilities(max_text=10_000)) == (text,)


def test_code_keeps_its_lines_and_its_language() -> None:
    code = "\n".join(f"line {number}" for number in range(40))
    parts = split_text(f"```python\n{code}\n```\nafter", Capabilities(max_text=100))
    assert all(part.startswith("```python\n") for part in parts[:-1])
    inner = [re.sub(r"^```.*\n?", "", part, flags=re.MULTILINE) for part in parts]
    assert "".join(inner) == f"{code}\nafter"


def test_blank_lines_in_code_survive_a_cut() -> None:
    code = "\n\n\n".join(f"x = {number}" for number in range(60))
    parts = split_text(f"```\n{code}\n```", Capabilities(max_text=70))
    inner = "".join(re.sub(r"^```\n?", "", part, flags=re.MULTILINE) for part in parts)
    assert inner.rstrip("\n") == code


def test_no_part_is_an_empty_code() -> None:
    for length in range(60, 140):
        for part in split_text("```\n" + "x" * length + "\n```\nafter", Capabilities(max_text=100)):
            assert not part.startswith("```\n```")


def test_it_is_cut_at_paragraphs_then_lines_then_words() -> None:
    can = Capabilities(max_text=100)
    assert split_text("a " * 30 + "\n\n" + "b " * 30, can)[0].strip() == ("a " * 30).strip()
    assert split_text("a " * 30 + "\n" + "b " * 30, can)[0].strip() == ("a " * 30).strip()
    assert split_text("word " * 30, can)[0].endswith("word ")


def test_blanks_alone_are_not_sent() -> None:
    can = Capabilities(max_text=70)
    assert split_text("a" + " " * 500 + "\n" * 500 + "b", can)[-1].strip() == "b"
    assert all(part.strip() for part in split_text("a" + " " * 500 + "b", can))
    assert len(split_text(" " * 500, can)) == 1


@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, "🇩🇪" * 250_000, "`" * 1_000_000, "e" + "\u0301" * 1_000_000, "\n" * 1_000_000]
)
@pytest.mark.parametrize("unit", ["characters", "bytes", "utf16"])
def test_a_million_characters_take_no_time(text: str, unit: str) -> None:
    began = time.process_time()
    parts = split_text(text, Capabilities.model_validate({"max_text": 400, "text_unit": unit}))
    assert time.process_time() - began < 5
    assert "".join(parts).strip() == text.strip()


# --- replies ---------------------------------------------------------------------------------------------------------


@PATIENT
@given(reply=replies, can=places)
def test_what_comes_out_can_be_shown(reply: Reply, can: Capabilities) -> None:
    for part in render_down(reply, can):
        assert part.table is None
        assert len(part.buttons) <= can.max_buttons
        assert all(can.max_file and len(file.content) <= can.max_file for file in part.files)
        assert size(part.text, can) <= can.max_text
        assert part.private == reply.private
        assert not (part.files and part.buttons)
        assert not (part.private and part.files and part.text)


@PATIENT
@given(reply=replies, can=places)
def test_nothing_is_lost(reply: Reply, can: Capabilities) -> None:
    parts = render_down(reply, can)
    shown = "\n".join(part.text for part in parts)
    sent = [file for part in parts for file in part.files]
    everything = shown + "".join(
        file.content.decode("utf-8-sig") for file in sent if file.name == "answer.txt"
    )
    assert words(reply.text) in words(everything)
    for button in reply.buttons:
        assert button in [b for part in parts for b in part.buttons] or words(button.value) in words(
            everything
        )
    for file in reply.files:
        assert file in sent or f"{file.name}:thisplacecannottakethefile" in words(everything)


@PATIENT
@given(reply=replies, can=places)
def test_rendering_down_twice_changes_nothing(reply: Reply, can: Capabilities) -> None:
    parts = render_down(reply, can)
    assert tuple(again for part in parts for again in render_down(part, can)) == parts


def test_lone_surrogates_are_replaced() -> None:
    table = Table(columns=("a\ud800",), rows=(("\udfff",),))
    (shown,) = render_down(Reply(text="x\ud800y", table=table), Capabilities())
    assert shown.text.startswith("x\ufffdy")
    assert shown.model_dump_json()


def test_too_many_parts_become_a_file() -> None:
    can = Capabilities(max_text=100, max_file=100_000, max_buttons=5)
    text = "word " * 1000
    button = Button(label="Yes", value="/yes 1")
    first, second, file = render_down(Reply(text=text, buttons=(button,)), can)
    assert first.text.startswith("word word")
    assert (second.buttons, second.files) == ((button,), ())
    assert file.files[0].content.decode() == text


def test_a_file_that_would_be_too_large_is_said_in_parts() -> None:
    parts = render_down(Reply(text="word " * 1000), Capabilities(max_text=100, max_file=1000))
    assert len(parts) > MOST_PARTS
    assert not any(part.files for part in parts)


def test_private_text_and_files_are_apart_and_private() -> None:
    file = File(name="a", content=b"a")
    parts = render_down(Reply(text="x", files=(file,), private=True), Capabilities(max_file=10))
    assert parts == (Reply(text="x", private=True), Reply(files=(file,), private=True))


def test_buttons_stand_below_all_of_the_text() -> None:
    button = Button(label="Yes", value="/yes 1")
    parts = render_down(
        Reply(text="word " * 60, buttons=(button,)), Capabilities(max_text=100, max_buttons=1)
    )
    assert [part.buttons for part in parts] == [()] * (len(parts) - 1) + [(button,)]


def test_an_empty_file_is_no_file_where_there_are_none() -> None:
    (shown,) = render_down(Reply(files=(File(name="empty.txt", content=b""),)), Capabilities())
    assert (shown.files, shown.text) == ((), "[empty.txt: this place cannot take the file]")


# --- buttons ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("markup", ["none", "markdown"])
@pytest.mark.parametrize("value", ["/yes 1a2b", '/run restart host="web 1"', "/note `x` and ``y``", "web1"])
def test_a_code_is_what_the_button_would_have_sent(markup: str, value: str) -> None:
    can = Capabilities.model_validate({"markup": markup})
    (shown,) = render_down(Reply(text="sure?", buttons=(Button(label="Do it", value=value),)), can)
    code = shown.text.splitlines()[-1].removeprefix("- Do it: ")
    if markup == "markdown":
        mark = re.match("`+", code)
        assert mark is not None
        assert mark[0] not in value
        code = code.removeprefix(mark[0]).removesuffix(mark[0]).strip()
    assert code == value
    if value.startswith("/"):
        parsed = parse_command(code)
        assert parsed is not None
        assert parsed.name in {"yes", "restart", "note"}


def test_a_choice_that_is_its_own_label_is_said_once() -> None:
    (shown,) = render_down(
        Reply(text="which?", buttons=(Button(label="web1", value="web1"),)), Capabilities()
    )
    assert shown.text == "which?\n\n- web1"


# --- tables ----------------------------------------------------------------------------------------------------------


def test_columns_stand_below_each_other() -> None:
    table = Table(
        columns=("名称", "n"),
        rows=(("a", "1"), ("中文字", "22"), ("e\u0301", "3"), (FAMILY, "4"), ("🇩🇪", "5")),
    )
    lines = table_text(table).splitlines()
    assert lines[1] == "------  --"
    # On a screen: wide characters take two columns, marks and what is joined none.
    assert lines[3] == "中文字  22"
    assert lines[4] == "e\u0301" + " " * 7 + "3"
    assert lines[5] == FAMILY + " " * 6 + "4"
    assert lines[6] == "🇩🇪" + " " * 6 + "5"


def test_a_cell_is_one_line_and_cannot_end_the_code() -> None:
    table = Table(columns=("a", "b"), rows=(("x\ny\r\nz\u2028w", "```"), ("```", "t\tu")))
    text = table_text(table)
    assert len(text.splitlines()) == 4
    assert "x y z w" in text
    (shown,) = render_down(Reply(table=table), Capabilities())
    assert is_balanced(shown.text)
    assert shown.text.count("```") == 2


@pytest.mark.parametrize("table", [Table(columns=(), rows=()), Table(columns=(), rows=(("a", "b"),))])
def test_rows_may_be_longer_or_shorter_than_the_header(table: Table) -> None:
    text = table_text(table)
    assert all(cell in text for row in table.rows for cell in row)
    ragged = Table(columns=("a", "b"), rows=(("1",), ("1", "2", "three")))
    assert "three" in table_text(ragged)


def test_a_large_table_is_a_file_where_there_are_files() -> None:
    table = Table(columns=("n", "square"), rows=tuple((str(n), str(n * n)) for n in range(100)))
    (shown,) = render_down(Reply(text="see", table=table), Capabilities(max_text=500, max_file=MAX_FILE))
    assert shown.text == "see\n\n(100 rows: see the file.)"
    (file,) = shown.files
    assert (file.name, file.media_type) == ("table.csv", "text/csv")
    rows = list(csv.reader(io.StringIO(file.content.decode("utf-8-sig"))))
    assert rows == [["n", "square"], *[[str(n), str(n * n)] for n in range(100)]]


@pytest.mark.parametrize("max_file", [0, 100])
def test_a_large_table_is_text_where_its_file_cannot_be_sent(max_file: int) -> None:
    table = Table(columns=("n",), rows=tuple((f"row-{n}",) for n in range(100)))
    parts = render_down(Reply(table=table), Capabilities(max_text=100, max_file=max_file))
    shown = "\n".join(part.text for part in parts)
    assert all(f"row-{n}" in shown for n in range(100))
    assert all(is_balanced(part.text) for part in parts)


@PATIENT
@given(table=tables)
def test_a_csv_holds_every_cell(table: Table) -> None:
    rows = list(csv.reader(io.StringIO(table_csv(table).decode("utf-8-sig"), newline="")))
    kept = [list(row) for row in (table.columns, *table.rows)]
    # An empty row is a blank line, which readers leave out or give as no cells.
    assert [[cell.removeprefix("'") for cell in row] for row in rows if row] == [
        [cell.removeprefix("'") for cell in row] for row in kept if row
    ]


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "  =1",
        "＝1",
        "-inf",
        "+1_000",
        "=",
    ],
)
def test_no_cell_becomes_a_formula(cell: str) -> None:
    content = table_csv(Table(columns=(cell,), rows=((cell,),))).decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(content, newline="")))
    assert rows == [["'" + cell], ["'" + cell]]


@pytest.mark.parametrize("cell", ["-5", "+1.5", "-1,234.50", "-2e-3", "-3 %", "a=b", "x@example.org", ""])
def test_numbers_and_plain_words_stay_as_they_are(cell: str) -> None:
    content = table_csv(Table(columns=("c", "d"), rows=((cell, "e"),))).decode("utf-8-sig")
    assert list(csv.reader(io.StringIO(content)))[1] == [cell, "e"]
