"""HTTP below exchangelib: connections that belong to a call, and TLS by our settings alone.

Imports requests, which exchangelib speaks through; so it is itself imported only when an account is used.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter  # noqa: TID251 - exchangelib blocks by design, and runs in threads here
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from connectors._exchange_calls import current

if TYPE_CHECKING:
    import ssl

_KEPT_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # A stream is silent for minutes: without probes a dead peer would look like a quiet one.
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)
    ),
]


class _Owned(HTTPConnection):
    """Whose socket is known to the call that uses it."""

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        try:
            current().uses(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def send(self, data: Any) -> None:
        call = current()
        if self.sock is None:
            self.connect()
        call.uses(self.sock)
        call.begun = True
        super().send(data)


class _Clear(_Owned):
    """Without TLS: on this machine only."""


class _Secure(_Owned, HTTPSConnection):
    """With TLS."""


class _ClearPool(HTTPConnectionPool):
    ConnectionCls = _Clear


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


_POOLS = {"http": _ClearPool, "https": _SecurePool}


class Adapter(HTTPAdapter):
    """One connection, trusted by this context and by nothing else: neither certifi nor an environment variable."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=1, pool_block=True, max_retries=0)

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        more |= {"ssl_context": self._context, "socket_options": _KEPT_ALIVE}
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        more |= {"ssl_context": self._context, "socket_options": _KEPT_ALIVE}
        manager = super().proxy_manager_for(proxy, **more)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = conn.ca_cert_dir = None

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        return super().build_connection_pool_key_attributes(request, True, cert)
