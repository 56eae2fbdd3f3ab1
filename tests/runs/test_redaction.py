"""What was sealed for a run is in no log line and in no state that Prefect keeps."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import prefect.flow_engine
import prefect.task_engine
import pytest

from parley.runs import redaction

# Prefect imports these names for itself.
flow_engine: Any = prefect.flow_engine
task_engine: Any = prefect.task_engine

SECRET = "s3cret-tOken/42"
LINES = '-----BEGIN KEY-----\nMIIEv"quoted"QIBADAN\n-----END KEY-----'


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger of its own and what it wrote; nothing stays hidden afterwards."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("tests.redaction")
    logger.addHandler(handler)
    logger.propagate = False
    yield logger, stream
    logger.removeHandler(handler)
    logger.propagate = True
    redaction.forget()


def test_a_message_its_arguments_and_its_traceback_are_cleaned(
    log: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, stream = log
    redaction.hide({"token": SECRET, "inner": [{"pin": 471_147}]})
    logger.warning("in the text %s", SECRET)
    logger.warning(f"with %d and {SECRET}", 471_147)  # noqa: G004 - as authors write
    try:
        raise ValueError(f"cannot log in with {SECRET}")  # noqa: TRY301 - its traceback is what matters
    except ValueError:
        logger.exception("it failed")
    written = stream.getvalue()
    assert SECRET not in written
    assert "471147" not in written
    assert written.count(redaction.MASK) >= 4
    assert "ValueError: cannot log in with [sealed]" in written


def test_a_secret_of_several_lines_is_hidden_as_it_is_written(
    log: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, stream = log
    redaction.hide(LINES)
    logger.warning("%s | %r | %s", LINES, LINES, json.dumps({"key": LINES}))
    logger.warning("only %s", LINES.splitlines()[1])
    assert "MIIEv" not in stream.getvalue()


def test_nothing_is_changed_before_and_after_a_run(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = log
    logger.warning("before %s", SECRET)
    redaction.hide(SECRET)
    redaction.forget()
    logger.warning("after %s", SECRET)
    assert stream.getvalue() == f"before {SECRET}\nafter {SECRET}\n"


def test_what_is_too_short_to_hide_is_left(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = log
    redaction.hide(["a", "no", True, None, 7])
    logger.warning("a note: no, True, 7")
    assert stream.getvalue() == "a note: no, True, 7\n"


def test_wrong_arguments_of_a_log_line_hide_the_secret_too(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = log
    redaction.hide(SECRET)
    logger.warning("one %s", SECRET, SECRET)  # noqa: PLE1205 - as authors write by mistake
    assert SECRET not in stream.getvalue()


class Stubborn(Exception):
    """Its text hides what it holds, and its attribute does not."""

    def __init__(self, secret: str) -> None:
        super().__init__("refused")
        self.secret = secret


async def test_the_error_that_prefect_keeps_has_no_secret_in_it() -> None:
    """Not in its text, its arguments or its attributes; one that has none stays what it is."""
    redaction.hide(SECRET)
    try:
        for error in (ValueError("no", SECRET), Stubborn(SECRET), KeyError(SECRET), Stubborn(lambda: SECRET)):  # type: ignore[arg-type]
            state = await flow_engine.exception_to_failed_state(error)
            kept = await state.aresult(raise_on_failure=False)
            assert SECRET.encode() not in cloudpickle.dumps(kept)
            assert type(error).__name__ in str(kept)
        harmless = ValueError("no")
        state = task_engine.exception_to_failed_state_sync(harmless)
        assert await state.aresult(raise_on_failure=False) is harmless
        try:
            raise ValueError(SECRET)  # noqa: TRY301 - the engine takes what is being handled
        except ValueError:
            state = await flow_engine.exception_to_failed_state()
        assert SECRET not in repr(state.data) + str(state.message)
    finally:
        redaction.forget()


async def test_a_failed_state_says_what_failed_without_the_secret() -> None:
    redaction.hide(SECRET)
    try:
        error = ValueError(f"refused: {SECRET}")
        for state in (
            await flow_engine.exception_to_failed_state(error, message="Flow run encountered an exception:"),
            await task_engine.exception_to_failed_state(error),
            task_engine.exception_to_failed_state_sync(error),
            await flow_engine.exception_to_crashed_state(error),
        ):
            assert state.message is not None
            assert SECRET not in state.message
            assert "refused: [sealed]" in state.message
    finally:
        redaction.forget()
