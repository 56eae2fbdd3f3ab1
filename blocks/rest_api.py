"""The credentials of a company's own API, and `call_api`: a step that calls it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar
from weakref import WeakKeyDictionary

from pydantic import BaseModel, Field, HttpUrl, SecretStr, field_validator

from blocks._base import SEALED_PREFIX, SecretBlock
from blocks._rest_client import LostAnswer, NotFound, RestClient, validated
from parley import step, tls
from parley.errors import ConfigurationError
from parley.runs.context import current_run
from parley.runs.secrets import open_secret
from parley.web.guarded_http import networks

M = TypeVar("M")

KEPT_SECONDS: Final = 60.0
"""A Block that was changed in Prefect is taken up after this time."""


class RestApi(SecretBlock):
    """A company's API that automations call: its address, a bearer token, and where it may lie.

    Example:
        Call it in a step of an automation:
        ```python
        from blocks.rest_api import call_api

        order = await call_api("BLOCK_NAME", "GET", "/orders/{number}", values={"number": 1024}, model=Order)
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley REST API"
    _block_type_slug: ClassVar[Any] = "parley-rest-api"
    _description: ClassVar[str | None] = "A company's API that automations call with a bearer token."
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl("https://www.rfc-editor.org/rfc/rfc6750")

    base_url: Annotated[
        str, Field(title="Address", description="Where the API is, as in https://erp.example.org/v1.")
    ]
    token: Annotated[
        SecretStr,
        Field(title="Token", description="Sent as Authorization: Bearer; empty where the API needs none."),
    ] = SecretStr("")
    private_networks: Annotated[
        tuple[str, ...],
        Field(
            title="Private networks",
            description="Networks inside the company in which it may lie, as in 10.1.0.0/16; else public ones only.",
        ),
    ] = ()
    connect_seconds: Annotated[float, Field(gt=0, le=60, title="Seconds to connect")] = 5.0
    answer_seconds: Annotated[float, Field(gt=0, le=600, title="Seconds to answer")] = 30.0
    most_megabytes: Annotated[float, Field(gt=0, le=100, title="Longest answer (MB)")] = 10.0
    ca_file: Annotated[
        str,
        Field(
            title="CA file",
            description="Certificates (PEM) of a private authority, in place of the usual ones.",
        ),
    ] = ""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        url = HttpUrl(value)
        if url.username or url.password or url.query or url.fragment:
            raise ValueError(
                "an address without user, query and fragment is needed; the token has a field of its own"
            )
        if url.scheme != "https" and url.host not in ("127.0.0.1", "localhost", "[::1]"):
            raise ValueError("https is needed: over http the token could be read on the way")
        return value.rstrip("/") + "/"

    @field_validator("private_networks", mode="before")
    @classmethod
    def _are_networks(cls, value: Any) -> Any:
        listed = tuple(part for part in value.split(",") if part.strip()) if isinstance(value, str) else value
        networks(listed or ())
        return listed

    @classmethod
    async def open(cls, name: str) -> RestClient:
        """The pooled client of the saved Block `name`, for this event loop; kept, and renewed as the Block changes.

        The automation names the Block in `@automation(blocks=("parley-rest-api/NAME",))`: the hub opens a sealed
        token for no other. Raises `ConfigurationError`.
        """
        pools = _clients.setdefault(asyncio.get_running_loop(), {})
        run = current_run()
        # A process runs one automation after another: what was opened for one is not the next one's to use.
        place = name, run.started.command if run else ""
        kept = pools.get(place)
        if kept is not None and time.monotonic() < kept.until:
            return kept.client
        try:
            loaded = await cls._loaded(name)
        except ConfigurationError:
            if gone := pools.pop(place, None):
                await gone.client.retire()
            raise
        until = time.monotonic() + KEPT_SECONDS
        if kept is None or kept.block != loaded:
            opened = await loaded.with_open_token(name)
            kept = pools.get(place)  # another call may have been quicker
        if kept is not None and kept.block == loaded:
            kept.until = until
            return kept.client
        pools[place] = _Kept(loaded, opened.client(), until)
        client = pools[place].client
        if kept is not None:
            await kept.client.retire()
        return client

    @classmethod
    async def _loaded(cls, name: str) -> Self:
        try:
            return await cls.aload(name)
        except ValueError:
            raise ConfigurationError(
                f"there is no Block parley-rest-api/{name}: make it with `parley connect rest_api {name}`."
            ) from None

    async def with_open_token(self, name: str) -> Self:
        """A copy with its token opened by the hub, for this run. Raises as `parley.runs.secrets.open_secret` does."""
        slug = type(self).get_block_type_slug()
        return await self.opened(lambda field, value: open_secret(slug, name, field, value))

    def client(self) -> RestClient:
        """A client of its own, to be closed by the caller. Raises `ConfigurationError`."""
        token = self._clear("token")
        if token.startswith(SEALED_PREFIX):
            raise ConfigurationError("the token of this API is sealed: open the Block first.")
        return RestClient(
            self.base_url,
            token,
            networks=networks(self.private_networks),
            connect_seconds=self.connect_seconds,
            answer_seconds=self.answer_seconds,
            most_bytes=int(self.most_megabytes * 1024 * 1024),
            verify=self._authority(),
        )

    def _authority(self) -> ssl.SSLContext | None:
        if not self.ca_file:
            return None
        if not Path(self.ca_file).is_file():
            raise ConfigurationError(f"ca_file: {self.ca_file} does not exist.")
        try:
            return tls.client(ca_file=self.ca_file)
        except (OSError, ssl.SSLError):
            raise ConfigurationError(
                f"ca_file: no certificate in PEM form could be read from {self.ca_file!r}."
            ) from None


@dataclass
class _Kept:
    block: RestApi
    client: RestClient
    until: float


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], _Kept]] = WeakKeyDictionary()
"""By Block and by the command of the automation that it was opened for."""


@step(name="call_api")
async def _call(block: str, method: str, path: str, model: Any, asked: Mapping[str, Any]) -> Any:
    client = await RestApi.open(block)
    answer = await client.call(method, path, **asked)
    return answer if model is None else validated(answer, model)


async def call_api(
    block: str,
    method: str,
    path: str,
    *,
    model: type[M],
    values: Mapping[str, str | int] | None = None,
    query: Mapping[str, str | int | float | bool] | None = None,
    body: BaseModel | Mapping[str, Any] | list[Any] | None = None,
    idempotency_key: str = "",
) -> M:
    """Call a company's API in a step of its own and give the answer as `model`, which may be any type pydantic knows.

    `block` is the name of a saved `RestApi`. A request that never left is tried again, one whose answer was lost only
    where a second means the same as one: GET, PUT, DELETE, or any with an `idempotency_key`. Raises as
    `RestClient.call` does, and `Rejected` for an answer that does not fit.
    """
    asked = {"values": values, "query": query, "body": body, "idempotency_key": idempotency_key}
    result: M = await _call(block, method, path, model, asked)
    return result


__all__ = ["LostAnswer", "NotFound", "RestApi", "RestClient", "call_api"]
