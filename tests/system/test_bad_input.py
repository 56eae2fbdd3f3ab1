"""Mistakes and malice from outside: each gets a clear answer, nothing runs, no traceback reaches anybody."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from parley.messages.model import Message, Route, Sender
from parley.processes.hub import open_hub
from tests.faults.load import crowding
from tests.stack import COMMAND, PORTS, Stack
from tests.system.conftest import TOML
from tests.system.effects import effects

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(600)]

NOTED_SECONDS = 10.0
"""parley.toml is looked at every two seconds; what follows from a change takes a worker's reload."""


# -- at the start


@pytest.fixture
def unstarted() -> Iterator[Stack]:
    """An installation whose Prefect is elsewhere, and that nobody has started."""
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        yield Stack(folder=Path(folder), extra={"PREFECT_API_URL": "http://127.0.0.1:9/api"})


def refusal(stack: Stack) -> str:
    """Start it; it has to end with 2 by itself, leave nothing running, and say one thing: that is returned."""
    done = subprocess.run(
        COMMAND,
        env=stack.environment,
        cwd=stack.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "Traceback" not in said
    assert stack.processes() == []
    return said


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[worker\nchildren = 3", r"not valid TOML: .*line 1.*Mend"),
        ('[worker]\nchildren = "many"', r"worker\.children: .*integer"),
        ("[worker]\nchilds = 3", r"worker\.childs: .*not permitted"),
        ("[accounts.team]\nplatform = 7", r"accounts\.team\.platform"),
        ("[hooks]\nhost = 3\n[web]\nhost = 4", r"hooks\.host(.|\n)*web\.host"),
    ],
)
def test_broken_settings_at_the_start(unstarted: Stack, toml: str, told: str) -> None:
    """The file, the place in it and what is wrong there are named, all at once; nothing is started."""
    unstarted.configure(toml)
    said = refusal(unstarted)
    assert re.search(told, said), said
    assert str(unstarted.folder / "parley.toml") in said
    assert not (unstarted.home / "logs").exists()


@pytest.mark.parametrize("variable", PORTS)
def test_a_taken_port(unstarted: Stack, variable: str) -> None:
    """Each port that is taken is told with its number, who has it, and the variable that moves it."""
    del unstarted.environment["PREFECT_API_URL"]
    with socket.create_server(("127.0.0.1", int(unstarted.environment[variable]))) as _:
        said = refusal(unstarted)
    assert f"port {unstarted.environment[variable]} on 127.0.0.1" in said
    assert f"(pid {os.getpid()})" in said
    assert f"set {variable} to another port" in said
    assert not (unstarted.home / "parley.db").exists()


def seal_something(stack: Stack) -> Path:
    """Have a sealed row in the store, and return the key file."""

    async def seal() -> Path:
        hub = await open_hub(stack.settings)
        sender, route = Sender(id="somebody"), Route(account="post", conversation="x", kind="mail")
        await hub.inbox.accept(Message(account="post", native_id="1", text="x", sender=sender, route=route))
        await hub.intake.aclose()
        await hub.prefect.aclose()
        await hub.store.aclose()
        return hub.settings.key_file

    return asyncio.run(seal())


def lose(key: Path) -> None:
    key.unlink()


def show(key: Path) -> None:
    key.chmod(0o444)


def spoil(key: Path) -> None:
    key.chmod(0o600)
    key.write_text("not a key\n")
    key.chmod(0o400)


@pytest.mark.parametrize(
    ("mishap", "told"),
    [(lose, "is missing.*Restore it"), (show, "0400"), (spoil, "key")],
    ids=["lost", "open", "bad"],
)
def test_the_key_file(unstarted: Stack, mishap: Callable[[Path], None], told: str) -> None:
    """Lost, readable by others, or not a key: the hub does not start, and makes no new key over sealed rows."""
    key = seal_something(unstarted)
    mishap(key)
    before = key.read_bytes() if key.exists() else None
    said = refusal(unstarted)
    assert str(key) in said
    assert re.search(told, said), said
    assert (key.read_bytes() if key.exists() else None) == before


# -- while it runs


