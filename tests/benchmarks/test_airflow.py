"""A machine that cannot bring Airflow says so in the row, and measures the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import airflow
from benchmarks.answer import beside_airflow

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installer that has no network and keeps nothing of before; the folder to install into."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "airflow"


def test_without_network_it_is_not_installed_for_a_reason(offline: Path) -> None:
    with pytest.raises(airflow.NotInstalled) as told:
        airflow.install(offline)
    assert "apache-airflow" in str(told.value)
    assert "\n" not in str(told.value)
    assert not (offline / "complete").exists(), "the next run tries again"


def test_the_row_without_a_peer_says_not_installed_and_why(
    offline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = beside_airflow([90.0, 100.0, 110.0], tmp_path, 1.0, offline)
    assert (row.name, row.unit, row.ours, row.n) == ("answer.beside_airflow", "ms", 100.0, 3)
    assert row.peer == f"airflow {airflow.VERSION} standalone (not installed)"
    assert row.theirs is row.ratio is None
    assert row.conditions["why"].startswith("not installed: ")
    assert "cores" in row.conditions["machine"]
    assert "answer.beside_airflow: skipped, not installed" in capsys.readouterr().err


def test_what_is_complete_is_not_installed_again(offline: Path) -> None:
    offline.mkdir()
    (offline / "complete").touch()
    assert airflow.install(offline) == offline / "bin"


def test_a_dry_run_starts_none(offline: Path, tmp_path: Path) -> None:
    row = beside_airflow([100.0], tmp_path, 0.0, offline)
    assert row.theirs is None
    assert row.conditions["why"] == "a dry run starts none"
    assert not offline.exists()
