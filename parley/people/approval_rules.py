"""What has to be approved before it runs, and by how many of whom: `[[approvals]]` of parley.toml. Pure.

The first rule that fits counts. What is dangerous and fits none needs one approval: of an owner, or of whoever has a
role that approves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, Final

from parley.messages.filters import spoken
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
    texts = [spoken(one).casefold() for one in (value if isinstance(value, list) else [value])]
    return any(fnmatchcase(text.strip(), glob.casefold()) for text in texts for glob in globs)


def _surely_is(value: Any, globs: Sequence[str]) -> bool:
    if value is None:
        return False
    texts = [spoken(one) for one in (value if isinstance(value, list) else [value])]
    return bool(texts) and all(
        text.isprintable() and any(fnmatchcase(text, glob) for glob in globs) for text in texts
    )


__all__ = ["WITHIN", "Terms", "may_need", "terms_for"]
