"""POST to an address that somebody set; where it may go is for parley.web.guarded_http to say."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from parley.errors import ConfigurationError, Unknown, Unreachable
from parley.web.guarded_http import PRIVATE, Guard, LookUp, guarded_client, look_up

if TYPE_CHECKING:
    import httpx

Reach = Literal["public", "private"]
"""Where it may go: addresses of the Internet only, or also those of one's own networks and of this machine."""

CONNECT_SECONDS = 5.0
WHOLE_SECONDS = 15.0


def target_of(url: str, field: str) -> str:
    """The address as it is called. Raises `ConfigurationError`, which names `field`; credentials in it are refused."""
    import httpx

    try:
        parsed = httpx.URL(url.strip())
        host = parsed.raw_host.decode("ascii")
        _ = parsed.port
    except (httpx.InvalidURL, TypeError, UnicodeError):
        host = ""
        parsed = httpx.URL()
    if parsed.scheme not in ("https", "http"):
        raise ConfigurationError(
            f"{field} must be an address that begins with https:// or http://."
        ) from None
    if not host or "%" in host:
        raise ConfigurationError(f"{field} names no host.")
    if parsed.userinfo:
        raise ConfigurationError(f"{field} must not hold a user name or password: calls are signed instead.")
    return str(parsed.copy_with(fragment=None))


class Poster:
    """Posts to one address, with a pool of connections of its own."""

    def __init__(self, url: str, reach: Reach, *, look_up: LookUp = look_up) -> None:
        self.url = url
        self._guard = Guard(PRIVATE if reach == "private" else (), look_up=look_up)
        self._http: httpx.AsyncClient | None = None

    async def post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str]]:
        """Status and headers of the answer, whose body is not read.

        Raises `Unreachable` where nothing was sent, `Unknown` where it may have been, `Rejected` where it may not go.
        """
        import httpx

        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                request = self._client().build_request("POST", self.url, content=body, headers=dict(headers))
                answer = await self._client().send(request, stream=True)
                await answer.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable(f"The address cannot be reached ({type(error).__name__}).") from None
        except (httpx.HTTPError, TimeoutError, ssl.SSLError) as error:
            raise Unknown(f"The answer was lost ({type(error).__name__}).") from None
        return answer.status_code, answer.headers

    def _client(self) -> httpx.AsyncClient:
        import httpx

        if self._http is None:
            timeout = httpx.Timeout(WHOLE_SECONDS, connect=CONNECT_SECONDS)
            self._http = guarded_client(self._guard, timeout=timeout, most_connections=10)
        return self._http

    async def aclose(self) -> None:
        """Close the connections; may be called twice."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()
