"""Calls to OpenID providers: over the guarded client, bounded in size and time, with no redirect followed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from parley.errors import Rejected, Unreachable
from parley.people.oidc_provider import Call
from parley.web.guarded_http import PRIVATE, Guard, guarded_client

if TYPE_CHECKING:
    import httpx

LARGEST: Final = 512 * 1024
"""Bytes of an answer."""

SECONDS: Final = 10.0


class ProviderCalls:
    """Makes them. The clients are made when the first call is: an installation without providers has none."""

    def __init__(self) -> None:
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def send(self, call: Call) -> tuple[int, bytes]:
        """Status and body. Raises `Unreachable`, and `Rejected` where the address may not be called."""
        import httpx

        try:
            async with asyncio.timeout(SECONDS):
                return await self._sent(call)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            raise Unreachable("The provider cannot be reached.") from error

    async def aclose(self) -> None:
        """Close what is open."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.aclose()

    async def _sent(self, call: Call) -> tuple[int, bytes]:
        headers = dict(call.headers)
        asked = self._client(call.inside).stream(call.method, call.url, headers=headers, content=call.body)
        async with asked as answer:
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > LARGEST:
                    raise Rejected("The provider's answer is too large.")
            return answer.status_code, bytes(body)

    def _client(self, inside: bool) -> httpx.AsyncClient:
        import httpx

        if inside not in self._clients:
            guard = Guard(PRIVATE if inside else ())
            self._clients[inside] = guarded_client(guard, timeout=httpx.Timeout(SECONDS), most_connections=4)
        return self._clients[inside]


__all__ = ["ProviderCalls"]
