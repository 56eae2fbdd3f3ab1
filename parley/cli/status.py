"""`parley status` for people, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from parley.cli.terminal import print_table, say, size

WIDE: Final = 80
_LONGEST: Final = 24

Row = Mapping[str, Any]


def print_status(data: Mapping[str, Any]) -> None:
    """Processes, accounts, how long things took lately, and what they wait for."""
    print_table(_together(data["processes"]), ("role", "pid", "pss_mb", "state"), nothing="no processes.")
    say()
    print_table(_fitting(data["accounts"]), ("name", "platform", "state", "reason"), nothing="no accounts.")
    say()
    if "stations" in data:
        _print_stations(data["stations"])
        say()
    for line in _lines(data):
        say(line)


def _print_stations(stations: Row) -> None:
    say(
        f"the last {stations['minutes']:g} minutes: {stations['ended']} runs ended, {stations['failed']} failed"
        + (" (of the newest; there were more)" if stations.get("more") else "")
    )
    if not stations["ended"]:
        return
    legs = [
        {
            "station": leg,
            "runs": one["n"],
            "half_within": _ms(one["p50_ms"]),
            "95 % within": _ms(one["p95_ms"]),
        }
        for leg, one in stations["legs"].items()
    ]
    print_table(legs, ("station", "runs", "half_within", "95 % within"), nothing="")
    say()
    commands = [_command(one) for one in stations["commands"]]
    print_table(
        commands, ("command", "ended", "failed", "half_within", "95 % within", "most_of_it"), nothing=""
    )


def _command(one: Row) -> dict[str, Any]:
    whole = one["legs"].get("whole") or {}
    legs = {leg: found["p50_ms"] for leg, found in one["legs"].items() if leg != "whole"}
    most = max(legs, key=lambda leg: legs[leg], default=None)
    return {
        "command": _cut(f"/{one['command']}", _LONGEST),
        "ended": one["ended"],
        "failed": one["failed"],
        "half_within": _ms(whole.get("p50_ms")),
        "95 % within": _ms(whole.get("p95_ms")),
        "most_of_it": f"{most} {_ms(legs[most])}" if most else None,
    }


def _lines(data: Mapping[str, Any]) -> Iterable[str]:
    queue = data["queue"]
    lanes = ", ".join(f"{lane} {count}" for lane, count in queue.get("lanes", {}).items() if count)
    told = [
        f"{name} {value}" + (f" ({lanes})" if name == "waiting" and lanes else "")
        for name, value in queue.items()
        if isinstance(value, int)
    ]
    yield from _wrapped("queue: ", told)
    if children := data.get("children"):
        yield from _wrapped("children: ", [f"{state} {count}" for state, count in children.items()])
    if prefect := data.get("prefect"):
        answers = f"answers in {_ms(prefect.get('ms'))}" if prefect["reachable"] else "does not answer"
        yield f"prefect: {prefect['url']} {answers}"
    if disk := data.get("disk"):
        free, total = size(disk["free_bytes"]), size(disk["total_bytes"])
        yield f"disk: store {size(disk['store_bytes'])}, {free} free of {total}"
    for one in data.get("certificates", ()):
        yield f"certificate of {one['port']}: {one['days']} days" + (", renew it now" if one["soon"] else "")
    if "configuration" in data:
        yield f"parley.toml: {data['configuration']}"


def _wrapped(title: str, parts: Sequence[str]) -> Iterable[str]:
    line = title
    for number, part in enumerate(parts):
        piece = part + ("," if number + 1 < len(parts) else "")
        if len(line) + len(piece) > WIDE and line.strip():
            yield line.rstrip()
            line = " " * len(title)
        line += piece + " "
    yield line.rstrip()


def _together(processes: Sequence[Row]) -> list[Row]:
    """Children in one row: a busy worker has many, and what matters of them is their number and their memory."""
    children = [one for one in processes if one["role"] == "child"]
    if len(children) < 2:
        return list(processes)
    memory = sum(one["pss_mb"] or 0 for one in children)
    row = {"role": f"child x{len(children)}", "pss_mb": round(memory, 1), "state": children[0]["state"]}
    return [*(one for one in processes if one["role"] != "child"), row]


def _fitting(accounts: Sequence[Row]) -> list[Row]:
    rows = [{**one, "name": _cut(one["name"], _LONGEST)} for one in accounts]
    taken = sum(
        2 + max([len(column), *(len(str(one.get(column) or "-")) for one in rows)])
        for column in ("name", "platform", "state")
    )
    return [{**one, "reason": _cut(str(one.get("reason") or ""), max(6, WIDE - taken))} for one in rows]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _ms(milliseconds: float | None) -> str | None:
    if milliseconds is None:
        return None
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"
