"""LDIF (RFC 2849) as `ldapsearch` writes it, read strictly and within bounds: what is not expected ends the reading.

Lines are not folded (`ldif_wrap=no`), values come as text or as base64, and nothing is read from elsewhere (`:<`).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

MOST_LINE: Final = 64 * 1024
"""Bytes of one line."""

MOST_VALUES: Final = 200_000
"""Values of one entry: a group may have many members."""

MOST_ENTRIES: Final = 500_000
MOST_BYTES: Final = 512 * 1024 * 1024

_NAME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9-]{0,63}", re.ASCII)
_OPTION: Final = re.compile(rb"[A-Za-z0-9-]{1,64}(?:=[0-9*-]{1,30})?", re.ASCII)
_REFERENCE: Final = b"# ref"


class LdifError(ValueError):
    """What was written is not what is read here; the message holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its name, and the values of its attributes by name in lower case, without options."""

    dn: str = field(repr=False)
    values: Mapping[str, tuple[bytes, ...]] = field(repr=False)

    def texts(self, name: str) -> tuple[str, ...]:
        """The values of an attribute that are text in UTF-8; others are left out."""
        return tuple(
            text for value in self.values.get(name.lower(), ()) if (text := _text(value)) is not None
        )


class Ldif:
    """Reads piece by piece: `feed` gives the entries that are complete, `end` the last one.

    `references` counts what the server keeps elsewhere, `ranges` attributes of which it gave a part: with either the
    answer is not whole.
    """

    def __init__(self) -> None:
        self.references: int = 0
        self.ranges: int = 0
        self._rest = b""
        self._read = 0
        self._entries = 0
        self._dn: str | None = None
        self._values: dict[str, list[bytes]] = {}
        self._count = 0

    def feed(self, piece: bytes) -> Iterator[Entry]:
        """Entries that end in this piece. Raises `LdifError`."""
        self._read += len(piece)
        if self._read > MOST_BYTES:
            raise LdifError(f"it has more than {MOST_BYTES} bytes")
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MOST_LINE:
            raise LdifError(f"it has a line of more than {MOST_LINE} bytes")
        for line in lines:
            if (entry := self._line(line)) is not None:
                yield entry

    def end(self) -> Iterator[Entry]:
        """The last entry. Raises `LdifError` where a line has no end."""
        if self._rest:
            raise LdifError("its last line has no end")
        if (entry := self._complete()) is not None:
            yield entry

    def _line(self, line: bytes) -> Entry | None:
        if len(line) > MOST_LINE:
            raise LdifError(f"it has a line of more than {MOST_LINE} bytes")
        if not line:
            return self._complete()
        if line.startswith(b"#"):
            self.references += line.startswith(_REFERENCE)
            return None
        name, options, value = _attribute(line)
        if name == "dn":
            # Between pages there is no empty line.
            entry = self._complete()
            self._dn = _known(_text(value))
            return entry
        if self._dn is None:
            raise LdifError("it has a value outside of an entry")
        self._keep(name, options, value)
        return None

    def _keep(self, name: str, options: list[bytes], value: bytes) -> None:
        self._count += 1
        if self._count > MOST_VALUES:
            raise LdifError(f"it has an entry of more than {MOST_VALUES} values")
        if any(option.lower().startswith(b"range=") for option in options):
            self.ranges += 1
        # Values in a certain language are other values.
        elif not options or options == [b"binary"]:
            self._values.setdefault(name, []).append(value)

    def _complete(self) -> Entry | None:
        if self._dn is None:
            return None
        self._entries += 1
        if self._entries > MOST_ENTRIES:
            raise LdifError(f"it has more than {MOST_ENTRIES} entries")
        entry = Entry(self._dn, {name: tuple(values) for name, values in self._values.items()})
        self._dn, self._values, self._count = None, {}, 0
        return entry


def _attribute(line: bytes) -> tuple[str, list[bytes], bytes]:
    described, colon, value = line.partition(b":")
    name, *options = described.split(b";")
    if not colon or not _NAME.fullmatch(name) or not all(_OPTION.fullmatch(one) for one in options):
        raise LdifError("it has a line that is no attribute")
    if value.startswith(b":"):
        return name.decode().lower(), options, _decoded(value[1:].strip(b" "))
    if value.startswith(b"<"):
        raise LdifError("it has a value that lies elsewhere")
    return name.decode().lower(), options, value.lstrip(b" ")


def _decoded(value: bytes) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise LdifError("it has a value that is no base64") from None


def _known(dn: str | None) -> str:
    if dn is None:
        raise LdifError("it has a name that is no text")
    return dn


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


__all__ = ["Entry", "Ldif", "LdifError"]
