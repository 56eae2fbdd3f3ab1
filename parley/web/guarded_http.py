"""HTTP to addresses that other people chose: no request reaches a network that was not meant.

Each host name is looked up once a request, every address it has must be allowed, and the connection goes to exactly
the address that was looked at, so that a name cannot change its mind in between. Certificates are verified for the
name. Nothing goes over the Internet in clear. Redirects are not followed and no proxy is used: either would lead to an
address that nobody looked at.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from parley import tls
from parley.errors import Rejected, Unreachable

if TYPE_CHECKING:
    import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host: (name, port) -> addresses. Raises `OSError`."""

LOOK_UP_SECONDS: Final = 5.0


class Forbidden(Rejected):
    """The address lies in a network that must not be reached."""


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks as in `10.0.0.0/8`. Raises `ValueError` for what is none."""
    return tuple(ipaddress.ip_network(text.strip()) for text in texts)


PRIVATE: Final = networks(
    ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "::1/128", "fc00::/7")
)
"""This machine and one's own networks, those of carriers and overlays among them."""

# Where clouds hand out credentials: link-local addresses, and some that are not (Alibaba, Azure, Oracle; AWS and Google
# over IPv6). Never, whatever is allowed.
_METADATA: Final = networks(
    ("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::254/128", "fd20:ce::254/128")
)
# All that is given out of IPv6's Internet (iana.org/assignments/ipv6-address-space), documentation left out. What lies
# elsewhere is reserved, was given up, or leads to IPv4 by ways that only one's own network knows.
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_DOCUMENTATION: Final = ipaddress.IPv6Network("3fff::/20")
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_allowed(address: Address, also: Sequence[Network] = ()) -> bool:
    """Whether it is an address of the public Internet, or in one of the networks that are allowed too."""
    inner = _inner(address)
    if inner is not None:
        return is_allowed(inner, also)
    if address.is_link_local or address.is_multicast or address.is_unspecified or _within(address, _METADATA):
        return False
    return _within(address, also) or (
        address.is_global and _is_given_out(address) and not _within(address, PRIVATE)
    )


def _is_given_out(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return True
    return address in _UNICAST and address not in _DOCUMENTATION


def _inner(address: Address) -> Address | None:
    """The IPv4 address that an IPv6 one leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def _within(address: Address, some: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in some)


async def look_up(host: str, port: int) -> Sequence[str]:
    """The system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@cache
def trusted() -> ssl.SSLContext:
    """The machine's own authorities, which may know a house's own, and the usual ones."""
    import certifi

    context = tls.client()
    context.load_verify_locations(certifi.where())
    return context


class Guard:
    """Looks a host up, and lets nothing through but what may be reached. `also`: networks besides the public ones."""

    def __init__(self, also: Sequence[Network] = (), *, look_up: LookUp = look_up) -> None:
        self._also = tuple(also)
        self._look_up = look_up

    async def address(self, scheme: str, host: str, port: int) -> Address:
        """The address to connect to. Raises `Forbidden`, and `Unreachable` where there is none."""
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                found = await self._look_up(host, port)
        except (OSError, UnicodeError, TimeoutError):
            found = ()
        if not found:
            raise Unreachable(f"The address of {host[:200]} cannot be found.")
        addresses = [ipaddress.ip_address(one.partition("%")[0]) for one in found]
        if not all(is_allowed(one, self._also) for one in addresses):
            raise Forbidden(f"{host[:200]} leads to a machine that must not be called from here.")
        if scheme != "https" and any(is_allowed(one) for one in addresses):
            raise Forbidden(f"{host[:200]} is on the Internet: there only https:// is used.")
        return addresses[0]


def guarded_client(
    guard: Guard, *, timeout: httpx.Timeout, verify: ssl.SSLContext | None = None, most_connections: int = 20
) -> httpx.AsyncClient:
    """A pooled client whose every request passes the guard. It raises what `Guard.address` and httpx raise."""
    import httpx

    class Transport(httpx.AsyncBaseTransport):
        def __init__(self) -> None:
            self._inner = httpx.AsyncHTTPTransport(
                verify=verify or trusted(),
                trust_env=False,
                limits=httpx.Limits(max_connections=most_connections, keepalive_expiry=30),
            )

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            url = request.url
            port = url.port or {"https": 443}.get(url.scheme, 80)
            address = await guard.address(url.scheme, url.host, port)
            return await self._inner.handle_async_request(
                httpx.Request(
                    request.method,
                    url.copy_with(host=f"[{address}]" if address.version == 6 else str(address)),
                    headers=request.headers,
                    stream=request.stream,
                    extensions={**request.extensions, "sni_hostname": url.host},
                )
            )

        async def aclose(self) -> None:
            await self._inner.aclose()

    return httpx.AsyncClient(transport=Transport(), timeout=timeout, follow_redirects=False, trust_env=False)
