"""One company's API, called: pooled, timed, bounded, and repeated only where that cannot do a thing twice."""

from __future__ import annotations

import asyncio
import json
import math
import re
import ssl
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from parley.errors import AuthError, BadArguments, ConnectorError, RateLimited, Rejected, Unknown, Unreachable
from parley.web.guarded_http import Guard, Network, guarded_client

M = TypeVar("M")

SAFE_TO_REPEAT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""Methods of which a second request means the same as one (RFC 9110, 9.2.2)."""

LONGEST_WAIT: Final = 3600.0

_SLOT: Final = re.compile(r"\{(\w+)\}")
_BUSY: Final = frozenset({429, 503})
_GATEWAY: Final = frozenset({502, 504})


class NotFound(Rejected):
    """The API knows nothing of this name."""


class LostAnswer(Unknown):
    """The request may have arrived. `retryable` where a second one means the same as one."""

    def __init__(self, message: str, *, repeatable: bool) -> None:
        super().__init__(message)
        self.retryable = repeatable


class RestClient:
    """Connections to one API. `token` goes out as `Authorization: Bearer`, to this API's own address only."""

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        networks: tuple[Network, ...] = (),
        connect_seconds: float = 5.0,
        answer_seconds: float = 30.0,
        most_bytes: int = 10 * 1024 * 1024,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._most_bytes = most_bytes
        self._under_way = 0
        self._is_retired = False

        def connected() -> httpx.AsyncClient:
            timeout = httpx.Timeout(answer_seconds, connect=connect_seconds, pool=connect_seconds)
            http = guarded_client(Guard(networks), timeout=timeout, verify=verify)
            http.base_url = httpx.URL(base_url)
            http.headers.update({"accept": "application/json", "user-agent": "prefect-parley"})
            if token:
                http.headers["authorization"] = f"Bearer {token}"
            return http

        self._connected = connected
        self._http = connected()

    async def call(
        self,
        method: str,
        path: str,
        *,
        values: Mapping[str, str | int] | None = None,
        query: Mapping[str, str | int | float | bool] | None = None,
        body: BaseModel | Mapping[str, Any] | list[Any] | None = None,
        idempotency_key: str = "",
    ) -> Any:
        """The decoded JSON of the answer, None where it has no body.

        `{name}` in `path` becomes `values["name"]`, escaped: no value can lead to another place of the API. With an
        `idempotency_key` the API removes duplicates, so that any method may be repeated.

        Raises `AuthError` (401, 403), `NotFound` (404, 410), `RateLimited` (429, 503), `Unreachable` (it never left),
        `LostAnswer` (no answer, 502, 504), and `Rejected` for all else that is no success.
        """
        method = method.upper()
        repeatable = method in SAFE_TO_REPEAT or bool(idempotency_key)
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        request = self._http.build_request(
            method,
            _filled(path, values or {}),
            params=dict(query or {}),
            headers=headers,
            json=_jsonable(body),
        )
        self._under_way += 1
        try:
            answer = await self._http.send(request, stream=True)
            try:
                content = await self._read(answer)
            finally:
                await answer.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable(f"The API cannot be reached ({type(error).__name__}).") from None
        except (httpx.RequestError, ssl.SSLError) as error:
            raise LostAnswer(
                f"The API's answer was lost ({type(error).__name__}).", repeatable=repeatable
            ) from None
        finally:
            self._under_way -= 1
            await self._close_if_idle()
        _refuse(answer, content, repeatable=repeatable)
        return _decoded(content)

    async def _read(self, answer: httpx.Response) -> bytes:
        content = bytearray()
        async for piece in answer.aiter_bytes():
            content += piece
            if len(content) > self._most_bytes:
                raise Rejected(f"The API's answer is longer than {self._most_bytes} bytes.")
        return bytes(content)

    async def retire(self) -> None:
        """Keep no connections from now on: what is under way goes on to its end, and whoever still has it may call."""
        self._is_retired = True
        await self._close_if_idle()

    async def _close_if_idle(self) -> None:
        if self._is_retired and not self._under_way:
            # Another call may begin before this one is closed: on connections of its own. Closing goes on by itself,
            # also when the call was cancelled.
            gone, self._http = self._http, self._connected()
            await asyncio.shield(gone.aclose())

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()


def validated(answer: Any, model: type[M]) -> M:
    """The answer as this type. Raises `Rejected` where it is another; the text names fields and shows no values."""
    try:
        return TypeAdapter(model).validate_python(answer)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)[:3]
        where = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'answer'}: {one['msg']}" for one in found)
        raise Rejected(f"The API's answer is not what was expected: {where}.") from None


def _filled(path: str, values: Mapping[str, str | int]) -> str:
    names = set(_SLOT.findall(path))
    if names != set(values):
        odd = min(names ^ set(values))
        raise BadArguments(f"{odd}: the path {path!r} and its values do not fit together.")
    if not path.startswith("/") or path.startswith("//") or "\\" in path or "#" in path or "?" in path:
        raise BadArguments("a path begins with one slash and has neither a query nor a fragment.")
    for value in values.values():
        if not str(value) or str(value) in (".", ".."):
            raise BadArguments("a value in a path must not be empty, `.` or `..`.")
    # Relative, so that it stays below the base address.
    return _SLOT.sub(lambda found: quote(str(values[found[1]]), safe=""), path).lstrip("/")


def _jsonable(body: Any) -> Any:
    return body.model_dump(mode="json") if isinstance(body, BaseModel) else body


def _refuse(answer: httpx.Response, content: bytes, *, repeatable: bool) -> None:
    status = answer.status_code
    if answer.is_success:
        return
    raise _error(status, _reason(answer, content), answer, repeatable=repeatable)


def _error(status: int, reason: str, answer: httpx.Response, *, repeatable: bool) -> ConnectorError:
    if status in (401, 403):
        return AuthError(f"The API refuses our credentials ({status}).")
    if status in (404, 410):
        return NotFound(f"The API does not know this ({status}).")
    if status in _BUSY and (status == 429 or repeatable):
        return RateLimited(f"The API is busy ({status}).", _seconds(answer.headers.get("retry-after")))
    if status in _GATEWAY or status in _BUSY:
        return LostAnswer(f"The API did not answer ({status}).", repeatable=repeatable)
    return Rejected(f"The API refuses this ({status}{reason}).")


def _reason(answer: httpx.Response, content: bytes) -> str:
    """The title of problem+json (RFC 9457), which is written for people; any other body may hold anything."""
    if answer.headers.get("content-type", "").partition(";")[0].strip() != "application/problem+json":
        return ""
    try:
        title = json.loads(content).get("title")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return f": {title[:200]}" if isinstance(title, str) and title.isprintable() else ""


def _seconds(value: str | None) -> float:
    try:
        seconds = float(value or 1)
    except ValueError:
        return 1.0
    return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else 1.0


def _decoded(content: bytes) -> Any:
    if not content.strip():
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Rejected("The API's answer is not JSON.") from None
