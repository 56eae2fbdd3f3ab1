"""The way in for a stack that runs inside a container: `python -m parley.processes.publish`.

Docker hands what it publishes to the container's own address, but everything here listens on loopback, since there is
no TLS in front of it. This process listens on the container's address under the same port numbers, and passes on to
loopback only what comes from where `PARLEY_PUBLISH` says: `gateway`, the container's default gateway, which is where
Docker's publishing on the host's loopback comes in; or networks, as `172.30.0.0/24`, where a proxy with TLS or
Prometheus is. Another container on the same network is not let in, nor is a machine elsewhere when a port was published
on all of the host's addresses by mistake: such a connection keeps its own address. Ports that parley.toml opens
itself, which takes TLS, are left alone.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final

from parley import log_lines, prefect_env
from parley.errors import ConfigurationError
from parley.link.forward import Forwarder, bound, tcp
from parley.settings import Settings, load
from parley.tls.addresses import is_loopback

logger = logging.getLogger("parley.publish")

GATEWAY: Final = "gateway"

_ROUTES: Final = Path("/proc/net/route")
_INTERFACES: Final = Path("/sys/class/net")


def ports_of(settings: Settings) -> tuple[int, ...]:
    """The ports on loopback that are passed on to."""
    return (
        *((settings.port,) if is_loopback(settings.host("web")) else ()),
        *((settings.hooks_port,) if is_loopback(settings.host("hooks")) else ()),
        *((settings.metrics_port,) if is_loopback(settings.host("metrics")) else ()),
        *((settings.prefect_port,) if settings.own_prefect else ()),
    )


def default_gateway(routes: str) -> IPv4Address | None:
    """The gateway of the default route in the text of /proc/net/route; None where there is none."""
    for line in routes.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000":
            gateway = IPv4Address(struct.pack("<I", int(fields[2], 16)))
            return gateway if int(gateway) else None
    return None


def admission(names: Iterable[str], gateway: IPv4Address | None) -> Callable[[object], bool]:
    """Whether a peer may come in: those networks, and the gateway where it is named."""
    networks: list[IPv4Network | IPv6Network] = []
    for name in names:
        if name != GATEWAY:
            networks.append(ip_network(name))
        elif gateway is not None:
            networks.append(IPv4Network(gateway))

    def admits(peer: object) -> bool:
        if not isinstance(peer, tuple) or not peer:
            return False
        address = ip_address(str(peer[0]))
        return any(address in network for network in networks)

    return admits


def own_addresses() -> tuple[str, ...]:
    """The IPv4 addresses of this container's own interfaces; none outside of a container."""
    import psutil

    return tuple(
        address.address
        for name, addresses in sorted(psutil.net_if_addrs().items())
        if _is_paired(name)
        for address in addresses
        if address.family == socket.AF_INET
    )


async def serve(settings: Settings) -> None:
    """Listen until SIGTERM or SIGINT. Raises `ConfigurationError` where this is no container's network."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    gateway = default_gateway(_ROUTES.read_text(encoding="ascii")) if _ROUTES.exists() else None
    addresses = own_addresses()
    if not addresses:
        logger.warning("this is no container with a network of its own: nothing is published")
    admits = admission(settings.publish, gateway)
    async with AsyncExitStack() as stack:
        for address in addresses:
            for port in ports_of(settings):
                forwarder = Forwarder(f"{address}:{port}", tcp(prefect_env.LOOPBACK, port), admits=admits)
                await forwarder.listen(_bound(address, port))
                stack.push_async_callback(forwarder.aclose)
        logger.info("%s for %s (gateway %s)", ", ".join(addresses), ", ".join(settings.publish), gateway)
        await ended.wait()


def main() -> int:
    """Publish; 2 when it cannot be done as it is configured."""
    log_lines.configure()
    try:
        asyncio.run(serve(load()))
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _bound(address: str, port: int) -> socket.socket:
    try:
        return bound(address, port)
    except OSError as error:
        raise ConfigurationError(f"{address}:{port} cannot be published: {error.strerror}.") from None


def _is_paired(name: str) -> bool:
    # A container's interface is one end of a pair whose other end is elsewhere; a machine's own card is not. With the
    # machine's own network (`--network host`) nothing must listen on its addresses.
    try:
        own, other = (
            int((_INTERFACES / name / which).read_text(encoding="ascii")) for which in ("ifindex", "iflink")
        )
    except (OSError, ValueError):
        return False
    return own != other


if __name__ == "__main__":
    sys.exit(main())
