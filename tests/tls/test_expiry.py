"""What people are told of a certificate that ends: in a chat, in both languages, and by `parley doctor`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from parley.language.status_text import status_text
from parley.tls import authority, expiry
from tests.tls.files import made_folder
from tests.tls.test_ports import settings_of

QUIET: dict[str, Any] = {
    "processes": [],
    "accounts": [],
    "queue": {"waiting": 0, "running": 0, "undelivered": 0, "dead_letters": 0},
}


def told(days: int, *, soon: bool) -> dict[str, Any]:
    return QUIET | {"certificates": [{"port": "web", "days": days, "soon": soon}]}


def test_status_says_it_when_it_is_time() -> None:
    assert "certificate" not in status_text(told(31, soon=False), "en", details=False)
    assert "the certificate of web ends in 29 days" in status_text(told(29, soon=True), "en", details=False)
    assert "web 的证书还有 29 天到期" in status_text(told(29, soon=True), "zh", details=False)
    assert "the certificate of web has ended" in status_text(told(-1, soon=True), "en", details=False)
    assert "web 的证书已到期" in status_text(told(-1, soon=True), "zh", details=False)
    assert "certificate" not in status_text(QUIET, "en", details=False)


@pytest.mark.parametrize(("left", "soon"), [(31, False), (29, True), (0.5, True), (-2, True)])
def test_every_port_that_has_one_is_looked_at(tmp_path: Path, left: float, soon: bool) -> None:
    folder = made_folder(tmp_path / "certs", "parley.example.com")
    toml = f'[tls]\ncertificate = "{folder.certificate}"\nkey = "{folder.key}"\n'
    settings = settings_of(tmp_path, toml)
    at = folder.ending().ends - timedelta(days=left)
    rows = list(expiry.served(settings, at))
    assert [row["port"] for row in rows] == ["web", "hooks", "metrics", "prefect"]
    assert {row["soon"] for row in rows} == {soon}
    assert list(expiry.served(settings_of(tmp_path, ""), at)) == []


def test_a_file_that_is_broken_hides_no_other(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs")
    toml = f'[tls]\ncertificate = "{folder.certificate}"\nkey = "{folder.key}"\n'
    toml += f'[hooks]\ncertificate = "{tmp_path}/none.pem"\nkey = "{folder.key}"\n'
    rows = list(expiry.served(settings_of(tmp_path, toml), datetime.now(UTC)))
    assert [row["port"] for row in rows] == ["web", "metrics", "prefect"]


def test_a_prefect_of_somebody_elses_is_theirs_to_renew(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs")
    toml = f'[tls]\ncertificate = "{folder.certificate}"\nkey = "{folder.key}"\n'
    settings = settings_of(tmp_path, toml, PREFECT_API_URL="https://prefect.example.com/api")
    assert "prefect" not in [row["port"] for row in expiry.served(settings, datetime.now(UTC))]
    assert settings.prefect_trust is None
    assert settings.api_url == "https://prefect.example.com/api"


def test_keys_show_in_no_repr() -> None:
    made = authority.make_authority(["a.example"], name="a.example", at=datetime.now(UTC))
    assert "PRIVATE" not in repr(made)
    assert "PRIVATE" not in f"{made}"
