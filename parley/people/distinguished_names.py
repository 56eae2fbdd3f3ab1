"""Distinguished names (RFC 4514), so that two spellings of one name are one.

Servers write the same name with or without blanks, with other escapes and in other case. Upper and lower case are one
in ASCII only: what a directory may tell apart otherwise is never one here.
"""

from __future__ import annotations

import re
from typing import Final

MOST: Final = 4000
"""Characters of a name."""

_TYPE: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}|\d{1,9}(?:\.\d{1,9}){1,30}", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-fA-F]{2}", re.ASCII)
_ESCAPED: Final = frozenset('"+,;<>= #\\')
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def canonical(name: str) -> str:
    """The one spelling of a name; not to be shown. Raises `ValueError` for what is none."""
    if not name.strip() or len(name) > MOST:
        raise ValueError("a distinguished name is needed, as in cn=ops,ou=groups,dc=example,dc=org.")
    return ",".join("+".join(sorted(_pair(one) for one in _split(part, "+"))) for part in _split(name, ",;"))


def _split(text: str, at: str) -> list[str]:
    """Parts between these characters, escaped ones left where they are."""
    parts, begin, place = [], 0, 0
    while place < len(text):
        if text[place] == "\\":
            place += 1
        elif text[place] in at:
            parts.append(text[begin:place])
            begin = place + 1
        place += 1
    return [*parts, text[begin:]]


def _pair(text: str) -> str:
    kind, equals, value = text.partition("=")
    kind = kind.strip()
    if not equals or not _TYPE.fullmatch(kind):
        raise ValueError("this is no distinguished name: write one as in cn=ops,ou=groups,dc=example,dc=org.")
    # What ends a part is doubled as hexadecimal digits, so that nothing in a value looks like the next part.
    plain = _unescaped(_stripped(value)).translate(_LOWER)
    return f"{kind.translate(_LOWER)}={plain.encode().hex()}"


def _stripped(value: str) -> str:
    value = value.lstrip(" ")
    kept = value.rstrip(" ")
    # A blank that is escaped belongs to the value.
    backslashes = len(kept) - len(kept.rstrip("\\"))
    return f"{kept} " if backslashes % 2 and len(kept) < len(value) else kept


def _unescaped(value: str) -> str:
    out, place = bytearray(), 0
    while place < len(value):
        char = value[place]
        if char != "\\":
            out += char.encode()
            place += 1
        elif value[place + 1 : place + 2] in _ESCAPED and place + 1 < len(value):
            out += value[place + 1].encode()
            place += 2
        elif _HEX.fullmatch(value[place + 1 : place + 3]):
            out.append(int(value[place + 1 : place + 3], 16))
            place += 3
        else:
            raise ValueError("a backslash in a distinguished name escapes what follows it.")
    try:
        return out.decode()
    except UnicodeDecodeError:
        raise ValueError("a distinguished name is text in UTF-8.") from None


__all__ = ["canonical"]
