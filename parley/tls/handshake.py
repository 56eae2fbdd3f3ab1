"""A handshake in memory: whether a client would take what a server shows, asked of OpenSSL itself."""

from __future__ import annotations

import ssl

_MOST_TURNS = 20


def refusal(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str:
    """Why `client` would not take `server` for `name`; empty when it would."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done = [False, False]
    for _ in range(_MOST_TURNS):
        for number, side in enumerate(sides):
            if done[number]:
                continue
            try:
                side.do_handshake()
                done[number] = True
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return str(error.verify_message)
            except ssl.SSLError as error:
                return str(error.reason)
        if all(done):
            return ""
    return "the handshake does not end"
