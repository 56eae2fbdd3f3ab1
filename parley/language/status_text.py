"""`/status` in a chat: how the installation is, in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from parley.language.characters import Language

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "accounts": ("accounts", "账号"),
    "queue": (
        "waiting {waiting}, running {running}, undelivered {undelivered}",
        "排队 {waiting}，运行中 {running}，待送达 {undelivered}",
    ),
    "nothing-ended": (
        "nothing was run in the last {minutes:g} minutes",
        "最近 {minutes:g} 分钟没有运行过任何操作",
    ),
    "ended": (
        "the last {minutes:g} minutes: {ended} runs, {failed} failed",
        "最近 {minutes:g} 分钟：运行 {ended} 次，失败 {failed} 次",
    ),
    "ended-more": (
        "the newest of the last {minutes:g} minutes: {ended} runs, {failed} failed",
        "最近 {minutes:g} 分钟中最新的：运行 {ended} 次，失败 {failed} 次",
    ),
    "whole": ("half answered within {p50}, 95 % within {p95}", "半数在 {p50} 内答复，95 % 在 {p95} 内"),
    "slowest": ("most of it: {leg} {p50}", "耗时最多的环节：{leg} {p50}"),
    "busiest": ("busiest: {commands}", "最常用：{commands}"),
    "locked": ("locked: {what}; `/lock` says why", "已锁定：{what}；`/lock` 会说明原因"),
    "dead": ("{count} dead letters: `/dlq list`", "{count} 封死信：`/dlq list`"),
    "certificate": (
        "the certificate of {port} ends in {days} days",
        "{port} 的证书还有 {days} 天到期",
    ),
    "certificate-ended": ("the certificate of {port} has ended", "{port} 的证书已到期"),
    "children": ("children: {busy} busy, {warm} warm", "子进程：{busy} 忙，{warm} 待命"),
    "prefect": ("Prefect does not answer", "Prefect 没有响应"),
    "disk": ("disk: {free} GB free", "磁盘剩余 {free} GB"),
}

_LEGS: Final[Mapping[str, str]] = {
    "understood": "理解",
    "allowed": "许可",
    "started": "启动",
    "done": "执行",
    "delivered": "送达",
}

_SHOWN: Final = 3
"""Commands that are named."""


def status_text(status: Mapping[str, Any], language: Language, *, details: bool) -> str:
    """Processes, accounts and queue for everybody who may ask; with `details` how long things take and why."""
    processes, accounts = status["processes"], status["accounts"]
    colon, comma = ("：", "，") if language == "zh" else (": ", ", ")
    shown = comma.join(f"{one['name']} {one['state']}" for one in accounts) or "-"
    lines = [
        f"**parley**{colon}" + comma.join(_counted(processes)),
        f"{_say('accounts', language)}{colon}{shown}",
        _say(
            "queue",
            language,
            **{name: status["queue"][name] for name in ("waiting", "running", "undelivered")},
        ),
    ]
    if locked := status.get("locked"):
        what = comma.join(f"`{one['automations']}` ({one['by']})" for one in locked)
        lines.append(_say("locked", language, what=what))
    if letters := status["queue"].get("dead_letters"):
        lines.append(_say("dead", language, count=letters))
    lines += [
        _say("certificate" if one["days"] >= 0 else "certificate-ended", language, **_place(one))
        for one in status.get("certificates", ())
        if one["soon"]
    ]
    if details:
        lines += _details(status, language)
    return "\n".join(lines)


def _details(status: Mapping[str, Any], language: Language) -> list[str]:
    stations, children, disk = status["stations"], status["children"], status["disk"]
    key = "nothing-ended" if not stations["ended"] else "ended-more" if stations["more"] else "ended"
    lines = [_say(key, language, **_numbers(stations))]
    legs = dict(stations["legs"])
    if whole := legs.pop("whole", None):
        lines.append(_say("whole", language, p50=_time(whole["p50_ms"]), p95=_time(whole["p95_ms"])))
        slowest = max(legs, key=lambda leg: float(legs[leg]["p50_ms"]))
        name = _LEGS[slowest] if language == "zh" else slowest
        lines.append(_say("slowest", language, leg=name, p50=_time(legs[slowest]["p50_ms"])))
    if busiest := stations["commands"][:_SHOWN]:
        named = [f"`/{one['command']}` ×{one['ended']}" for one in busiest]
        lines.append(_say("busiest", language, commands=("，" if language == "zh" else ", ").join(named)))
    if children:
        lines.append(_say("children", language, busy=children.get("busy", 0), warm=children.get("warm", 0)))
    if not status["prefect"]["reachable"]:
        lines.append(_say("prefect", language))
    lines.append(_say("disk", language, free=f"{disk['free_bytes'] / 1e9:.1f}"))
    return lines


def _place(certificate: Mapping[str, Any]) -> dict[str, Any]:
    return {name: certificate[name] for name in ("port", "days")}


def _numbers(stations: Mapping[str, Any]) -> dict[str, Any]:
    return {name: stations[name] for name in ("minutes", "ended", "failed")}


def _say(key: str, language: Language, **values: Any) -> str:
    return _TEXTS[key][language == "zh"].format(**values)


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _counted(processes: Sequence[Mapping[str, Any]]) -> list[str]:
    counts = Counter((one["role"], one["state"]) for one in processes)
    return [
        f"{role} {state}" + (f" ×{count}" if count > 1 else "") for (role, state), count in counts.items()
    ]
