"""Flow runs that Prefect handed to our worker by itself: from the pages, a schedule or another program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import LinkError, StartRefused
from parley.link.calls import RegisterRun
from parley.people.sealing import Keyring
from parley.runs.adopt import Adopter
from parley.runs.catalogue import AutomationSpec, Catalogue
from parley.runs.dispatch import Dispatcher
from parley.runs.requests import run_token
from parley.store import schema
from parley.store.engine import Store


class Registration:
    """Makes such a flow run known here."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        dispatcher: Dispatcher,
        adopter: Adopter,
        *,
        catalogue: Callable[[], Catalogue],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._dispatcher = dispatcher
        self._adopter = adopter
        self._catalogue = catalogue

    async def register(self, call: RegisterRun) -> dict[str, Any]:
        """Who it is, and the token for its start. Raises `StartRefused` for one that has ended, `LinkError`."""
        run_id = self._dispatcher.run_of(call.flow_run_id) or await self._adopter.adopt(call.flow_run_id)
        spec = await self._spec_of(run_id)
        return {
            "run_id": run_id,
            "flow_run_id": call.flow_run_id,
            "automation": spec.name,
            "entrypoint": spec.entrypoint,
            "flow_run": {},
            "token": run_token(self._keyring, run_id),
            "time_limit": spec.time_limit,
            "urgent": False,
        }

    async def _spec_of(self, run_id: str) -> AutomationSpec:
        run, request = schema.run, schema.request
        query = (
            sa.select(request.c.automation, run.c.state, run.c.outcome)
            .join(run, run.c.request_id == request.c.id)
            .where(run.c.id == run_id)
        )

        async def fetch(conn: AsyncConnection) -> Any:
            return (await conn.execute(query)).one()

        row = await self._store.read(fetch)
        if row.state in ("finished", "lost"):
            # "Retry" in Prefect's pages: its request is closed and answered, and the pages do not say who asks.
            raise StartRefused(f"this run has ended already ({row.outcome}): ask for it again in the chat.")
        spec = self._catalogue().find(row.automation)
        if spec is None:
            raise LinkError("this automation is no longer in the catalogue.")
        return spec


__all__ = ["Registration"]