class Web:
    """The owner's client; no answer may hold a traceback, and nothing that is sent may have an effect."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.answers: list[str] = []

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request."""
        answer = self._stack.client.request(method, f"/api/v1{path}", **options)
        self.answers.append(answer.text)
        return answer

    def say(self, text: str) -> tuple[str, str]:
        """Say it; the state of the message and the text of all answers."""
        answer = self.ask("POST", "/messages", params={"wait": 30}, json={"text": text})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["run_id"] is None, told
        return told["state"], "\n".join(reply["text"] for reply in told["replies"])


@pytest.fixture
def web(stack: Stack, effects_file: Path) -> Iterator[Web]:
    """The owner's client; at the end nothing has run, and no answer held a traceback."""
    before = len(effects(effects_file))
    client = Web(stack)
    yield client
    assert len(effects(effects_file)) == before
    assert not [text for text in client.answers if "Traceback" in text or 'File "' in text]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/lingre x 1", "/linger"),
        ("/linger x soon", "seconds.*soon"),
        ("/linger x 1 2 3", "3|too many|at most"),
        ("/linger key=x seconds=1 colour=red", "colour"),
        ("/linger", "key"),
        ('/keep what={"a":{"b":[{"__prefect_kind":"jinja","template":"x"}]}}', "__prefect_kind"),
        ('/keep {"a":[[{"$ref":"x"}]]}', r"\$ref"),
        ('/keep what={"$ref":{"block_document_id":"x"}}', r"\$ref"),
        ("/keep {not", "what"),
        ("/keep [1]", "what"),
        ("/", "."),
    ],
)
def test_a_command_that_cannot_be_carried_out(web: Web, text: str, told: str) -> None:
    """The answer names what is wrong, or asks for what is missing; no run is made."""
    _, said = web.say(text)
    assert re.search(told, said), said


