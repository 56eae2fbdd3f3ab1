"""The environment in which Prefect's server and Prefect's clients are started; this module never imports Prefect.

Prefect reads its settings from the environment once, when it is imported: whoever starts such a process puts one of the
two dictionaries made here into its environment first. The secrets behind them are files under `<home>/prefect` (folder
0700, files 0600), made by the first process that needs them and the same for all others from then on.
"""

from __future__ import annotations

import base64
import os
import secrets
import tempfile
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Final

from parley.errors import ConfigurationError

LOOPBACK: Final = "127.0.0.1"
PREFECT_PORT: Final = 4200

HEARTBEAT_SECONDS: Final = 30
"""The shortest interval that Prefect allows: how soon its own pages can tell that a run's process is gone."""

CONFLICTING: Final = ("PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_API_TLS_INSECURE_SKIP_VERIFY")
"""Never inherited: a Cloud key wins over the password (401), a profile may name another server."""


def prefect_home(home: Path) -> Path:
    """Return `<home>/prefect`, made with mode 0700 when it is missing.

    Raises ConfigurationError when it cannot be made or is not a folder.
    """
    folder = home / "prefect"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(
            f"Prefect's folder {folder} cannot be used ({error.strerror}): "
            "make it writable, or choose another home with PARLEY_HOME."
        ) from error
    return folder.absolute()


def api_password(home: Path) -> str:
    """Return the `user:password` string of our Prefect server, generated (256 bits) when there is none yet."""
    return _secret(prefect_home(home) / "auth", lambda: f"parley:{secrets.token_urlsafe(32)}")


def encryption_key(home: Path) -> str:
    """Return the key with which Prefect encrypts Blocks, kept out of the database that it protects."""
    return _secret(
        prefect_home(home) / "encryption_key",
        lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    )


def server_environment(
    home: Path,
    *,
    host: str = LOOPBACK,
    port: int = PREFECT_PORT,
    database_url: str | None = None,
    certificate: Path | None = None,
) -> dict[str, str]:
    """Return what the Prefect server is started with: password, CSRF, exact origins, nothing sent outside.

    `certificate` (PEM) means that the server speaks TLS; `database_url` is SQLAlchemy's, SQLite in `<home>/prefect`
    when it is None. Raises ConfigurationError when the folder or its secrets cannot be written.
    """
    folder = prefect_home(home)
    origin = f"{'https' if certificate else 'http'}://{_bracketed(host)}:{port}"
    return client_environment(home, host=host, port=port, certificate=certificate) | {
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_API_AUTH_STRING": api_password(home),
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": ",".join(_origins(origin)),
        "PREFECT_SERVER_API_CORS_ALLOWED_METHODS": "GET,POST,PUT,PATCH,DELETE",
        "PREFECT_SERVER_API_CORS_ALLOWED_HEADERS": (
            "Authorization,Content-Type,Prefect-Csrf-Token,Prefect-Csrf-Client,X-Prefect-Api-Version,X-Prefect-Ui"
        ),
        "PREFECT_SERVER_ENCRYPTION_KEY": encryption_key(home),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url
        or f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # A task run's states and events are written together: one at a time they were a quarter of the server's work.
        # What a page shows of tasks may be a second old; a run's own states are written at once, as ever.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "2",
        "PREFECT_SERVER_UI_API_URL": f"{origin}/api",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # Prefect would write its pages into site-packages, which belongs to whoever installed us.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder / "ui"),
    }


def client_environment(
    home: Path, *, host: str = LOOPBACK, port: int = PREFECT_PORT, certificate: Path | None = None
) -> dict[str, str]:
    """Return what every process of ours that imports Prefect is started with, to talk to our own server.

    `certificate` (PEM) is the one, or the authority's, that the server's TLS is checked against.
    """
    scheme = "https" if certificate else "http"
    environment = {
        "PREFECT_API_URL": f"{scheme}://{_bracketed(host)}:{port}/api",
        "PREFECT_API_AUTH_STRING": api_password(home),
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
    }
    if certificate:
        environment["PREFECT_API_SSL_CERT_FILE"] = str(certificate.absolute())
    return neutral_environment(home) | environment


def neutral_environment(home: Path, *, folder: Path | None = None) -> dict[str, str]:
    """Return what holds beside any server, also the user's own: our folder, JSON results, no telemetry.

    `folder` is Prefect's where it is not this machine's to make.
    """
    return {
        "PREFECT_HOME": str(folder or prefect_home(home)),
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_LOG_PRINTS": "false",
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_CLIENT_METRICS_ENABLED": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "DO_NOT_TRACK": "1",
    }


def apply(environment: dict[str, str], to: MutableMapping[str, str] = os.environ) -> None:
    """Put `environment` into `to` (by default this process) and take out what would contradict it."""
    for name in CONFLICTING:
        to.pop(name, None)
    to.update(environment)


def _origins(origin: str) -> list[str]:
    """Return the addresses under which a browser on this machine knows the same server."""
    if LOOPBACK not in origin:
        return [origin]
    return [origin, origin.replace(LOOPBACK, "localhost")]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _secret(path: Path, make: Callable[[], str]) -> str:
    """Return the text of `path`, made once however many processes ask at the same time."""
    try:
        if not path.exists():
            _write_once(path, make())
        return _read_secret(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read or written ({error.strerror}): it belongs to the user that runs parley, "
            "in a folder that has room."
        ) from error


def _read_secret(path: Path) -> str:
    text = path.read_text(encoding="ascii").strip()
    if not text:
        raise ConfigurationError(f"{path} is empty: remove it to have a new one made.")
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    return text


def _write_once(path: Path, text: str) -> None:
    """Write `text` whole to `path`, mode 0600, unless another process was first."""
    # A link from a finished temporary file: a reader never sees half a secret, and the first writer wins.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        Path(temporary).unlink(missing_ok=True)
