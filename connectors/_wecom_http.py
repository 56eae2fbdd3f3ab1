"""The HTTP client for WeCom, whose secrets travel in the address of each call.

httpx logs addresses, and its errors may name them. So the client is given addresses without secrets, and they are put
in behind its back, in the last layer before the connection.
"""

from __future__ import annotations

import httpx

SECRETS = "wecom_secrets"
"""The extension of a request that holds the secret part of its query."""

_TIMEOUT = httpx.Timeout(15.0, connect=5.0, write=60.0)
_LIMITS = httpx.Limits(max_connections=20, max_keepalive_connections=5, keepalive_expiry=20.0)


class _AddsSecrets(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        extensions = dict(request.extensions)
        secrets = extensions.pop(SECRETS, {})
        sent = httpx.Request(
            request.method,
            request.url.copy_merge_params(secrets),
            headers=request.headers,
            stream=request.stream,
            extensions=extensions,
        )
        return await self._inner.handle_async_request(sent)

    async def aclose(self) -> None:
        await self._inner.aclose()


def client(base_url: str) -> httpx.AsyncClient:
    """A pooled client; verifies TLS, follows no redirect, and takes no secret from the environment."""
    transport = _AddsSecrets(httpx.AsyncHTTPTransport(limits=_LIMITS))
    return httpx.AsyncClient(base_url=base_url, transport=transport, timeout=_TIMEOUT, follow_redirects=False)
