"""Contexts for connections that we open: the only place where they are made, so that every one of them verifies."""

from __future__ import annotations

import ssl
from pathlib import Path

_END = "-----END CERTIFICATE-----"


def client(
    *,
    ca_file: str | Path | None = None,
    ca_data: str | None = None,
    least: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
) -> ssl.SSLContext:
    """A context that verifies chain, name and dates; TLS 1.3 where the peer offers it, `least` otherwise.

    It trusts what `ca_file` or `ca_data` (both PEM) hold, and with neither the machine's own authorities. Raises
    `OSError` or `ssl.SSLError` where no certificate can be read.
    """
    context = ssl.create_default_context(cafile=ca_file, cadata=ca_data)
    context.minimum_version = least
    return context


def pinned(certificate: Path) -> ssl.SSLContext:
    """A context for our own server, whose certificate file lies on this machine: no other certificate is taken.

    The address need not be in it: a certificate for the name that people use is good enough for a connection to
    127.0.0.1, since only the holder of its key can answer. Raises `OSError` or `ssl.SSLError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    # The chain ends with the server's own certificate, whoever signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=_first(certificate))
    return context


def _first(certificate: Path) -> str:
    text = certificate.read_text(encoding="ascii", errors="replace")
    return text[: text.find(_END) + len(_END)] + "\n" if _END in text else text
