"""Sixty and more ways to write an address that must not be reached, and names that lie about where they lead."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

THIS_MACHINE: Final = (
    "127.0.0.1", "localhost", "LOCALHOST", "localhost.", "LocalHost", "127.1", "127.0.1", "2130706433",
    "0x7f000001", "0x7f.1",
    "0x7f.0.0.1", "0177.0.0.1", "017700000001", "0", "0.0.0.0", "127.127.127.127", "127.0.0.1.", "127.0.0.01",
    "[::1]", "[::]",
    "[0:0:0:0:0:0:0:1]", "[0000::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "[::1%25lo]", "１２７.０.０.１", "127。0。0。1", "①②⑦.⓪.⓪.①",
    "ⓛocalhost",
    "user@127.0.0.1", "public.example@127.0.0.1", "public.example:443@127.0.0.1", "127.0.0.1%2f",
    "127.0.0.1%00.example",
    "127.0.0.1\\@public.example", "public.example\\@127.0.0.1", "127.0.0.1\t", "ip6-localhost",
)  # fmt: skip
"""Hosts; a port and a path follow."""

ELSEWHERE: Final = (
    "169.254.169.254", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "[::ffff:169.254.169.254]",
    "[fd00:ec2::254]",
    "metadata.google.internal", "100.100.100.200", "168.63.129.16", "192.0.0.192", "10.0.0.1", "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "[fe80::1]", "[fc00::1]", "[ff02::1]",
    "[fec0::1]",
)  # fmt: skip
"""Hosts in one's own networks, or where clouds keep credentials."""

OTHER_SCHEMES: Final = (
    "file:///etc/passwd", "gopher://127.0.0.1:{port}/_x", "ftp://127.0.0.1:{port}/", "dict://127.0.0.1:{port}/",
    "ldap://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "http:127.0.0.1:{port}", "http:///127.0.0.1:{port}/",
    "unix:/run/x.sock",
    "data:text/plain,x", "jar:http://127.0.0.1:{port}/!/", "http+unix://%2Frun%2Fx.sock/",
    "ws://127.0.0.1:{port}/", "javascript:0",
)  # fmt: skip

NAMES: Final = {
    "inside.example": [["127.0.0.1"]],
    "mapped.example": [["::ffff:127.0.0.1"]],
    "both.example": [["93.184.215.14", "127.0.0.1"]],
    "rebind.example": [["93.184.215.14"], ["127.0.0.1"]],
    "metadata.example": [["169.254.169.254"]],
}
"""What a resolver says of a name that somebody else owns: the first time, the second, and from then on."""


def spellings(scheme: str, port: int) -> list[str]:
    """All of them as addresses of this scheme."""
    hosts = [f"{scheme}://{host}:{port}/x" for host in (*THIS_MACHINE, *ELSEWHERE)]
    return [*hosts, *(text.format(port=port) for text in OTHER_SCHEMES)]


@dataclass
class Canary:
    """Listens on this machine, IPv4 and IPv6; `arrived` counts who connected."""

    port: int
    arrived: int = 0


@asynccontextmanager
async def canary() -> AsyncIterator[Canary]:
    """One that lives for the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        here = Canary(probe.getsockname()[1])

    async def arrived(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.arrived += 1
        writer.close()

    servers = [
        await asyncio.start_server(arrived, host, here.port)
        for host in ("0.0.0.0", *(["::1"] if _has_ipv6() else []))
    ]
    try:
        yield here
    finally:
        for server in servers:
            server.close()
            await server.wait_closed()


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@dataclass
class Resolver:
    """Answers as `NAMES` says, a name's next answer each time it is asked."""

    asked: dict[str, int] = field(default_factory=dict)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of this name."""
        answers = NAMES.get(host)
        if answers is None:
            raise OSError(f"no such name: {host}")
        number = self.asked.get(host, 0)
        self.asked[host] = number + 1
        return answers[min(number, len(answers) - 1)]
