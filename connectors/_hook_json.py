"""Bodies of hooks: read within bounds, and looked into without trusting their form. Pure.

The hooks' port bounds a body to 5 MiB, the parser its nesting to about 200. What is not there or of another type than
the service documents is the empty value of the type asked for; only what makes a request unreadable raises.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from pydantic_core import from_json, to_json

from connectors._json import storable
from parley.errors import Rejected
from parley.messages import HookRequest

Json = dict[str, Any]

_URL = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://[\x21\x23-\x3b\x3d\x3f-\x5a\x5f\x61-\x7a\x7e]{1,1990}")
_MOST_FIELDS = 20
_LONGEST_INTEGER = 2**53
_LONGEST_NAME = 200


class Unreadable(Rejected):
    """A request that is from the service, and that we cannot take: answered with `status`, never stored."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status: int = status


def json_body(request: HookRequest, *, forms: bool = False) -> Json:
    """The body as a JSON object; with `forms` also one in the field `payload` of a form. Raises `Unreadable`."""
    return json_object(payload_bytes(request, forms=forms))


def payload_bytes(request: HookRequest, *, forms: bool = False) -> bytes:
    """The JSON as the service wrote it: the body, or the field `payload` of a form. Raises `Unreadable` (415, 422)."""
    if (
        request.headers.get("content-type") == "application/json"
        and "content-encoding" not in request.headers
    ):
        return request.body
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Unreadable("Send the body as it is: compressed ones are not taken.", 415)
    kind, _, options = request.headers.get("content-type", "").lower().partition(";")
    charset = options.replace(" ", "").partition("charset=")[2].strip('"')
    if kind.strip() == "application/json" and charset in ("", "utf-8", "utf8"):
        return request.body
    if forms and kind.strip() == "application/x-www-form-urlencoded":
        return _form_payload(request.body)
    raise Unreadable("Send JSON: `Content-Type: application/json`, in UTF-8.", 415)


def json_object(raw: bytes) -> Json:
    """JSON, an object, in UTF-8. Raises `Unreadable`."""
    try:
        value = from_json(raw, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        raise Unreadable("The body is not JSON in UTF-8.", 400) from None
    if not isinstance(value, dict):
        raise Unreadable("The body is not a JSON object.")
    return value


def object_of(value: object) -> Json:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def objects_of(value: object, most: int) -> Iterator[Json]:
    """The objects among the first `most` items of a list."""
    return (item for item in value[:most] if isinstance(item, dict)) if isinstance(value, list) else iter(())


def text_of(value: object, limit: int = 2000) -> str:
    """A string that can be stored, cut to `limit` characters; "" for anything else."""
    if not isinstance(value, str):
        return ""
    short = value[:limit]
    return short if short.isprintable() else storable(short)


def id_of(value: object) -> str:
    """An identifier: an integer or a short string, as text."""
    number = integer_of(value)
    return text_of(value, 200) if number is None else str(number)


def integer_of(value: object) -> int | None:
    """An integer that JSON carries exactly."""
    fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LONGEST_INTEGER
    return int(value) if fits and isinstance(value, int) else None


def url_of(value: object) -> str:
    """An address that may be shown as a link: http or https, no blanks and nothing that ends a link."""
    return value if isinstance(value, str) and _URL.fullmatch(value) else ""


def texts_of(value: object, most: int = 50, limit: int = 1000) -> dict[str, str]:
    """An object of strings, such as labels; what is more or of another type is left out."""
    if not isinstance(value, dict):
        return {}
    if len(value) <= most and _all_plain(value, min(limit, _LONGEST_NAME)):
        return value.copy()
    pairs = list(value.items())[:most]
    return {
        text_of(name, _LONGEST_NAME): text_of(text, limit) for name, text in pairs if isinstance(text, str)
    }


def small(value: Json, most_bytes: int) -> Json:
    """The same, when it is small and can be stored as JSON. Raises `Unreadable`."""
    if not _finite(value):
        raise Unreadable("`data` holds a number that is too large.")
    size = len(to_json(value, inf_nan_mode="constants"))
    if size > most_bytes:
        raise Unreadable(f"`data` has {size:,} bytes; {most_bytes:,} are taken.", 413)
    return value


def _all_plain(value: Json, limit: int) -> bool:
    """Whether nothing in it has to be changed: all is text, printable, and together no longer than one may be."""
    try:
        whole = "".join([*value, *value.values()])
    except TypeError:
        return False
    return len(whole) <= limit and whole.isprintable()


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_finite(item) for item in value.values())
    return not isinstance(value, list) or all(_finite(item) for item in value)


def _form_payload(body: bytes) -> bytes:
    try:
        fields = parse_qs(body, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Unreadable("The form has too many fields.") from None
    if len(fields.get(b"payload", ())) != 1:
        raise Unreadable("The form has no field `payload`.")
    return fields[b"payload"][0]
