"""What an automation returns, as people see it."""

from __future__ import annotations

import csv
import io
from collections import namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from parley import File, Reply, Report, Table
from parley.messages.model import MAX_FILE
from parley.runs.answers import MAX_ROWS, NotRenderable, csv_file, render

Point = namedtuple("Point", "x y")  # noqa: PYI024 - what older code returns


class Colour(Enum):
    RED = "red"


class Leg(BaseModel):
    place: str
    minutes: int | None = None


class Trip(BaseModel):
    trip_name: str
    price: Decimal = Field(title="Price (EUR)")
    legs: list[Leg] = []
    map: File | None = None


@dataclass
class Pair:
    left: int
    right: str


class Own:
    def __reply__(self) -> str:
        return "my own words"

    def __repr__(self) -> str:
        return "Own()"  # without an address: a test's name is the same in every process


class Figure:
    """What matplotlib's figures look like from outside."""

    def savefig(self, target: io.BytesIO, format: str) -> None:  # noqa: A002
        target.write(b"\x89PNG\r\n\x1a\n" + format.encode())


class Frame:
    """What pandas' frames look like from outside."""

    columns = ("a", 2)

    def itertuples(self, index: bool, name: None) -> list[tuple[Any, ...]]:
        return [(1, None), (True, 2.5)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("hello", "hello"),
        (None, "Done."),
        ("", "Done."),
        (True, "yes"),
        (3, "3"),
        (2.5, "2.5"),
        (Decimal("1.10"), "1.10"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02 03:04:00+00:00"),
        (Colour.RED, "red"),
        (SecretStr("hunter2"), "**********"),
        ({"a": 1, "b": None, "c": [1, 2]}, "**a**: 1\n**c**: 1, 2"),
        (Pair(1, "r"), "**Left**: 1\n**Right**: r"),
        (Point(1, 2), "**x**: 1\n**y**: 2"),
        (["a", "b"], "- a\n- b"),
        (("only",), "only"),
        ([], "Nothing found."),
        (Own(), "my own words"),
    ],
    ids=repr,
)
def test_values_become_text(value: object, text: str) -> None:
    assert render(value).text == text


def test_a_reply_is_taken_as_it_is() -> None:
    reply = Reply(text="x", private=True)
    assert render(reply) is reply


def test_the_words_are_in_the_persons_language() -> None:
    assert render(None, "zh").text == "已完成。"
    assert render(False, "zh-CN").text == "否"


@pytest.mark.parametrize(
    "rows",
    [
        [{"place": "A", "minutes": 5}, {"place": "B"}],
        [Leg(place="A", minutes=5), Leg(place="B")],
    ],
    ids=["dicts", "models"],
)
def test_rows_become_a_table(rows: list[Any]) -> None:
    table = render(rows).table
    assert table is not None
    assert [cells[1] for cells in table.rows] == ["5", ""]


def test_a_frame_becomes_a_table() -> None:
    assert render(Frame()).table == Table(columns=("a", "2"), rows=(("1", ""), ("yes", "2.5")))


def test_many_rows_come_as_a_file_too() -> None:
    reply = render([{"n": number} for number in range(MAX_ROWS + 1)])
    assert reply.table is not None
    assert len(reply.table.rows) == MAX_ROWS
    assert reply.files[0].name == "rows.csv"
    assert reply.files[0].content.count(b"\n") == MAX_ROWS + 2


def test_a_model_shows_lines_rows_and_files() -> None:
    file = File(name="map.png", content=b"x")
    reply = render(Trip(trip_name="North", price=Decimal(9), legs=[Leg(place="A")], map=file))
    assert reply.text == "**Trip name**: North\n**Price (EUR)**: 9"
    assert reply.table is not None
    assert reply.files == (file,)


def test_files_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(b"%PDF-1.7")
    files = render([path, b"%PDF-", b"GIF89a", Figure(), b"??", "and a word"]).files
    assert [(file.name, file.media_type) for file in files] == [
        ("report.pdf", "application/pdf"),
        ("answer.pdf", "application/pdf"),
        ("answer.gif", "image/gif"),
        ("figure.png", "image/png"),
        ("answer.bin", "application/octet-stream"),
    ]
    assert render([path, "and a word"]).text == "and a word"


def test_a_second_table_is_a_file() -> None:
    table = Table(columns=("a",), rows=(("1",),))
    reply = render([table, "between", table])
    assert reply.table == table
    assert [file.name for file in reply.files] == ["table-2.csv"]


def test_text_that_nobody_would_read_in_a_chat_is_a_file() -> None:
    reply = render("x" * 200_000)
    assert len(reply.text) < 110_000
    assert reply.files[0].content == b"x" * 200_000


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "object"),
        (lambda: 1, "function"),
        ({"a": object()}, "inside the answer"),
        (Path("/no/such/file.txt"), "file.txt"),
        (Path("/"), "not a file"),
        (b"x" * (MAX_FILE + 1), "larger than"),
    ],
    ids=["object", "function", "inside", "missing", "folder", "large"],
)
def test_what_cannot_be_shown_says_why(value: object, says: str) -> None:
    with pytest.raises(NotRenderable, match=says):
        render(value)


def test_no_cell_of_a_spreadsheet_is_a_formula() -> None:
    file = csv_file("x.csv", ["a"], [["=1+1"], ["-5"], ["@x"], ["plain"], ["+3.5"]])
    rows = list(csv.reader(io.StringIO(file.content.decode("utf-8-sig"))))
    assert [row[0] for row in rows] == ["a", "'=1+1", "-5", "'@x", "plain", "+3.5"]


def test_a_report_is_one_text_for_prefect() -> None:
    report = Report("Sum: 3", key="Daily Report!", table=Table(columns=("a|b",), rows=(("1\n2",),)))
    assert report.markdown() == "Sum: 3\n\n| a\\|b |\n| --- |\n| 1 2 |"
    assert report.artifact_key == "daily-report"
    assert render(report).text == "Sum: 3"
    assert render(Report("x", key="k", sensitive=True)).private
