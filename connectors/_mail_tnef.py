"""winmail.dat: what Outlook sends as TNEF. Reads the attached files and the plain text, and nothing else.

Own, since the readers on PyPI are LGPL or unmaintained, and small, since only four of its attributes matter
here. Layout as published in [MS-OXTNEF]: a signature, a key, then attributes (level, id, length, data, checksum).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNATURE = 0x223E9F78

_BODY = 0x0002800C
_ATTACH_START = 0x00069002
_ATTACH_DATA = 0x0006800F
_ATTACH_TITLE = 0x00018010
_ATTACH_PROPERTIES = 0x00069005
_LONG_NAME = 0x3707
_FIXED = {
    0x0002: 4,
    0x0003: 4,
    0x0004: 4,
    0x000B: 4,
    0x000A: 4,
    0x0005: 8,
    0x0006: 8,
    0x0007: 8,
    0x0014: 8,
    0x0040: 8,
}
_FIXED[0x0048] = 16
_STRING, _UNICODE, _BINARY, _OBJECT = 0x001E, 0x001F, 0x0102, 0x000D
_MOST_ATTRIBUTES = 10_000


@dataclass
class Attached:
    """One file inside."""

    name: bytes | str = b""
    content: bytes = b""


@dataclass
class Opened:
    """What a winmail.dat held."""

    body: bytes = b""
    files: list[Attached] = field(default_factory=list)


def open_tnef(raw: bytes) -> Opened | None:
    """What is inside, as far as it can be read; None when this is no TNEF."""
    if len(raw) < 6 or struct.unpack_from("<I", raw)[0] != SIGNATURE:
        return None
    opened = Opened()
    for name, data in _attributes(raw):
        _take(opened, name, data)
    return opened


def _attributes(raw: bytes) -> Iterator[tuple[int, bytes]]:
    at = 6
    for _ in range(_MOST_ATTRIBUTES):
        if at + 9 > len(raw):
            return
        name, length = struct.unpack_from("<II", raw, at + 1)
        data = raw[at + 9 : at + 9 + length]
        if len(data) < length:
            return
        yield name, data
        at += 9 + length + 2


def _take(opened: Opened, name: int, data: bytes) -> None:
    if name == _BODY:
        opened.body = data.rstrip(b"\0")
    elif name == _ATTACH_START:
        opened.files.append(Attached())
    elif opened.files:
        last = opened.files[-1]
        if name == _ATTACH_DATA:
            last.content = data
        elif name == _ATTACH_TITLE:
            last.name = last.name or data.rstrip(b"\0")
        elif name == _ATTACH_PROPERTIES:
            last.name = _long_name(data) or last.name


def _long_name(data: bytes) -> bytes | str:
    """The attachment's long file name among its MAPI properties; empty when it cannot be found."""
    try:
        return next((value for name, value in _properties(data) if name == _LONG_NAME), b"")
    except (struct.error, UnicodeDecodeError):
        return b""


def _properties(data: bytes) -> Iterator[tuple[int, bytes | str]]:
    (count,) = struct.unpack_from("<I", data)
    at = 4
    for _ in range(min(count, _MOST_ATTRIBUTES)):
        kind, name = struct.unpack_from("<HH", data, at)
        at += 4
        if name >= 0x8000:  # a named property: its set, then a number or a name
            at = _after_name(data, at)
        if kind in _FIXED:
            at += _FIXED[kind]
        elif kind in (_STRING, _UNICODE, _BINARY, _OBJECT):
            (values,) = struct.unpack_from("<I", data, at)
            value, at = _variable(data, at + 4, min(values, 100))
            yield name, value.decode("utf-16-le").rstrip("\0") if kind == _UNICODE else value.rstrip(b"\0")
        else:
            return  # a kind whose length we do not know: what follows cannot be found


def _after_name(data: bytes, at: int) -> int:
    by_name, length = struct.unpack_from("<II", data, at + 16)
    return at + 24 + (_padded(length) if by_name else 0)


def _variable(data: bytes, at: int, values: int) -> tuple[bytes, int]:
    value = b""
    for _ in range(values):
        (length,) = struct.unpack_from("<I", data, at)
        value = data[at + 4 : at + 4 + length]
        at += 4 + _padded(length)
    return value, at


def _padded(length: int) -> int:
    return (length + 3) & ~3
