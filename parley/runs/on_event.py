"""An event starts an automation, with the rights of the service that it came from: none until the owner gives some.

What a service may not run by itself, by its role or under a standing approval, is offered where the event is told: the
first person who takes the offer runs it, with that person's own rights. An event that closes its key withdraws it.

Each account that reports something has a service principal of the account's name; what came from no account (published
by a run or a program) counts as the service `bus`. A request is made in any case, so that a refusal can be looked up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, PolicyError
from parley.language.binding import check_value, read_value
from parley.messages.bus import Origin
from parley.messages.filters import Template, spoken
from parley.messages.model import Assurance, Button, Route, now
from parley.messages.published import Published
from parley.messages.routes import Start
from parley.messages.topics import word
from parley.people import principals, standing
from parley.people.audit import Audit, Phase
from parley.people.principals import Principal, PrincipalKind
from parley.people.rights import Origin as Asked
from parley.people.rights import Rights
from parley.people.roles import meant
from parley.people.sealing import Keyring
from parley.runs import offers
from parley.runs.catalogue import AutomationSpec, Catalogue, Effect, Lane, Parameter
from parley.runs.requests import NewRequest, QueuedRun, insert_request, insert_run
from parley.runs.sentences import sentence
from parley.settings import Limits
from parley.store.ids import new_id

SERVICE = "service"
"""The user id of an account's own service principal; no platform's own ids matter for what services report."""

SAID = "message:"
"""Before an account's name, the account of the service that stands for what people say there: no account is called so,
and whoever is `service` by name on a platform has none of its rights."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an event would start. `refusal`: why it may not by itself; `button`: with which a person may."""

    start: Start
    service: Principal
    spec: AutomationSpec
    values: Mapping[str, Any]
    refusal: str | None = None
    standing_id: str | None = None
    button: Button | None = None
    request_id: str = ""

    @property
    def is_under_way(self) -> bool:
        """Whether it will run, or may be taken."""
        return self.refusal is None or self.button is not None


