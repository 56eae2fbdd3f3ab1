"""Where a page is, for a passkey: the exact origin it was opened at, and the name to which its browser binds it."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

from parley.people.passkeys import Place
from parley.web.problems import Problem
from parley.web.site import Site

PASSKEY: Final = "passkey"
NEW_PASSKEY: Final = "new-passkey"
"""Cookies of challenges."""

CREDENTIAL_MEMBERS: Final = 20
"""Members of what a browser answers."""


def place_of(request: Request) -> Place:
    """The page's place; its Origin was checked to be one of ours. Raises `Problem` 400 where no passkey can be.

    Browsers bind passkeys to names: at an address (127.0.0.1) there are none, at localhost there are.
    """
    site: Site = request.app.state.site
    origin = (request.headers.get("origin") or "").lower()
    if not site.owns(origin):
        raise Problem(403, "This request does not come from this installation's own page.", kind="origin")
    name = urlsplit(origin).hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return Place(name, origin)
    raise Problem(
        400, "Passkeys need a name: open the console at localhost, or at an origin that [web] lists."
    )
