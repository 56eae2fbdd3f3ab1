"""HTTP to addresses that other people chose: no request reaches a network that was not meant.

Each host name is looked up once a request, every address it has must be allowed, and the connection goes to exactly
the address that was looked at, so that a name cannot change its mind in between. Certificates are verified against the
name. Redirects are not followed: they would be a second address that nobody looked at.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Sequence
from typing import Final

import certifi
import httpx

from parley.errors import Rejected, Unreachable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOK_UP_SECONDS: Final = 5.0

# Carries an IPv4 address that would otherwise not be looked at.
_TRANSLATED: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


class Forbidden(Rejected):
    """The address lies in a network that must not be reached."""


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks as in `10.0.0.0/8`. Raises `ValueError` for what is none."""
    return tuple(ipaddress.ip_network(text.strip()) for text in texts)


def is_allowed(address: Address, also: Sequence[Network] = ()) -> bool:
    """Whether it is an address of the public Internet, or in one of the networks that are allowed too."""
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if mapped is not None:
        return is_allowed(mapped, also)
    if any(address.version == network.version and address in network for network in also):
        return True
    if any(address.version == network.version and address in network for network in _TRANSLATED):
        return False
    return address.is_global and not address.is_multicast


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects only where it may. `also`: private networks that are allowed; all others that are not public are not."""

    def __init__(
        self,
        *,
        also: Sequence[Network] = (),
        verify: ssl.SSLContext | None = None,
        limits: httpx.Limits | None = None,
    ) -> None:
        context = verify or ssl.create_default_context(cafile=certifi.where())
        self._also = tuple(also)
        self._inner = httpx.AsyncHTTPTransport(
            verify=context, trust_env=False, limits=limits or httpx.Limits(max_connections=20)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send to the address that was looked at. Raises `Forbidden`, `Unreachable` and what httpx raises."""
        name = request.url.host
        address = await self._address(name, request.url.port or _default_port(request.url.scheme))
        literal = f"[{address}]" if address.version == 6 else str(address)
        guarded = httpx.Request(
            request.method,
            request.url.copy_with(host=literal),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": name},
        )
        return await self._inner.handle_async_request(guarded)

    async def _address(self, name: str, port: int) -> Address:
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError):
            raise Unreachable(f"The address of {name[:200]} cannot be found.") from None
        addresses = [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]
        if not all(is_allowed(address, self._also) for address in addresses):
            raise Forbidden(f"{name[:200]} lies in a network that must not be called from here.")
        return addresses[0]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80