class EventStarts:
    """Makes requests of events; `parley.messages.bus.Starter`."""

    def __init__(
        self,
        keyring: Keyring,
        rights: Rights,
        *,
        catalogue: Callable[[], Catalogue],
        limits: Callable[[], Limits],
        is_approved_first: Callable[[AutomationSpec, Mapping[str, Any]], bool],
    ) -> None:
        self._keyring = keyring
        self._rights = rights
        self._is_approved_first = is_approved_first
        self._audit = Audit(keyring)
        self._catalogue = catalogue
        self._limits = limits

    async def service_of(self, conn: AsyncConnection, account: str, *, said: bool = False) -> Principal:
        """The service principal of an account, made when the account reports something for the first time.

        `said`: the one for what people say there.
        """
        place = f"{SAID}{account}" if said else account
        link = await principals.find_by_identity(conn, place, SERVICE)
        if link is not None:
            return link.principal
        name, made = await _new_service(conn, account)
        await principals.link_identity(conn, made, place, SERVICE, verified=True)
        await self._audit.record(
            conn,
            action="service-made",
            actor="-",
            subject=f"person:{name}",
            details={"account": account, "role": "none"},
        )
        return await principals.get(conn, made)

    async def meet(self, conn: AsyncConnection, account: str) -> None:
        """Make sure that the service behind this account can be given rights."""
        await self.service_of(conn, account)

    async def plan(
        self, conn: AsyncConnection, event: Published, start: Start, before: Sequence[Plan] = ()
    ) -> Plan:
        """Whether the event may start this; else why not, and the button with which a person may.

        `before`: what the same event starts and offers already. It is not in the store yet.
        """
        service = await self.service_of(conn, event.account, said=event.topic.startswith("message."))
        spec = self._catalogue().find(start.automation)
        if spec is None:
            unknown = AutomationSpec(
                name=start.automation, command=start.automation, summary="", deployment=""
            )
            return Plan(
                start, service, unknown, {}, refusal=sentence("not-in-catalogue", command=start.automation)
            )
        values, refusal = _filled(event, start.parameters, spec)
        if refusal is not None:
            return Plan(start, service, spec, values, refusal=refusal)
        if any(
            one.is_under_way and (one.spec.command, one.values) == (spec.command, values) for one in before
        ):
            return Plan(start, service, spec, values, refusal=sentence("event-twice", command=spec.command))
        planned = [one.standing_id for one in before if one.standing_id]
        refusal, standing_id = await self._refusal(conn, service, spec, values, planned)
        if refusal is None or not await self._is_offered(conn, event, spec, values, service):
            return Plan(start, service, spec, values, refusal=refusal, standing_id=standing_id)
        identity = new_id()
        label = spoken(start.label.filled(event.fields())) if start.label else ""
        button = offers.button(identity, spec, values, label)
        return Plan(start, service, spec, values, refusal=refusal, button=button, request_id=identity)

    async def _is_offered(
        self,
        conn: AsyncConnection,
        event: Published,
        spec: AutomationSpec,
        values: Mapping[str, Any],
        service: Principal,
    ) -> bool:
        # What people said is carried in their own words, without buttons.
        if event.closes or event.topic.startswith("message."):
            return False
        return not await offers.is_open(conn, self._keyring, spec, values, service.id)

    async def carry_out(
        self,
        conn: AsyncConnection,
        event: Published,
        plan: Plan,
        origin: Origin,
        *,
        ordinal: int,
        route: Route | None,
        under_id: str | None,
    ) -> list[QueuedRun]:
        """A request for this automation; its run, unless it is refused or offered."""
        spec, offered = plan.spec, plan.button is not None and route is not None
        state = "awaiting-approval" if offered else "refused" if plan.refusal else "queued"
        limits = self._limits()
        new = NewRequest(
            spec=spec,
            values=plan.values,
            origin=Asked.SERVICE,
            actor_id=plan.service.id,
            state=state,
            lane=spec.lane or (Lane.ALERTS if event.severity != "info" else Lane.SCHEDULES),
            route=route,
            message_id=origin.message_id,
            conversation_id=origin.conversation_id,
            asking=offers.asking(event.account, event.key) if offered else None,
            reason=plan.refusal,
            expires_at=now() + timedelta(seconds=limits.ask_age if offered else limits.message_age),
            ordinal=ordinal,
            under_id=under_id,
            standing_id=plan.standing_id,
            trail=(*event.trail, f"run:{spec.command}"),
            id=plan.request_id or new_id(),
        )
        request_id = await insert_request(conn, self._keyring, new)
        if spec.effect is not Effect.READ or plan.refusal:
            await self._audit_start(conn, new, request_id, plan.service, event, plan.start)
        if state != "queued":
            return []
        return [
            QueuedRun(
                run_id=await insert_run(conn, request_id),
                request_id=request_id,
                message_id=origin.message_id,
                automation=spec.command,
                values=plan.values,
                actor=plan.service.name,
                lane=new.lane,
            )
        ]

    async def withdraw(self, conn: AsyncConnection, event: Published) -> None:
        """What was offered about this event's key is over."""
        service = await self.service_of(conn, event.account)
        await offers.withdraw(conn, service.id, event.account, event.key)

    async def _refusal(
        self,
        conn: AsyncConnection,
        service: Principal,
        spec: AutomationSpec,
        values: Mapping[str, Any],
        planned: Sequence[str],
    ) -> tuple[str | None, str | None]:
        allowed = self._rights.allows(
            service,
            spec.effect,
            spec.command,
            Asked.SERVICE,
            Assurance.VERIFIED,
            values=meant(spec, values, whole=True),
        )
        # A service cannot wait for an approval: it has a standing one, or a person takes its offer and asks for one.
        if allowed.allowed and not self._is_approved_first(spec, values):
            return None, None
        if not service.enabled or allowed.barred:
            return allowed.reason, None
        cover = await standing.covering(conn, service.id, spec, values, planned=planned)
        if cover.approval is not None:
            return None, cover.approval.id
        own = cover.reason == "standing-none" and not allowed.allowed
        reason = allowed.reason if own else sentence(cover.reason)
        return reason, None

    async def _audit_start(
        self,
        conn: AsyncConnection,
        new: NewRequest,
        request_id: str,
        service: Principal,
        event: Published,
        start: Start,
    ) -> None:
        # An offer is no intent yet: whoever takes it has one.
        offered = new.state == "awaiting-approval"
        await self._audit.append(
            conn,
            action=f"{'offer' if offered else 'run'}:{new.spec.command}",
            phase=Phase.INTENT if new.state == "queued" else Phase.OUTCOME,
            actor=service.name,
            subject=f"request:{request_id}",
            details={
                "state": new.state,
                "origin": new.origin,
                "version": new.spec.version,
                "topic": event.topic,
                "route": start.route[:200],
                **({"standing": new.standing_id} if new.standing_id else {}),
            },
        )


async def _new_service(conn: AsyncConnection, account: str) -> tuple[str, str]:
    # Somebody may have the account's name already.
    taken = {one.name for one in await principals.list_principals(conn)}
    plain = word(account)[:40]
    for name in (account, f"{plain}-service", f"{plain}-{new_id()[-12:]}"):
        try:
            if principals.clean_name(name) not in taken:
                return name, await principals.add_principal(conn, name, kind=PrincipalKind.SERVICE)
        except PolicyError:
            continue  # it cannot be a name
    raise PolicyError(f"There is no name left for the service of the account {account}.")


def _filled(
    event: Published, parameters: Mapping[str, Template], spec: AutomationSpec
) -> tuple[dict[str, Any], str | None]:
    """The parameters' values, and why they do not fit."""
    fields = event.fields()
    values: dict[str, Any] = {}
    for name, template in parameters.items():
        parameter = spec.parameter(name)
        if parameter is None:
            return values, f"`/{spec.command}` has no parameter `{name}`."
        value = template.filled(fields)
        try:
            if value is not None:
                values[name] = _fitted(value, parameter)
        except BadArguments as error:
            return values, str(error)
    missing = [one.name for one in spec.parameters if one.required and one.name not in values]
    if missing:
        return values, f"the event gives nothing for `{missing[0]}`."
    return values, None


def _fitted(value: Any, parameter: Parameter) -> Any:
    # Text is read as if it had been typed, so that "5" is a number where one is wanted.
    if isinstance(value, str):
        return read_value(value, parameter)
    try:
        check_value(value, parameter)
    except BadArguments:
        if isinstance(value, dict | list) or value is None:
            raise
        return read_value(spoken(value), parameter)
    return json.loads(json.dumps(value))


__all__ = ["SERVICE", "EventStarts", "Plan"]
