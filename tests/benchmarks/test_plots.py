"""`python -m benchmarks.plots` draws what was measured, and nothing that was not."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks import drawing, plots
from tests.stack import ROOT

SVG = "{http://www.w3.org/2000/svg}"
SAMPLE: dict[str, list[dict[str, Any]]] = json.loads(
    Path(__file__).with_name("sample.json").read_text(encoding="utf-8")
)
GOALS = {
    "case-latency": "goal: 480 ms",
    "case-stations": "goal of the whole: 480 ms",
    "connectors": "goal: 0.77",
    "burst": "goal: 200 ms",
    "recovery": "goal: 60 s",
}


def draw(folder: Path, **kept: list[dict[str, Any]]) -> tuple[int, dict[str, str]]:
    """The exit code and the pictures."""
    arguments = ["--out", str(folder / "plots")]
    for name in ("bench", "faults"):
        path = folder / f"{name}.json"
        if name in kept:
            path.write_text(json.dumps(kept[name]), encoding="utf-8")
        arguments += [f"--{name}", str(path)]
    code = plots.main(arguments)
    return code, {path.stem: path.read_text() for path in (folder / "plots").iterdir()}


def words(picture: str) -> list[str]:
    """All that is written in it."""
    return [one.text or "" for one in ET.fromstring(picture).iter(f"{SVG}text")]  # noqa: S314 - our own text


def count(picture: str, tag: str, kind: str) -> int:
    """How many of these there are with this class."""
    found = ET.fromstring(picture).iter(f"{SVG}{tag}")  # noqa: S314 - our own text
    return sum(kind in one.get("class", "").split() for one in found)


@pytest.mark.parametrize("name", GOALS)
def test_each_picture_has_a_title_units_its_goal_and_both_sets_of_colours(name: str, tmp_path: Path) -> None:
    code, drawn = draw(tmp_path, **SAMPLE)
    assert code == 0
    assert set(drawn) == set(GOALS)
    picture = drawn[name]
    written = words(picture)
    assert ET.fromstring(picture).findtext(f"{SVG}title") == written[0]  # noqa: S314 - our own text
    assert GOALS[name] in written
    assert any(unit in " ".join(written[2:]) for unit in ("milliseconds", "times as", "seconds from"))
    assert count(picture, "polyline", "goal") == 1
    assert "prefers-color-scheme:dark" in picture
    assert len(picture) < 30_000, "small enough to be kept as text"


def test_a_picture_shows_each_figure_and_a_gap_where_there_is_none(tmp_path: Path) -> None:
    _, drawn = draw(tmp_path, **SAMPLE)
    # Three platforms in ten minutes and the legend, but one minute in which nothing was asked over WeCom.
    marks = count(drawn["case-latency"], "circle", "edge") + count(drawn["case-latency"], "rect", "edge")
    assert marks == 3 * 10 - 1 + 3
    assert count(drawn["case-latency"], "polyline", "line") == 3 + 1 + 3
    assert count(drawn["case-stations"], "rect", "edge") == 3 * 7 + 7
    assert count(drawn["recovery"], "circle", "edge") == 8
    assert {"hub", "prefect", "nursery"} <= set(words(drawn["recovery"]))
    assert {"slack", "xmpp"} <= set(words(drawn["connectors"]))


def test_each_picture_says_on_what_it_stands(tmp_path: Path) -> None:
    _, drawn = draw(tmp_path, **SAMPLE)
    assert "2,000 messages; other programs took 0.08 of 2 cores" in words(drawn["case-latency"])
    assert "8 kills while people wrote, 2026-11-23" in words(drawn["recovery"])


def test_the_same_figures_make_the_same_text(tmp_path: Path) -> None:
    assert draw(tmp_path, **SAMPLE) == draw(tmp_path, **SAMPLE)


def test_what_was_not_measured_is_named_and_its_picture_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "burst.svg").write_text("of before")
    code, drawn = draw(tmp_path, bench=SAMPLE["bench"][:1])
    assert code == 0
    assert drawn["burst"] == "of before"
    assert "goal of the whole: 480 ms" in words(drawn["case-stations"])
    told = capsys.readouterr().err
    assert "case-latency: not drawn" in told
    assert "has no burst.ack_p99_ms" in told
    assert "recovery: not drawn" in told


def test_without_any_figure_it_fails_and_the_pictures_say_that_there_are_none(tmp_path: Path) -> None:
    code, drawn = draw(tmp_path)
    assert code == 1
    assert set(drawn) == set(GOALS)
    for picture in drawn.values():
        assert words(picture)[1].startswith("Not measured yet")
        assert count(picture, "polyline", "goal") == 0


def test_names_are_text_and_no_markup(tmp_path: Path) -> None:
    row = SAMPLE["bench"][2] | {"name": "connector.<b>&.per_s"}
    _, drawn = draw(tmp_path, bench=[row])
    assert "<b>&" in words(drawn["connectors"])


def test_the_pictures_of_the_page_are_those_that_are_drawn() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert {name for name in GOALS if f"(plots/{name}.svg)" in page} == set(GOALS)
    assert {path.stem for path in (ROOT / "docs" / "plots").iterdir()} == set(GOALS)
    assert set(GOALS) == set(plots.OF_BENCH) | set(plots.OF_FAULTS)


@pytest.mark.parametrize(("most", "high"), [(0.9, 1.0), (480.0, 600.0), (63.0, 80.0), (1000.0, 1200.0)])
def test_a_scale_ends_at_a_round_value_beyond_the_most(most: float, high: float) -> None:
    scale = drawing.linear(most, 0.0, 100.0)
    assert scale.high == pytest.approx(high)
    assert scale.at(0.0) == 0.0
    assert scale.at(high) == pytest.approx(100.0)
    assert scale.ticks()[0] == 0.0
    assert scale.ticks()[-1] == pytest.approx(high)


def test_a_logarithmic_scale_has_powers_of_ten_at_equal_distances() -> None:
    scale = drawing.logarithmic(22.0, 33_000.0, 0.0, 40.0)
    assert scale.ticks() == [10.0, 100.0, 1000.0, 10_000.0, 100_000.0]
    assert [scale.at(tick) for tick in scale.ticks()] == pytest.approx([0.0, 10.0, 20.0, 30.0, 40.0])
    assert scale.at(0.0) == 0.0, "what is below is at the end of the axis"
