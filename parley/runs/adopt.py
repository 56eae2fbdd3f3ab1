"""Runs that nobody asked for in a chat: started by a schedule, in the Prefect UI or through its API.

Such a run has no message, and the Prefect UI no identity: a read automation starts as the service `prefect`; any other
needs a grant of the owner, and starts as the service that the grant names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import StartRefused
from parley.messages.inbox import conversation_id
from parley.messages.model import ConversationKind, Route, now
from parley.people.audit import Audit
from parley.people.principals import PrincipalKind, Role, add_principal
from parley.people.rights import Rights
from parley.people.sealing import Keyring
from parley.runs import grants
from parley.runs.catalogue import AutomationSpec, Catalogue, Effect, Lane
from parley.runs.prefect_api import PrefectApi
from parley.runs.requests import NewRequest, insert_request, insert_run, principal_name
from parley.store import schema
from parley.store.engine import Store

SERVICE = "prefect"
"""The principal of runs that Prefect starts by itself."""


class Adopter:
    """Gives a flow run that Prefect made its request and its run."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        prefect: PrefectApi,
        rights: Rights,
        *,
        catalogue: Callable[[], Catalogue],
        route_to: Callable[[AsyncConnection, str], Any],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._prefect = prefect
        self._rights = rights
        self._catalogue = catalogue
        self._route_to = route_to
        self._audit = Audit(keyring)

    async def adopt(self, flow_run_id: str) -> str:
        """The run of this flow run, made when there is none. Raises `StartRefused` when it may not start."""
        flow_run = await self._prefect.flow_run(flow_run_id)
        spec = await self._spec(flow_run)
        outcome = await self._store.write(lambda conn: self._insert(conn, flow_run, spec))
        if outcome.startswith("refused:"):
            raise StartRefused(outcome.removeprefix("refused:"))
        return outcome

    async def _spec(self, flow_run: dict[str, Any]) -> AutomationSpec:
        name = await self._prefect.flow_name(flow_run["flow_id"])
        spec = self._catalogue().find(name)
        if spec is None:
            raise StartRefused(f"the flow {name} is not in the catalogue of automations.")
        return spec

    async def _insert(self, conn: AsyncConnection, flow_run: dict[str, Any], spec: AutomationSpec) -> str:
        known = await self._known(conn, flow_run)
        if known:
            return known
        actor = await self._actor(conn, spec, flow_run.get("parameters") or {})
        if isinstance(actor, str):
            await self._audit_refusal(conn, flow_run, spec)
            return f"refused:{actor}"
        return await self._adopted(conn, flow_run, spec, actor.principal_id, actor.route)

    async def _known(self, conn: AsyncConnection, flow_run: dict[str, Any]) -> str | None:
        # The key of a run that we created is our run's id, whatever was forgotten in between.
        table = schema.run
        same = sa.or_(
            table.c.id == (flow_run.get("idempotency_key") or ""), table.c.flow_run_id == flow_run["id"]
        )
        found = (await conn.execute(sa.select(table.c.id).where(same))).scalar()
        return str(found) if found else None

    async def _actor(self, conn: AsyncConnection, spec: AutomationSpec, values: Mapping[str, Any]) -> Any:
        granted = await grants.in_force(conn, self._rights, spec, values)
        if granted:
            return granted[0]
        if spec.effect is not Effect.READ:
            does = "can do harm" if spec.effect is Effect.DANGEROUS else "changes something"
            return (
                f"/{spec.command} {does}: started outside of a chat it needs a grant of the owner "
                f"(`parley grant {spec.command}`)."
            )
        return _Service(principal_id=await self._service(conn))

    async def _service(self, conn: AsyncConnection) -> str:
        table = schema.principal
        found = (await conn.execute(sa.select(table.c.id).where(table.c.name == SERVICE))).scalar()
        return (
            str(found)
            if found
            else await add_principal(conn, SERVICE, kind=PrincipalKind.SERVICE, role=Role.USER)
        )

    async def _adopted(
        self, conn: AsyncConnection, flow_run: dict[str, Any], spec: AutomationSpec, actor_id: str, route: Any
    ) -> str:
        scheduled = bool(flow_run.get("auto_scheduled"))
        place = Route.model_validate(route) if route else await self._stated_route(conn, flow_run)
        new = NewRequest(
            spec=spec,
            values=flow_run.get("parameters") or {},
            origin="schedule" if scheduled else "prefect",
            actor_id=actor_id,
            state="queued",
            lane=Lane.SCHEDULES,
            route=place,
            conversation_id=await conversation_id(conn, place) if place else None,
            expires_at=now() + timedelta(days=1),
        )
        request_id = await insert_request(conn, self._keyring, new)
        run_id = await insert_run(conn, request_id)
        if spec.effect is not Effect.READ:
            await self._audit.append(
                conn,
                action=f"run:{spec.command}",
                phase="intent",
                actor=await principal_name(conn, actor_id),
                subject=f"request:{request_id}",
                details={"state": new.state, "origin": new.origin, "version": spec.version},
            )
        values = {"flow_run_id": flow_run["id"], "flow_run_name": flow_run.get("name")}
        await conn.execute(sa.update(schema.run).where(schema.run.c.id == run_id).values(values))
        return run_id

    async def _stated_route(self, conn: AsyncConnection, flow_run: dict[str, Any]) -> Route | None:
        # An automation with a parameter `to` says itself where its report goes: `account:conversation`.
        to = (flow_run.get("parameters") or {}).get("to")
        found: Route | None = await self._route_to(conn, to) if isinstance(to, str) and ":" in to else None
        return found

    async def _audit_refusal(
        self, conn: AsyncConnection, flow_run: dict[str, Any], spec: AutomationSpec
    ) -> None:
        await self._audit.append(
            conn,
            action=f"run:{spec.command}",
            phase="outcome",
            actor=SERVICE,
            subject=f"flow-run:{flow_run['id']}",
            details={"state": "refused", "reason": "no grant"},
        )


class _Service:
    def __init__(self, principal_id: str) -> None:
        self.principal_id = principal_id
        self.route = None


def route_from(text: str, kind: ConversationKind) -> Route:
    """`account:conversation` as a route."""
    account, _, conversation = text.partition(":")
    return Route(account=account, conversation=conversation, kind=kind)
