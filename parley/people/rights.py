"""Rights: who may run what, where and when. The same question gets the same answer. What no rule allows is denied.

What the roles are, and which of their rules matches, is the policy's matter (parley.people.policy); what does not
depend on roles is decided here: whether somebody is known, how surely, and what they have to be asked for besides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from parley.messages.model import Assurance
from parley.people.policy import Asked, Policy, Verdict
from parley.people.principals import Principal, Role
from parley.people.roles import Conditions
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

    `approval`: they may ask for it, and it runs once others have approved it. `rule`: the line of the policy that
    decided, `ROLE` or `ROLE, deny N`. `barred`: it was one that denies, so that nothing approved beforehand helps.
    """

    allowed: bool
    reason: str
    confirm: bool = False
    approval: bool = False
    rule: str = ""
    barred: bool = False


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
    "dangerous-role": (
        "{name} can do harm: your role may not even ask for it.",
        "{name} 有风险，您的角色不能申请运行。",
    ),
    "denied": (
        "{name}: the role {role} forbids this ({rule}).",
        "{name}：角色 {role} 禁止此操作（{rule}）。",
    ),
    "parameters": (
        "{name}: the role {role} allows only these values: {what}.",
        "{name}：角色 {role} 只允许这些参数值：{what}。",
    ),
    "place": (
        "{name}: the role {role} counts only in {what}.",
        "{name}：角色 {role} 仅在以下位置有效：{what}。",
    ),
    "time": (
        "{name}: the role {role} counts only at these times: {what}.",
        "{name}：角色 {role} 仅在以下时间有效：{what}。",
    ),
    "write": (
        "{name} changes something; your role may only look things up.",
        "{name} 会做出更改，而您的角色只能查询。",
    ),
}


