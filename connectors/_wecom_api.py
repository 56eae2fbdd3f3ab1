"""WeCom's API as an application calls it: the access token, messages, files.

A token (developer.work.weixin.qq.com/document/path/91039) is good for two hours; asking for one that is still good
gives the same, and asking too often is refused. So one is kept, shared by all calls, and renewed by one of them alone.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable
from email.message import Message as Headers
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from connectors._wecom_errors import REFUSED_TOKENS, code_of, raise_for, raise_for_status, raise_lost
from connectors._wecom_read import Media, bare_name
from parley.errors import AuthError, Rejected, Unreachable
from parley.messages import File

if TYPE_CHECKING:
    import httpx

Json = dict[str, Any]

LONGEST_ANSWER = 1024 * 1024
_SHORTEST_LIFE, _LONGEST_LIFE = 10.0, 7200.0  # seconds; what WeCom says beyond is not believed
_MARGIN = 0.1  # the part of a token's life before whose end it is renewed
_FULL_NAME = re.compile(r"filename\*\s*=\s*utf-8''([^;\s]+)", re.IGNORECASE)
_SEEN = {"message/send", "appchat/send", "webhook/send"}


class Api:
    """The calls of one application. Opens its client at the first call; `aclose` may be called twice."""

    def __init__(
        self,
        corp_id: str,
        secret: str,
        base_url: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._corp_id, self._secret = corp_id, secret
        self._base_url = base_url if base_url.endswith("/") else base_url + "/"
        self._clock = clock
        self._http: httpx.AsyncClient | None = None
        self._renewing = asyncio.Lock()
        self._token = ""
        self._renew_at = 0.0

    def __repr__(self) -> str:
        return "Api()"

    async def keep_token(self) -> float:
        """See to it that there is a good token; return in how many seconds to look again."""
        await self._good_token()
        return max(self._renew_at - self._clock(), 1.0)

    def forget_token(self) -> None:
        """Have the next call ask for a token, which proves the secret."""
        self._token = ""

    async def get(self, method: str, query: dict[str, str] | None = None) -> Json:
        """Ask for something."""
        return await self._with_token(method, lambda token: self._request("GET", method, token, params=query))

    async def post(self, method: str, body: Json, *, key: str = "") -> Json:
        """Have something done. Raises `Unknown` when it may have been, where people see it.

        `key` is a robot's: then that stands for the token.
        """
        # No \uXXXX: WeCom refuses a body that holds one (40033).
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        return await self._done(method, key, content=content, headers={"content-type": "application/json"})

    async def upload(self, file: File, kind: str, *, key: str = "") -> str:
        """The media id of a file, good for three days, and with `key` for this robot alone."""
        media = (file.name.replace("\\", "_").replace("/", "_"), file.content, file.media_type)
        method = "webhook/upload_media" if key else "media/upload"
        answer = await self._done(method, key, params={"type": kind}, files={"media": media})
        media_id = answer.get("media_id")
        if not (isinstance(media_id, str) and media_id):
            raise Rejected("WeCom took a file and did not say under which id.")
        return media_id

    async def download(self, media: Media, at_most: int) -> File:
        """A file that somebody sent. Raises `FileTooLarge` when it is larger than `at_most` bytes."""
        token = await self._good_token()
        try:
            return await self._download(media, at_most, token)
        except _TokenRefused:
            return await self._download(media, at_most, await self._good_token(refused=token))

    async def aclose(self) -> None:
        """Close the connections."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def _done(self, method: str, key: str, **more: Any) -> Json:
        if not key:
            return await self._with_token(method, lambda token: self._request("POST", method, token, **more))
        answer = await self._request("POST", method, secrets={"key": key}, **more)
        raise_for(method, answer)
        return answer

    # -- the token

    async def _with_token(self, method: str, call: Callable[[str], Any]) -> Json:
        token = await self._good_token()
        answer: Json = await call(token)
        if code_of(answer) in REFUSED_TOKENS:
            answer = await call(await self._good_token(refused=token))
        raise_for(method, answer)
        return answer

    async def _good_token(self, refused: str = "") -> str:
        async with self._renewing:
            # Whoever waited here finds what the one before has fetched.
            if not self._token or self._token == refused or self._clock() >= self._renew_at:
                self._token = ""
                await self._fetch_token()
            return self._token

    async def _fetch_token(self) -> None:
        secrets = {"corpid": self._corp_id, "corpsecret": self._secret}
        answer = await self._request("GET", "gettoken", secrets=secrets)
        raise_for("gettoken", answer)
        token = answer.get("access_token")
        if not (isinstance(token, str) and token):
            raise Unreachable("WeCom answered a request for an access token with none.")
        self._token = token
        self._renew_at = self._clock() + _life(answer.get("expires_in")) * (1 - _MARGIN)

    # -- one request

    async def _request(
        self, verb: str, method: str, token: str = "", *, secrets: dict[str, str] | None = None, **more: Any
    ) -> Json:
        import httpx

        seen = method in _SEEN
        try:
            async with self._client().stream(
                verb, method, extensions=_hidden(secrets or {"access_token": token}), **more
            ) as response:
                raise_for_status(method, response.status_code, response.headers.get("retry-after"), seen=seen)
                return _object(method, await _body(response, LONGEST_ANSWER), seen=seen)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable(f"WeCom cannot be reached ({method}: {type(error).__name__}).") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise_lost(method, type(error).__name__, seen=seen)
        except _TooLong:
            raise_lost(method, "an answer without end", seen=seen)

    async def _download(self, media: Media, at_most: int, token: str) -> File:
        import httpx

        try:
            async with self._client().stream(
                "GET", "media/get", params={"media_id": media.id}, extensions=_hidden({"access_token": token})
            ) as response:
                raise_for_status("media/get", response.status_code, None, seen=False)
                if (
                    "content-disposition" not in response.headers
                ):  # then it is no file, but says why there is none
                    answer = _object("media/get", await _body(response, LONGEST_ANSWER), seen=False)
                    if code_of(answer) in REFUSED_TOKENS:
                        raise _TokenRefused("WeCom refused the access token (media/get).")
                    raise_for("media/get", answer)
                content = await _body(response, at_most)
                return File(
                    name=_name(response.headers.get("content-disposition", "")) or media.name,
                    media_type=response.headers.get("content-type", "application/octet-stream")[:255],
                    content=content,
                )
        except _TooLong:
            raise FileTooLarge("The file is larger than what is taken.") from None
        except httpx.HTTPError as error:
            raise Unreachable(f"WeCom did not hand the file over ({type(error).__name__}).") from None

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            from connectors._wecom_http import client

            self._http = client(self._base_url)
        return self._http


class FileTooLarge(Rejected):
    """The file is larger than what is taken."""


class _TokenRefused(AuthError):
    """The access token is not good; a new one may be."""


class _TooLong(Exception):
    """A body goes on for longer than is read."""


def _hidden(secrets: dict[str, str]) -> Json:
    from connectors._wecom_http import SECRETS

    return {SECRETS: secrets}


async def _body(response: httpx.Response, at_most: int) -> bytes:
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > at_most:
            raise _TooLong
    return bytes(content)


def _object(method: str, content: bytes, *, seen: bool) -> Json:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise_lost(method, "not an answer of WeCom", seen=seen)
    return answer


def _life(seconds: Any) -> float:
    known = isinstance(seconds, int | float) and math.isfinite(seconds)
    return min(max(float(seconds), _SHORTEST_LIFE), _LONGEST_LIFE) if known else _SHORTEST_LIFE


def _name(disposition: str) -> str:
    whole = _FULL_NAME.search(disposition)
    if whole is not None:  # the other one is then for readers of ASCII alone
        return bare_name(unquote(whole[1]))
    headers = Headers()
    headers["content-disposition"] = disposition
    return bare_name(headers.get_filename() or "")
