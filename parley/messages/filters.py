"""What routes look at in an event: conditions on its fields, and parameters filled from them. Pure.

A field is named by its path: `labels.severity` is the entry `severity` of the entry `labels`. The event's own fields
(`topic`, `title`, `text`, `url`, `key`, `severity`, `account`) come before those of its data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from typing import Any, Final

MAX_VALUE: Final = 20_000
"""Longest value that is compared or filled in, in characters; what is longer is cut there."""

_SLOT = re.compile(r"\{([A-Za-z0-9_./-]+)\}")
_MISSING: Final = object()


class Condition:
    """One field, and the globs of which one must match it. Of a list, one entry is enough.

    `*` is any text, `?` one character, `[ab]` one of these; upper and lower case differ. A field that is not there
    matches nothing.
    """

    __slots__ = ("_globs", "field")

    def __init__(self, field: str, globs: Iterable[str]) -> None:
        self.field: str = field
        self._globs = tuple(re.compile(translate(glob)) for glob in globs)

    def holds(self, fields: Mapping[str, Any]) -> bool:
        """Whether the field matches one of the globs."""
        found = value_at(fields, self.field)
        if found is _MISSING:
            return False
        values: Sequence[Any] = found if isinstance(found, list | tuple) else (found,)
        return any(glob.match(spoken(value)) for value in values[:1000] for glob in self._globs)


class Template:
    """A parameter's value made of an event: text with `{fields}` in it.

    A template that is one field alone gives the field's value with its type; a field that is not there gives "".
    """

    __slots__ = ("_alone", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        found = _SLOT.fullmatch(text)
        self._alone = found[1] if found else None

    def filled(self, fields: Mapping[str, Any]) -> Any:
        """The value for this event; None when the template is one field alone and it is not there."""
        if self._alone:
            found = value_at(fields, self._alone)
            return None if found is _MISSING else found

        # Piece by piece, and no further than will be kept: of a thousand fields each may be long.
        pieces, length, end = [], 0, 0
        for slot in _SLOT.finditer(self.text):
            found = value_at(fields, slot[1])
            pieces += [self.text[end : slot.start()], "" if found is _MISSING else spoken(found)]
            length, end = length + len(pieces[-2]) + len(pieces[-1]), slot.end()
            if length >= MAX_VALUE:
                return "".join(pieces)[:MAX_VALUE]
        return "".join((*pieces, self.text[end:]))[:MAX_VALUE]


def value_at(fields: Mapping[str, Any], path: str) -> Any:
    """The value at a path, or a marker that is none of JSON's values. A name with dots in it is found, too."""
    value: Any = fields
    while path:
        if not isinstance(value, Mapping):
            return _MISSING
        if path in value:
            return value[path]
        name, _, path = path.partition(".")
        if name not in value:
            return _MISSING
        value = value[name]
    return value


def spoken(value: Any) -> str:
    """A JSON value as text: `true`, `12`, `` for null; what is nested as JSON. At most `MAX_VALUE` characters."""
    return whole(value)[:MAX_VALUE]


def whole(value: Any) -> str:
    """A JSON value as text, however long it is."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
