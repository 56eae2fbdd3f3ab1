"""`@automation`: a Prefect flow becomes something that people can ask for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from prefect import Flow
from prefect.schedules import Schedule
from pydantic import ValidationError

from parley.errors import ConfigurationError
from parley.runs.catalogue import Effect, Lane, Subscription
from parley.runs.guard import Body, guard
from parley.runs.parameters import Parameters
from parley.runs.together import together
from parley.settings import ContainerLimits

F = TypeVar("F", bound=Flow[..., Any])

_COMMAND: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_BLOCK: Final = re.compile(r"[a-z0-9-]+/[a-zA-Z0-9_-]+")
_SLOT: Final = re.compile(r"\{([^{}]*)\}")
_ATTRIBUTE: Final = "__parley_automation__"

MOST_TOGETHER: Final = 100
"""Requests that can share a flow run at the most."""


@dataclass(frozen=True)
class Declaration:
    """What an author declared about one automation."""

    command: str
    summary: str
    examples: tuple[str, ...]
    effect: Effect
    idempotent: bool
    alert_after: int | None
    time_limit: float | None
    lane: Lane | None
    isolation: str
    batch: int
    limits: ContainerLimits | None
    schedules: tuple[Schedule, ...]
    revision: str | Mapping[str, Mapping[str, str]]
    blocks: tuple[str, ...]
    on: tuple[Subscription, ...]
    body: Body
    together: Flow[..., Any] | None


def automation(
    *,
    command: str | None = None,
    summary: str = "",
    examples: Iterable[str] = (),
    effect: Effect | Literal["read", "write", "dangerous"] = "read",
    idempotent: bool = False,
    alert_after: int | None = None,
    fallback: Callable[..., Any] | None = None,
    lane: Lane | Literal["control", "alerts", "people", "schedules"] | None = None,
    time_limit: float | None = None,
    isolation: Literal["process", "container"] = "process",
    batch: int = 1,
    memory_mb: int | None = None,
    cpus: float | None = None,
    network: Iterable[str] | None = None,
    schedules: Iterable[Schedule] = (),
    revision: str | Mapping[str, Mapping[str, str]] = "",
    blocks: Iterable[str] = (),
    on: str | Subscription | Iterable[str | Subscription] = (),
) -> Callable[[F], F]:
    """Offer a flow in the chat; returns the same flow, which can be run, deployed and tested as before.

    `command` is what people type after the slash (by default the function's name) and `summary` what the help says of
    it (by default the first line of the docstring). `examples` are sentences with `{parameter}` in them, and with
    `{parameter=value}` where the sentence means a value that none of its words gives. `effect` decides confirmation and
    approval. Only with `idempotent` is a lost run started again by itself. `alert_after` is
    the number of consecutive failures after which the people on duty are told. `fallback` is called once, with the same
    parameters by name, when the function raised; the answer then says so. After `time_limit` seconds Prefect ends the
    flow, and the worker its process. `schedules` are Prefect's, each with a `slug`. A change of the module's source, of
    the parameters or of `revision` is another version of the automation, for which approvals are given anew. Where a
    parameter chooses what is run, `revision` may be given for each of its values, as `{parameter: {value: revision}}`:
    then a standing approval ends with a change of what it allows, and not with a change of its neighbours. `blocks`
    names the saved Prefect Blocks, as "type/name", whose sealed secrets a run may open; it can open no other.
    `on` names events that start it by themselves, as patterns of topics or `Subscription` values, with the rights of
    the service that an event came from.

    With `batch`, requests that wait for their turn anyway share a flow run, up to so many: each is answered, refused,
    cancelled and repeated by itself, in a task of its own. Only a read automation may have it, and its function is
    then called for several requests at the same time: a sync one in threads of one process, an async one on one event
    loop. `time_limit` is for all of them together.

    With `isolation="container"` each run has a container of its own, if parley.toml has `[containers]`: with
    `memory_mb` (swap included), `cpus`, and `network`, the only addresses that it can reach, as "host:port".

    Raises `ConfigurationError` for what cannot be offered, naming how to mend it.
    """

    def offer(flow: F) -> F:
        _check_flow(flow)
        body = _body(flow, fallback)
        name = _checked_command(command or flow.fn.__name__.replace("_", "-").lower())
        declaration = Declaration(
            command=name,
            summary=summary or _first_line(flow.description),
            examples=_checked_examples(tuple(examples), body.parameters),
            effect=Effect(effect),
            idempotent=idempotent,
            alert_after=_at_least_one(alert_after),
            time_limit=_limited(flow, time_limit),
            lane=Lane(lane) if lane else None,
            isolation=isolation,
            batch=_checked_batch(batch, Effect(effect), isolation),
            limits=_limits(isolation, memory_mb, cpus, network),
            schedules=_checked_schedules(tuple(schedules)),
            revision=revision,
            blocks=_checked_blocks(tuple(blocks)),
            on=_checked_events(on, body.parameters),
            body=body,
            together=together(flow, body, name) if batch > 1 else None,
        )
        flow.fn = guard(body)
        setattr(flow.fn, _ATTRIBUTE, declaration)
        # The guard validates, after the start: before it nothing sealed is open and nobody could be told what is wrong.
        flow.should_validate_parameters = False
        return flow

    return offer


def declaration_of(flow: object) -> Declaration | None:
    """What was declared about this flow; None when it is no automation."""
    found = getattr(getattr(flow, "fn", None), _ATTRIBUTE, None)
    return found if isinstance(found, Declaration) else None


def _check_flow(flow: object) -> None:
    if not isinstance(flow, Flow):
        name = getattr(flow, "__name__", type(flow).__name__)
        raise ConfigurationError(
            f"@automation has to stand above @flow: {name} is a {type(flow).__name__}, not a flow."
        )
    if declaration_of(flow):
        raise ConfigurationError(f"the flow {flow.name!r} is an automation already.")
    if flow.isgenerator:
        raise ConfigurationError(f"the flow {flow.name!r} yields: collect what it yields and return it.")
    if flow.retries:
        raise ConfigurationError(
            f"the flow {flow.name!r} has retries={flow.retries}: repeated from the top it would repeat what "
            "it has done. Put what may fail into steps (@step), which are retried one by one."
        )


def _body(flow: Flow[..., Any], fallback: Callable[..., Any] | None) -> Body:
    parameters = Parameters(flow.fn)
    if fallback is not None and not flow.isasync and _is_async(fallback):
        raise ConfigurationError(f"the flow {flow.name!r} is not async, so its fallback must not be either.")
    return Body(flow.fn, fallback, parameters, validate=flow.should_validate_parameters)


def _is_async(function: Callable[..., Any]) -> bool:
    return bool(getattr(function, "isasync", False)) or inspect.iscoroutinefunction(function)


def _checked_command(command: str) -> str:
    if not _COMMAND.fullmatch(command):
        raise ConfigurationError(
            f"the command {command!r} cannot be typed: use a-z, 0-9, - and _, at most 64 of them."
        )
    return command


def _checked_batch(batch: int, effect: Effect, isolation: str) -> int:
    if not 1 <= batch <= MOST_TOGETHER:
        raise ConfigurationError(
            f"batch={batch}: from 1 (each alone) to {MOST_TOGETHER} requests can share a run."
        )
    if batch > 1 and effect is not Effect.READ:
        raise ConfigurationError(
            f'batch={batch}: only an automation with effect="read" can answer several requests in one run; '
            "what changes something has a run for each."
        )
    if batch > 1 and isolation != "process":
        raise ConfigurationError(f"batch={batch}: a run in a container answers one request.")
    return batch


def _checked_examples(examples: tuple[str, ...], parameters: Parameters) -> tuple[str, ...]:
    names = {declared.name for declared in parameters}
    for example in examples:
        slots = (slot.partition("=")[0].strip() for slot in _SLOT.findall(example))
        unknown = [slot for slot in slots if slot not in names]
        if unknown:
            raise ConfigurationError(f"the example {example!r} names {unknown[0]!r}, which is no parameter.")
    return examples


def _checked_events(
    on: str | Subscription | Iterable[str | Subscription], parameters: Parameters
) -> tuple[Subscription, ...]:
    listed = (on,) if isinstance(on, str | Subscription) else tuple(on)
    try:
        found = tuple(one if isinstance(one, Subscription) else Subscription(pattern=one) for one in listed)
    except ValidationError as error:
        raise ConfigurationError(f"on={on!r}: {error.errors()[0]['msg']}") from None
    names = {declared.name for declared in parameters}
    unknown = [name for one in found for name in one.parameters if name not in names]
    if unknown:
        raise ConfigurationError(f"on= fills {unknown[0]!r}, which is no parameter.")
    return found


def _checked_schedules(schedules: tuple[Schedule, ...]) -> tuple[Schedule, ...]:
    # Without a slug Prefect replaces a schedule at each deployment, and un-pauses what somebody had paused.
    slugs = [schedule.slug for schedule in schedules]
    if not all(slugs) or len(set(slugs)) < len(slugs):
        raise ConfigurationError(
            'each schedule needs a slug of its own, as in Cron("0 8 * * *", slug="morning").'
        )
    return schedules


def _checked_blocks(blocks: tuple[str, ...]) -> tuple[str, ...]:
    for block in blocks:
        if not _BLOCK.fullmatch(block):
            raise ConfigurationError(
                f'the Block {block!r} is named by type and name, as in "parley-rest-api/orders".'
            )
    return blocks


def _limits(
    isolation: str, memory_mb: int | None, cpus: float | None, network: Iterable[str] | None
) -> ContainerLimits | None:
    if isolation not in ("process", "container"):
        raise ConfigurationError(f"isolation={isolation!r}: it is 'process' or 'container'.")
    if isolation == "process":
        if memory_mb is not None or cpus is not None or network is not None:
            # A limit that nothing enforces is worse than none.
            raise ConfigurationError('memory_mb, cpus and network need isolation="container".')
        return None
    try:
        named = None if network is None else tuple(network)
        return ContainerLimits(memory_mb=memory_mb, cpus=cpus, network=named)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(f"{first['loc'][0]}: {first['msg']}.") from None


def _at_least_one(count: int | None) -> int | None:
    if count is not None and count < 1:
        raise ConfigurationError("alert_after counts failures: give 1 or more.")
    return count


def _limited(flow: Flow[..., Any], time_limit: float | None) -> float | None:
    if time_limit is not None and time_limit <= 0:
        raise ConfigurationError("time_limit is in seconds: give more than 0.")
    if time_limit is not None and flow.timeout_seconds is None:
        flow.timeout_seconds = float(time_limit)
    return time_limit if time_limit is not None else flow.timeout_seconds


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0].strip()
