"""The few calls of Prefect's REST API that the hub makes, without importing Prefect.

One pooled client, basic auth, CSRF token kept until the server wants another. Nothing here retries a POST that creates
without an idempotency key. A connection that is silent is asked for no longer than `dead_connections.FIRST`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import httpx

from parley import tls
from parley.errors import ConfigurationError, ParleyError, StoreUnavailable
from parley.metrics.machinery import PrefectMeasure
from parley.runs.dead_connections import FIRST, KEEP_ALIVE, AsyncRenewing

MOST_PATIENCE = 30 - FIRST
"""Seconds that an answer may take, once it is asked for on a new connection."""


class PrefectUnavailable(StoreUnavailable):
    """Prefect's server does not answer, or answers that it cannot just now; the call may be repeated."""


class PrefectRefused(ParleyError):
    """Prefect's server refused the call; `status` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class PrefectApi:
    """A client of one Prefect server; `url` ends in `/api`. Safe for concurrent use in one event loop."""

    def __init__(
        self,
        url: str,
        auth: str = "",
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        measure: PrefectMeasure | None = None,
    ) -> None:
        self.url: str = url.rstrip("/")
        user, _, password = auth.partition(":")
        self._csrf_client = str(uuid.uuid4())
        self._csrf: str | None = None
        self._fetching = asyncio.Lock()
        self._measure = measure
        self._client = httpx.AsyncClient(
            base_url=self.url + "/",
            auth=(user, password) if auth else None,
            timeout=httpx.Timeout(MOST_PATIENCE, connect=5),
            transport=transport or _transport(),
            trust_env=False,
        )

    async def healthy(self) -> bool:
        """Whether the server answers."""
        try:
            return (await self._client.get("health", timeout=2)).is_success
        except httpx.HTTPError:
            return False

    async def answers(self) -> bool:
        """Whether a server is there and at work, whatever it says to this: some have no such page."""
        try:
            return (
                await self._client.get("health", timeout=2)
            ).status_code < httpx.codes.INTERNAL_SERVER_ERROR
        except httpx.HTTPError:
            return False

    async def deployment_id(self, name: str) -> str:
        """The id of `flow/deployment`. Raises `PrefectRefused` (404) when there is none."""
        return str((await self.deployment(name))["id"])

    async def deployment(self, name: str) -> dict[str, Any]:
        """The deployment of this name, as Prefect's JSON."""
        flow, _, deployment = name.partition("/")
        found: dict[str, Any] = await self._ask("GET", f"deployments/name/{flow}/{deployment}")
        return found

    async def create_flow_run(
        self,
        deployment_id: str,
        *,
        key: str,
        name: str,
        parameters: Mapping[str, Any],
        tags: Iterable[str],
        pending: bool,
        job_variables: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Create a flow run, or find the one that this idempotency key made before; as Prefect's JSON.

        `pending`: it is handed to our own worker at once, so that no poller takes it as well.
        """
        body: dict[str, Any] = {
            "idempotency_key": key,
            "name": name,
            "parameters": dict(parameters),
            "tags": list(tags),
        }
        if pending:
            body["state"] = {"type": "PENDING", "name": "Pending"}
        if job_variables:
            body["job_variables"] = dict(job_variables)
        created: dict[str, Any] = await self._ask(
            "POST", f"deployments/{deployment_id}/create_flow_run", body
        )
        return created

    async def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        """One flow run, as Prefect's JSON."""
        found: dict[str, Any] = await self._ask("GET", f"flow_runs/{flow_run_id}")
        return found

    async def deployment_of(self, deployment_id: str) -> dict[str, Any]:
        """One deployment by id."""
        found: dict[str, Any] = await self._ask("GET", f"deployments/{deployment_id}")
        return found

    async def flow_name(self, flow_id: str) -> str:
        """The name of a flow."""
        return str((await self._ask("GET", f"flows/{flow_id}"))["name"])

    async def flow_runs(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        """Those of these flow runs that exist."""
        wanted = list(ids)
        if not wanted:
            return []
        found: list[dict[str, Any]] = await self._ask(
            "POST",
            "flow_runs/filter",
            {"flow_runs": {"id": {"any_": wanted}}, "limit": min(200, len(wanted))},
        )
        return found

    async def flow_runs_of(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Those flow runs that were made with one of these idempotency keys; at most 200 keys."""
        if not keys:
            return []
        wanted = {"flow_runs": {"idempotency_key": {"any_": list(keys)}}, "limit": min(200, len(keys))}
        found: list[dict[str, Any]] = await self._ask("POST", "flow_runs/filter", wanted)
        return found

    async def set_state(
        self, flow_run_id: str, kind: str, name: str, message: str, *, force: bool = True
    ) -> str:
        """Set a flow run's state; returns ACCEPT, REJECT, ABORT or WAIT."""
        body = {"state": {"type": kind, "name": name, "message": message}, "force": force}
        return str((await self._ask("POST", f"flow_runs/{flow_run_id}/set_state", body)).get("status"))

    async def artifacts(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Artifacts of a flow run, newest first."""
        body = {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}, "limit": 20}
        found: list[dict[str, Any]] = await self._ask("POST", "artifacts/filter", body)
        return found

    async def block_documents(self, offset: int = 0) -> list[dict[str, Any]]:
        """Saved Blocks with what they hold, a page from `offset` on; nothing behind the last one."""
        body = {"offset": offset, "limit": 200, "include_secrets": True}
        found: list[dict[str, Any]] = await self._ask("POST", "block_documents/filter", body)
        return found

    async def block_document(self, block_id: str) -> dict[str, Any] | None:
        """One saved Block with what it holds; None when it is there no more."""
        body = {"block_documents": {"id": {"any_": [block_id]}}, "limit": 1, "include_secrets": True}
        found: list[dict[str, Any]] = await self._ask("POST", "block_documents/filter", body)
        return found[0] if found else None

    async def update_block(self, block_id: str, fields: Mapping[str, Any]) -> None:
        """Change these fields of a saved Block, and no other."""
        body = {"data": dict(fields), "merge_existing_data": True}
        await self._ask("PATCH", f"block_documents/{block_id}", body)

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        csrf = await self._csrf_token() if method != "GET" else ""
        began = time.perf_counter()
        try:
            response = await self._send(method, path, body, csrf)
        except PrefectUnavailable:
            self._measured(path, None, "unavailable")
            raise
        if response.status_code == httpx.codes.FORBIDDEN and "CSRF" in response.text.upper():
            response = await self._send(method, path, body, await self._csrf_token(instead_of=csrf))
        seconds = time.perf_counter() - began
        if response.is_success:
            self._measured(path, seconds, "")
            return response.json() if response.content else None
        if response.status_code in (408, 429, 500, 502, 503, 504):
            self._measured(path, seconds, "unavailable")
            raise PrefectUnavailable(f"Prefect answered {response.status_code} to {method} {path}")
        self._measured(path, seconds, "refused")
        raise PrefectRefused(_reason(response), response.status_code)

    def _measured(self, path: str, seconds: float | None, wrong: str) -> None:
        if self._measure is not None:
            self._measure(_kind_of(path), seconds, wrong)

    async def _send(self, method: str, path: str, body: Any, csrf: str) -> httpx.Response:
        headers = {"Prefect-Csrf-Token": csrf, "Prefect-Csrf-Client": self._csrf_client} if csrf else {}
        try:
            return await self._client.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise self._silent(error) from error

    async def _csrf_token(self, *, instead_of: str | None = None) -> str:
        # A new token makes the one before worthless: one request fetches it, and all others wait for that one.
        async with self._fetching:
            if self._csrf is None or self._csrf == instead_of:
                self._csrf = await self._fetch_csrf()
            return self._csrf

    async def _fetch_csrf(self) -> str:
        try:
            answer = await self._client.get("csrf-token", params={"client": self._csrf_client})
        except httpx.HTTPError as error:
            raise self._silent(error) from error
        # Not found or refused: the server has CSRF protection off.
        return str(answer.json()["token"]) if answer.is_success else ""

    def _silent(self, error: Exception) -> PrefectUnavailable:
        return PrefectUnavailable(f"Prefect at {self.url} does not answer ({type(error).__name__})")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _may_repeat(request: httpx.Request) -> bool:
    # What creates has an idempotency key, and most else reads. A state is set by force, after a look at the one before:
    # set twice, it could undo what has followed from the first.
    return not request.url.path.endswith("/set_state")


def _transport() -> AsyncRenewing:
    over_tcp = httpx.AsyncHTTPTransport(
        limits=httpx.Limits(max_connections=20, keepalive_expiry=60),
        trust_env=False,
        verify=_trusted(),
        socket_options=KEEP_ALIVE,
    )
    return AsyncRenewing(over_tcp, may_repeat=_may_repeat)


def _trusted() -> ssl.SSLContext | bool:
    authority = os.environ.get("PREFECT_API_SSL_CERT_FILE")
    if not authority:
        return True
    try:
        return tls.client(ca_file=authority)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"PREFECT_API_SSL_CERT_FILE={authority} cannot be used: {error}.") from None


def _kind_of(path: str) -> str:
    """What is called, without ids and names: `flow_runs/set_state`, `deployments/name`."""
    first, _, rest = path.partition("/")
    words = rest.split("/")
    told = next((word for word in (words[0], words[-1]) if word in _CALLS), "")
    return f"{first}/{told}" if told else first


_CALLS = frozenset({"name", "filter", "create_flow_run", "set_state"})


def _reason(response: httpx.Response) -> str:
    try:
        detail = response.json().get("detail") or response.json().get("exception_message") or response.text
    except ValueError:
        detail = response.text
    return f"Prefect refused ({response.status_code}): {str(detail)[:500]}"
