"""A row of build/bench.json, and the few statistics that stand behind one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. `ratio` says how many times better ours is than theirs; below 1 it is worse.

    `peer` is what ran beside it in the same run, None where nothing comparable exists. `n` counts measurements.
    """

    name: str
    unit: str
    ours: float
    n: int
    peer: str | None = None
    theirs: float | None = None
    ratio: float | None = None
    conditions: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The row as build/bench.json has it."""
        order = ("name", "unit", "ours", "peer", "theirs", "ratio", "n", "conditions")
        values = asdict(self)
        return {name: _short(values[name]) for name in order}


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of them do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, -(-round(share * 1000) * len(ranked) // 1000) - 1)]


def scaled(usual: int, effort: float, least: int = 1) -> int:
    """How often to measure when only a share of the usual effort is wanted."""
    return max(least, round(usual * effort))


def write(rows: Sequence[Row], path: Path) -> None:
    """Replace the file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def table(rows: Sequence[Row]) -> str:
    """The rows for people."""
    lines = [("name", "ours", "unit", "theirs", "ratio", "n", "beside")]
    lines += [
        (
            row.name,
            _number(row.ours),
            row.unit,
            _number(row.theirs),
            _number(row.ratio),
            str(row.n),
            row.peer or "-",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    right = (1, 3, 4, 5)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if value < 1000 else f"{value:.0f}"
