"""An automation calls a company's API with a token that was sealed by `parley connect`, through the whole stack."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.stack import Stack

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(240)]

TOML = """
[automations]
modules = ["tests.system.company_flows"]
"""
TOKEN = "erp-t0ken-that-nobody-may-read"


@dataclass
class Company:
    """Its API, on this machine."""

    port: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and Authorization header of each request."""


@pytest.fixture
def company() -> Iterator[Company]:
    here = Company()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            here.asked.append((self.path, self.headers.get("Authorization", "")))
            body = json.dumps({"article": self.path.rsplit("/", 1)[-1], "pieces": 12}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        here.port = server.server_address[1]
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield here
        finally:
            server.shutdown()
            serving.join()


def connect(stack: Stack, **fields: str) -> None:
    """`parley connect rest_api erp`."""
    given = [part for name, value in fields.items() for part in ("--field", f"{name}={value}")]
    done = subprocess.run(
        [sys.executable, "-m", "parley.cli", "connect", "rest_api", "erp", *given],
        env=stack.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_a_run_calls_the_api_with_the_sealed_token_and_another_may_not(
    company: Company, tmp_path: Path
) -> None:
    secret = tmp_path / "token.txt"
    secret.write_text(TOKEN)
    with Stack(toml=TOML) as stack:
        connect(
            stack,
            base_url=f"http://127.0.0.1:{company.port}/v1",
            token=f"@{secret}",
            private_networks="127.0.0.0/8",
        )
        answered = stack.say("/stock A-7")
        refused = stack.say("/sly_stock A-7")
        everything = b"".join(one.read_bytes() for one in stack.folder.rglob("*") if one.is_file())

    assert answered["replies"][-1]["text"] == "A-7: 12 pieces"
    assert company.asked == [("/v1/stock/A-7", f"Bearer {TOKEN}")], "the other run never got as far"
    assert refused["state"] == "failed"
    assert "erp" in refused["replies"][-1]["text"]
    assert TOKEN.encode() not in everything
