"""Three kinds of charts: lines over a number, and by name stacked bars or points; each with its goal as a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchmarks.drawing import WIDTH, Drawing, Scale, linear, logarithmic, number

LEFT, RIGHT, TOP, BOTTOM = 70.0, WIDTH - 24.0, 92.0, 56.0
NAMES: Final = 150.0
"""Room for names at the left."""

ROW: Final = 34.0
_LETTER: Final = 7.2
"""About how wide one is, in pixels."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A value that is wanted, and what is said beside its line."""

    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Words:
    """What is written: the title, what it was measured on, and what the axes are, with their units."""

    title: str
    about: str
    x: str
    y: str = ""


def lines(
    words: Words,
    series: Mapping[str, Sequence[float | None]],
    goal: Goal,
    *,
    log: bool = False,
) -> str:
    """Each series' values at 0, 1, 2 ...; where one is None, the line has a gap."""
    values = [value for one in series.values() for value in one if value is not None]
    drawing = Drawing(words.title, words.about, 380)
    bottom = drawing.height - BOTTOM
    down = (
        logarithmic(max(1.0, min([*values, goal.value])), max([*values, goal.value]), bottom, TOP)
        if log
        else linear(max([*values, goal.value]), bottom, TOP)
    )
    across = Scale(0.0, max(1.0, max(len(one) for one in series.values()) - 1.0), LEFT, RIGHT)
    for tick in down.ticks():
        drawing.line([(LEFT, down.at(tick)), (RIGHT, down.at(tick))], "grid")
        drawing.text(LEFT - 8, down.at(tick) + 4, number(tick), "soft", "end")
    for tick in across.ticks():
        if tick == int(tick):
            drawing.text(across.at(tick), bottom + 18, number(tick), "soft", "middle")
    drawing.upright(18, (TOP + bottom) / 2, words.y)
    drawing.text((LEFT + RIGHT) / 2, drawing.height - 14, words.x, "soft", "middle")
    drawing.line([(LEFT, down.at(goal.value)), (RIGHT, down.at(goal.value))], "goal")
    drawing.text(RIGHT, down.at(goal.value) - 6, goal.text, "goal-text", "end")
    for place, one in enumerate(series.values()):
        _line(drawing, across, down, one, place)
    _legend(drawing, list(series), form="line")
    return drawing.svg()


def _line(drawing: Drawing, across: Scale, down: Scale, values: Sequence[float | None], series: int) -> None:
    parts: list[list[tuple[float, float]]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            parts.append([])
        else:
            parts[-1].append((across.at(place), down.at(value)))
    for part in parts:
        if len(part) > 1:
            drawing.line(part, f"line s{series} d{series}")
        if len(values) <= 20 or len(part) == 1:
            for x, y in part:
                drawing.mark(x, y, series)


def stacked(words: Words, bars: Mapping[str, Mapping[str, float]], goal: Goal) -> str:
    """A bar for each name, of the same parts in the same order."""
    parts = list(dict.fromkeys(part for bar in bars.values() for part in bar))
    most = max([goal.value, *(sum(bar.values()) for bar in bars.values())])
    drawing, across = _named(words, list(bars), most, goal)
    for row, bar in enumerate(bars.values()):
        begin, y = 0.0, TOP + ROW * row
        for part, value in bar.items():
            width = across.at(begin + value) - across.at(begin)
            drawing.bar(across.at(begin), y + 6, width, ROW - 12, parts.index(part))
            begin += value
        drawing.text(across.at(begin) + 6, y + ROW / 2 + 4, number(begin))
    _legend(drawing, parts, form="box")
    return drawing.svg()


def points(words: Words, rows: Mapping[str, Mapping[str, Sequence[float]]], goal: Goal) -> str:
    """For each name the values of each series as points in a line."""
    series = list(dict.fromkeys(one for row in rows.values() for one in row))
    most = max([goal.value, *(value for row in rows.values() for one in row.values() for value in one)])
    drawing, across = _named(words, list(rows), most, goal)
    for place, row in enumerate(rows.values()):
        y = TOP + ROW * place + ROW / 2
        drawing.line([(NAMES, y), (RIGHT, y)], "grid")
        for name, values in row.items():
            for value in values:
                drawing.mark(across.at(value), y, series.index(name), hollow=series.index(name) > 0)
    if len(series) > 1:
        _legend(drawing, series, form="point")
    return drawing.svg()


def _named(words: Words, names: Sequence[str], most: float, goal: Goal) -> tuple[Drawing, Scale]:
    bottom = TOP + ROW * len(names)
    drawing = Drawing(words.title, words.about, round(bottom + BOTTOM))
    # The sum is written behind a bar, and needs some room there.
    across = linear(most, NAMES, RIGHT - 40)
    for tick in across.ticks():
        drawing.line([(across.at(tick), TOP), (across.at(tick), bottom)], "grid")
        drawing.text(across.at(tick), bottom + 18, number(tick), "soft", "middle")
    for row, name in enumerate(names):
        drawing.text(NAMES - 10, TOP + ROW * row + ROW / 2 + 4, name, "text", "end")
    drawing.text((NAMES + RIGHT) / 2, drawing.height - 14, words.x, "soft", "middle")
    drawing.line([(across.at(goal.value), TOP - 4), (across.at(goal.value), bottom)], "goal")
    drawing.text(across.at(goal.value), TOP - 8, goal.text, "goal-text", "end")
    return drawing, across


def _legend(drawing: Drawing, names: Sequence[str], form: Literal["line", "box", "point"]) -> None:
    x = 16.0
    for series, name in enumerate(names):
        if form == "box":
            drawing.bar(x + 4, 55, 14, 14, series)
        else:
            if form == "line":
                drawing.line([(x, 62), (x + 22, 62)], f"line s{series} d{series}")
            drawing.mark(x + 11, 62, series, hollow=form == "point" and series > 0)
        drawing.text(x + 28, 66, name)
        x += 28 + _LETTER * len(name) + 18
