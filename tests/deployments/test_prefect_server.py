from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import re
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deployments import prefect_server as launcher
from parley import prefect_env
from parley.errors import ConfigurationError
from parley.runs import pool
from tests.prefect_fixture import (
    PrefectServer,
    free_port,
    plain_environment,
    running_server,
    start_launcher,
    stop,
)

pytestmark = pytest.mark.prefect

COLLECTION_VIEWS = (
    "aggregate-block-metadata",
    "aggregate-flow-metadata",
    "aggregate-worker-metadata",
    "demo-flows",
)


# Who gets in


def test_request_without_the_password_is_refused(prefect_server: PrefectServer) -> None:
    for path in ("/flow_runs/filter", "/block_documents/filter", "/admin/settings", "/work_pools/parley"):
        assert httpx.request("GET", prefect_server.api + path).status_code == 401, path
    assert httpx.get(f"{prefect_server.api}/csrf-token", params={"client": "x"}).status_code == 401


def test_change_without_a_csrf_token_is_refused(prefect_server: PrefectServer) -> None:
    with prefect_server.client() as client:
        del client.headers["Prefect-Csrf-Token"]
        assert client.post("/flows/", json={"name": "forged"}).status_code == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_foreign_page_gets_no_cross_origin_permission(prefect_server: PrefectServer, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{prefect_server.api}/flows/", headers=asked)

    assert "access-control-allow-origin" not in answer.headers


def test_own_page_gets_it(prefect_server: PrefectServer) -> None:
    origin = f"http://localhost:{prefect_server.port}"
    wanted = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    answer = httpx.options(f"{prefect_server.api}/flows/", headers=wanted)

    assert answer.headers["access-control-allow-origin"] == origin


def test_server_listens_on_loopback_only(prefect_server: PrefectServer) -> None:
    import psutil

    listening = {
        connection.laddr.ip
        for connection in psutil.Process(prefect_server.process.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "parley.example"])
def test_other_address_without_tls_is_refused_with_the_reason(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"in clear.*--certificate"):
        launcher.Address(host=host).check()


def test_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="both"):
        launcher.Address(certificate=tmp_path).check()


# What is there


def test_pages_are_served_and_may_load_nothing_from_elsewhere(prefect_server: PrefectServer) -> None:
    page = httpx.get(prefect_server.url, follow_redirects=True, headers={"Accept": "text/html"})

    assert page.status_code == 200
    assert "<html" in page.text.lower()
    policy = page.headers["content-security-policy"]
    assert set(re.findall(r"\w+://\S+?(?=[ ;])", policy)) == {
        f"{scheme}://{host}:{prefect_server.port}"
        for scheme in ("http", "ws")
        for host in ("127.0.0.1", "localhost")
    }
    assert "frame-ancestors 'none'" in policy


def test_link_to_a_run_opens_in_the_pages_that_ask_for_the_password(prefect_server: PrefectServer) -> None:
    """Unless the browser has chosen the others; what is no page of a run stays where it is."""

    def leads_to(path: str, **cookies: str) -> str | None:
        answer = httpx.get(f"{prefect_server.url}{path}", cookies=cookies, headers={"Accept": "text/html"})
        location: str | None = answer.headers.get("location")
        return location

    run = "/runs/flow-run/0ba50b49-6075-4d44-9005-8ab5b28391cf"
    assert leads_to(f"{run}?tab=Logs") == f"/v2{run}?tab=Logs"
    assert leads_to(run, prefect_ui_version="v1") is None
    assert leads_to(f"/v2{run}") is None


def test_work_pool_is_there_from_the_first_answer(prefect_server: PrefectServer) -> None:
    with prefect_server.client() as client:
        known = client.get(f"/work_pools/{pool.POOL_NAME}").raise_for_status().json()

    assert known["type"] == pool.POOL_TYPE
    assert known["base_job_template"] == pool.base_job_template()


