"""What holds for every port of ours: TLS where it is configured, nothing plain beyond this machine."""

from __future__ import annotations

import ssl
from pathlib import Path

from parley.errors import ConfigurationError
from parley.settings import PORTS, PortName, Settings
from parley.tls.addresses import is_loopback, is_private
from parley.tls.handshake import refusal
from parley.tls.outgoing import client
from parley.tls.server import Renewed

_VARIABLE = {
    "web": "PARLEY_PORT",
    "hooks": "PARLEY_HOOKS_PORT",
    "metrics": "PARLEY_METRICS_PORT",
    "prefect": "PARLEY_PREFECT_PORT",
}


def served(settings: Settings, port: PortName) -> Renewed | None:
    """What this port is served with; None where it is plain. Raises `ConfigurationError`."""
    pair = settings.pair(port)
    clients = settings.file.metrics.client_authority if port == "metrics" else None
    if pair is None:
        if clients is not None:
            raise ConfigurationError(
                "[metrics] client_authority asks readers for certificates, which takes TLS: give certificate and key "
                "under [metrics] or [tls]."
            )
        return None
    return Renewed(pair.certificate, pair.key, clients=clients)


def check(settings: Settings) -> None:
    """What can be known of all ports before one is opened. Raises `ConfigurationError`, which says how to mend it."""
    for port in _opened(settings):
        check_host(port, settings.host(port), secure=settings.pair(port) is not None)
        if (used := served(settings, port)) and port == "prefect":
            _check_trust(settings, used.context)
    _check_published(settings)


def check_host(port: PortName, host: str, *, secure: bool) -> None:
    """Raise `ConfigurationError` where the network would reach a port without TLS."""
    if secure or is_loopback(host):
        return
    raise ConfigurationError(
        f"[{port}] host {host} can be reached from the network, and there is no TLS: give certificate and key in "
        "parley.toml under [tls] (`parley certs create` makes them for an intranet), or keep the host 127.0.0.1 and "
        "put a proxy with TLS in front."
    )


def _opened(settings: Settings) -> tuple[PortName, ...]:
    """The ports that are opened: not that of a Prefect server which is somebody else's."""
    return tuple(port for port in PORTS if port != "prefect" or settings.own_prefect)


def _check_published(settings: Settings) -> None:
    """A network of the Internet is let in only where everything that is published speaks TLS."""
    networks = [one for one in settings.publish if one != "gateway"]
    if is_private(networks):
        return
    plain = [
        port for port in _opened(settings) if settings.pair(port) is None and is_loopback(settings.host(port))
    ]
    if plain:
        named = ", ".join(_VARIABLE[port] for port in plain)
        raise ConfigurationError(
            f"PARLEY_PUBLISH={','.join(settings.publish)} lets in addresses of the Internet, and there is no TLS on "
            f"{named}: name the network of your proxy alone, or give certificate and key under [tls]."
        )


def _check_trust(settings: Settings, server: ssl.SSLContext) -> None:
    """Our own processes are clients of Prefect's port: what they would say to its certificate."""
    trusted = settings.prefect_trust
    if trusted is None:
        return
    host = settings.host("prefect")
    reason = refusal(server, _trusting(trusted), host)
    if reason:
        raise ConfigurationError(
            f"our own processes reach Prefect's server at {host} and would not take its certificate: {reason}. Name "
            f"the authority that signed it in [tls] authority; if it is not for {host}, give [prefect] a certificate "
            "and key of its own: `parley certs create` makes one."
        )


def _trusting(authority: Path) -> ssl.SSLContext:
    try:
        return client(ca_file=authority, least=ssl.TLSVersion.TLSv1_3)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"[tls] authority {authority} cannot be used: {error}.") from None
