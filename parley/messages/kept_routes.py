"""Routes at rest: what a platform needs to be answered (`Route.context`) may be a secret, so it is stored sealed.

The rest of a route stays readable: a look into the database tells where an answer goes. Rows of earlier versions, with
a readable context, are read as they are.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from parley.errors import SealError
from parley.messages.model import Route
from parley.people.sealing import Keyring
from parley.store.sealed import ROUTE_KEY


def kept(keyring: Keyring, table: str, row_id: str, route: Route) -> dict[str, Any]:
    """A route for the column `route` of this row."""
    stored = route.model_dump(mode="json")
    if route.context:
        sealed = keyring.seal(table, "route", row_id, to_json(route.context))
        stored |= {"context": {}, ROUTE_KEY: base64.b64encode(sealed).decode()}
    return stored


def opened(keyring: Keyring, table: str, row_id: str, stored: Mapping[str, Any]) -> Route:
    """The route that was kept in this row. Raises `SealError` when its context does not open."""
    plain = dict(stored)
    sealed = plain.pop(ROUTE_KEY, None)
    if sealed is not None:
        try:
            raw = base64.b64decode(sealed, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise SealError(f"The route of a row of {table} is sealed, but damaged.") from None
        plain["context"] = from_json(keyring.open(table, "route", row_id, raw))
    return Route.model_validate(plain)
