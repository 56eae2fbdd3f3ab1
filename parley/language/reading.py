"""Reading typed text as the JSON value that a schema wants."""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any

from parley.language.characters import narrow
from parley.language.schemas import Schema, branches, choices_of, kind_of, written
from parley.language.validation import fits

MAX_ITEMS = 1000
"""Most items of a list that is typed."""

_MAX_DEPTH = 32
_MAX_NESTED_LISTS = 3
_YES = "true yes on y 1 是 是的 开 打开 对 好 好的 要 真"
_TRUE = frozenset(_YES.split())
_NO = "false no off n 0 否 不 不是 关 关闭 不要 不用 假"
_FALSE = frozenset(_NO.split())
NOTHING = frozenset({"null", "none", "nothing", "无", "没有", "空"})
"""Words for no value, where that is allowed."""

_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_NUMBER = re.compile(
    r"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE
)
_DATE = re.compile(r"(\d{4})(?:-|/|\.|年)(\d{1,2})(?:-|/|\.|月)(\d{1,2})日?", re.ASCII)
_TIME = re.compile(
    r"(\d{1,2})(?::|点|时)(?:(\d{1,2})(?::(\d{1,2})|分)?)?(?: ?([ap])\.?m\.?)?", re.ASCII | re.IGNORECASE
)
_AM_PM = re.compile(r"(\d{1,2}) ?([ap])\.?m\.?", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(
    r"(?:(\d{1,6}) ?(?:d|days?|天))?\s?(?:(\d{1,6}) ?(?:h|hours?|小时))?\s?"
    r"(?:(\d{1,6}) ?(?:m|min|minutes?|分钟|分))?\s?(?:(\d{1,6}) ?(?:s|sec|seconds?|秒))?",
    re.ASCII | re.IGNORECASE,
)
_COMMAS = re.compile(r"[,，、]")
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)


class Unreadable(ValueError):
    """The text is no such value."""


def read(text: str, schema: Any, root: Schema, lists: int = 0) -> Any:
    """The value that the text stands for; raises `Unreadable`. Whether the value is allowed is another question."""
    options = branches(schema, root)
    if len(options) > 1:
        return _read_any_of(text, options, root, lists)
    kind = kind_of(options[0])
    if kind == "array":
        return _read_list(text, options[0], root, lists)
    return _READERS.get(kind, _read_any)(text, options[0])


def _read_any_of(text: str, options: tuple[Schema, ...], root: Schema, lists: int) -> Any:
    # Plain text takes everything, a list nearly so: they come last. "none" and "无" are texts too, only `null` is not.
    text_too = any(_is_plain_text(option) for option in options)
    for option in sorted(options, key=_readiness):
        if text_too and kind_of(option) == "null" and text != "null":
            continue
        try:
            value = read(text, option, root, lists)
        except Unreadable:
            continue
        if fits(value, option, root):
            return value
    others = [option for option in options if kind_of(option) != "null"]
    if len(others) == 1:  # so that the rule that is broken can be named
        return read(text, others[0], root, lists)
    raise Unreadable


def _readiness(schema: Schema) -> int:
    """How readily a schema takes just any text."""
    if _is_plain_text(schema):
        return 3
    return {"null": 0, "array": 2}.get(kind_of(schema), 1)


def _is_plain_text(schema: Schema) -> bool:
    return kind_of(schema) == "any" or (kind_of(schema) == "string" and "format" not in schema)


def _read_choice(text: str, schema: Schema) -> Any:
    choices = choices_of(schema)
    for choice in choices:
        if written(choice) == text:
            return choice
    same = [choice for choice in choices if folded(written(choice)) == folded(text)]
    if len(same) != 1:
        raise Unreadable
    return same[0]


def folded(text: str) -> str:
    """For comparing: width, case and the spaces around do not count, `_` is `-`."""
    return narrow(text).strip().casefold().replace("_", "-")


def _read_null(text: str, _schema: Schema) -> None:
    if _plain(text).lower() not in NOTHING:
        raise Unreadable


def _plain(text: str) -> str:
    return narrow(text).strip()


def _read_integer(text: str, _schema: Schema) -> int:
    plain = _plain(text).removeprefix("#")
    if not _INTEGER.fullmatch(plain) or not -(2**63) <= int(plain) < 2**63:
        raise Unreadable
    return int(plain)


def _read_number(text: str, schema: Schema) -> int | float:
    plain = _plain(text)
    if _INTEGER.fullmatch(plain):
        return _read_integer(plain, schema)
    if not _NUMBER.fullmatch(plain) or not math.isfinite(float(plain)):
        raise Unreadable
    return float(plain)


