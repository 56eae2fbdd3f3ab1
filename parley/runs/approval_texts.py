"""What people read of approvals, in English and Chinese."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from parley.errors import BadArguments
from parley.language.asking import SEALED
from parley.language.characters import visible
from parley.language.command_line import command_line
from parley.language.schemas import written
from parley.messages.model import now
from parley.people.approvals import Word
from parley.runs.catalogue import AutomationSpec

SHOWN: Final = 1000
"""Characters of one value, or of the whole command, that are shown; what is longer says that it is."""

MOST_NAMES: Final = 6

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "waits": (
        "Waits for approval by {needed} of: {who} (not you). Code `{code}`. Ends at {until}.",
        "等待以下人员中 {needed} 人批准：{who}（您本人除外）。代码 `{code}`，{until} 截止。",
    ),
    "waits-alone": (
        "There is nobody else who could approve this. If you mean it, write `/approve {code}`. Ends at {until}.",
        "没有其他人可以批准此操作。如确认执行，请发送 `/approve {code}`。{until} 截止。",
    ),
    "asks": ("**{name} asks**: {what}", "**{name} 请求执行**：{what}"),
    "harm": (" - may do harm", "（有风险）"),
    "changes": (" - changes something", "（会做出更改）"),
    "reads": ("", ""),
    "decide": (
        "`/approve {code}` or `/refuse {code} why`. Ends at {until}.",
        "请发送 `/approve {code}` 批准，或 `/refuse {code} 原因` 拒绝。{until} 截止。",
    ),
    "needs-more": ("It needs {needed} of: {who}.", "需要以下人员中 {needed} 人批准：{who}。"),
    "approve": ("Approve", "批准"),
    "refuse": ("Refuse", "拒绝"),
    "in-place": ("{name} (for {lenders})", "{name}（代 {lenders}）"),
    "or": (" or ", "或"),
    "more-names": ("{count} more", "另有 {count} 人"),
    "cut": ("… ({length} characters, the beginning is shown)", "……（共 {length} 个字符，只显示开头）"),
    "progress": ("{count} of {needed}: approved by {names}", "{needed} 人中已有 {count} 人批准：{names}"),
    "granted": ("approved by {names} {at}", "{names} 于 {at} 批准"),
    "granted-alone": ("confirmed by {names} {at}, no second person", "{names} 于 {at} 确认，没有第二人批准"),
    "refused": ("refused by {names} {at}", "{names} 于 {at} 拒绝"),
    "refused-why": ("refused by {names} {at}: {reason}", "{names} 于 {at} 拒绝：{reason}"),
    "expired": ("expired, not approved in time", "已过期，未在期限内获得批准"),
    "withdrawn": ("withdrawn by {names} {at}", "{names} 于 {at} 撤回"),
    "left": ("not run: {names}, who asked for it, is no longer here", "未运行：提出请求的 {names} 已离开"),
    "not-yours": ("this no longer waits for you", "此请求不再由您处理"),
    "counts-no-more": (
        "{count} of {needed}: {names} is no longer here, and no longer counts",
        "{needed} 人中已有 {count} 人批准：{names} 已离开，不再计入",
    ),
    "void": (
        "void: what it would run has changed since it was asked",
        "已作废：提出请求之后，所运行的内容已变更",
    ),
    "over": ("`/{command}` ({code}): {outcome}.", "`/{command}`（{code}）：{outcome}。"),
    "not-in-time": (
        "`/{command}` was not approved in time and is not run ({code}).",
        "`/{command}` 未在期限内获得批准，没有运行（{code}）。",
    ),
    # what who votes is told
    "unknown": ("Nothing waits for approval with the code `{code}`.", "没有代码为 `{code}` 的待批准请求。"),
    "own": (
        "This is your own request: somebody else has to approve it. `/cancel {request}` withdraws it.",
        "这是您自己的请求，必须由他人批准。`/cancel {request}` 可撤回。",
    ),
    "alone-typed": (
        "Nobody else could approve this, so it has to be typed: `/approve {code}`.",
        "没有其他人可以批准，请手动输入 `/approve {code}` 确认。",
    ),
    "may-not": ("You may not approve this. {who} may.", "您不能批准此请求。可以批准的人：{who}。"),
    "may-not-any": ("You may not approve this.", "您不能批准此请求。"),
    "unproven": (
        "Approvals count only where the platform vouches for who is writing, and never in somebody else's name.",
        "只有在能够证明身份的渠道中、以本人名义做出的批准才有效。",
    ),
    "counted": (
        "Your approval counts: {count} of {needed} for `/{command}` ({code}).",
        "您的批准已计入：`/{command}`（{code}）{needed} 人中已有 {count} 人批准。",
    ),
    "counted-before": ("You have approved this already ({code}).", "您已经批准过（{code}）。"),
    "let-go": (
        "Approved: `/{command}` of {name} runs now ({code}).",
        "已批准：{name} 的 `/{command}` 即将运行（{code}）。",
    ),
    "let-go-alone": (
        "Confirmed: `/{command}` runs now ({code}).",
        "已确认：`/{command}` 即将运行（{code}）。",
    ),
    "ended": (
        "Refused: `/{command}` of {name} is not run ({code}).",
        "已拒绝：{name} 的 `/{command}` 不会运行（{code}）。",
    ),
    # what who asks is told
    "nobody": (
        "`/{command}` needs an approval, and nobody could give it: {needed} wanted, {there} there.",
        "`/{command}` 需要批准，但没有人可以批准：需要 {needed} 人，现有 {there} 人。",
    ),
    "frozen": ("`/{command}` is locked by {by}.", "`/{command}` 已被 {by} 锁定。"),
    "frozen-until": (
        "`/{command}` is locked by {by} until {until}.",
        "`/{command}` 已被 {by} 锁定至 {until}。",
    ),
    "missing": (
        "`/{command}` needs an approval, and this request has none: ask for it again.",
        "`/{command}` 需要批准，而此请求没有获得批准：请重新提出。",
    ),
    "changed": (
        "What `/{command}` runs has changed since it was approved, so it is not run: ask for it again.",
        "批准之后 `/{command}` 所运行的内容已变更，因此没有运行：请重新提出。",
    ),
    "used": (
        "The approval of `/{command}` was for one run, which it has had: ask for it again.",
        "`/{command}` 的批准只对一次运行有效，已经用过：请重新提出。",
    ),
    "lost-right": (
        "Who approved `/{command}` may no longer do so, so it is not run: ask for it again.",
        "批准 `/{command}` 的人已不再有此权利，因此没有运行：请重新提出。",
    ),
}


def say(key: str, language: str | None, /, **values: object) -> str:
    """One sentence in this language; English where there is no other."""
    return _TEXTS[key][language == "zh"].format(**values)


def what(spec: AutomationSpec, values: Mapping[str, Any], language: str) -> str:
    """The command that would run, all of it as far as it can be shown, and what it may do."""
    given = {name: value for name, value in values.items() if name not in spec.sealed_names}
    try:
        line = command_line(spec, given)
    except BadArguments:
        line = " ".join((f"/{spec.command}", *(f"{name}={written(value)}" for name, value in given.items())))
    hidden = [f"{name}={SEALED}" for name in values if name in spec.sealed_names]
    line = " ".join((line, *hidden))
    cut = say("cut", language, length=len(line)) if len(line) > SHOWN else ""
    effect = {"dangerous": "harm", "write": "changes"}.get(spec.effect.value, "reads")
    return f"`{visible(line, SHOWN)}`{cut}{say(effect, language)}"


def names(some: Iterable[str], language: str) -> str:
    """Names, not more than can be read."""
    listed = list(some)
    shown = listed[:MOST_NAMES]
    if len(listed) > len(shown):
        shown.append(say("more-names", language, count=len(listed) - len(shown)))
    return ("、" if language == "zh" else ", ").join(shown)


def spoken(word: Word, language: str) -> str:
    """Whose word it is, and in whose place it was said; one of them where several had lent their right."""
    if not word.lent_by:
        return word.name
    return say("in-place", language, name=word.name, lenders=say("or", language).join(word.lent_by))


def clock(at: datetime, time_zone: str) -> str:
    """A time of day as people there read it, with the day where it is another one."""
    zone = ZoneInfo(time_zone)
    local = at.astimezone(zone)
    day = "" if local.date() == now().astimezone(zone).date() else f"{local:%Y-%m-%d} "
    return f"{day}{local:%H:%M}" + (" UTC" if time_zone == "UTC" else f" ({local.tzname()})")


__all__ = ["SHOWN", "clock", "names", "say", "spoken", "what"]