@pytest.mark.parametrize(
    ("name", "body", "told"),
    [
        ("lingre", {"key": "x"}, "linger"),
        ("linger", {"key": "x", "seconds": "soon"}, "seconds"),
        ("linger", {"key": "x", "seconds": [1]}, "seconds"),
        ("linger", {"key": "x", "seconds": 1, "colour": "red"}, "colour"),
        ("keep", {"what": {"a": [{"b": {"__prefect_kind": "json", "value": "1"}}]}}, "__prefect_kind"),
        ("keep", {"what": {"$ref": {"block_document_id": "x"}}}, r"\$ref"),
        ("keep", {"$ref": {"block_document_id": "x"}}, r"\$ref"),
        ("keep", {"__prefect_kind": "jinja"}, "__prefect_kind"),
    ],
)
def test_parameters_that_are_not_taken(web: Web, name: str, body: dict[str, Any], told: str) -> None:
    """4xx, as problem+json, with the parameter's name; no run is made."""
    answer = web.ask("POST", f"/automations/{name}/runs", params={"wait": 20}, json=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert re.search(told, answer.json()["detail"]), answer.text


def test_a_missing_parameter_is_asked_for(web: Web) -> None:
    """What is not given is asked for in the thread; nothing runs before it is there."""
    answer = web.ask("POST", "/automations/linger/runs", params={"wait": 20}, json={"key": "x"})
    assert answer.json()["state"] == "needs-input"
    assert "seconds" in answer.json()["replies"][0]["text"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "\xff\xfe /mark x"}',
        b'{"text": "\\ud800"}',
        b"{",
        b"",
        b"[]",
        b"\x00",
        b'{"text": 7}',
        b"null",
    ],
)
def test_a_body_that_is_no_message(web: Web, body: bytes) -> None:
    """Invalid UTF-8, a lone surrogate, no JSON, another shape: 4xx, and nothing is stored."""
    answer = web.ask("POST", "/messages", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")


@pytest.mark.parametrize("text", ["", "   \n\t "])
def test_a_message_without_text(web: Web, text: str) -> None:
    """It is refused with what is missing."""
    answer = web.ask("POST", "/messages", json={"text": text})
    assert answer.status_code == 422
    assert "empty" in answer.json()["detail"]


def test_a_megabyte_of_text(web: Web) -> None:
    """It is refused or answered with how to send it, soon, and the next message is answered as ever."""
    began = time.monotonic()
    answer = web.ask("POST", "/messages", params={"wait": 20}, json={"text": "/mark " + "x" * 1_000_000})
    assert answer.status_code in (200, 413, 422), answer.text[:500]
    assert len(answer.text) < 5_000
    if answer.status_code == 200:
        assert answer.json()["run_id"] is None
        assert "file" in answer.json()["replies"][0]["text"]
    assert time.monotonic() - began < 10
    assert web.say("/help")[0] == "done"


def test_who_may_not_come_in(web: Web) -> None:
    """Without a token, with a wrong one, or from another page: 401, 403; a cookie alone changes nothing."""
    for header in ("", "Bearer", "Bearer wrong", "Basic eDp5", "Bearer \x7f" + "x" * 5_000):
        answer = web.ask("POST", "/messages", json={"text": "/mark x"}, headers={"authorization": header})
        assert answer.status_code in (401, 403), answer.text
    assert web.ask("GET", "/me", headers={"authorization": "Bearer wrong"}).status_code == 401
    for origin in ("https://evil.example", "null", "http://127.0.0.1", "http://localhost:1"):
        answer = web.ask("POST", "/messages", json={"text": "/mark x"}, headers={"origin": origin})
        assert answer.status_code == 403, (origin, answer.text)


def test_a_broken_file_while_it_runs(stack: Stack) -> None:
    """The settings of before stay in force, which is audited and shown; mended, the file is in force again."""
    for broken in ("[worker\n", TOML + "[worker]\nchildren = 0\n"):
        with broken_file(stack, broken):
            check = next(row for row in stack.admin("doctor") if row["check"] == "configuration")
            assert (check["ok"], check["mend"]) == (False, "mend the file")
            assert stack.say("/order 1024")["state"] == "done"
    rows = [row for row in stack.admin("audit_show", limit=50) if row["action"] == "configuration-refused"]
    assert len(rows) >= 2


def test_a_process_that_dies_beside_a_broken_file(stack: Stack) -> None:
    """What starts again goes on with the settings of before; `parley doctor` works and names the file."""
    with broken_file(stack, "[worker\n"):
        for role in ("hub", "worker", "listeners"):
            stack.back(role, stack.kill(role), 10 * crowding())
        assert stack.say("/order 1024")["state"] == "done"
        assert "parley.toml" in _configuration(stack)
        done = subprocess.run(
            [*COMMAND[:-1], "doctor"],
            env=stack.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 1, done
        assert "not valid TOML" in done.stdout


@contextmanager
def broken_file(stack: Stack, toml: str) -> Iterator[None]:
    """Have this parley.toml be refused by a running stack, for the length of the block."""
    stack.configure(toml)
    try:
        stack.until(lambda: _configuration(stack) != "in force", NOTED_SECONDS, "the file is refused")
        assert "parley.toml" in _configuration(stack)
        yield
    finally:
        stack.configure(TOML)
    stack.until(lambda: _configuration(stack) == "in force", NOTED_SECONDS, "the file is taken")


def _configuration(stack: Stack) -> str:
    return str(stack.client.get("/api/v1/status").json()["configuration"])


def test_a_module_that_does_not_import(stack: Stack, web: Web) -> None:
    """The other automations work; doctor and the owner's /status name the module and the reason."""
    stack.configure(TOML.replace('effects"', 'effects", "tests.system.broken"'))
    try:
        stack.until(lambda: "tests.system.broken" in json.dumps(stack.admin("doctor")), 30, "doctor names it")
        check = next(row for row in stack.admin("doctor") if "tests.system.broken" in row["check"])
        assert not check["ok"]
        assert "on purpose" in check["says"]
        status, said = web.say("/status")
        assert status == "done"
        assert "tests.system.broken" in said
        assert stack.say("/order 1024")["state"] == "done"
    finally:
        stack.configure(TOML)
    stack.until(lambda: "tests.system.broken" not in json.dumps(stack.admin("doctor")), 30, "it is mended")
