"""The policy: the roles of this installation, matched by casbin. What no line of a role allows is denied.

A line that denies wins over all that allow, whichever role it is of. A policy never changes: a changed parley.toml
makes a new one. casbin is loaded by the first question, or by `prepare`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from parley.people.roles import Conditions, Deny, RoleTable
from parley.runs.catalogue import Effect

_MODEL: Final = """
[request_definition]
r = asked

[policy_definition]
p = line, eft

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = effect(r.asked, p.line) && automation(r.asked, p.line) && parameters(r.asked, p.line) \
&& place(r.asked, p.line) && time(r.asked, p.line)
"""

_BUILT_IN: Final[Mapping[str, RoleTable]] = MappingProxyType(
    {
        "owner": RoleTable(may=tuple(Effect), approves=("*",)),
        "operator": RoleTable(may=tuple(Effect)),
        "user": RoleTable(may=(Effect.READ,)),
        "auditor": RoleTable(),
        "none": RoleTable(),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question. `values` as `roles.meant` gives them, None where they are not known yet; `place` None: nowhere."""

    effect: Effect
    automation: str
    values: Mapping[str, Any] | None = field(default=None, repr=False)
    place: str | None = field(default=None, repr=False)
    at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """`line`: what allowed or denied it, or came nearest to it; `missing`: which of its conditions did not fit."""

    allowed: bool
    line: str = ""
    missing: str = ""

    @property
    def denied(self) -> bool:
        """Whether a line denies it, so that no other role helps."""
        return not self.allowed and bool(self.line) and not self.missing


class Policy:
    """Roles by name, those of the file besides the built-in ones. `time_zone`: of lines that name none."""

    def __init__(self, roles: Mapping[str, RoleTable] | None = None, time_zone: str = "UTC") -> None:
        self.own: Mapping[str, RoleTable] = MappingProxyType(dict(roles or {}))
        self._roles = {**_BUILT_IN, **self.own}
        self._time_zone = time_zone
        self._lines: dict[str, RoleTable | Deny] = {}
        for name, table in self._roles.items():
            self._lines[name] = table
            for number, line in enumerate(table.deny, 1):
                zone = line.time_zone or table.time_zone
                self._lines[f"{name}, deny {number}"] = line.model_copy(update={"time_zone": zone})
        self._enforcers: dict[str, Any] = {}

    def decide(self, roles: Iterable[str], asked: Asked) -> Verdict:
        """Whether one of these roles allows it and none denies it. A role that there is not gives nothing."""
        found = Verdict(allowed=False)
        for role in roles:
            if role not in self._roles:
                continue
            allowed, matched = self._enforcer(role).enforce_ex(asked)
            if not allowed and matched:
                return Verdict(allowed=False, line=matched[0])
            if allowed and not found.allowed:
                found = Verdict(allowed=True, line=role)
            elif not found.allowed:
                found = _nearer(found, Verdict(allowed=False, line=role, missing=self._missing(role, asked)))
        return found

    def approves(self, roles: Iterable[str], automation: str, place: str | None, at: datetime) -> bool:
        """Whether one of these roles approves runs of this automation, here and now."""
        tables = (self._roles[role] for role in roles if role in self._roles)
        return any(
            Conditions(automations=table.approves).covers(automation)
            and table.is_here(place)
            and table.is_now(at, self._time_zone)
            for table in tables
            if table.approves
        )

    def holds(self, roles: Iterable[str], place: str | None, at: datetime) -> bool:
        """Whether one of these roles counts here and now, whatever it is good for."""
        tables = (self._roles[role] for role in roles if role in self._roles)
        return any(table.is_here(place) and table.is_now(at, self._time_zone) for table in tables)

    def sort(self, roles: Iterable[str], place: str | None, at: datetime) -> tuple[str, ...]:
        """The lines of these roles that hold here and now: where they are the same, so is every answer."""
        return tuple(
            line
            for line in self._lines_of(roles)
            if self._lines[line].is_here(place) and self._lines[line].is_now(at, self._time_zone)
        )

    def kind(self, roles: Iterable[str], automation: str) -> tuple[str, ...]:
        """The lines of these roles that are about this automation: where they are the same, so is every answer."""
        return tuple(line for line in self._lines_of(roles) if self._lines[line].covers(automation))

    def table(self, role: str) -> RoleTable | None:
        """What a role is; None when there is none of this name."""
        return self._roles.get(role)

    def line(self, name: str) -> Conditions | None:
        """A line by the name that a verdict gives it."""
        return self._lines.get(name)

    def prepare(self) -> None:
        """Load casbin, which takes a fifth of a second, before the first question."""
        for role in self._roles:
            self._enforcer(role)

    def _lines_of(self, roles: Iterable[str]) -> Iterable[str]:
        for role in roles:
            if role in self._roles:
                yield role
                yield from (f"{role}, deny {number}" for number in range(1, len(self._roles[role].deny) + 1))

    def _missing(self, role: str, asked: Asked) -> str:
        return next(name for name in _ORDER if not self._condition(name)(asked, role))

    def _condition(self, name: str) -> Callable[[Asked, str], bool]:
        lines, zone = self._lines, self._time_zone
        conditions: Mapping[str, Callable[[Asked, str], bool]] = {
            "effect": lambda asked, line: lines[line].concerns(asked.effect),
            "automation": lambda asked, line: lines[line].covers(asked.automation),
            "parameters": lambda asked, line: lines[line].fits(asked.values),
            "place": lambda asked, line: lines[line].is_here(asked.place),
            "time": lambda asked, line: lines[line].is_now(asked.at, zone),
        }
        return conditions[name]

    def _enforcer(self, role: str) -> Any:
        found = self._enforcers.get(role)
        if found is None:
            found = self._enforcers[role] = self._built(role)
        return found

    def _built(self, role: str) -> Any:
        import casbin  # type: ignore[import-untyped]  # it has no types

        logging.getLogger("casbin").setLevel(logging.WARNING)  # it tells each model that it is given
        model = casbin.Model()
        model.load_model_from_text(_MODEL)
        # Its log would repeat what was asked: it stays off.
        enforcer = casbin.Enforcer(model, enable_log=False)
        enforcer.logger = _silent()
        for name in _ORDER:
            enforcer.add_function(name, self._condition(name))
        for line in self._lines_of([role]):
            enforcer.add_policy(line, "deny" if isinstance(self._lines[line], Deny) else "allow")
        return enforcer


_ORDER: Final = ("effect", "automation", "parameters", "place", "time")
"""Conditions as they are looked at: the later one is that does not fit, the nearer was the line."""


def _nearer(one: Verdict, other: Verdict) -> Verdict:
    return other if not one.line or _ORDER.index(other.missing) > _ORDER.index(one.missing) else one


def _silent() -> logging.Logger:
    logger = logging.getLogger(f"{__name__}.casbin")
    logger.disabled = True
    return logger


__all__ = ["Asked", "Policy", "Verdict"]