def _read_boolean(text: str, _schema: Schema) -> bool:
    plain = _plain(text).lower()
    if plain in _TRUE:
        return True
    if plain in _FALSE:
        return False
    raise Unreadable


def _read_string(text: str, schema: Schema) -> str:
    reader = _FORMATS.get(str(schema.get("format")))
    return reader(_plain(text)) if reader else text


def _numbers(*parts: str | None) -> tuple[int, ...]:
    return tuple(int(part or 0) for part in parts)


def _read_date(text: str) -> str:
    found = _DATE.fullmatch(text)
    if not found:
        raise Unreadable
    return _made(lambda: date(*_numbers(*found.groups())).isoformat())


def _read_time(text: str) -> str:
    found = _TIME.fullmatch(text)
    if found:
        (hour, minute, second), half = _numbers(*found.groups()[:3]), found[4]
    elif short := _AM_PM.fullmatch(text):
        (hour, minute, second), half = (int(short[1]), 0, 0), short[2]
    else:
        return _made(lambda: time.fromisoformat(text).isoformat())
    return _made(lambda: time(_hour(hour, half), minute, second).isoformat())


def _hour(hour: int, half: str | None) -> int:
    if half is None:
        return hour
    if not 1 <= hour <= 12:
        raise Unreadable
    return hour % 12 + (12 if half.lower() == "p" else 0)


def _read_date_time(text: str) -> str:
    day, _, rest = text.replace("T", " ", 1).partition(" ")
    if _DATE.fullmatch(day) and _TIME.fullmatch(rest.strip()):
        return f"{_read_date(day)}T{_read_time(rest.strip())}"
    # A bare date is not a moment: which hour was meant is not for us to guess.
    return _made(lambda: datetime.fromisoformat(text).isoformat()) if rest else _fail()


def _read_duration(text: str) -> str:
    found = _DURATION.fullmatch(text)
    if not found or not text:
        return text
    days, hours, minutes, seconds = found.groups()
    clock = "".join(f"{int(n)}{unit}" for n, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if n)
    return "P" + (f"{int(days)}D" if days else "") + (f"T{clock}" if clock else "")


def _read_uuid(text: str) -> str:
    return _made(lambda: str(uuid.UUID(text)))


def _made(make: Callable[[], str]) -> str:
    try:
        return make()
    except ValueError as error:
        raise Unreadable from error


def _fail() -> str:
    raise Unreadable


def _read_list(text: str, schema: Schema, root: Schema, lists: int) -> list[Any]:
    if text.lstrip().startswith("["):
        try:
            value = parse_json(text)
        except Unreadable:
            value = None  # `[abc]*` is a text that happens to start so
        if isinstance(value, list):
            return value
    parts = [part.strip() for part in _COMMAS.split(text)] if text.strip() else []
    # A list in a list (in a union with text) would split for ever.
    if len(parts) > MAX_ITEMS or lists >= _MAX_NESTED_LISTS:
        raise Unreadable
    return [read(part, item_schema(schema, place), root, lists + 1) for place, part in enumerate(parts)]


def item_schema(schema: Schema, place: int) -> Any:
    """The schema of the item at this place of an array."""
    first = schema.get("prefixItems", ())
    return first[place] if place < len(first) else schema.get("items", {})


def _read_object(text: str, _schema: Schema) -> dict[str, Any]:
    value = parse_json(text)
    if not isinstance(value, dict):
        raise Unreadable
    return value


def _read_any(text: str, _schema: Schema) -> Any:
    try:
        return parse_json(text)
    except Unreadable:
        return text


def parse_json(text: str) -> Any:
    """The JSON value in the text; nesting beyond 32 levels, a key twice and NaN are `Unreadable`."""
    depth = 0
    for found in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > _MAX_DEPTH:
            raise Unreadable
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except ValueError as error:
        raise Unreadable from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Unreadable
    return value


def _refuse(constant: str) -> Any:
    raise Unreadable(constant)


_FORMATS: dict[str, Callable[[str], str]] = {
    "date": _read_date,
    "date-time": _read_date_time,
    "time": _read_time,
    "duration": _read_duration,
    "uuid": _read_uuid,
    "email": str,
    "uri": str,
    "ipv4": str,
    "ipv6": str,
    "ipvanyaddress": str,
}
_READERS: dict[str, Callable[[str, Schema], Any]] = {
    "choice": _read_choice,
    "null": _read_null,
    "boolean": _read_boolean,
    "integer": _read_integer,
    "number": _read_number,
    "string": _read_string,
    "object": _read_object,
    "any": _read_any,
}
