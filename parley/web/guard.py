"""What holds for every request on the people's port: a Host that is ours, and headers that keep browsers strict."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parley.web.problems import Problem
from parley.web.site import Site

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not `no-referrer`: with that a browser sends `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

_FOR_PROBES = frozenset({"/healthz", "/readyz"})
"""Asked for by address by those who watch; they say nothing that is worth a DNS rebinding."""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what asks for another host; else pass it on, and add the headers to what comes back."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if strict:
                    headers.setdefault("strict-transport-security", "max-age=31536000")
            await send(message)

        host = Headers(scope=scope).get("host")
        # Not for localhost, where a browser would take it for every other program of this machine, too.
        strict = self._site.secures(host) and (host or "").partition(":")[0].lower() != "localhost"
        if scope["path"] in _FOR_PROBES or self._site.knows_host(host):
            await self._app(scope, receive, guarded)
            return
        await _misdirected().response()(scope, receive, guarded)


def _misdirected() -> Problem:
    return Problem(
        421,
        "This is not a name of this installation; list it in parley.toml under [web] origins.",
        kind="host",
    )
