"""The catalogue of automations: what the chat, the help and the rights need to know of each.

Entries are plain data. The process that imports the automations (worker or registrar) makes them from type hints and
publishes them to the hub, which thus never runs an author's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from parley.messages.model import Model


class Effect(StrEnum):
    """What an automation does to the world; decides confirmation and approval."""

    READ = "read"
    WRITE = "write"
    DANGEROUS = "dangerous"


class Lane(StrEnum):
    """Room at a peak, most urgent first."""

    CONTROL = "control"
    ALERTS = "alerts"
    PEOPLE = "people"
    SCHEDULES = "schedules"


class Parameter(Model):
    """One parameter of an automation.

    `json_schema` is a self-contained JSON Schema (draft 2020-12, `$defs` inlined beside it when needed): the
    grammar, the help text and the validation.
    """

    name: str
    json_schema: dict[str, Any]
    required: bool = True
    default: Any = None
    description: str = ""
    examples: tuple[Any, ...] = ()
    sealed: bool = False

    @property
    def choices(self) -> tuple[Any, ...]:
        """The allowed values where they are listed, else nothing."""
        schema = self.json_schema
        if "const" in schema:
            return (schema["const"],)
        return tuple(schema.get("enum", ()))


class AutomationSpec(Model):
    """One automation. `name` is the flow's name in Prefect, `command` what people type after the slash.

    `version` is a digest of signature, effect and source; a change of it voids approvals. `wrapped` is false for an
    existing Prefect deployment that was made a command in parley.toml: it has no start guard inside and its outcome
    is read from Prefect. `deployment` is Prefect's "flow/deployment". `time_limit` and `alert_after`: seconds, count.
    """

    name: str
    command: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    summary: str
    deployment: str
    examples: tuple[str, ...] = ()
    effect: Effect = Effect.READ
    idempotent: bool = False
    version: str = ""
    parameters: tuple[Parameter, ...] = ()
    alert_after: int | None = None
    time_limit: float | None = None
    lane: Lane | None = None
    isolation: str = "process"
    wrapped: bool = True
    entrypoint: str = ""
    source: str = ""

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of this name, or None."""
        return next((p for p in self.parameters if p.name == name), None)

    @property
    def sealed_names(self) -> frozenset[str]:
        """Parameters whose values travel sealed."""
        return frozenset(p.name for p in self.parameters if p.sealed)


class BrokenAutomation(Model):
    """A module that did not import, or an automation that cannot be offered, and how to mend it."""

    source: str
    reason: str


class Catalogue(Model):
    """All automations of this installation, by command."""

    automations: tuple[AutomationSpec, ...] = ()
    broken: tuple[BrokenAutomation, ...] = ()

    def __iter__(self) -> Iterator[AutomationSpec]:  # type: ignore[override]
        return iter(self.automations)

    def by_command(self) -> Mapping[str, AutomationSpec]:
        """Commands, sorted."""
        return {spec.command: spec for spec in sorted(self.automations, key=lambda spec: spec.command)}

    def find(self, command_or_name: str) -> AutomationSpec | None:
        """By command first, then by the flow's name; `-` and `_` are the same."""
        wanted = command_or_name.lower().replace("_", "-")
        keys: Iterable[tuple[str, AutomationSpec]] = [
            *((spec.command, spec) for spec in self.automations),
            *((spec.name, spec) for spec in self.automations),
        ]
        return next((spec for key, spec in keys if key.lower().replace("_", "-") == wanted), None)
