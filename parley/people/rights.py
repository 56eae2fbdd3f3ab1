"""Rights: who may run what. Pure: the same question gets the same answer. What is not allowed here is denied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from parley.messages.model import Assurance
from parley.people.principals import Principal, Role
from parley.runs.catalogue import Effect


class Origin(StrEnum):
    """What a request came from."""

    COMMAND = "command"
    LANGUAGE = "language"
    REST = "rest"
    SCHEDULE = "schedule"
    PREFECT = "prefect"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` is for the person who asked; `confirm`: allowed, once they say that it is what they meant.

    `approval`: they may ask for it, and it runs once others have approved it.
    """

    allowed: bool
    reason: str
    confirm: bool = False
    approval: bool = False


_MAY: Mapping[Role, frozenset[Effect]] = {
    Role.OWNER: frozenset(Effect),
    Role.OPERATOR: frozenset({Effect.READ, Effect.WRITE}),
    Role.USER: frozenset({Effect.READ}),
    Role.AUDITOR: frozenset(),
    Role.NONE: frozenset(),
}

_MAY_ASK: Mapping[Role, frozenset[Effect]] = {**_MAY, Role.OPERATOR: frozenset(Effect)}

# One row a reason: English, Chinese.
_REASONS: Mapping[str, tuple[str, str]] = {
    "allowed": ("You may run this.", "您可以运行此操作。"),
    "confirm": (
        "This changes something, and I read it out of a sentence: please confirm it first.",
        "此操作会做出更改，而且是从您的话中理解出来的，请先确认。",
    ),
    "approval": (
        "{name} can do harm: it runs once it was approved.",
        "{name} 有风险，获得批准后才会运行。",
    ),
    "stranger": (
        "I do not know you here yet. Ask the owner to link you.",
        "我还不认识您。请联系所有者关联您的账号。",
    ),
    "disabled": (
        "Your access has been switched off. Ask the owner.",
        "您的访问权限已停用。请联系所有者。",
    ),
    "role": (
        "Your role may not run anything. Ask the owner for another one.",
        "您的角色不能运行任何操作。请联系所有者调整。",
    ),
    "glob": (
        "{name} is not among the automations that you may run.",
        "{name} 不在您可以运行的自动化范围内。",
    ),
    "claimed": (
        "This channel cannot prove who you are: it is for looking things up only. Ask the owner to verify the link.",
        "此渠道无法证明您的身份，只能用于查询。请改用其他渠道，或请所有者验证此关联。",
    ),
    "dangerous": (
        "{name} can do harm: only the owner may run it.",
        "{name} 有风险，只有所有者可以运行。",
    ),
    "write": (
        "{name} changes something; your role may only look things up.",
        "{name} 会做出更改，而您的角色只能查询。",
    ),
}


def allows(
    principal: Principal | None,
    effect: Effect,
    automation: str,
    origin: Origin,
    assurance: Assurance,
    language: str = "en",
    *,
    approvals: bool = False,
) -> Decision:
    """Whether `principal` (None: a sender who is linked to nobody) may run `automation`, which has this effect.

    `assurance` is `Link.assurance` of the sender, or VERIFIED where a token or a grant names the principal. Ask when
    the request is made and again when it starts. `approvals`: the caller has what is dangerous wait for an approval, so
    that more people may ask for it; without it only the owner may run it.
    """
    denied = _denial(principal, effect, automation, assurance, approvals=approvals)
    if denied:
        return Decision(allowed=False, reason=_say(denied, automation, language))
    if approvals and effect is Effect.DANGEROUS:
        return Decision(allowed=True, reason=_say("approval", automation, language), approval=True)
    if origin is Origin.LANGUAGE and effect is not Effect.READ:
        return Decision(allowed=True, reason=_say("confirm", automation, language), confirm=True)
    return Decision(allowed=True, reason=_say("allowed", automation, language))


def _denial(
    principal: Principal | None, effect: Effect, automation: str, assurance: Assurance, *, approvals: bool
) -> str | None:
    """The key of the reason against it, or None. The most telling reason comes first."""
    if principal is None:
        return "stranger"
    if not principal.enabled:
        return "disabled"
    allowed = (_MAY_ASK if approvals else _MAY).get(principal.role, frozenset())
    if not allowed:
        return "role"
    if effect not in allowed:
        return "dangerous" if effect is Effect.DANGEROUS else "write"
    if principal.automations and not any(fnmatchcase(automation, glob) for glob in principal.automations):
        return "glob"
    if assurance is not Assurance.VERIFIED and effect is not Effect.READ:
        return "claimed"
    return None


def _say(key: str, automation: str, language: str) -> str:
    english, chinese = _REASONS[key]
    return (chinese if language.lower().startswith("zh") else english).format(name=automation)
