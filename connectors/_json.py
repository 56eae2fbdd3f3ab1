"""JSON from outside: read, and looked into without trusting its form. Pure, and whatever comes, never an exception."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import from_json

Json = Mapping[str, Any]

# Lone surrogates are no text, and no database takes a NUL.
_UNTEXT = re.compile("[\x00\ud800-\udfff]")


def loaded(raw: str | bytes) -> Json:
    """The object in a JSON text; empty for all else."""
    try:
        return object_of(from_json(raw))
    except ValueError:
        return _leniently(raw)


def _leniently(raw: str | bytes) -> Json:
    # The fast parser takes no lone surrogates, which people can have typed: `storable` replaces them.
    try:
        return object_of(json.loads(raw))
    except (ValueError, RecursionError):
        return {}


def object_of(value: object) -> Json:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def objects_of(value: object) -> Iterable[Json]:
    """The objects in a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else ()


def storable(text: str) -> str:
    """The text, with what no database takes replaced."""
    # What is printable holds none of it, and that is told much faster than it is searched for.
    return text if text.isprintable() else _UNTEXT.sub("\ufffd", text)


def text_of(value: object) -> str:
    """A string that can be stored; empty for all else."""
    return storable(value) if isinstance(value, str) else ""
