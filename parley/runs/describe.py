"""Finds the automations of this installation and describes them as plain data for the hub."""

from __future__ import annotations

import hashlib
import json
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from prefect import Flow

from parley.errors import ConfigurationError
from parley.runs.automation import Declaration, declaration_of
from parley.runs.catalogue import AutomationSpec, BrokenAutomation, Catalogue, batch_flow
from parley.settings import Automations, Containers

GROUP: Final = "parley.automations"
"""Entry points of other distributions: each names a flow that is an automation, or a module of them."""

DEPLOYMENT: Final = "parley"
"""The name of every deployment that belongs to us: Prefect knows it as `<flow name>/parley`."""


def find(
    settings: Automations, containers: Containers | None = None
) -> tuple[dict[str, Flow[..., Any]], Catalogue]:
    """The automations by their flow's name, and the catalogue of them; `containers` may have some run in a container.

    Modules are imported one by one: one that does not import, or an automation that cannot be offered, is listed in
    the catalogue as broken with its reason, and the others go on. Never raises for what an author wrote.
    """
    _find_beside_the_working_directory()
    found = _Found()
    for name in settings.modules:
        found.take_module(name)
    if settings.entry_points:
        for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
            found.take_entry_point(point)
    return found.flows, _contained(found.catalogue(), containers)


def specification(flow: Flow[..., Any], entrypoint: str) -> AutomationSpec:
    """One automation as plain data. Raises `ConfigurationError` when it is none or cannot be offered."""
    declared = declaration_of(flow)
    if declared is None:
        raise ConfigurationError(f"the flow {flow.name!r} is no automation: put @automation above @flow.")
    parameters = tuple(
        parameter.published(_docstring_of(flow, parameter.name)) for parameter in declared.body.parameters
    )
    source = _source(declared)
    return AutomationSpec(
        name=flow.name,
        command=declared.command,
        summary=declared.summary,
        deployment=f"{flow.name}/{DEPLOYMENT}",
        examples=declared.examples,
        effect=declared.effect,
        idempotent=declared.idempotent,
        version=_digest(
            [p.model_dump(mode="json") for p in parameters],
            declared.effect,
            declared.isolation,
            source,
            declared.revision,
        ),
        core=_digest(declared.isolation, source),
        revisions={} if isinstance(declared.revision, str) else declared.revision,
        parameters=parameters,
        alert_after=declared.alert_after,
        time_limit=declared.time_limit,
        lane=declared.lane,
        isolation=declared.isolation,
        batch=declared.batch,
        blocks=declared.blocks,
        on=declared.on,
        entrypoint=entrypoint,
        source=declared.body.function.__module__,
    )


def _contained(catalogue: Catalogue, containers: Containers | None) -> Catalogue:
    """The catalogue with the automations in a container that parley.toml names."""
    named = containers.automations if containers else {}
    specs = tuple(_in_container(spec) if spec.command in named else spec for spec in catalogue)
    return catalogue.model_copy(update={"automations": specs})


def _in_container(spec: AutomationSpec) -> AutomationSpec:
    # Taking it out of its container again is another version, too: what was approved was approved in there.
    kind = "container"
    changed = {
        "isolation": kind,
        "batch": 1,
        "version": _digest(spec.version, kind),
        "core": _digest(spec.core, kind),
    }
    return spec.model_copy(update=changed) if spec.isolation != kind else spec


class _Found:
    def __init__(self) -> None:
        self.flows: dict[str, Flow[..., Any]] = {}
        self._specs: dict[str, AutomationSpec] = {}
        self._broken: list[BrokenAutomation] = []

    def catalogue(self) -> Catalogue:
        return Catalogue(automations=tuple(self._specs.values()), broken=tuple(self._broken))

    def take_module(self, name: str) -> None:
        module = self._tried(name, lambda: import_module(name))
        if module is None:
            return
        self._take_flows(module)
        for inner in _submodules(module):
            self.take_module(inner)

    def take_entry_point(self, point: EntryPoint) -> None:
        loaded = self._tried(f"entry point {point.name}", point.load)
        if isinstance(loaded, ModuleType):
            self._take_flows(loaded)
        elif isinstance(loaded, Flow):
            self._take(loaded, point.value.replace(":", "."))
        elif loaded is not None:
            self._broken.append(
                BrokenAutomation(source=point.value, reason="it is neither a module nor a flow.")
            )

    def _take_flows(self, module: ModuleType) -> None:
        for attribute, value in list(vars(module).items()):
            # What a module imported from another belongs to the other.
            if isinstance(value, Flow) and declaration_of(value) and value.fn.__module__ == module.__name__:
                self._take(value, f"{module.__name__}.{attribute}")

    def _take(self, flow: Flow[..., Any], entrypoint: str) -> None:
        spec = self._tried(entrypoint, lambda: specification(flow, entrypoint))
        if spec is None or self.flows.get(flow.name) is flow:
            return
        taken = self._specs.get(spec.command) or next(
            (s for s in self._specs.values() if s.name == spec.name), None
        )
        if taken:
            what = (
                f"command {spec.command!r}" if taken.command == spec.command else f"flow name {spec.name!r}"
            )
            reason = f"the {what} is taken by {taken.entrypoint}: give this one another."
            self._broken.append(BrokenAutomation(source=entrypoint, reason=reason))
            return
        other = next((s for s in self._specs.values() if _flows_of(s) & _flows_of(spec)), None)
        if other:
            reason = (
                f"the flow {batch_flow(min(other.name, spec.name, key=len))!r} answers several requests of "
                f"{min((other, spec), key=lambda one: len(one.name)).entrypoint}: give the other flow another name."
            )
            self._broken.append(BrokenAutomation(source=entrypoint, reason=reason))
            return
        self.flows[flow.name] = flow
        self._specs[spec.command] = spec

    def _tried(self, source: str, load: Callable[[], Any]) -> Any:
        try:
            return load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an author's module may raise anything
            self._broken.append(BrokenAutomation(source=source, reason=_one_line(error)))
            return None


def _flows_of(spec: AutomationSpec) -> set[str]:
    """The names of its flows in Prefect."""
    return {spec.name, batch_flow(spec.name)} if spec.batch > 1 else {spec.name}


def _submodules(module: ModuleType) -> Iterator[str]:
    for inner in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not inner.name.startswith("_"):
            yield f"{module.__name__}.{inner.name}"


def _find_beside_the_working_directory() -> None:
    # Last, so that a file there cannot take the place of an installed module.
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _one_line(error: BaseException) -> str:
    if isinstance(error, ConfigurationError):
        return str(error)
    text = " ".join(str(error).split()) or "no message"
    return f"{_where(error)}{type(error).__name__}: {text}"[:500]


def _where(error: BaseException) -> str:
    """File and line of the author's own code, where the trace leads there."""
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or '?').name} line {error.lineno}: "
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and "importlib" not in frame.filename
        and frame.filename != __file__
    ]
    return f"{Path(frames[-1].filename).name} line {frames[-1].lineno}: " if frames else ""


def _docstring_of(flow: Flow[..., Any], parameter: str) -> str:
    return str(flow.parameters.properties.get(parameter, {}).get("description", ""))


def _source(declared: Declaration) -> str:
    """The text of the module that the function is in: a helper beside it changes what it does as well."""
    file = getattr(sys.modules.get(declared.body.function.__module__), "__file__", None)
    try:
        return Path(file).read_text(encoding="utf-8") if file else ""
    except OSError:
        return ""


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


__all__ = ["DEPLOYMENT", "GROUP", "find", "specification"]
