"""Verified TLS towards servers of people's own, and which of them are this machine."""

from __future__ import annotations

import ssl
from ipaddress import ip_address

from parley.errors import ConfigurationError


def verified(field: str, *, data: str = "", file: str = "") -> ssl.SSLContext:
    """TLS 1.2 at least, for servers that have no 1.3; trusts these authorities (PEM), or the usual ones.

    Raises `ConfigurationError`, which names `field`, where no certificate can be read.
    """
    try:
        context = ssl.create_default_context(cadata=data or None, cafile=file or None)
    except (OSError, ssl.SSLError):
        where = f" from {file!r}" if file else ""
        raise ConfigurationError(f"{field}: no certificate in PEM form could be read{where}.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def is_loopback(host: str) -> bool:
    """Whether this host is this machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
