"""Discord's REST interface, one request at a time: what is asked, what the answer means for asking again.

discord.py has a client of its own, which is not used: it repeats a request by itself after a 5xx (a message would be
there twice) and sleeps through every 429 below thirty seconds. Here nothing is repeated, and what is known to be
exhausted (`X-RateLimit-Remaining: 0`) is not asked for at all: refused requests count towards Discord's ban of an
address (10,000 in ten minutes, by its documentation).
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from connectors import _waiting
from connectors._file_names import bare_name
from connectors._memory import Memory
from parley.errors import AuthError, ConnectorError, RateLimited, Rejected, Unknown, Unreachable
from parley.messages import File

if TYPE_CHECKING:
    import aiohttp

API = "https://discord.com/api/v10"

LARGEST_ANSWER = 16 * 1024 * 1024
PATIENT_TRIES = 4

# Codes of Discord's documentation (Opcodes and Status Codes, JSON error codes) that mean something to us.
UNKNOWN_CHANNEL = 10003
UNKNOWN_MESSAGE = 10008
MISSING_ACCESS = 50001
MISSING_PERMISSIONS = 50013
WRONG_CHANNEL_TYPE = 50024
THREAD_ARCHIVED = 50083
THREAD_EXISTS = 160004

# Cloudflare stands before Discord: with these (its documentation of 5xx errors) the request got no further than there.
_STOPPED_ON_THE_WAY = {521, 522, 523, 525, 526, 530}
_FROM_A_PROXY = {401, 403, 407, 408, 421, 425}


@dataclass(frozen=True, slots=True)
class Answer:
    """What Discord said: taken (2xx), or refused with a reason of its own."""

    status: int
    data: Any = None
    code: int = 0
    what: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def taken(self) -> Any:
        """The data. Raises `Rejected` where Discord refused."""
        if not self.ok:
            raise Rejected(f"Discord refuses it ({self.what}: {self._reason()}).")
        return self.data

    def _reason(self) -> str:
        said = self.data.get("message") if isinstance(self.data, Mapping) else None
        words = re.sub(r"[^\w .,:;'()/-]", "", said)[:120] if isinstance(said, str) else ""
        return " ".join(str(part) for part in (self.status, self.code, words) if part)


class Rest:
    """One bot's requests. `make_session` makes the HTTP client, which is closed by `aclose` and may be made anew."""

    def __init__(
        self, token: str, base_url: str = API, make_session: Callable[[], aiohttp.ClientSession] | None = None
    ) -> None:
        self._token = token
        self.base_url = base_url.rstrip("/")
        self._make_session = make_session or _session
        self._http: aiohttp.ClientSession | None = None
        self._exhausted: Memory[str, float] = Memory(1000)

    def __repr__(self) -> str:
        return f"Rest({self.base_url!r})"

    @property
    def session(self) -> aiohttp.ClientSession:
        """The HTTP client, for what is not REST: the gateway's socket, files."""
        if self._http is None or self._http.closed:
            self._http = self._make_session()
        return self._http

    async def aclose(self) -> None:
        """Close the HTTP client."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def call(self, method: str, path: str, *ids: str, **request: Any) -> Any:
        """The data of a request that Discord takes. Raises as `ask`, and `Rejected`."""
        return (await self.ask(method, path, *ids, **request)).taken()

    async def ask(
        self,
        method: str,
        path: str,
        *ids: str,
        body: Any = None,
        files: Sequence[File] = (),
        params: Mapping[str, str] | None = None,
        by_token: bool = False,
    ) -> Answer:
        """One request; each `{}` of `path` takes one of `ids`, the first of which Discord counts limits by.

        `by_token`: the path itself carries the right (an interaction's token), and ours is not sent. Raises
        `RateLimited`, `Unreachable`, `Unknown` or `AuthError`; what Discord refuses for another reason is an answer.
        """
        what = f"{method} {path.format(*('…' for _ in ids))}"
        bucket = f"{what} {ids[0] if ids else ''}"
        self._wait_for(bucket, what)
        headers = {} if by_token else {"Authorization": f"Bot {self._token}"}
        headers["User-Agent"] = "DiscordBot (prefect-parley, 1)"
        status, answered, content = await self._exchange(
            method,
            self.base_url + path.format(*ids),
            what,
            headers=headers,
            params=params,
            **_body(body, files),
        )
        self._note(bucket, answered)
        return _answer(what, status, answered, content, by_token=by_token)

    async def patiently(self, method: str, path: str, *ids: str, **request: Any) -> Answer:
        """`ask`, with the waiting that Discord asks for; for reading, where nobody else would ask again."""
        for _ in range(PATIENT_TRIES - 1):
            try:
                return await self.ask(method, path, *ids, **request)
            except RateLimited as error:
                await asyncio.sleep(error.retry_after)
        return await self.ask(method, path, *ids, **request)

    async def _exchange(
        self, method: str, url: str, what: str, **request: Any
    ) -> tuple[int, Mapping[str, str], bytes]:
        import aiohttp

        try:
            async with self.session.request(method, url, allow_redirects=False, **request) as answer:
                return answer.status, answer.headers, await bounded(answer.content, LARGEST_ANSWER)
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.ClientHttpProxyError,
        ) as error:
            raise Unreachable(f"Discord cannot be reached ({what}: {type(error).__name__}).") from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unknown(f"Discord's answer was lost ({what}: {type(error).__name__}).") from None

    def _wait_for(self, bucket: str, what: str) -> None:
        left = self._exhausted.get(bucket, 0.0) - time.monotonic()
        if left > 0:
            raise RateLimited(f"Discord's limit for this is used up ({what}).", left)

    def _note(self, bucket: str, headers: Mapping[str, str]) -> None:
        self._exhausted.pop(bucket, None)
        if headers.get("X-RateLimit-Remaining") == "0" and (reset := headers.get("X-RateLimit-Reset-After")):
            self._exhausted[bucket] = time.monotonic() + _waiting.bounded(reset)


async def bounded(content: aiohttp.StreamReader, most: int) -> bytes:
    """All of it. Raises `ValueError` when there is more than `most` bytes."""
    read = bytearray()
    async for chunk in content.iter_chunked(65536):
        read += chunk
        if len(read) > most:
            raise ValueError("too large")
    return bytes(read)


def same_host(url: str, base_url: str) -> bool:
    """Whether both have one scheme, host and port."""
    try:
        there, here = urlsplit(url), urlsplit(base_url)
        return (there.scheme, there.hostname, there.port) == (here.scheme, here.hostname, here.port)
    except ValueError:
        return False


def _body(body: Any, files: Sequence[File]) -> dict[str, Any]:
    import aiohttp

    if not files:
        return {} if body is None else {"json": body}
    named = [{"id": number, "filename": file_name(file.name)} for number, file in enumerate(files)]
    # Discord reads the names files[0] only as they are: quoting would make %5B of the bracket.
    form = aiohttp.FormData(quote_fields=False)
    form.add_field(
        "payload_json", json.dumps({**(body or {}), "attachments": named}), content_type="application/json"
    )
    for number, file in enumerate(files):
        form.add_field(
            f"files[{number}]",
            # aiohttp writes raw bytes in one go, which would hold up everything else.
            io.BytesIO(file.content),
            filename=file_name(file.name),
            content_type=_type(file.media_type),
        )
    return {"data": form, "timeout": aiohttp.ClientTimeout(total=600, sock_connect=5, sock_read=60)}


def file_name(name: str) -> str:
    """A file's bare name, safe in a header."""
    return bare_name(name.replace('"', "_"))


def _type(media_type: str) -> str:
    return media_type if re.fullmatch(r"[\w.+-]+/[\w.+-]+", media_type) else "application/octet-stream"


def _answer(what: str, status: int, headers: Mapping[str, str], content: bytes, *, by_token: bool) -> Answer:
    try:
        data = json.loads(content) if content else None
    except (ValueError, RecursionError):
        data = None
    stated = data if isinstance(data, dict) else {}
    code = stated.get("code")
    if error := _failure(what, status, headers, stated, by_token=by_token):
        raise error
    return Answer(status, data, code if isinstance(code, int) else 0, what)


def _failure(
    what: str, status: int, headers: Mapping[str, str], stated: Mapping[str, Any], *, by_token: bool
) -> ConnectorError | None:
    """What an answer means that is neither taken nor refused for a reason of the request's own."""
    if status == 429:
        wait = _waiting.bounded(stated.get("retry_after"), headers.get("Retry-After"))
        return RateLimited(f"Discord wants us to wait ({what}).", wait)
    if status in _STOPPED_ON_THE_WAY or (status in _FROM_A_PROXY and "code" not in stated):
        return Unreachable(f"Something on the way to Discord stopped the request ({what}: {status}).")
    if status == 401 and not by_token:
        return AuthError(
            "Discord refuses our bot token. Reset it in the Developer Portal, under Bot, save it."
        )
    if status >= 500 or not (200 <= status < 300 or 400 <= status < 500):
        return Unknown(f"Discord failed in the middle ({what}: {status}); whether it was done is not known.")
    return None


def _session() -> aiohttp.ClientSession:
    import aiohttp

    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=60, sock_connect=5, sock_read=20), trust_env=True
    )