def test_base_job_template_fits_prefects_worker(prefect_server: PrefectServer) -> None:
    """Prefect's own job configuration resolves the template, as the worker will."""
    program = """
import asyncio, json
from prefect.workers.base import BaseJobConfiguration
from parley.runs.pool import base_job_template

class Configuration(BaseJobConfiguration):
    time_limit_seconds: int | None = None

made = asyncio.run(Configuration.from_template_and_values(base_job_template(), {"env": {"A": "b"}}))
print(json.dumps([made.env, made.time_limit_seconds, made.command]))
"""
    assert json.loads(_run(prefect_server, program)) == [{"A": "b"}, pool.TIME_LIMIT_SECONDS, None]


def test_blocks_are_sealed_with_the_key_from_the_file(prefect_server: PrefectServer) -> None:
    """The secret is not in the database in clear, and neither is the key that opens it."""
    program = """
from prefect.blocks.system import Secret
Secret(value="canary-5c1f").save("canary", overwrite=True)
print(Secret.load("canary").get())
"""
    assert "canary-5c1f" in _run(prefect_server, program)
    database = sqlite3.connect(f"file:{prefect_server.home}/prefect/prefect.db?mode=ro", uri=True)
    dump = "\n".join(database.iterdump())
    database.close()
    assert "canary-5c1f" not in dump
    assert prefect_env.encryption_key(prefect_server.home) not in dump
    assert "ENCRYPTION_KEY" not in dump


def test_schedule_fires(prefect_server: PrefectServer) -> None:
    """An interval schedule makes runs, and they come due in the work pool where a worker finds them."""
    with prefect_server.client() as client:
        flow_id = client.post("/flows/", json={"name": "scheduled"}).raise_for_status().json()["id"]
        body = {
            "name": "every-second",
            "flow_id": flow_id,
            "work_pool_name": pool.POOL_NAME,
            "schedules": [{"active": True, "schedule": {"interval": 2}, "slug": "interval"}],
        }
        client.post("/deployments/", json=body).raise_for_status()
        due = _wait_for(lambda: _due_runs(client, flow_id), seconds=30)

    assert due[0]["flow_run"]["auto_scheduled"]


def _due_runs(client: httpx.Client, flow_id: str) -> list[Any]:
    answer = client.post(f"/work_pools/{pool.POOL_NAME}/get_scheduled_flow_runs", json={})
    runs: list[Any] = answer.raise_for_status().json()
    now = dt.datetime.now(dt.UTC)
    return [
        run
        for run in runs
        if run["flow_run"]["flow_id"] == flow_id
        and dt.datetime.fromisoformat(run["flow_run"]["expected_start_time"]) <= now
    ]


# One connection


def test_session_inside_a_session_joins_it(prefect_server: PrefectServer) -> None:
    """Prefect's tag limit opens a second session inside set_state: stock SQLite waits 60 s there and gives up."""
    with prefect_server.client() as client:
        client.post("/v2/concurrency_limits/", json={"name": "tag:one", "limit": 1}).raise_for_status()
        flow_id = client.post("/flows/", json={"name": "tagged"}).raise_for_status().json()["id"]
        run = client.post(
            "/flow_runs/", json={"flow_id": flow_id, "state": {"type": "RUNNING"}}
        ).raise_for_status()
        first, second = (_make_task_run(client, run.json()["id"], str(key)) for key in range(2))

        start = time.monotonic()
        assert _set_state(client, first, "RUNNING") == ("ACCEPT", "RUNNING")
        assert _slots(client) == 1
        assert _set_state(client, second, "RUNNING")[0] == "WAIT"
        assert _slots(client) == 1, "the refused one's savepoint took nothing"
        assert _set_state(client, first, "COMPLETED") == ("ACCEPT", "COMPLETED")
        assert _slots(client) == 0
        assert _set_state(client, second, "RUNNING") == ("ACCEPT", "RUNNING")
        assert time.monotonic() - start < 5


