"""POST to an address that somebody set: no redirect, no proxy, nowhere but where it may go.

The name is looked up here, every address it has must be allowed, and the connection goes to the one that was checked:
a name that means another machine a moment later leads nowhere else. TLS is verified for the name.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Literal

from parley.errors import ConfigurationError, Rejected, Unknown, Unreachable

if TYPE_CHECKING:
    import httpx

Reach = Literal["public", "private"]
"""Where it may go: addresses of the Internet only, or also those of one's own networks and of this machine."""

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host: (name, port) -> addresses. Raises `OSError`."""

CONNECT_SECONDS = 5.0
WHOLE_SECONDS = 15.0

_NAT64 = IPv6Network("64:ff9b::/96")
_SHARED = IPv4Network("100.64.0.0/10")  # carriers' own, and that of overlay networks
_METADATA = {ip_address("100.100.100.200"), ip_address("fd00:ec2::254")}


@dataclass(frozen=True, slots=True)
class Target:
    """An address to post to, taken apart."""

    scheme: str
    host: str
    port: int
    path: str


def target_of(url: str, field: str) -> Target:
    """Take an address apart. Raises `ConfigurationError`, which names `field`; credentials in it are refused."""
    import httpx

    try:
        parsed = httpx.URL(url.strip())
        port = parsed.port or {"https": 443, "http": 80}[parsed.scheme]
        host = parsed.raw_host.decode("ascii")
    except (httpx.InvalidURL, KeyError, TypeError, UnicodeError):
        raise ConfigurationError(
            f"{field} must be an address that begins with https:// or http://."
        ) from None
    if not host or "%" in host:
        raise ConfigurationError(f"{field} names no host.")
    if parsed.userinfo:
        raise ConfigurationError(f"{field} must not hold a user name or password: calls are signed instead.")
    return Target(parsed.scheme, host, port, parsed.raw_path.decode("ascii"))


def allowed(address: str, reach: Reach) -> bool:
    """Whether we may connect there. Never: where clouds keep credentials (link-local and two more), multicast, 0."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is not None:
            return allowed(str(inner), reach)
        if found in _NAT64:
            return allowed(str(IPv4Address(int(found) & 0xFFFFFFFF)), reach)
    if found.is_link_local or found.is_multicast or found.is_unspecified or found in _METADATA:
        return False
    if found.is_loopback or (found.is_private and not found.is_reserved) or found in _SHARED:
        return reach == "private"
    return found.is_global


async def look_up(host: str, port: int) -> Sequence[str]:
    """The system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Poster:
    """Posts to one target, with a pool of connections of its own."""

    def __init__(self, target: Target, reach: Reach, *, look_up: LookUp = look_up) -> None:
        self.target = target
        self._reach = reach
        self._look_up = look_up
        self._http: httpx.AsyncClient | None = None

    async def post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str]]:
        """Status and headers of the answer, whose body is not read.

        Raises `Unreachable` where nothing was sent, `Unknown` where it may have been, `Rejected` where it may not go.
        """
        import httpx

        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                address = await self._address()
                request = self._request(address, body, headers)
                answer = await self._client().send(request, stream=True)
                await answer.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable(f"The address cannot be reached ({type(error).__name__}).") from None
        except (httpx.HTTPError, TimeoutError, ssl.SSLError) as error:
            raise Unknown(f"The answer was lost ({type(error).__name__}).") from None
        return answer.status_code, answer.headers

    async def _address(self) -> str:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                found = await self._look_up(self.target.host, self.target.port)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise Unreachable(f"The address's host is not found ({type(error).__name__}).") from None
        if not found:
            raise Unreachable("The address's host is not found.")
        if not all(allowed(one, self._reach) for one in found):
            raise Rejected(
                "The address leads to a machine that it may not: set `reach` to private for machines of your own "
                "networks; link-local addresses are never used."
            )
        if self.target.scheme == "http" and any(allowed(one, "public") for one in found):
            raise Rejected("The address is on the Internet: there only https:// is used.")
        return found[0]

    def _request(self, address: str, body: bytes, headers: Mapping[str, str]) -> httpx.Request:
        import httpx

        target = self.target
        url = httpx.URL(scheme=target.scheme, host=address, port=target.port, raw_path=target.path.encode())
        shown = f"[{target.host}]" if ":" in target.host else target.host
        usual = {"https": 443, "http": 80}[target.scheme]
        host = shown if target.port == usual else f"{shown}:{target.port}"
        return self._client().build_request(
            "POST",
            url,
            content=body,
            headers={**headers, "host": host},
            extensions={"sni_hostname": target.host},
        )

    def _client(self) -> httpx.AsyncClient:
        import httpx

        if self._http is None:
            # A proxy of the environment would look the name up again, and a redirect would lead elsewhere.
            self._http = httpx.AsyncClient(
                verify=_trusted(),
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(WHOLE_SECONDS, connect=CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=10, keepalive_expiry=30),
            )
        return self._http

    async def aclose(self) -> None:
        """Close the connections; may be called twice."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()


@cache
def _trusted() -> ssl.SSLContext:
    """The machine's own authorities, which may know a house's own, and the usual ones."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
