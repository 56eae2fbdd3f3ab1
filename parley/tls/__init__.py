"""Transport: which ports speak TLS and with what, how servers of others are verified, an authority for an intranet."""

from parley.tls.addresses import is_loopback, is_private
from parley.tls.outgoing import client, pinned
from parley.tls.server import Renewed

__all__ = ["Renewed", "client", "is_loopback", "is_private", "pinned"]
