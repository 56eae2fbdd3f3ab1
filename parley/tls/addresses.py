"""Which addresses never leave this machine, and which never leave a house."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

_PRIVATE: Final = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
        "::1/128",
    )
)
"""RFC 1918, 6598, 3927, 4193, 4291: not routed on the Internet."""


def is_loopback(host: str) -> bool:
    """Whether this host is this machine itself. Only `localhost` is taken for it by name: others may change."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_private(networks: Iterable[str]) -> bool:
    """Whether none of these networks (CIDR) has an address of the Internet."""
    return all(_within(ip_network(one)) for one in networks)


def _within(network: IPv4Network | IPv6Network) -> bool:
    # Not `network.is_private`: for 0.0.0.0/0 some versions of Python look at its two ends alone.
    return any(
        network.version == private.version
        and int(private.network_address) <= int(network.network_address)
        and int(network.broadcast_address) <= int(private.broadcast_address)
        for private in _PRIVATE
    )