def _make_task_run(client: httpx.Client, flow_run_id: str, key: str) -> str:
    body = {
        "flow_run_id": flow_run_id,
        "task_key": "k",
        "dynamic_key": key,
        "tags": ["one"],
        "state": {"type": "PENDING"},
    }
    identifier: str = client.post("/task_runs/", json=body).raise_for_status().json()["id"]
    return identifier


def _set_state(client: httpx.Client, task_run_id: str, state: str) -> tuple[str, str]:
    body = {"state": {"type": state}}
    result = client.post(f"/task_runs/{task_run_id}/set_state", json=body).raise_for_status().json()
    return result["status"], result["state"]["type"] if result["state"] else ""


def _slots(client: httpx.Client) -> int:
    slots: int = client.get("/v2/concurrency_limits/tag:one").raise_for_status().json()["active_slots"]
    return slots


@pytest.mark.serial
def test_pages_and_flows_share_the_connection_without_errors(prefect_server: PrefectServer) -> None:
    said = _run(prefect_server, "tests/deployments/dags_under_pages.py", "10")
    result = json.loads(said.splitlines()[-1])

    assert result["errors"] == []
    assert result["runs"] >= 12, result
    assert result["max_s"] < 10, result


# Nothing leaves, and TLS


class Guarded(NamedTuple):
    """A TLS server whose way out ends in a trap that counts."""

    server: PrefectServer
    certificate: Path
    caught: list[bytes]
    proxies: dict[str, str]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = _self_signed(folder)
    with _trap() as (port, caught):
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), f"http://127.0.0.1:{port}")
        proxies["NO_PROXY"] = "127.0.0.1,localhost"
        arguments = ("--certificate", str(certificate), "--key", str(key))
        with running_server(
            folder / "home", *arguments, extra=proxies, certificate=certificate, fresh=True
        ) as server:
            yield Guarded(server, certificate, caught, proxies)


def test_nothing_is_fetched_from_outside(guarded: Guarded) -> None:
    with guarded.server.client() as client:
        for view in COLLECTION_VIEWS:
            client.get(f"/collections/views/{view}").raise_for_status()
        workers = client.get("/collections/views/aggregate-worker-metadata").json()
        assert client.get("/collections/views/unheard-of").status_code == 404
    time.sleep(1)

    assert guarded.caught == []
    assert {"prefect", "prefect-docker", "prefect-parley"} <= set(workers)


def test_trap_would_have_caught_it(guarded: Guarded) -> None:
    program = "import httpx\ntry: httpx.get('https://sens-o-matic.prefect.io/')\nexcept httpx.HTTPError: pass"
    subprocess.run([sys.executable, "-c", program], env=plain_environment() | guarded.proxies, check=True)
    caught = list(guarded.caught)
    guarded.caught.clear()

    assert b"sens-o-matic" in b"".join(caught)


