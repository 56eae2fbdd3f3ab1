from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parley import prefect_env
from parley.errors import ConfigurationError


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_password_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    password = prefect_env.api_password(tmp_path)

    user, _, secret = password.partition(":")
    assert user
    assert len(secret) >= 43  # 256 bits in base64
    assert prefect_env.api_password(tmp_path) == password
    assert _mode(tmp_path / "prefect" / "auth") == 0o600
    assert _mode(tmp_path / "prefect") == 0o700


def test_two_homes_have_two_passwords(tmp_path: Path) -> None:
    assert prefect_env.api_password(tmp_path / "a") != prefect_env.api_password(tmp_path / "b")


def test_processes_that_start_together_agree_on_the_password(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        passwords = set(pool.map(lambda _: prefect_env.api_password(tmp_path), range(64)))

    assert len(passwords) == 1
    assert [path.name for path in (tmp_path / "prefect").iterdir()] == ["auth"], "no temporary file is left"


def test_password_file_that_others_may_read_is_closed_again(tmp_path: Path) -> None:
    prefect_env.api_password(tmp_path)
    (tmp_path / "prefect" / "auth").chmod(0o644)

    prefect_env.api_password(tmp_path)

    assert _mode(tmp_path / "prefect" / "auth") == 0o600


def test_empty_password_file_is_refused_and_says_how_to_mend_it(tmp_path: Path) -> None:
    (prefect_env.prefect_home(tmp_path) / "auth").touch()

    with pytest.raises(ConfigurationError, match="empty: remove it"):
        prefect_env.api_password(tmp_path)


def test_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prefect").write_text("in the way")

    with pytest.raises(ConfigurationError, match="PARLEY_HOME"):
        prefect_env.server_environment(tmp_path)


def test_encryption_key_is_one_that_prefect_accepts(tmp_path: Path) -> None:
    from cryptography.fernet import Fernet

    Fernet(prefect_env.encryption_key(tmp_path).encode())
    assert _mode(tmp_path / "prefect" / "encryption_key") == 0o600


def test_server_is_closed_to_strangers_and_silent_to_the_outside(tmp_path: Path) -> None:
    environment = prefect_env.server_environment(tmp_path, port=4321)

    assert environment["PREFECT_SERVER_API_AUTH_STRING"] == prefect_env.api_password(tmp_path)
    assert environment["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] == "true"
    assert (
        environment["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"]
        == "http://127.0.0.1:4321,http://localhost:4321"
    )
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["PREFECT_SERVER_ENCRYPTION_KEY"] == prefect_env.encryption_key(tmp_path)
    assert environment["DO_NOT_TRACK"] == "1"
    assert "*" not in "".join(environment.values())


def test_client_gets_no_more_than_it_needs(tmp_path: Path) -> None:
    environment = prefect_env.client_environment(tmp_path, port=4321)

    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
    assert environment["PREFECT_API_AUTH_STRING"] == prefect_env.api_password(tmp_path)
    assert environment["PREFECT_RESULTS_DEFAULT_SERIALIZER"] == "json"
    assert not [name for name in environment if "ENCRYPTION" in name or name.startswith("PREFECT_SERVER_API")]


def test_certificate_makes_both_sides_speak_tls(tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    environment = prefect_env.server_environment(
        tmp_path, host="192.0.2.7", port=443, certificate=certificate
    )

    assert environment["PREFECT_API_URL"] == "https://192.0.2.7:443/api"
    assert environment["PREFECT_API_SSL_CERT_FILE"] == str(certificate)
    assert environment["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"] == "https://192.0.2.7:443"


def test_neutral_environment_leaves_the_users_own_server_alone(tmp_path: Path) -> None:
    environment = prefect_env.neutral_environment(tmp_path)

    assert not [name for name in environment if name.startswith("PREFECT_API_")]
    assert not (tmp_path / "prefect" / "auth").exists()


def test_applying_takes_out_what_would_win_over_the_password() -> None:
    process = {"PREFECT_API_KEY": "pnu_x", "PREFECT_PROFILE": "cloud", "HOME": "/home/a"}

    prefect_env.apply({"PREFECT_API_URL": "http://127.0.0.1:1/api"}, to=process)

    assert process == {"HOME": "/home/a", "PREFECT_API_URL": "http://127.0.0.1:1/api"}


def test_module_does_not_import_prefect() -> None:
    program = "import sys, parley.prefect_env, parley.runs.pool; sys.exit('prefect' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_prefect_reads_every_setting_that_is_set(tmp_path: Path) -> None:
    """A setting that Prefect renamed would be ignored in silence: each must be a name that it knows."""
    known = _names_known_to_prefect(tmp_path)
    # Read from the environment without being declared as a setting.
    undeclared = {"DO_NOT_TRACK", "PREFECT_SERVER_ENCRYPTION_KEY"}
    environment = prefect_env.server_environment(tmp_path, certificate=tmp_path / "certificate.pem")

    assert set(environment) - undeclared <= known


def _names_known_to_prefect(home: Path) -> set[str]:
    program = "from prefect.settings.models.root import Settings\n"
    program += "from prefect.settings.legacy import _get_settings_fields\n"
    program += "print(*_get_settings_fields(Settings))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PREFECT_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.split())
