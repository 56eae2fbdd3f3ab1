"""One record is one line, and nothing else looks like one."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.log_lines import LONGEST, LineFormatter, shown

FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"
RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")
FORGED = "2026-11-23 08:00:00,000 INFO parley.audit: the owner allowed it"

BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


def logged(text: str, *args: object, name: str = "parley.x", error: Exception | None = None) -> str:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(LineFormatter(FORM))
    record = logging.LogRecord(name, logging.WARNING, "x.py", 1, text, args, None)
    if error is not None:
        try:
            raise error
        except type(error):
            record.exc_info = sys.exc_info()
    handler.emit(record)
    return out.getvalue()


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
def test_a_break_of_any_kind_makes_no_second_record(line_break: str) -> None:
    for written in (
        logged("from %s", f"bob{line_break}{FORGED}"),
        logged(f"bob{line_break}{FORGED}"),
        logged("x", name=f"parley.{line_break}{FORGED}"),
    ):
        assert len(written.splitlines()) == 1


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
def test_an_errors_text_makes_no_second_record(line_break: str) -> None:
    written = logged("it failed", error=ValueError(f"bob{line_break}{FORGED}"))
    assert len([line for line in written.splitlines() if RECORD.match(line)]) == 1
    assert all(line.startswith("  | ") for line in written.splitlines()[1:])
    assert FORGED in written


@given(st.text())
def test_what_is_shown_is_one_line_that_does_nothing_to_a_terminal(text: str) -> None:
    found = shown(text)
    assert len(found.splitlines()) <= 1
    assert not set(found) & {
        chr(code) for code in (*range(9), *range(10, 32), *range(127, 160), 0x202E, 0x2066)
    }
    found.encode()


def test_what_is_readable_stays_as_it_is() -> None:
    assert shown("查订单 1024: é 👍 a\tb") == "查订单 1024: é 👍 a\tb"
    assert shown('\x1b[31mred\x1b[0m\n{"level": "x"}') == '\\x1b[31mred\\x1b[0m\\n{"level": "x"}'


def test_a_record_is_bounded() -> None:
    assert len(shown("\x00" * 10 * LONGEST)) <= 4 * LONGEST + 1
    assert len(logged("x" * 10 * LONGEST)) < 2 * LONGEST
    assert len(logged("x", error=ValueError("y" * 100 * LONGEST))) < 10 * LONGEST


def test_a_process_that_configures_it_writes_so() -> None:
    program = (
        "import logging\nfrom parley.log_lines import configure\nconfigure()\n"
        "logging.getLogger('a').warning('x\\ny')\nlogging.getLogger('httpx').info('an address')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    (line,) = done.stderr.splitlines()
    assert RECORD.match(line)
    assert line.endswith(" WARNING a: x\\ny")
