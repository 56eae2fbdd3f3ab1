"""Validation of JSON values: draft 2020-12 with formats, without network and without quadratic checks."""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

from parley.language.schemas import Schema

_DURATION = re.compile(
    r"-?P(?=.)(?:\d+W|(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?=.)(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?)?)"
)
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(?:\.[^@\s.]+)*")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")


def _matching(pattern: re.Pattern[str]) -> Callable[[str], object]:
    def check(text: str) -> None:
        if not pattern.fullmatch(text):
            raise ValueError

    return check


# A date and time without zone is allowed on purpose: people leave it out, and pydantic takes it.
_FORMATS: dict[str, Callable[[str], object]] = {
    "date": date.fromisoformat,
    "date-time": datetime.fromisoformat,
    "time": time.fromisoformat,
    "duration": _matching(_DURATION),
    "uuid": uuid.UUID,
    "email": _matching(_EMAIL),
    "uri": _matching(_URI),
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "ipvanyaddress": ipaddress.ip_address,
}


def _make_checker() -> FormatChecker:
    checker = FormatChecker(formats=())
    for name, check in _FORMATS.items():
        checker.checks(name, raises=ValueError)(_on_text(check))
    return checker


def _on_text(check: Callable[[str], object]) -> Callable[[object], bool]:
    def checked(value: object) -> bool:
        if isinstance(value, str):
            check(value)
        return True

    return checked


def _unique(_validator: Any, wanted: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
    # The stock check compares every pair of objects; a stranger chooses how many there are.
    if wanted and isinstance(value, list):
        seen = {json.dumps(item, sort_keys=True) for item in value}
        if len(seen) != len(value):
            yield ValidationError("not unique")


_Validator = extend(Draft202012Validator, {"uniqueItems": _unique})  # type: ignore[no-untyped-call]
_CHECKER = _make_checker()
_NO_REGISTRY: Registry[Any] = Registry()  # the stock one fetches a schema that is named by a web address


def violations(value: Any, schema: Any, root: Schema) -> Iterator[ValidationError]:
    """What is wrong with the value. Raises what a broken schema raises (`re.error`, jsonschema's own)."""
    whole = dict(schema) if isinstance(schema, dict) else {}
    for keyword in ("$defs", "definitions"):
        if keyword in root:
            whole.setdefault(keyword, root[keyword])
    checker = _Validator(whole, format_checker=_CHECKER, registry=_NO_REGISTRY)
    return iter(checker.iter_errors(value))


def fits(value: Any, schema: Any, root: Schema) -> bool:
    """Whether the value is allowed."""
    return next(violations(value, schema, root), None) is None
