"""Makes a Prefect deployment of each automation, and tells the hub what there is.

`python -m parley.runs.register` does it once and ends, for installations whose runs are carried out by workers that are
not ours; our own worker calls `ensure`. Doing it again changes nothing that did not change: a schedule that somebody
paused in Prefect stays paused, and what was added there by hand stays.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.schedules import Schedule
from pydantic import BaseModel

from parley.errors import ParleyError
from parley.link.calls import Role
from parley.link.client import HubClient, default_address, role_token
from parley.runs import container_engine, container_pool, pool
from parley.runs.automation import declaration_of
from parley.runs.catalogue import AutomationSpec, BrokenAutomation, Catalogue, Effect, Parameter
from parley.runs.describe import DEPLOYMENT, find
from parley.runs.guard import TAG
from parley.settings import ContainerLimits, Containers, ExternalAutomation, Settings, load

logger = logging.getLogger(__name__)

LISTENER: Final = "flows.listen"
"""The module whose flow holds the accounts; it gets a deployment like the automations."""

CONTAINER: Final = "container"

CONTAINER_VARIABLES: Final = ("image", "memory_mb", "cpus", "egress", "blocks")
"""What is ours among a deployment's job variables when its runs have containers."""

OUR_VARIABLES: Final = ("PARLEY_HOME", "PARLEY_CONFIG", "PARLEY_HUB")
"""How a process that is not ours finds the hub; made anew each time, so that an installation may move."""


async def ensure(flows: Mapping[str, Flow[..., Any]], catalogue: Catalogue, settings: Settings) -> Catalogue:
    """Every automation has its deployment when this returns; the result holds the external ones of parley.toml too.

    An automation whose deployment Prefect refuses, or an external one that is not there, is in the result as broken.
    Raises what httpx raises when Prefect's server cannot be reached.
    """
    async with get_client() as client:
        specs, broken = [], list(catalogue.broken)
        no_pool = await _missing_pool(client, settings)
        no_containers = await _missing_containers(client, flows, catalogue, settings)
        for spec in catalogue:
            unavailable = no_containers if spec.isolation == CONTAINER else no_pool
            reason = unavailable or await _deployed(client, flows[spec.name], spec, settings)
            if not reason and settings.file.prefect.worker == "parley":
                reason = await _deployed_together(client, flows[spec.name], spec, settings)
            if reason:
                broken.append(BrokenAutomation(source=spec.entrypoint, reason=reason))
            else:
                specs.append(spec)
        if not no_pool:
            await _listener(client, settings)
        for command, external in settings.file.automations.external.items():
            found = await _external(client, command, external, specs)
            if isinstance(found, BrokenAutomation):
                broken.append(found)
            else:
                specs.append(found)
    return Catalogue(automations=tuple(specs), broken=tuple(broken))


async def publish(catalogue: Catalogue, settings: Settings) -> None:
    """Tell the hub what there is. Raises `LinkError` when there is no hub."""
    token = role_token(settings, Role.WORKER)
    async with HubClient(default_address(settings), Role.WORKER, token, name="register") as hub:
        await hub.call("publish_catalogue", catalogue, timeout=60)


def deployment_fields(flow: Flow[..., Any], spec: AutomationSpec, settings: Settings) -> dict[str, Any]:
    """What a deployment says of an automation, as Prefect's API takes it."""
    return {
        "version": spec.version,
        "description": spec.summary or flow.description,
        "tags": tags_of(spec),
        "work_pool_name": container_pool.POOL_NAME
        if spec.isolation == CONTAINER
        else settings.file.prefect.pool,
        "entrypoint": spec.entrypoint,
        "enforce_parameter_schema": True,
        "job_variables": _container_variables(flow, spec, settings)
        if spec.isolation == CONTAINER
        else _job_variables(settings),
    }


def tags_of(spec: AutomationSpec) -> list[str]:
    """The tags of a deployment: whose it is, and what it may do."""
    return [TAG, spec.effect.value]


def entrypoint_of_listener() -> tuple[Flow[..., Any], str] | None:
    """The listener flow and its entrypoint; None where this installation has none."""
    try:
        if find_spec(LISTENER) is None:
            return None
    except ModuleNotFoundError:
        return None
    module = import_module(LISTENER)
    own = (
        (name, value)
        for name, value in vars(module).items()
        if isinstance(value, Flow) and value.fn.__module__ == LISTENER
    )
    return next(((flow, f"{LISTENER}.{name}") for name, flow in own), None)


async def _missing_pool(client: PrefectClient, settings: Settings) -> str:
    # Asked first: the server answers an update with a pool that is not there by "internal error".
    name = settings.file.prefect.pool
    try:
        await client.read_work_pool(name)
    except ObjectNotFound:
        if settings.file.prefect.worker != "parley":
            return f"Prefect has no work pool {name!r}: create it, or name another in parley.toml."
        await _make_pool(client, name)
    return ""


async def _make_pool(client: PrefectClient, name: str) -> None:
    # Our own worker's pool at a server that is not ours: its launcher makes it only in our own server.
    with suppress(ObjectAlreadyExists):
        await client.create_work_pool(WorkPoolCreate.model_validate(pool.work_pool() | {"name": name}))


