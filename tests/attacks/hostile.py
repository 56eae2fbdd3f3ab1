"""Hostile but shaped input: genuine things with parts changed, and the values that break readers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Json = Any

NASTY_TEXTS: Final = (
    "", " ", "\x00", "\ud800", "\r\nBcc: a@b.example", "\x1b]0;x\x07", "\u202eevil", "\u200b", "\ufeff",
    "a" + "\u0301" * 5000,
    "x" * 20_000, "字" * 20_000, "9" * 30, "9" * 5000, "-1", "0x7f", "1e999", "NaN", "٣", "１２３", "null", "true",
    "../../etc/passwd", "..\\..\\x", "C:\\x", "/", "//", "%00", "%2e%2e%2f", "$(id)", "`id`", "; id", "| id",
    "--help",
    "{{7*7}}", "${x}", "{0.__class__}", "%s%n", "{a}" * 2000, "<a" * 5000, "<!--", "]]>", "<![CDATA[", "<script>",
    "&lt;" * 3000, "&a;", "(" * 5000, "[" * 5000, '"' * 5001, "\\" * 5001, "`" * 5001, "*" * 5000, "_" * 5000,
    "> " * 3000,
    "@everyone", "<@U1>", "<!channel>", "=?utf-8?b?//?=", "=?a?q?" * 800, "http://[::1", "https://u:p@h/",
    "javascript:x",
    "0000-00-00T00:00:00Z", "9999-12-31T23:59:59.999999999+99:99", "2026-11-23T08:00:00+00:00", "-" * 5000,
    ":" * 5000,
    "a=b " * 3000, "\n" * 5000, "/order 1024", "/" * 5000, "👩‍👩‍👧‍👦" * 500, "ⅷ", "ﬀ", "İ", "ß" * 1000,
)  # fmt: skip

_DEEP: Final = json.loads("[" * 200 + "]" * 200)
_WIDE: Final = {str(number): number for number in range(2000)}

NASTY_VALUES: Final[tuple[Json, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, -0.0, float("nan"), float("inf"), 1.5,
    [], {}, [None], [[]], {"": ""}, [1] * 2000, _DEEP, _WIDE, {"__prefect_kind": "json"}, {"$ref": "#"},
    {"__proto__": {}}, {"__class__": "x"},
)  # fmt: skip

texts: Final[SearchStrategy[str]] = st.one_of(
    st.sampled_from(NASTY_TEXTS),
    st.text(max_size=60),
    st.text(alphabet="/ =\"'{}[]<>@#.:-_\\n\x00é", max_size=80),
)

_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

xml_texts: Final[SearchStrategy[str]] = texts.map(lambda text: _NOT_XML.sub("", text))
"""Text as XML can carry it: no zero character, no half of a pair."""

values: Final[SearchStrategy[Json]] = st.one_of(
    st.sampled_from(NASTY_VALUES),
    texts,
    st.integers(),
    st.lists(texts, max_size=3),
    st.dictionaries(st.sampled_from(["id", "type", "text", "name", "url", "value"]), texts, max_size=3),
)


def repeated(*fragments: str, most: int = 20_000) -> SearchStrategy[str]:
    """A fragment very often, with others around it; `most` characters at the most."""
    one = st.sampled_from(fragments)
    return st.builds(
        lambda begin, body, times, end: (begin + body * min(times, most // max(1, len(body))) + end)[:most],
        one, one, st.sampled_from([1, 7, 400, most]), one,
    )  # fmt: skip


def changed(*samples: Json) -> SearchStrategy[Json]:
    """One of these JSON values with one to three of its parts put, left out or wrapped."""
    prepared = [(sample, tuple(_paths(sample))) for sample in samples]
    return _changed(prepared)


@st.composite
def _changed(draw: st.DrawFn, samples: Sequence[tuple[Json, tuple[tuple[Any, ...], ...]]]) -> Json:
    sample, paths = draw(st.sampled_from(samples))
    found = _copy(sample)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths))
        how = draw(st.sampled_from(["put", "put", "put", "drop", "wrap", "double"]))
        if not path:
            found = draw(values) if how == "put" else found
        else:
            _change(found, path, how, draw(values) if how == "put" else None)
    return found


def _copy(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _change(found: Json, path: tuple[Any, ...], how: str, value: Json) -> None:
    place = found
    for step in path[:-1]:
        try:
            place = place[step]
        except (KeyError, IndexError, TypeError):
            return  # an earlier change took it away
    last = path[-1]
    fits = isinstance(place, dict) or (
        isinstance(place, list) and isinstance(last, int) and last < len(place)
    )
    if not fits or (isinstance(place, dict) and last not in place):
        return
    if how == "put":
        place[last] = value
    elif how == "wrap":
        place[last] = [place[last]]
    elif how == "double" and isinstance(place, list):
        place.extend(place[:50])
    elif isinstance(place, dict):
        del place[last]


def _paths(value: Json, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: Sequence[tuple[Any, Json]] = ()
    if isinstance(value, Mapping):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value[:20]))
    return [here, *(path for key, one in inner for path in _paths(one, (*here, key)))]


def encoded(value: Json) -> bytes:
    """JSON as somebody would send it who wants to do harm: with NaN, lone surrogates and huge numbers."""
    return json.dumps(value).encode()


def bodies(*samples: Json) -> SearchStrategy[bytes]:
    """Bodies that are, or nearly are, JSON like one of these."""
    good = changed(*samples).map(encoded)
    return st.one_of(good, good, good, damaged(*map(encoded, samples)), st.sampled_from(NOT_JSON))


NOT_JSON: Final = (
    b"", b"{", b"[" * 20_000, b'{"a":' * 20_000, b"\xff\xfe", b"\xef\xbb\xbf{}", b"nul", b"1" * 5000, b'"\\ud800"',
    b"{} {}", b"[1e99999]", b'{"a":1,"a":2}', b"\x00" * 100, b"-", b'"' + b"\\" * 9999, b"payload=%7b%7d", b"NaN",
)  # fmt: skip


def damaged(*samples: bytes) -> SearchStrategy[bytes]:
    """Bytes of one of these with slices cut out, put in or doubled."""
    return _damaged(samples)


_INSERTED: Final = (
    b"\x00", b"\xff", b"\r\n", b"\r\n\r\n", b"<", b">", b"&", b'"', b"=", b"\x80" * 40, b"A" * 3000, b"--",
    b"<!DOCTYPE x>",
)  # fmt: skip


@st.composite
def _damaged(draw: st.DrawFn, samples: Sequence[bytes]) -> bytes:
    raw = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        length = draw(st.sampled_from([0, 1, 4, 60]))
        new = draw(
            st.one_of(st.sampled_from(_INSERTED), st.binary(max_size=8), st.just(bytes(raw[at : at + 60])))
        )
        raw[at : at + length] = new
    return bytes(raw)


def headers(names: Sequence[str]) -> SearchStrategy[dict[str, str]]:
    """Some of these headers with hostile values, as HTTP could carry them: one line, latin-1."""
    one = texts.map(lambda text: text.encode("latin-1", "replace").decode("latin-1").translate(_LINE)[:4000])
    return st.dictionaries(st.sampled_from(list(names)), one, max_size=3)


_LINE: Final = dict.fromkeys((0, 10, 13), " ")
