"""A picture as SVG text, by hand: readable on a light and on a dark page, and the same text for the same figures.

It brings its own background, and both sets of colours: the viewer's system says which one holds. Series differ by their
dashes and marks as well as by colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, Literal

WIDTH: Final = 760
SERIES: Final = 8
"""How many can be told apart."""

Anchor = Literal["start", "middle", "end"]

_LIGHT: Final = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#9a6700", "#0a7a8a", "#a40e5c", "#57606a")
_DARK: Final = ("#58a6ff", "#f0883e", "#3fb950", "#bc8cff", "#d29922", "#39c5cf", "#ff80bf", "#8b949e")
_DASHES: Final = ("none", "7 4", "2 3", "10 3 2 3", "5 2", "1 2", "12 4", "4 6")
_INK: Final = {"light": ("#ffffff", "#1f2328", "#59636e", "#d1d9e0", "#cf222e")}
_INK_DARK: Final = ("#0d1117", "#e6edf3", "#9198a1", "#30363d", "#ff7b72")


def _style() -> str:
    def colours(ink: Sequence[str], series: Sequence[str]) -> str:
        paper, text, soft, grid, goal = ink
        return (
            f".paper{{fill:{paper}}}.text{{fill:{text}}}.soft{{fill:{soft}}}.grid{{stroke:{grid}}}"
            f".goal{{stroke:{goal}}}.goal-text{{fill:{goal}}}.edge{{stroke:{paper}}}"
            + "".join(f".f{n}{{fill:{c}}}.s{n}{{stroke:{c}}}" for n, c in enumerate(series))
        )

    dashes = "".join(f".d{n}{{stroke-dasharray:{dash}}}" for n, dash in enumerate(_DASHES))
    return (
        "text{font:12px system-ui,sans-serif}.title{font-size:16px;font-weight:600}"
        ".line{fill:none;stroke-width:2}.line-mark{stroke-width:2}.grid{stroke-width:1}"
        ".goal{stroke-width:1.5;stroke-dasharray:6 3}"
        f"{dashes}{colours(_INK['light'], _LIGHT)}"
        f"@media(prefers-color-scheme:dark){{{colours(_INK_DARK, _DARK)}}}"
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a value is, in pixels. `log` has powers of ten at equal distances; values below `low` are at `low`."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False
    step: float = 0.0
    """From one tick to the next; a round one is chosen without."""

    def at(self, value: float) -> float:
        """Its pixel."""
        inside = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(inside / self.low) / math.log(self.high / self.low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Round values to write at the axis."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            return [10.0**n for n in range(first, last + 1) if self.low <= 10.0**n <= self.high]
        step = self.step or _step((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def linear(most: float, begin: float, end: float) -> Scale:
    """From nothing to a round value beyond `most`."""
    step = _step(max(most, 1e-9) / 5)
    return Scale(0.0, math.ceil(most * 1.05 / step) * step, begin, end, step=step)


def logarithmic(least: float, most: float, begin: float, end: float) -> Scale:
    """From a power of ten to a power of ten."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return Scale(10.0**low, 10.0 ** max(high, low + 1), begin, end, log=True)


def _step(about: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(about))
    return next(power * factor for factor in (1.0, 2.0, 5.0, 10.0) if power * factor >= about * 0.999)


def number(value: float) -> str:
    """Short, for people."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class Drawing:
    """One picture; coordinates in pixels from the top left."""

    def __init__(self, title: str, about: str, height: int) -> None:
        self.height = height
        self._title = title
        self._about = about
        self._parts: list[str] = []
        self.text(16, 26, title, "text title")
        self.text(16, 45, about, "soft")

    def text(self, x: float, y: float, what: str, kind: str = "text", anchor: Anchor = "start") -> None:
        """A line of text; `y` is its base line."""
        place = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self._parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{place}>{escape(what)}</text>')

    def upright(self, x: float, y: float, what: str) -> None:
        """A line of text from below to above, its middle there."""
        place = f'text-anchor="middle" transform="rotate(-90 {x:.1f} {y:.1f})"'
        self._parts.append(f'<text class="soft" x="{x:.1f}" y="{y:.1f}" {place}>{escape(what)}</text>')

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """From point to point."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline class="{kind}" points="{path}" fill="none"/>')

    def bar(self, x: float, y: float, width: float, height: float, series: int) -> None:
        """A filled box."""
        place = f'x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}"'
        self._parts.append(f'<rect class="f{series % SERIES} edge" {place}/>')

    def mark(self, x: float, y: float, series: int, *, hollow: bool = False) -> None:
        """A point; of each series its own form."""
        look = f"s{series % SERIES} paper line-mark" if hollow else f"f{series % SERIES} edge"
        if series % 2:
            self._parts.append(f'<rect class="{look}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>')
        else:
            self._parts.append(f'<circle class="{look}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')

    def svg(self) -> str:
        """The whole text."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH}" '
            f'height="{self.height}" role="img">\n'
            f"<title>{escape(self._title)}</title>\n<desc>{escape(self._about)}</desc>\n"
            f"<style>{_style()}</style>\n"
            f'<rect class="paper" width="{WIDTH}" height="{self.height}" rx="6"/>\n'
            + "\n".join(self._parts)
            + "\n</svg>\n"
        )
