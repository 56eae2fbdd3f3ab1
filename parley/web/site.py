"""Which addresses are ours: the exact origins a browser may send from, the hosts it may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from parley.errors import ConfigurationError
from parley.settings import Settings

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Site:
    """The people's port as browsers see it. `prefect` is where Prefect's pages are.

    `encrypted` are hosts that are reached by https alone: all of them, or those of a proxy in front that ends TLS.
    """

    origins: frozenset[str]
    hosts: frozenset[str]
    encrypted: frozenset[str]
    cookie: str
    prefect: str

    def named(self, name: str) -> str:
        """A cookie besides the session's."""
        return f"{self.cookie}-{name}"

    def owns(self, origin: str | None) -> bool:
        """Whether this Origin header is exactly one of ours."""
        return origin is not None and origin in self.origins

    def knows_host(self, host: str | None) -> bool:
        """Whether this Host header is one of ours: a name that was bent to this machine (DNS rebinding) is not."""
        return host is not None and host.lower() in self.hosts

    def secures(self, host: str | None) -> bool:
        """Whether a browser that asks this host is behind TLS: it must never send its cookie in clear then."""
        return host is not None and host.lower() in self.encrypted


def site_of(settings: Settings) -> Site:
    """The site of these settings. Raises `ConfigurationError` for an origin that is none."""
    web = settings.file.web
    scheme = settings.scheme("web")
    secure = scheme == "https"
    hosts = {_with_port(name, settings.port, scheme) for name in _LOOPBACK}
    origins = {f"{scheme}://{host}" for host in hosts}
    for origin in web.origins:
        hosts.add(_host_of(origin))
        origins.add(origin.lower())
    encrypted = {host for host in hosts if secure or f"http://{host}" not in origins}
    # Cookies know no ports: two installations on one machine must not log each other out.
    cookie = "__Host-parley" if secure else f"parley_session_{settings.port}"
    return Site(frozenset(origins), frozenset(hosts), frozenset(encrypted), cookie, prefect_pages(settings))


def prefect_pages(settings: Settings) -> str:
    """Where Prefect's UI is: beside its API."""
    return settings.api_url.rstrip("/").removesuffix("/api")


def run_page(prefect: str, flow_run_id: str | None) -> str | None:
    """The page of a flow run in Prefect's UI."""
    return f"{prefect}/runs/flow-run/{flow_run_id}" if flow_run_id else None


def _with_port(name: str, port: int, scheme: str) -> str:
    default: Mapping[str, int] = {"http": 80, "https": 443}
    return name if default[scheme] == port else f"{name}:{port}"


def _host_of(origin: str) -> str:
    parts = urlsplit(origin)
    exact = origin.lower() == f"{parts.scheme}://{parts.netloc}".lower() and "@" not in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.netloc or not exact:
        raise ConfigurationError(
            f"web.origins: {origin!r} is not an origin: write it as https://name or https://name:port, no path."
        )
    return parts.netloc.lower()
