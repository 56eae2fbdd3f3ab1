"""Autodiscover v2: one question in JSON, without credentials, answered with the URL of Exchange Web Services.

Not exchangelib's own search: that one keeps what it found in a pickle under a name in the temporary folder that any
user of the machine could have written before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from connectors._exchange_settings import _checked_url
from parley.errors import ConfigurationError, Unreachable

if TYPE_CHECKING:
    from connectors._exchange_settings import ExchangeSettings

MOST_REDIRECTS = 5
MOST_ANSWER = 10_000


async def discovered(settings: ExchangeSettings) -> str:
    """The EWS URL of this mailbox. Raises `Unreachable` when nobody tells one that credentials may be sent to."""
    said = "nobody answers"
    async with httpx.AsyncClient(verify=settings.tls(), timeout=settings.connect_timeout) as http:
        for url in settings.discovery_urls():
            try:
                return await _asked(http, url, settings.address)
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, ConfigurationError) as error:
                said = f"{httpx.URL(url).host}: {type(error).__name__}"
    raise Unreachable(f"Autodiscover does not tell where the mailbox is ({said}): set the endpoint by hand.")


async def _asked(http: httpx.AsyncClient, url: str, address: str) -> str:
    asked = httpx.URL(url, params={"Email": address, "Protocol": "EWS", "RedirectCount": "1"})
    for _ in range(MOST_REDIRECTS):
        async with http.stream("GET", asked) as response:
            if response.is_redirect and response.next_request is not None:
                # A name from the mail address leads here: who may redirect it in clear could name any server.
                asked = httpx.URL(_checked_url("autodiscover", str(response.next_request.url)))
                continue
            response.raise_for_status()
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MOST_ANSWER:
                    raise ValueError("too long")
            return _read(httpx.Response(200, content=body).json())
    raise ValueError("too many redirects")


def _read(said: object) -> str:
    url = said.get("Url") if isinstance(said, dict) else None
    return _checked_url("autodiscover", url if isinstance(url, str) else "")
