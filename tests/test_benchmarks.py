"""`make bench` keeps the contract of build/bench.json: names, keys, and a peer measured in the same run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as program
from benchmarks.rows import Row, percentile, scaled, table, write
from tests.stack import ROOT

KEYS = ["name", "unit", "ours", "peer", "theirs", "ratio", "n", "conditions"]

NAMES = {
    "answer": ["answer.p50_ms", "answer.p95_ms", "answer.vs_serve"],
    "runs": ["runs.per_s", "runs.vs_plain"],
    "start": ["start.first_answer_s"],
    "memory": ["memory.rest_mb"],
    "accept": ["accept.per_s"],
    "store": ["store.group_commit"],
}


def dry_run(name: str, folder: Path) -> list[dict[str, Any]]:
    """The rows that `make bench ONLY=name` writes with hardly a measurement behind them."""
    out = folder / "bench.json"
    command = [sys.executable, "-m", "benchmarks", "--only", name, "--effort", "0", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(out.read_text())
    assert all(row["name"] in done.stdout for row in rows)
    return rows


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.timeout(620)
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_writes_its_rows_in_the_form_that_was_agreed(name: str, tmp_path: Path) -> None:
    rows = dry_run(name, tmp_path)
    assert [row["name"] for row in rows] == NAMES[name]
    for row in rows:
        assert list(row) == KEYS
        assert row["peer"]
        assert row["ours"] > 0
        assert row["theirs"] > 0
        assert row["ratio"] > 0
        assert row["n"] > 0
        assert {"cores", "load_1m", "others_cores"} <= set(row["conditions"]["machine"])


def test_every_benchmark_is_known_to_this_test() -> None:
    assert list(program.BENCHMARKS) == list(NAMES)


def test_an_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["--only", "answer,speed"])
    assert "there is no benchmark speed" in capsys.readouterr().err


def test_what_could_be_measured_is_written_when_another_benchmark_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: float) -> list[Row]:
        raise AssertionError("no server")

    benchmarks = {"good": lambda effort: [Row(name="good.ms", unit="ms", ours=effort, n=1)], "bad": fails}
    monkeypatch.setattr(program, "BENCHMARKS", benchmarks)
    out = tmp_path / "build" / "bench.json"
    assert program.main(["--only", "bad,good", "--out", str(out), "--effort", "2"]) == 1
    assert [row["name"] for row in json.loads(out.read_text())] == ["good.ms"]
    assert "could not be measured: bad" in capsys.readouterr().err


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.95) == 95
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile([7.0], 0.95) == 7
    assert percentile([1.0, 2.0], 0.5) == 1


def test_effort_is_a_share_of_the_usual_number_and_never_nothing() -> None:
    assert scaled(150, 1.0) == 150
    assert scaled(150, 0.1) == 15
    assert scaled(150, 0.0) == 1
    assert scaled(64, 0.0, least=8) == 8


def test_a_row_without_a_peer_has_nulls_and_a_dash_in_the_table(tmp_path: Path) -> None:
    row = Row(name="burst.lost", unit="messages", ours=0.0, n=300)
    write([row], tmp_path / "bench.json")
    [written] = json.loads((tmp_path / "bench.json").read_text())
    assert list(written) == KEYS
    assert written["peer"] is written["theirs"] is written["ratio"] is None
    assert table([row]).splitlines()[1].split() == ["burst.lost", "0", "messages", "-", "-", "300", "-"]
