"""`make bench` keeps the contract of build/bench.json: names, keys, and a peer measured in the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import connectors
from benchmarks import __main__ as program
from benchmarks import flat
from benchmarks.case_schedule import PEOPLE, busiest_minute, excerpt, whole_day
from benchmarks.rows import Row, percentile, scaled, table, write
from benchmarks.sdks import PEERS
from tests import measuring
from tests.fakes.mail import need_dovecot
from tests.postgres_fixture import need_postgres
from tests.servers.prosody import need_prosody
from tests.stack import ROOT

KEYS = ["name", "unit", "ours", "peer", "theirs", "ratio", "n", "conditions"]

NAMES = {
    "answer": [
        "answer.p50_ms",
        "answer.p95_ms",
        "answer.vs_serve",
        "answer.beside_serve_1s",
        "answer.beside_airflow",
    ],
    "runs": ["runs.per_s", "runs.vs_plain", "runs.postgres"],
    "readers": ["readers.p95_ms", "readers.most_ms"],
    "start": ["start.first_answer_s"],
    "memory": ["memory.rest_mb", "memory.peak_mb"],
    "accept": ["accept.per_s"],
    "store": ["store.group_commit"],
    "import": ["import.connectors_ms"],
    "connector": [f"connector.{name}.per_s" for name in PEERS],
    "case": ["case.answer_p50_ms", "case.answer_p95_ms", "case.lost"],
    "burst": [
        "burst.ack_p99_ms",
        "burst.answered_in_the_peak",
        "burst.control_p95_ms",
        "burst.batched_p95_ms",
        "burst.drained_s",
        "burst.lost",
    ],
    "flat": [*(f"flat.{name}_ms" for name in flat.WORK), "flat.retention_commit_p99_ms"],
    "trust": ["trust.cost_p50_ms", "trust.cost_p95_ms"],
}
WITHOUT_PEER = {
    "case.lost",
    "burst.control_p95_ms",
    "burst.batched_p95_ms",
    "burst.drained_s",
    "burst.lost",
    "trust.cost_p50_ms",
    "trust.cost_p95_ms",
}
NO_PEER_IN_A_DRY_RUN = {"answer.beside_airflow"}
MAY_BE_NOTHING = {"case.lost", "burst.lost", "burst.answered_in_the_peak"}


def dry_run(folder: Path) -> list[dict[str, Any]]:
    """The rows that `make bench` writes with hardly a measurement behind them, all on one stack."""
    need_dovecot()
    need_prosody()
    need_postgres()
    out = folder / "bench.json"
    command = [sys.executable, "-m", "benchmarks", "--effort", "0", "--out", str(out)]
    # The form of the rows is the matter: what is benchmarked has tests of its own, in which its coverage is measured.
    environment = measuring.not_at_all(os.environ)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(out.read_text())
    assert all(row["name"] in done.stdout for row in rows)
    return rows


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.servers
@pytest.mark.timeout(920)
def test_every_benchmark_writes_its_rows_in_the_form_that_was_agreed(tmp_path: Path) -> None:
    rows = dry_run(tmp_path)
    assert [row["name"] for row in rows] == [name for names in NAMES.values() for name in names]
    for row in rows:
        assert list(row) == KEYS
        assert row["ours"] > 0 or row["name"] in MAY_BE_NOTHING
        if row["name"] not in WITHOUT_PEER:
            assert row["peer"]
        if row["name"] not in {*WITHOUT_PEER, *NO_PEER_IN_A_DRY_RUN, *MAY_BE_NOTHING}:
            assert row["theirs"] > 0
            assert row["ratio"] > 0
        assert row["n"] > 0
        assert {"cores", "load_1m", "others_cores"} <= set(row["conditions"]["machine"])


def test_every_benchmark_is_known_to_this_test() -> None:
    assert list(program.BENCHMARKS) == list(NAMES)


def test_every_connector_that_receives_has_a_row_or_a_reason() -> None:
    """Others of the family read the same form, and the console's is the stack's own page."""
    like_others = {"gitlab", "gitea", "sentry", "grafana", "console"}
    assert set(connectors.names()) - like_others == set(PEERS)


def test_the_day_is_the_same_each_time_and_has_its_peaks_and_its_night() -> None:
    day = whole_day(2000, 600)
    assert day == whole_day(2000, 600)
    assert len(day) == 2000
    assert all(before.at <= after.at for before, after in pairwise(day))
    begin, most = busiest_minute(day)
    assert 9 <= (begin + 30) / 25 <= 17, "the busiest minute is in office hours"
    assert 350 < most < 450
    assert sum(one.at < 5 * 25 for one in day) < 0.06 * len(day), "hardly anybody writes at night"
    assert {one.kind for one in day} == {"order", "report", "daily", "repair"}
    assert not [one for one in day if one.platform == "mail" and one.kind == "repair"]
    assert all(one.person < PEOPLE[one.platform] for one in day)


def test_an_excerpt_is_the_day_around_its_first_peak() -> None:
    day = whole_day(2000, 600)
    some = excerpt(day, 30, 600)
    assert excerpt(day, 600, 600) == day
    assert all(0 <= one.at < 30 for one in some)
    assert len(some) / 30 > 1.5 * len(day) / 600


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
