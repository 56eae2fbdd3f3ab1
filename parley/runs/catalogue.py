"""The catalogue of automations: what the chat, the help and the rights need to know of each.

Entries are plain data. The process that imports the automations (worker or registrar) makes them from type hints and
publishes them to the hub, which thus never runs an author's code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from parley.messages.model import CommandEntry, CommandParameter, Model
from parley.messages.topics import Pattern


def _pattern(text: str) -> str:
    Pattern(text)
    return text


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


_MENU_TYPES: Final[Mapping[str, Literal["string", "integer", "number", "boolean"]]] = {
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}


def _bound(schema: Mapping[str, Any], closed: str, open_: str, step: int) -> float | None:
    if isinstance(schema.get(closed), int | float):
        return float(schema[closed])
    if isinstance(schema.get(open_), int | float):
        # Of a number that is no integer the menu shows the open bound; the value itself is checked here.
        return float(schema[open_]) + (step if schema.get("type") == "integer" else 0)
    return None


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

    def menu_entry(self) -> CommandParameter:
        """The same for a platform's menu; what such a menu cannot type is a string there, and checked here."""
        schema, kind = self.json_schema, self.json_schema.get("type")
        return CommandParameter(
            name=self.name,
            type=_MENU_TYPES.get(kind, "string") if isinstance(kind, str) else "string",
            description=self.description,
            required=self.required,
            choices=tuple(str(choice) for choice in self.choices),
            minimum=_bound(schema, "minimum", "exclusiveMinimum", 1),
            maximum=_bound(schema, "maximum", "exclusiveMaximum", -1),
        )

    @property
    def choices(self) -> tuple[Any, ...]:
        """The allowed values where they are listed, else nothing."""
        schema = self.json_schema
        if "const" in schema:
            return (schema["const"],)
        return tuple(schema.get("enum", ()))


class Subscription(Model):
    """Events that start an automation: `on=Subscription(pattern="github.push", where={"branch": "main"})`.

    `pattern` of topics: `*` is one word, `#` none or more. `where` names fields of the event and globs, of which one
    must match; `parameters` are texts with `{fields}` in them, and so is `label`, which a button shows where it is
    offered.
    """

    pattern: Annotated[str, AfterValidator(_pattern)]
    where: Annotated[dict[str, str | tuple[str, ...]], Field(max_length=50)] = Field(default_factory=dict)
    parameters: Annotated[dict[str, str], Field(max_length=100)] = Field(default_factory=dict)
    label: Annotated[str, Field(max_length=200)] = ""


class AutomationSpec(Model):
    """One automation. `name` is the flow's name in Prefect, `command` what people type after the slash.

    `version` is a digest of signature, effect and source; a change of it voids approvals. `wrapped` is false for an
    existing Prefect deployment that was made a command in parley.toml: it has no start guard inside and its outcome
    is read from Prefect. `deployment` is Prefect's "flow/deployment". `time_limit` and `alert_after`: seconds, count.
    `batch`: how many of its requests may share a flow run, that of `batch_deployment`.
    `core` is a digest of the source alone, `revisions` those of what single values of a parameter stand for. `blocks`:
    whose sealed secrets its runs may open, each as "<type>/<name>".
    """

    name: str
    command: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    summary: str
    deployment: str
    examples: tuple[str, ...] = ()
    effect: Effect = Effect.READ
    idempotent: bool = False
    version: str = ""
    core: str = ""
    revisions: Mapping[str, Mapping[str, str]] = Field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    alert_after: int | None = None
    time_limit: float | None = None
    lane: Lane | None = None
    isolation: str = "process"
    batch: Annotated[int, Field(ge=1)] = 1
    blocks: tuple[str, ...] = ()
    wrapped: bool = True
    entrypoint: str = ""
    source: str = ""
    on: tuple[Subscription, ...] = ()

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of this name, or None."""
        return next((p for p in self.parameters if p.name == name), None)

    def version_for(self, values: Mapping[str, Any]) -> str:
        """The version of what would be run with these values: the same as long as exactly that does not change."""
        if not self.revisions:
            return self.version
        chosen = {
            name: known.get(str(values[name]), "") for name, known in self.revisions.items() if name in values
        }
        own = {p.name: p.default for p in self.parameters if p.default is not None}
        text = json.dumps([self.name, self.effect, self.core, chosen, own], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The values of parameters that are not given, as far as they are known here."""
        stated = {
            p.name: p.json_schema.get("default") if p.default is None else p.default for p in self.parameters
        }
        return {name: value for name, value in stated.items() if value is not None}

    @property
    def batch_deployment(self) -> str:
        """The deployment of the flow that answers several requests at once, as "flow/deployment"."""
        flow, _, deployment = self.deployment.partition("/")
        return f"{batch_flow(flow)}/{deployment}"

    def menu_entry(self) -> CommandEntry:
        """The same for a platform's menu. Sealed parameters are left out: a menu shows what is typed to everybody."""
        shown = tuple(p.menu_entry() for p in self.parameters if not p.sealed)
        return CommandEntry(name=self.command, summary=self.summary, parameters=shown)

    @property
    def sealed_names(self) -> frozenset[str]:
        """Parameters whose values travel sealed."""
        return frozenset(p.name for p in self.parameters if p.sealed)


def batch_flow(name: str) -> str:
    """The name of the flow that answers several requests of the automation whose flow has this name."""
    return f"{name}-batch"


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
        return self._lookup().by_command

    def find(self, command_or_name: str) -> AutomationSpec | None:
        """By command first, then by the flow's name; `-` and `_` are the same."""
        return self._lookup().found.get(_folded(command_or_name))

    def _lookup(self) -> _Lookup:
        # Worked out once: a catalogue never changes, and is asked several times for each message. A copy with other
        # automations has the lookup of its original.
        kept: _Lookup | None = self.__dict__.get("_kept")
        if kept is None or kept.of is not self.automations:
            kept = self.__dict__["_kept"] = _Lookup(self.automations)
        return kept


class _Lookup:
    def __init__(self, automations: tuple[AutomationSpec, ...]) -> None:
        self.of = automations
        by_command = sorted(automations, key=lambda spec: spec.command)
        self.by_command: Mapping[str, AutomationSpec] = MappingProxyType(
            {spec.command: spec for spec in by_command}
        )
        self.found: dict[str, AutomationSpec] = {}
        for spec in automations:
            self.found.setdefault(_folded(spec.command), spec)
        for spec in automations:
            self.found.setdefault(_folded(spec.name), spec)


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")