class Rights:
    """Answers by the policy that is in force."""

    def __init__(self, policy: Callable[[], Policy]) -> None:
        self._policy = policy

    @property
    def policy(self) -> Policy:
        """The policy that is in force."""
        return self._policy()

    def allows(
        self,
        principal: Principal | None,
        effect: Effect,
        automation: str,
        origin: Origin,
        assurance: Assurance,
        language: str = "en",
        *,
        values: Mapping[str, Any] | None = None,
        place: str | None = None,
        at: datetime | None = None,
        approvals: bool = False,
    ) -> Decision:
        """Whether `principal` (None: a sender who is linked to nobody) may run `automation`, which has this effect.

        `assurance` is `Link.assurance` of the sender, or VERIFIED where a token or a grant names the principal.
        `values` come from `roles.meant`; without them the question is whether it may be asked for with any. `place` is
        `account:conversation`, None where nobody asked anywhere; `at` is now. Ask when the request is made and again
        when it starts. `approvals`: the caller has what is dangerous wait for an approval, so that more people may ask
        for it; without it only the owner may run it.
        """
        moment = at or datetime.now(UTC)
        asked = Asked(effect=effect, automation=automation, values=values, place=place, at=moment)
        denied, verdict = self._denial(principal, asked, assurance, approvals=approvals)
        if denied:
            reason = self._say(denied, verdict, automation, language)
            return Decision(allowed=False, reason=reason, rule=verdict.line, barred=verdict.denied)
        read = origin is Origin.LANGUAGE and effect is not Effect.READ
        waits = approvals and effect is Effect.DANGEROUS
        key = "approval" if waits else "confirm" if read else "allowed"
        reason = self._say(key, verdict, automation, language)
        return Decision(allowed=True, reason=reason, confirm=read, approval=waits, rule=verdict.line)

    def may_approve(
        self, principal: Principal, automation: str, *, place: str | None = None, at: datetime | None = None
    ) -> bool:
        """Whether one of their roles approves runs of this automation; the owner's approves all."""
        moment = at or datetime.now(UTC)
        return principal.enabled and self._policy().approves(_roles(principal), automation, place, moment)

    def holds(
        self,
        principal: Principal,
        roles: Collection[str],
        automation: str,
        *,
        place: str | None = None,
        at: datetime | None = None,
    ) -> bool:
        """Whether one of these roles, which a rule names, is theirs here and now, for this automation."""
        own = principal.role is Role.OWNER or _is_own(principal, automation)
        theirs = (*([principal.role.value] if own else []), *principal.roles)
        held = [role for role in theirs if role in roles]
        return principal.enabled and self._policy().holds(held, place, at or datetime.now(UTC))

    def sort(self, principal: Principal, assurance: Assurance, place: str | None) -> tuple[object, ...]:
        """What the answers depend on besides the automation: the same for many people, for as long as it holds."""
        policy = self._policy()
        lines = policy.sort(_roles(principal), place, datetime.now(UTC))
        return (policy, principal.role, principal.enabled, principal.automations, lines, assurance)

    def kind(self, principal: Principal, automation: str) -> tuple[object, ...]:
        """What the answers depend on of the automation's name: the same for many of them."""
        return (self._policy().kind(_roles(principal), automation), _is_own(principal, automation))

    def _denial(
        self, principal: Principal | None, asked: Asked, assurance: Assurance, *, approvals: bool
    ) -> tuple[str | None, Verdict]:
        """The key of the reason against it, or None, and what the policy says. The most telling reason comes first."""
        nothing = Verdict(allowed=False)
        if principal is None:
            return "stranger", nothing
        if not principal.enabled:
            return "disabled", nothing
        policy, roles = self._policy(), _roles(principal)
        verdict = policy.decide(_concerned(principal, asked.automation), asked)
        if verdict.denied:
            return "denied", verdict
        if not any(table.may for role in roles if (table := policy.table(role))):
            return "role", nothing
        if asked.effect is Effect.DANGEROUS and not approvals and principal.role is not Role.OWNER:
            return "dangerous", nothing
        if not verdict.allowed:
            return _why_not(verdict, asked), verdict
        if assurance is not Assurance.VERIFIED and asked.effect is not Effect.READ:
            return "claimed", verdict
        return None, verdict

    def _say(self, key: str, verdict: Verdict, automation: str, language: str) -> str:
        chinese = language.lower().startswith("zh")
        line = self._policy().line(verdict.line)
        role, _, rule = verdict.line.partition(", ")
        what = _spoken(key, line) if line else ""
        return _REASONS[key][chinese].format(name=automation, role=role, rule=rule, what=what)


def _roles(principal: Principal) -> tuple[str, ...]:
    # Whatever else the owner is given takes nothing away.
    if principal.role is Role.OWNER:
        return (Role.OWNER.value,)
    return (principal.role.value, *principal.roles)


def _is_own(principal: Principal, automation: str) -> bool:
    return not principal.automations or any(fnmatchcase(automation, glob) for glob in principal.automations)


def _concerned(principal: Principal, automation: str) -> tuple[str, ...]:
    # Their own globs narrow the built-in role; what a role of the file gives comes besides.
    roles = _roles(principal)
    return roles if _is_own(principal, automation) else roles[1:]


def _why_not(verdict: Verdict, asked: Asked) -> str:
    if verdict.missing == "effect":
        return "dangerous-role" if asked.effect is Effect.DANGEROUS else "write"
    return {"parameters": "parameters", "place": "place", "time": "time"}.get(verdict.missing, "glob")


def _spoken(key: str, line: Conditions) -> str:
    if key == "parameters":
        return "; ".join(f"{name} = {', '.join(globs)}" for name, globs in line.parameters.items())
    if key == "place":
        return ", ".join((*line.accounts, *line.conversations))
    zone = f"({line.time_zone})" if line.time_zone else ""
    return " ".join(part for part in (", ".join(line.days), ", ".join(line.hours), zone) if part)


__all__ = ["Decision", "Origin", "Rights"]