async def _missing_containers(
    client: PrefectClient, flows: Mapping[str, Flow[..., Any]], catalogue: Catalogue, settings: Settings
) -> str:
    """Why automations that want a container cannot be offered; nothing when they can, or there are none."""
    containers = settings.file.containers
    wanting = [spec for spec in catalogue if spec.isolation == CONTAINER]
    if not wanting:
        return ""
    if containers is None:
        return container_engine.NOT_SET
    images = {_limits_of(flows[spec.name], spec, containers).image or "" for spec in wanting}
    if reason := await asyncio.to_thread(container_engine.missing, containers, images):
        return reason
    try:
        await client.read_work_pool(container_pool.POOL_NAME)
    except ObjectNotFound:
        with suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate.model_validate(container_pool.work_pool()))
    return ""


def _limits_of(flow: Flow[..., Any], spec: AutomationSpec, containers: Containers) -> ContainerLimits:
    declared = declaration_of(flow)
    return container_engine.limits_of(containers, spec.command, declared.limits if declared else None)


def _container_variables(flow: Flow[..., Any], spec: AutomationSpec, settings: Settings) -> dict[str, Any]:
    limits = _limits_of(flow, spec, settings.file.containers or Containers())
    return {
        "image": limits.image,
        "memory_mb": limits.memory_mb,
        "cpus": limits.cpus,
        "egress": list(limits.network or ()),
        "blocks": list(spec.blocks),
    }


async def _deployed(
    client: PrefectClient, flow: Flow[..., Any], spec: AutomationSpec, settings: Settings
) -> str:
    """Make or mend one deployment; returns why Prefect refused it, else nothing."""
    declared = declaration_of(flow)
    schedules = declared.schedules if declared else ()
    return await _tried(client, flow, deployment_fields(flow, spec, settings), schedules)


async def _deployed_together(
    client: PrefectClient, flow: Flow[..., Any], spec: AutomationSpec, settings: Settings
) -> str:
    """The same for the flow that answers several requests, where there is one."""
    declared = declaration_of(flow)
    if spec.batch < 2 or declared is None or declared.together is None:
        return ""
    fields = deployment_fields(flow, spec, settings) | {
        "tags": [*tags_of(spec), "batch"],
        "description": declared.together.description,
    }
    return await _tried(client, declared.together, fields, ())


async def _tried(
    client: PrefectClient, flow: Flow[..., Any], fields: dict[str, Any], schedules: Iterable[Schedule]
) -> str:
    try:
        await _upsert(client, flow, fields, schedules)
    except PrefectHTTPStatusError as error:
        if error.response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        return f"Prefect refuses its deployment: {error.response.text[:300]}"
    return ""


async def _listener(client: PrefectClient, settings: Settings) -> None:
    try:
        found = entrypoint_of_listener()
    except Exception:
        logger.exception("the listener flow %s does not import", LISTENER)
        return
    if found:
        flow, entrypoint = found
        fields = {
            "description": flow.description,
            "tags": [TAG, "listener"],
            "work_pool_name": settings.file.prefect.pool,
            "entrypoint": entrypoint,
            "enforce_parameter_schema": True,
            "job_variables": _job_variables(settings),
        }
        await _upsert(client, flow, fields, ())


async def _upsert(
    client: PrefectClient, flow: Flow[..., Any], fields: dict[str, Any], schedules: Iterable[Schedule]
) -> None:
    schema = flow.parameters.model_dump_for_openapi()
    wanted = [DeploymentScheduleCreate.from_schedule(schedule) for schedule in schedules]
    try:
        there = await client.read_deployment_by_name(f"{flow.name}/{DEPLOYMENT}")
    except ObjectNotFound:
        flow_id = await client.create_flow(flow)
        await client.create_deployment(
            flow_id, DEPLOYMENT, parameter_openapi_schema=schema, schedules=wanted, pull_steps=[], **fields
        )
        return
    fields = {**fields, "parameter_openapi_schema": schema, **_with_theirs(there, fields)}
    changed = {name: value for name, value in fields.items() if getattr(there, name) != value}
    if changed:
        # `schedules` is left out on purpose: Prefect would make them again, running, whoever had paused them.
        await client.update_deployment(there.id, DeploymentUpdate(**_complete(there, changed)))
    await _schedules(client, there.id, flow.name, wanted, there.schedules)


def _with_theirs(there: DeploymentResponse, fields: dict[str, Any]) -> dict[str, Any]:
    """Tags and job variables that people added in Prefect stay beside ours."""
    effects = {effect.value for effect in Effect}
    tags = [tag for tag in there.tags if tag not in fields["tags"] and tag not in effects]
    theirs = there.job_variables or {}
    env = {name: value for name, value in (theirs.get("env") or {}).items() if name not in OUR_VARIABLES}
    env |= fields["job_variables"].get("env", {})
    rest = {name: value for name, value in theirs.items() if name not in ("env", *CONTAINER_VARIABLES)}
    rest |= {name: value for name, value in fields["job_variables"].items() if name != "env"}
    return {"tags": [*fields["tags"], *tags], "job_variables": rest | ({"env": env} if env else {})}


