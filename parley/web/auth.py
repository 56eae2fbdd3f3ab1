"""Who is asking: a bearer token for programs, a session cookie for browsers, which must ask from our own page."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection
from starlette.responses import Response

from parley.errors import Denied
from parley.people.principals import Principal, Role
from parley.people.sessions import Session
from parley.web.front import Front
from parley.web.limits import Rate
from parley.web.problems import Problem, not_logged_in
from parley.web.site import Site

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LONGEST_SECRET = 512


class Doors:
    """Answers who is behind a request; one for an app."""

    def __init__(self, front: Front, site: Site, rate: Rate) -> None:
        self._front = front
        self._site = site
        self._rate = rate

    async def principal(self, connection: HTTPConnection) -> Principal:
        """Who this is. Raises `Problem`: 401 nobody, 403 not from our own page, 429 too often."""
        self.check_origin(connection)
        found = await self._by_token(connection) or await self._by_session(connection)
        if found is None:
            raise not_logged_in()
        self._rate.take(found.id)
        return found

    async def visitor(self, connection: HTTPConnection) -> Principal | None:
        """Who this browser is logged in as; None when it is not."""
        return await self._by_session(connection)

    async def signed_in(self, connection: HTTPConnection) -> tuple[Principal, Session]:
        """Who this browser is signed in as, and by which session: a token does not count. Raises as `principal`."""
        self.check_origin(connection)
        secret = self.session(connection)
        found = await self._front.sign_in.sessions.resolve(secret, touches=True) if secret else None
        if found is None:
            raise not_logged_in()
        self._rate.take(found[0].id)
        return found

    def check_origin(self, connection: HTTPConnection) -> None:
        """Raises `Problem` 403 when this changes something, or opens a WebSocket, and comes from another page.

        A browser says where such a request comes from. A program says nothing, and shows a token instead of a cookie.
        """
        if connection.scope["type"] == "http" and connection.scope["method"] in _SAFE:
            return
        origin = connection.headers.get("origin")
        if origin is None and _bearer(connection) is not None:
            return
        if not self._site.owns(origin):
            raise Problem(403, "This request does not come from this installation's own page.", kind="origin")

    def session(self, connection: HTTPConnection) -> str | None:
        """The session's secret, when the browser sent one."""
        secret = connection.cookies.get(self._site.cookie, "")
        return secret if 0 < len(secret) <= _LONGEST_SECRET else None

    def keep(self, connection: HTTPConnection, response: Response, secret: str) -> None:
        """Let the browser keep this session until it is closed."""
        secure = self._secures(connection)
        response.set_cookie(
            self._site.cookie, secret, path="/", httponly=True, samesite="strict", secure=secure
        )

    def put(
        self,
        connection: HTTPConnection,
        response: Response,
        name: str,
        value: str,
        seconds: int,
        *,
        for_return: bool = False,
    ) -> None:
        """Let the browser keep something besides, for our own pages alone.

        For a return it is sent too when a provider's page leads back to us.
        """
        response.set_cookie(
            self._site.named(name),
            value,
            max_age=seconds,
            path="/",
            httponly=True,
            samesite="lax" if for_return else "strict",
            secure=self._secures(connection),
        )

    def got(self, connection: HTTPConnection, name: str) -> str:
        """What the browser kept; empty when it kept nothing."""
        return connection.cookies.get(self._site.named(name), "")

    def drop(self, connection: HTTPConnection, response: Response, name: str) -> None:
        """Let the browser forget it."""
        secure = self._secures(connection)
        response.delete_cookie(
            self._site.named(name), path="/", httponly=True, samesite="strict", secure=secure
        )

    def forget(self, connection: HTTPConnection, response: Response) -> None:
        """Let the browser forget its session."""
        secure = self._secures(connection)
        response.delete_cookie(self._site.cookie, path="/", httponly=True, samesite="strict", secure=secure)

    def _secures(self, connection: HTTPConnection) -> bool:
        return self._site.secures(connection.headers.get("host"))

    async def _by_token(self, connection: HTTPConnection) -> Principal | None:
        secret = _bearer(connection)
        if secret is None:
            return None
        found = (
            await self._front.principal_of(secret, session=False) if len(secret) <= _LONGEST_SECRET else None
        )
        if found is None:
            # Whoever shows a token means it: a session that happens to be there too does not count.
            raise not_logged_in()
        return found

    async def _by_session(self, connection: HTTPConnection) -> Principal | None:
        secret = self.session(connection)
        # A page that merely listens does not keep its session alive.
        touches = connection.scope["type"] == "http"
        return await self._front.principal_of(secret, session=True, touches=touches) if secret else None


async def _whoever_asks(connection: HTTPConnection) -> Principal:
    doors: Doors = connection.app.state.doors
    return await doors.principal(connection)


Caller = Annotated[Principal, Depends(_whoever_asks)]
"""The principal who sent this request."""


def may_watch(principal: Principal) -> None:
    """Raises `Denied` unless this principal may see how the installation is doing."""
    if principal.role not in (Role.OWNER, Role.OPERATOR, Role.AUDITOR):
        raise Denied("Only the owner, operators and auditors may see the state of the installation.")


def _bearer(connection: HTTPConnection) -> str | None:
    scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None
