"""A server on this machine with a certificate that only those trust who are handed it."""

from __future__ import annotations

import ssl
import tempfile

from tests.certificates import self_signed


def server_tls() -> tuple[ssl.SSLContext, str]:
    """The server's context, and the certificate (PEM) that makes a client trust it."""
    certificate, private = self_signed()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(certificate + private)
        file.flush()
        context.load_cert_chain(file.name)
    return context, certificate.decode()
