"""What was sealed for a run is not written down by it: not in log lines, and not in states that Prefect keeps.

From the moment that a run is given a sealed value or opens a secret, this process takes that text out of every log
record, with its traceback, and out of the message of every failed or crashed state, until the run is over. What was
made of a secret (its length, a digest, a part of it) is not recognised.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Collection
from functools import wraps
from typing import Any, Final

MASK: Final = "[sealed]"

SHORTEST: Final = 4
"""Characters. Shorter texts are parts of ordinary words, and hiding them would say what they are."""

_PLAIN = logging.Formatter()


class _Hidden:
    """The texts that must not be written, the longest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: tuple[str, ...] = ()
        self._lasting: frozenset[str] = frozenset()
        self.installed = False

    def add(self, texts: set[str], *, lasting: bool) -> None:
        with self._lock:
            if lasting:
                self._lasting |= texts
            self._texts = _ordered({*self._texts, *texts})

    def clear(self) -> None:
        with self._lock:
            self._texts = _ordered(self._lasting)

    def is_in(self, content: bytes) -> bool:
        return any(secret.encode("utf-8", "surrogatepass") in content for secret in self._texts)

    def __bool__(self) -> bool:
        return bool(self._texts)

    def clean(self, text: str) -> str:
        for secret in self._texts:
            text = text.replace(secret, MASK)
        return text


def _ordered(texts: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(texts, key=lambda one: (-len(one), one)))


_hidden = _Hidden()


def hide(value: Any, *, lasting: bool = False) -> None:
    """Have nothing of this written down by this process until `forget`: texts and numbers, also inside of others.

    `lasting`: until the process ends, as what a client holds that is kept for the next run.
    """
    from parley.runs.confidential import parts_of

    texts = {
        form
        for part in parts_of(value)
        if isinstance(part, str | int | float) and not isinstance(part, bool)
        for form in _forms(str(part))
    }
    if texts:
        _install()
        _hidden.add(texts, lasting=lasting)


def forget() -> None:
    """The run is over, and its last state written."""
    _hidden.clear()


def clean(text: str) -> str:
    """The text without what is hidden."""
    return _hidden.clean(text)


def _forms(text: str) -> set[str]:
    """As it is written as it is, by `repr`, in JSON, and line by line in a traceback."""
    lines = text.splitlines() if "\n" in text else []
    forms = {
        text,
        repr(text)[1:-1],
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        *lines,
    }
    return {form for form in forms if len(form.strip()) >= SHORTEST}


def _install() -> None:
    if _hidden.installed:
        return
    _hidden.installed = True
    _install_in_logging()
    _install_in_engines()


def _install_in_logging() -> None:
    make = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if _hidden:
            _clean_record(record)
        return record

    logging.setLogRecordFactory(factory)


def _clean_record(record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except (TypeError, ValueError):  # the logging module tells of wrong arguments by itself
        message = f"{record.msg} {record.args}"
    record.msg, record.args = _hidden.clean(message), None
    if record.exc_info and record.exc_info[0] is not None:
        # Formatted here, once: no handler makes its own of the error itself, which still holds the text.
        record.exc_text = _hidden.clean(_PLAIN.formatException(record.exc_info))
        record.exc_info = None
    if record.stack_info:
        record.stack_info = _hidden.clean(record.stack_info)


def _install_in_engines() -> None:
    """Prefect makes the message of a failed state of the error's text, and keeps the error itself as its result."""
    from prefect import flow_engine, task_engine

    for engine in (flow_engine, task_engine):
        for name in ("exception_to_failed_state", "exception_to_crashed_state"):
            _wrap(engine, name, _cleaned_async)
            _wrap(engine, f"{name}_sync", _cleaned)


def _wrap(engine: Any, name: str, around: Callable[[Any], Any]) -> None:
    present = getattr(engine, name, None)
    if present is not None:
        setattr(engine, name, around(present))


def _cleaned(make: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(make)
    def made(exc: BaseException | None = None, *args: Any, **kwargs: Any) -> Any:
        return _clean_state(make(_fit_to_keep(exc), *args, **kwargs))

    return made


def _cleaned_async(make: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @wraps(make)
    async def made(exc: BaseException | None = None, *args: Any, **kwargs: Any) -> Any:
        return _clean_state(await make(_fit_to_keep(exc), *args, **kwargs))

    return made


def _fit_to_keep(error: BaseException | None) -> BaseException | None:
    """The error, or where something hidden is in it another that says the same without: Prefect writes it to a file."""
    error = error or sys.exc_info()[1]
    if not _hidden or not isinstance(error, Exception) or not _holds_hidden(error):
        return error
    text = f"{type(error).__name__}: {error}"
    return RuntimeError(_hidden.clean(text))


def _holds_hidden(error: Exception) -> bool:
    """As it would be kept. What cannot be looked into counts as if it did."""
    import cloudpickle  # type: ignore[import-untyped]  # Prefect's, which writes with it

    try:
        kept = cloudpickle.dumps(error)
    except Exception:  # noqa: BLE001 - whatever its author made of it
        return True
    return _hidden.is_in(kept) or _hidden.clean(f"{error} {error!r}") != f"{error} {error!r}"


def _clean_state(state: Any) -> Any:
    if _hidden and state.message:
        state.message = _hidden.clean(state.message)
    return state


__all__ = ["MASK", "clean", "forget", "hide"]