def _complete(there: DeploymentResponse, changed: dict[str, Any]) -> dict[str, Any]:
    # The server checks job variables against the pool only together, and takes absent tags for none.
    kept = {"tags": there.tags, "work_pool_name": there.work_pool_name, "job_variables": there.job_variables}
    return {**kept, **changed}


async def _schedules(
    client: PrefectClient,
    deployment: UUID,
    name: str,
    wanted: list[DeploymentScheduleCreate],
    present: list[DeploymentSchedule],
) -> None:
    by_slug = {schedule.slug: schedule for schedule in present if schedule.slug}
    for schedule in wanted:
        known = by_slug.pop(schedule.slug or "", None)
        if known is None:
            await client.create_deployment_schedules(deployment, [schedule])
        elif _rule(known.schedule) != _rule(schedule.schedule) or known.parameters != schedule.parameters:
            # Without `active`: whether it runs is for the people who look after Prefect.
            await client.update_deployment_schedule(
                deployment, known.id, schedule=schedule.schedule, parameters=schedule.parameters
            )
    for slug in by_slug:
        logger.warning(
            "the schedule %s of %s is not declared in code: remove it in Prefect if it is over", slug, name
        )


def _rule(schedule: BaseModel) -> dict[str, Any]:
    """When it fires, without the moment that it was made at."""
    return {
        name: value
        for name, value in schedule.model_dump(mode="json").items()
        if name != "anchor_date" and value is not None
    }


def _job_variables(settings: Settings) -> dict[str, Any]:
    # A worker of ours knows its installation; any other has to be told, or its runs could not find the hub.
    if settings.file.prefect.worker == "parley":
        return {}
    if address := os.environ.get("PARLEY_HUB"):
        return {"env": {"PARLEY_HUB": address}}
    home = {"PARLEY_HOME": str(settings.home)}
    return {"env": home | ({"PARLEY_CONFIG": str(settings.config)} if settings.config.exists() else {})}


async def _external(
    client: PrefectClient, command: str, external: ExternalAutomation, taken: Iterable[AutomationSpec]
) -> AutomationSpec | BrokenAutomation:
    source = f"parley.toml [automations.{command}]"
    if any(spec.command == command for spec in taken):
        return BrokenAutomation(
            source=source, reason=f"the command {command!r} is taken by an automation: rename this one."
        )
    try:
        deployment = await client.read_deployment_by_name(external.deployment)
    except ObjectNotFound:
        return BrokenAutomation(source=source, reason=f"Prefect has no deployment {external.deployment!r}.")
    try:
        return AutomationSpec(
            name=external.deployment.partition("/")[0],
            command=command,
            summary=external.summary or (deployment.description or "").strip().partition("\n")[0],
            deployment=external.deployment,
            examples=external.examples,
            effect=external.effect,
            idempotent=external.idempotent,
            version=deployment.version or str(deployment.updated or ""),
            parameters=_external_parameters(deployment),
            alert_after=external.alert_after,
            wrapped=False,
            entrypoint=deployment.entrypoint or "",
            source=source,
        )
    except ValueError as error:
        return BrokenAutomation(source=source, reason=" ".join(str(error).split())[:300])


def _external_parameters(deployment: DeploymentResponse) -> tuple[Parameter, ...]:
    schema = deployment.parameter_openapi_schema or {}
    definitions = schema.get("definitions") or schema.get("$defs") or {}
    required = set(schema.get("required", ())) - set(deployment.parameters)
    properties = sorted(schema.get("properties", {}).items(), key=lambda item: item[1].get("position", 0))
    return tuple(
        Parameter(
            name=name,
            json_schema=_self_contained(described, definitions),
            required=name in required,
            default=deployment.parameters.get(name, described.get("default")),
            description=str(described.get("description", "")),
        )
        for name, described in properties
    )


def _self_contained(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in schema.items() if key not in ("position", "title")}
    if not definitions:
        return kept
    moved: dict[str, Any] = _moved({**kept, "$defs": definitions})
    return moved


def _moved(value: Any) -> Any:
    """References of Prefect's own form, in the form that every JSON Schema library takes."""
    if isinstance(value, list):
        return [_moved(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    moved = {key: _moved(inner) for key, inner in value.items()}
    if isinstance(reference := value.get("$ref"), str):
        moved["$ref"] = reference.replace("#/definitions/", "#/$defs/")
    return moved


async def _main() -> int:
    settings = load()
    flows, catalogue = find(settings.file.automations, settings.file.containers)
    full = await ensure(flows, catalogue, settings)
    await publish(full, settings)
    for item in full.broken:
        print(f"{item.source}: {item.reason}", file=sys.stderr)  # noqa: T201 - this is a command
    print(f"{len(full.automations)} automations: {', '.join(sorted(full.by_command()))}")  # noqa: T201
    return 1 if full.broken else 0


def main() -> int:
    """Find, deploy, publish; 1 when something is broken or nothing could be told."""
    try:
        return asyncio.run(_main())
    except ParleyError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
