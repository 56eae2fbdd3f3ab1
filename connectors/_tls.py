"""Verified TLS towards servers of people's own, and which of them are this machine."""

from __future__ import annotations

import ssl

from parley.errors import ConfigurationError
from parley.tls import client, is_loopback

__all__ = ["is_loopback", "verified"]


def verified(field: str, *, data: str = "", file: str = "") -> ssl.SSLContext:
    """TLS 1.2 at least, for servers that have no 1.3; trusts these authorities (PEM), or the usual ones.

    Raises `ConfigurationError`, which names `field`, where no certificate can be read.
    """
    try:
        return client(ca_data=data or None, ca_file=file or None)
    except (OSError, ssl.SSLError):
        where = f" from {file!r}" if file else ""
        raise ConfigurationError(f"{field}: no certificate in PEM form could be read{where}.") from None
