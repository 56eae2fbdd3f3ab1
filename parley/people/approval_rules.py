"""What has to be approved before it runs, and by how many of whom: `[[approvals]]` of parley.toml. Pure.

The first rule that fits counts. What is dangerous and fits none needs one approval: of an owner, or of whoever has a
role that approves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, Final

from parley.messages.filters import whole
from parley.people.patterns import matches, may_match
from parley.runs.catalogue import AutomationSpec, Effect
from parley.settings import ApprovalRule

WITHIN: Final = timedelta(minutes=15)
"""How long what no rule fits waits for its approval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """`needed` approvals by holders of `roles` and by `people`; without either, by whoever may approve at all.

    They have to come `within` this time. `to`: conversations that are told of it, as `account:conversation`.
    """

    needed: int = 1
    roles: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    within: timedelta = WITHIN
    to: tuple[str, ...] = ()


def terms_for(rules: Sequence[ApprovalRule], spec: AutomationSpec, values: Mapping[str, Any]) -> Terms | None:
    """What has to be approved before this runs with these values; None when nothing has to be."""
    for rule in rules:
        if _fits(rule, spec, values):
            return _terms(rule) if rule.needed else None
    return Terms() if spec.effect is Effect.DANGEROUS else None


def may_need(rules: Sequence[ApprovalRule], spec: AutomationSpec) -> bool:
    """Whether there are values with which this has to be approved; false for by far the most that is asked."""
    return spec.effect is Effect.DANGEROUS or any(
        rule.needed and spec.effect in rule.effects and _named(rule, spec) for rule in rules
    )


def _terms(rule: ApprovalRule) -> Terms:
    return Terms(needed=rule.needed, roles=rule.roles, people=rule.people, within=rule.within, to=rule.to)


def _named(rule: ApprovalRule, spec: AutomationSpec) -> bool:
    return any(fnmatchcase(spec.command, glob) for glob in rule.automations)


def _fits(rule: ApprovalRule, spec: AutomationSpec, values: Mapping[str, Any]) -> bool:
    if spec.effect not in rule.effects or not _named(rule, spec):
        return False
    meant = {**spec.defaults, **{name: value for name, value in values.items() if value is not None}}
    # A rule without a need is an exception: it fits only what surely is meant. Any other one fits what may be, too.
    if rule.needed:
        return all(_may_be(spec, meant, name, globs) for name, globs in rule.parameters.items())
    return all(_surely_is(meant.get(name), globs) for name, globs in rule.parameters.items())


def _may_be(spec: AutomationSpec, meant: Mapping[str, Any], name: str, globs: Sequence[str]) -> bool:
    if spec.parameter(name) is None:
        return False
    value = meant.get(name)
    if value is None:
        return True  # what runs then is not known here
    # An empty list may be anything, too: for many a script it is all there is.
    return value == [] or any(may_match(glob, one) for one in _each(value) for glob in globs)


def _surely_is(value: Any, globs: Sequence[str]) -> bool:
    values = list(_each(value))
    return bool(values) and all(
        one is not None and whole(one).isprintable() and any(matches(glob, one) for glob in globs)
        for one in values
    )


def _each(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _each(one)
    else:
        yield value


__all__ = ["WITHIN", "Terms", "may_need", "terms_for"]