def test_tls_below_1_3_is_refused(guarded: Guarded) -> None:
    with pytest.raises(ssl.SSLError):
        _handshake(guarded, ssl.TLSVersion.TLSv1_2)
    assert _handshake(guarded, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


def test_prefects_client_works_over_tls(guarded: Guarded) -> None:
    program = "from prefect import flow\n@flow\ndef greet(): return 'hello'\nprint(greet())"
    assert guarded.server.environment["PREFECT_API_URL"].startswith("https://")
    assert "hello" in _run(guarded.server, program)


def test_plain_http_is_not_answered_on_the_tls_port(guarded: Guarded) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{guarded.server.port}/api/health")


def _handshake(guarded: Guarded, version: ssl.TLSVersion) -> str | None:
    context = ssl.create_default_context(cafile=guarded.certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", guarded.server.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as sealed,
    ):
        return sealed.version()


@contextmanager
def _trap() -> Iterator[tuple[int, list[bytes]]]:
    """A proxy that forwards nothing and keeps the first bytes of each attempt."""
    caught: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def listen() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    caught.append(connection.recv(200))

        threading.Thread(target=listen, daemon=True).start()
        yield listening.getsockname()[1], caught
        listening.shutdown(socket.SHUT_RDWR)


def _self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    paths[1].chmod(0o600)
    return paths


# Starting and stopping


def test_a_database_elsewhere_that_nobody_verifies_is_refused(tmp_path: Path) -> None:
    url = "postgresql+asyncpg://prefect:password-of-it@db.example.com/prefect?ssl=require"
    said = _fails_to_start(tmp_path, free_port(), "--database-url", url)
    assert "sslmode=verify-full" in said
    assert "password-of-it" not in said


def _fails_to_start(home: Path, port: int, *arguments: str) -> str:
    """Return the one line that the launcher leaves on stderr when it ends with 2."""
    process = start_launcher(home, port, *arguments)
    _, said = process.communicate(timeout=60)
    lines = [line for line in said.decode().splitlines() if line]

    assert process.returncode == 2, said
    assert len(lines) == 1, said
    return lines[0]


def test_taken_port_is_told_at_once_and_says_how_to_mend_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        start = time.monotonic()
        said = _fails_to_start(tmp_path, taken.getsockname()[1])

    assert "taken" in said
    assert "PARLEY_PREFECT_PORT" in said
    assert time.monotonic() - start < 3


def test_damaged_database_is_named(tmp_path: Path) -> None:
    (prefect_env.prefect_home(tmp_path) / "prefect.db").write_bytes(b"not a database at all " * 400)

    assert "damaged" in _fails_to_start(tmp_path, free_port())


def test_database_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    url = f"postgresql+asyncpg://nobody:nothing@127.0.0.1:{free_port()}/none"
    said = _fails_to_start(tmp_path, free_port(), "--database-url", url)

    assert "--database-url" in said
    assert "nothing" not in said, "the database's password stays out of the line"


def test_full_disk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1024)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    monkeypatch.setattr(prefect_env, "apply", lambda _: None)

    assert launcher.main(["--home", str(tmp_path), "--port", str(free_port())]) == 2
    assert "free under" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["database or disk is full", "disk is full: x"])
def test_disk_that_fills_during_the_start_is_named(text: str) -> None:
    assert "free some space" in launcher._why_no_database(sqlite3.OperationalError(text))


def files_are_for_this_user_only(home: Path) -> bool:
    """Whether nobody else may look at what the server has made."""
    folder = home / "prefect"
    made = [folder, *folder.glob("*")]
    assert len(made) > 3
    return not [path for path in made if path.stat().st_mode & 0o077]


@pytest.mark.slow
def test_start_on_the_same_home_finds_everything_and_stop_is_quick(tmp_path: Path) -> None:
    """SIGTERM ends the server in a few seconds, also with a page's subscription open; a kill -9 loses no row."""
    with running_server(tmp_path, fresh=True) as server, server.client() as client:
        assert files_are_for_this_user_only(tmp_path)
        client.post("/flows/", json={"name": "kept"}).raise_for_status()
        server.process.kill()
        server.process.wait()
    with running_server(tmp_path, port=server.port) as server, server.client() as client:
        assert client.get("/flows/name/kept").status_code == 200
        with _open_subscription(server):
            start = time.monotonic()
            assert stop(server.process) == 0
            assert time.monotonic() - start < 8


@contextmanager
def _open_subscription(server: PrefectServer) -> Iterator[None]:
    from websockets.sync.client import connect

    url = f"ws://127.0.0.1:{server.port}/api/events/out"
    with connect(url, subprotocols=["prefect"]) as socket_:  # type: ignore[list-item]
        socket_.send(json.dumps({"type": "auth", "token": prefect_env.api_password(server.home)}))
        assert json.loads(socket_.recv(timeout=10))["type"] == "auth_success"
        yield


def _run(server: PrefectServer, program: str, *arguments: str) -> str:
    """Run a file or a text of Python as a client of `server` and return what it printed."""
    command = [program] if program.endswith(".py") else ["-c", program]
    run = subprocess.run(
        [sys.executable, *command, *arguments],
        env=plain_environment() | server.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def _wait_for(look: Any, seconds: float) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError(f"nothing within {seconds} s")
