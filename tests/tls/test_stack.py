"""A whole stack with certificates: every port that it opens speaks TLS 1.3 and nothing else, and all of it works."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect

from parley import tls
from parley.processes import memory, record
from parley.tls.folder import Folder
from tests.stack import COMMAND, PORTS, ROOT, Stack
from tests.tls.files import made_folder

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(240)]

SSLYZE = ROOT / "build" / "sslyze" / "bin" / "sslyze"
TOKEN = "a-reader-of-figures-0123456789"

EVENTS = """
import asyncio
from prefect.events import Event
from prefect.events.clients import get_events_client, get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter

async def main():
    wanted = EventFilter(event=EventNameFilter(name=["parley.tls.tried"]))
    async with get_events_subscriber(filter=wanted) as subscriber, get_events_client() as client:
        await client.emit(Event(event="parley.tls.tried", resource={"prefect.resource.id": "tests.tls"}))
        async with asyncio.timeout(30):
            async for event in subscriber:
                print(event.event)
                return

asyncio.run(main())
"""


@dataclass(frozen=True)
class Secure:
    stack: Stack
    certs: Folder

    @property
    def ports(self) -> dict[str, int]:
        return {name: int(self.stack.environment[name]) for name in PORTS}

    def context(self) -> ssl.SSLContext:
        return tls.client(ca_file=self.certs.authority)

    def get(self, name: str, path: str, **headers: str) -> httpx.Response:
        url = f"https://127.0.0.1:{self.ports[name]}{path}"
        return httpx.get(url, verify=self.context(), headers=headers, trust_env=False, timeout=20)

    def shown(self, port: int) -> bytes:
        """The certificate of this port, which is verified."""
        plain = socket.create_connection(("127.0.0.1", port), timeout=20)
        with self.context().wrap_socket(plain, server_hostname="localhost") as secured:
            assert secured.version() == "TLSv1.3"
            return bytes(secured.getpeercert(binary_form=True) or b"")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("tls")
    certs = made_folder(folder / "certs")
    token = folder / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    toml = f"""
        [tls]
        certificate = "{certs.certificate}"
        key = "{certs.key}"
        authority = "{certs.authority}"
        [metrics]
        token_file = "{token}"
    """
    with Stack(toml=toml, authority=certs.authority) as stack:
        yield Secure(stack, certs)


def listening(stack: Stack) -> dict[int, str]:
    """Every TCP port that a process of the stack listens on, with its address."""
    pids = {entry.pid for entry in record.read(stack.home)}
    pids |= {child for pid in set(pids) for child in memory.descendants(pid)}
    return {
        one.laddr.port: one.laddr.ip
        for pid in pids
        if psutil.pid_exists(pid)
        for one in psutil.Process(pid).net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }


def s_client(port: int, version: str, authority: Path) -> subprocess.CompletedProcess[bytes]:
    command = [
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{port}",
        f"-{version}",
        "-CAfile",
        str(authority),
    ]
    command += ["-verify_return_error", "-verify_hostname", "localhost", "-cipher", "ALL:@SECLEVEL=0"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30)


def test_a_message_becomes_a_run_and_its_answer(secure: Secure) -> None:
    answered = secure.stack.say("/order 1024")
    assert answered["state"] == "done", answered
    assert "1024" in answered["replies"][-1]["text"]


def test_the_command_line_knows_its_own_stack(secure: Secure) -> None:
    done = subprocess.run(
        [COMMAND[0], "say", "--json", "/order 1024"],
        env=secure.stack.environment,
        cwd=secure.stack.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "done"


def test_the_ports_are_those_four_on_this_machine(secure: Secure) -> None:
    assert listening(secure.stack) == dict.fromkeys(secure.ports.values(), "127.0.0.1")


@pytest.mark.parametrize("name", PORTS)
def test_a_port_takes_1_3_and_refuses_what_is_older_and_what_is_plain(secure: Secure, name: str) -> None:
    port, authority = secure.ports[name], secure.certs.authority
    taken = s_client(port, "tls1_3", authority)
    assert taken.returncode == 0, taken.stderr
    assert b"Verification: OK" in taken.stdout
    for version in ("tls1", "tls1_1", "tls1_2"):
        refused = s_client(port, version, authority)
        assert refused.returncode != 0, version
        assert b"Cipher is (NONE)" in refused.stdout, version
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        plain.settimeout(20)
        try:
            said = plain.recv(100)
        except ConnectionResetError:
            said = b""
    assert not said.startswith(b"HTTP/"), "nothing is answered in clear"


@pytest.mark.parametrize("name", PORTS)
def test_sslyze_finds_nothing_but_1_3(secure: Secure, name: str, tmp_path: Path) -> None:
    if not SSLYZE.exists():
        reason = "sslyze is not installed: `make test-servers` brings it, where PyPI can be reached."
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    report = tmp_path / "report.json"
    scans = ("sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3", "reneg", "heartbleed", "early_data")
    command = [str(SSLYZE), f"--json_out={report}", *(f"--{scan}" for scan in scans)]
    subprocess.run(
        [*command, f"127.0.0.1:{secure.ports[name]}"], check=False, capture_output=True, timeout=120
    )
    (scanned,) = json.loads(report.read_text())["server_scan_results"]
    assert scanned["scan_status"] == "COMPLETED", scanned
    found: dict[str, Any] = scanned["scan_result"]
    suites = {
        key: found[f"{key}_cipher_suites"]["result"] for key in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")
    }
    suites["tls_1_2"] = found["tls_1_2_cipher_suites"]["result"]
    for version, result in suites.items():
        assert result["accepted_cipher_suites"] == [], version
        assert result["rejected_cipher_suites"], f"{version} was tried"
    accepted = found["tls_1_3_cipher_suites"]["result"]["accepted_cipher_suites"]
    assert {one["cipher_suite"]["name"] for one in accepted} >= {"TLS_AES_256_GCM_SHA384"}
    assert not found["tls_1_3_early_data"]["result"]["supports_early_data"], (
        "what is sent early can be replayed"
    )
    assert not found["heartbleed"]["result"]["is_vulnerable_to_heartbleed"]


def test_prefects_pages_and_events_come_over_tls(secure: Secure) -> None:
    port = secure.ports["PARLEY_PREFECT_PORT"]
    page = secure.get("PARLEY_PREFECT_PORT", "/")
    assert page.status_code == 200
    assert f"wss://127.0.0.1:{port}" in page.headers["content-security-policy"]
    assert (
        secure.get("PARLEY_PREFECT_PORT", "/ui-settings").json()["api_url"] == f"https://127.0.0.1:{port}/api"
    )
    done = subprocess.run(
        [sys.executable, "-c", EVENTS],
        env=secure.stack.environment | secure.stack.prefect_environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.stdout.strip() == "parley.tls.tried", done.stderr


async def test_the_console_hears_over_tls(secure: Secure) -> None:
    link = secure.stack.admin("login_link")["url"]
    origin = f"https://127.0.0.1:{secure.ports['PARLEY_PORT']}"
    assert link.startswith(f"{origin}/login?code=")
    entered = secure.get("PARLEY_PORT", link.removeprefix(origin))
    cookie = entered.headers["set-cookie"].partition(";")[0]
    assert cookie.startswith("__Host-parley=")
    async with connect(
        f"wss://127.0.0.1:{secure.ports['PARLEY_PORT']}/ws",
        ssl=secure.context(),
        additional_headers={"Origin": origin, "Cookie": cookie},
        proxy=None,
    ) as page:
        hello = json.loads(await asyncio.wait_for(page.recv(), 20))
    assert hello["type"] == "hello"
    assert hello["prefect"] == f"https://127.0.0.1:{secure.ports['PARLEY_PREFECT_PORT']}"


def test_a_client_that_does_not_know_the_authority_is_not_served_by_prefect(secure: Secure) -> None:
    told = secure.stack.environment | secure.stack.prefect_environment
    told.pop("PREFECT_API_SSL_CERT_FILE")
    done = subprocess.run(
        [sys.executable, "-c", EVENTS], env=told, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode != 0
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


def test_figures_are_for_those_who_bring_the_token(secure: Secure) -> None:
    name = "PARLEY_METRICS_PORT"
    for given in ({}, {"authorization": f"Bearer {TOKEN[:-1]}"}, {"authorization": f"Basic {TOKEN}"}):
        refused = secure.get(name, "/metrics", **given)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in refused.text
    told = secure.get(name, "/metrics", authorization=f"Bearer {TOKEN}")
    assert told.status_code == 200
    ends = [
        line for line in told.text.splitlines() if line.startswith("ai_assistant_certificate_end_timestamp")
    ]
    assert len(ends) == len(PORTS)
    assert {float(line.split()[-1]) for line in ends} == {secure.certs.ending().ends.timestamp()}


def test_what_looks_after_it_sees_the_certificates(secure: Secure) -> None:
    told = secure.stack.admin("status")["certificates"]
    assert [(one["port"], one["days"], one["soon"]) for one in told] == [
        (name, 396, False) for name in ("web", "hooks", "metrics", "prefect")
    ]
    rows = {row["check"]: row["ok"] for row in secure.stack.admin("doctor")}
    assert rows["certificate of web"] is True


def test_a_renewal_is_served_on_every_port_without_a_restart(secure: Secure) -> None:
    before = {port: secure.shown(port) for port in secure.ports.values()}
    assert len(set(before.values())) == 1
    pids = {row["role"]: row["pid"] for row in secure.stack.processes() if row["role"] != "child"}
    secure.certs.renew(at=datetime.now(UTC))
    after = {port: secure.shown(port) for port in secure.ports.values()}
    assert len(set(after.values())) == 1
    assert set(after.values()).isdisjoint(before.values())
    assert secure.stack.say("/order 1024")["state"] == "done"
    assert {row["role"]: row["pid"] for row in secure.stack.processes() if row["role"] != "child"} == pids


def test_a_stack_that_would_be_plain_on_the_network_does_not_start() -> None:
    stack = Stack(toml='[web]\nhost = "0.0.0.0"\n')
    try:
        stack.launch()
        assert stack.process is not None
        assert stack.process.wait(60) == 2
        told = (stack.folder / "up.log").read_text()
        assert "[web] host 0.0.0.0 can be reached from the network, and there is no TLS" in told
        assert "parley certs create" in told
    finally:
        stack.close()
