"""`python -m benchmarks.plots`: pictures of what was measured, for docs/benchmarks.md, from what build/ has of it.

A picture is only made of rows that are there: each says on which run it stands. A file that is made replaces the one
in docs/plots/; the others stay as they are, and where there is none yet, one says that. The same figures make the same
text, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.charts import Goal, Words, lines, points, stacked
from benchmarks.drawing import Drawing
from tests.stack import ROOT

Rows = Mapping[str, Mapping[str, Any]]
"""By name, as build/bench.json or build/faults.json has them."""

ANSWER_MS, CONNECTOR_RATIO, ACKNOWLEDGED_MS, BACK_SECONDS = 480.0, 0.77, 200.0, 60.0


class NotMeasured(Exception):
    """The rows behind a picture are not there; the text names them."""


def case_latency(bench: Rows) -> str:
    """How long answers took in each minute of the case, by platform."""
    row = _row(bench, "case.answer_p95_ms")
    return lines(
        Words(
            "The case: 95 of 100 answers came within",
            _about(row, "messages"),
            "minute of the run: 2.4 hours of the day that is squeezed into it",
            "milliseconds",
        ),
        _conditions(row, "p95_ms_by_minute_of"),
        Goal(ANSWER_MS, f"goal: {ANSWER_MS:g} ms"),
    )


def case_stations(bench: Rows) -> str:
    """Where a message is how long, by platform."""
    row = _row(bench, "case.answer_p50_ms")
    stations: Mapping[str, Mapping[str, Sequence[float]]] = _conditions(row, "stations_ms")
    return stacked(
        Words(
            "The case: the way of a message, station by station",
            f"medians of each leg; {_about(row, 'messages')}",
            "milliseconds from received to delivered",
        ),
        {
            account: {leg: median for leg, (median, _) in legs.items()}
            for account, legs in sorted(stations.items())
        },
        Goal(ANSWER_MS, f"goal of the whole: {ANSWER_MS:g} ms"),
    )


def connectors(bench: Rows) -> str:
    """Each connector beside the SDK that somebody would take instead."""
    found = {
        name.split(".")[1]: row
        for name, row in bench.items()
        if name.startswith("connector.") and row["ratio"] is not None
    }
    if not found:
        raise NotMeasured("connector.*")
    first = next(iter(found.values()))
    return points(
        Words(
            "Connectors beside the vendor's SDK alone",
            f"1 is as fast as the SDK, more is faster; {_about(first, 'events each')}",
            "times as many events (by the clock), times as little processor (by processor)",
        ),
        {
            name: {
                "by processor": [float(row["conditions"]["processor_ratio"])],
                "by the clock": [float(row["ratio"])],
            }
            for name, row in found.items()
        },
        Goal(CONNECTOR_RATIO, f"goal: {CONNECTOR_RATIO:g}"),
    )


def burst(bench: Rows) -> str:
    """How long messages of a peak waited to be acknowledged, by the second in which they came."""
    row = _row(bench, "burst.ack_p99_ms")
    conditions = row["conditions"]
    series = {"ours, on disk": _conditions(row, "ack_p99_ms_by_second")}
    if "theirs" in conditions:
        series["an endpoint with run_deployment()"] = conditions["theirs"]["ack_p99_ms_by_second"]
    rate = conditions["rate_per_s"]
    return lines(
        Words(
            f"A peak of {rate:g} messages a second: 99 of 100 were acknowledged within",
            _about(row, "messages"),
            "second of the peak in which they came",
            "milliseconds",
        ),
        series,
        Goal(ACKNOWLEDGED_MS, f"goal: {ACKNOWLEDGED_MS:g} ms"),
        log=True,
    )


def recovery(faults: Rows) -> str:
    """How long it took after each kill until the killed process had a successor and everything was ready."""
    found: dict[str, list[float]] = {}
    runs = [row for name, row in faults.items() if name.startswith("kills.")]
    for row in runs:
        for part in ("rest", "platforms"):
            for role, seconds in row.get(part, {}).get("seconds_to_be_back", {}).items():
                found.setdefault(role, []).extend(seconds)
    if not found:
        raise NotMeasured("kills.*, seconds_to_be_back")
    kills = sum(len(seconds) for seconds in found.values())
    days = ", ".join(sorted({row["at"][:10] for row in runs}))
    return points(
        Words(
            "After kill -9: ready again within",
            f"{kills} kills while people wrote, {days}",
            "seconds from the kill until its successor and all others are ready",
        ),
        {role: {"a kill": seconds} for role, seconds in sorted(found.items())},
        Goal(BACK_SECONDS, f"goal: {BACK_SECONDS:g} s"),
    )


OF_BENCH: Final[Mapping[str, Callable[[Rows], str]]] = {
    "case-latency": case_latency,
    "case-stations": case_stations,
    "connectors": connectors,
    "burst": burst,
}
OF_FAULTS: Final[Mapping[str, Callable[[Rows], str]]] = {"recovery": recovery}


def main(arguments: list[str] | None = None) -> int:
    """Draw what can be drawn; 1 when that is nothing."""
    options = _options(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for pictures, path in ((OF_BENCH, options.bench), (OF_FAULTS, options.faults)):
        rows = _read(path)
        for name, draw in pictures.items():
            file = options.out / f"{name}.svg"
            try:
                file.write_text(draw(rows), encoding="utf-8")
                drawn += 1
            except NotMeasured as error:
                sys.stderr.write(f"{name}: not drawn, {path} has no {error}\n")
                if not file.exists():
                    file.write_text(_not_yet(draw), encoding="utf-8")
    return 0 if drawn else 1


def _not_yet(draw: Callable[[Rows], str]) -> str:
    title = (draw.__doc__ or "").strip().rstrip(".")
    return Drawing(title, "Not measured yet: make bench and make faults, then make plots.", 64).svg()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description="Draw what was measured.")
    parser.add_argument("--bench", type=Path, default=ROOT / "build" / "bench.json")
    parser.add_argument("--faults", type=Path, default=ROOT / "build" / "faults.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "plots")
    return parser.parse_args(arguments)


def _read(path: Path) -> Rows:
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {row["name"]: row for row in rows}


def _row(rows: Rows, name: str) -> Mapping[str, Any]:
    if name not in rows:
        raise NotMeasured(name)
    return rows[name]


def _conditions(row: Mapping[str, Any], name: str) -> Any:
    if not (value := row["conditions"].get(name)):
        raise NotMeasured(f"{row['name']} with {name}")
    return value


def _about(row: Mapping[str, Any], what: str) -> str:
    """On how many and on what machine: figures of a busy one are no promise."""
    machine = row["conditions"]["machine"]
    return f"{row['n']:,} {what}; other programs took {machine['others_cores']:g} of {machine['cores']} cores"


if __name__ == "__main__":
    sys.exit(main())
