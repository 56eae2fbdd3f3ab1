"""Unique tokens as every credential, message and sealed parameter of a whole stack are nowhere in clear afterwards.

Looked through: every file of the data folder and beside it, both databases with their -wal and -shm and a backup of
each, the logs, command line and environment of every process, figures, and what the API tells other people.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from parley.processes import memory
from tests.fakes._driver import eventually
from tests.fakes.mail import ASSISTANT, PASSWORD, MailDriver
from tests.fakes.slack import APP_TOKEN, BOT_TOKEN, SIGNING_SECRET, SlackDriver
from tests.stack import Stack
from tests.system.test_platforms import connect, listening

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(400)]

TOML = """
[automations]
modules = ["tests.system.canary_flows"]
"""

WAIT = 60.0


@dataclass
class Canaries:
    """Tokens by what they were put in as."""

    tokens: dict[str, str] = field(default_factory=dict)

    def new(self, name: str) -> str:
        """One more; letters and digits, so that it is the same in JSON, in an address and in a log."""
        self.tokens[name] = f"canary{secrets.token_hex(10)}"
        return self.tokens[name]

    def found_in(self, content: bytes, *, but: frozenset[str] = frozenset()) -> list[str]:
        """The names of those that are in there, as they are or in base64."""
        return [
            name
            for name, token in self.tokens.items()
            if name not in but and any(form in content for form in _forms(token))
        ]


def _forms(token: str) -> Iterator[bytes]:
    yield token.encode()
    yield token.encode("utf-16-le")
    yield token.encode().hex().encode()
    for shift in range(3):  # wherever in a longer text it begins
        yield base64.b64encode(b" " * shift + token.encode())[4 if shift else 0 : -8]


@contextmanager
def company() -> Iterator[tuple[int, list[str]]]:
    """An API on this machine: its port, and the Authorization headers that came."""
    seen: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            body = b'{"pieces": 3}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server.server_address[1], seen
        finally:
            server.shutdown()
            serving.join()


def save_block(
    stack: Stack, kind: str, slug: str, name: str, given: Mapping[str, str], **fields: Any
) -> None:
    """What `parley connect` does for a service that only automations call."""
    import subprocess
    import sys

    sealed = {
        key: stack.admin("seal", block_type=slug, block_name=name, field=key, value=value)["sealed"]
        for key, value in given.items()
    }
    done = subprocess.run(
        [sys.executable, "-m", "blocks.save", kind],
        input=json.dumps({"name": name, "fields": fields | sealed}) + "\n",
        env=stack.environment | stack.prefect_environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "block" in json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


async def said(stack: Stack, text: str, **more: Any) -> dict[str, Any]:
    """Say it as the owner, from a thread of its own: the fakes live in this loop."""
    return await asyncio.to_thread(lambda: stack.say(text, wait=WAIT, **more))


async def by_mail(stack: Stack, canaries: Canaries, mail: MailDriver) -> None:
    """An account whose password is a canary, and mails with some."""
    canaries.tokens["password of a mailbox"] = PASSWORD
    fields = {
        "address": ASSISTANT,
        "username": ASSISTANT,
        "imap_host": "127.0.0.1",
        "imap_port": mail.dovecot.imap_port,
        "imap_security": "none",
        "smtp_host": "127.0.0.1",
        "smtp_port": mail.post.smtp_port,
        "smtp_security": "none",
    }
    await asyncio.to_thread(lambda: connect(stack, "mail", "post", {"password": PASSWORD}, **fields))
    await asyncio.to_thread(
        lambda: stack.admin("person_link", name="owner", account="post", user_id="alice@example.org")
    )
    await listening(stack, "post")
    await mail.person_says(f"hello {canaries.new('mail of a stranger')}", person="mallory")
    await mail.sent(1)
    pin = canaries.new("sealed parameter from a mail")
    await mail.person_says(f"/keepsafe pin={pin}")
    answers = await mail.sent(3)  # what it said meanwhile, and its answer
    assert any(pin in one.text for one in answers)


async def live(stack: Stack, canaries: Canaries, slack: SlackDriver) -> list[str]:
    """Everything that a secret can be put in as; the ids of the messages."""
    ids = []
    for command in ("keepsafe", "failsafe", "turnaway", "account"):
        answer = await said(stack, f"/{command} pin={canaries.new(f'sealed parameter of /{command}')}")
        assert answer["state"] in ("done", "failed"), answer
        ids.append(answer["id"])
    unknown = await said(stack, f"what is {canaries.new('message that is not understood')} about")
    wrong = await said(stack, f"/keepsafe nothing={canaries.new('wrong parameter')}")
    ids += [unknown["id"], wrong["id"]]
    asked = await asyncio.to_thread(lambda: stack.say("/wonder", wait=5))
    thread = asked.get("thread")
    given = await said(stack, canaries.new("answer to a question"), **({"thread": thread} if thread else {}))
    ids += [asked["id"], given["id"]]
    assert (await said(stack, "/stock"))["state"] == "done"
    await slack.person_says(f"/keepsafe pin={canaries.new('sealed parameter from slack')}")
    await slack.person_says(f"hello {canaries.new('message from slack')}", person="mallory")
    await eventually(lambda: len(slack.fake.posts) >= 3, "slack's answers", within=WAIT)
    return ids


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with suppress(FileNotFoundError):
                yield str(path.relative_to(folder)), path.read_bytes()


def backups(stack: Stack, to: Path) -> None:
    """Of both databases, through SQLite, as docs/operations.md says."""
    to.mkdir()
    for path in (stack.home / "parley.db", stack.home / "prefect" / "prefect.db"):
        with closing(sqlite3.connect(path)) as live_, closing(sqlite3.connect(to / path.name)) as copy:
            live_.backup(copy)


def processes(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """Command line and environment of each, Prefect's and the children's too."""
    assert stack.process is not None
    for pid in (stack.process.pid, *memory.descendants(stack.process.pid)):
        for name in ("cmdline", "environ"):
            with suppress(FileNotFoundError, ProcessLookupError):
                yield f"{pid} {name}", Path(f"/proc/{pid}/{name}").read_bytes()


def told_others(stack: Stack, ids: list[str]) -> Iterator[tuple[str, bytes]]:
    """What the API tells a person who said none of it, and whoever reads the figures."""
    stack.admin("person_add", name="bob", role="user")
    token = stack.admin("token", as_name="bob")["token"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False, timeout=30) as client:
        paths = [
            "me",
            "automations",
            "runs",
            "events?topic=**",
            "status",
            "dead-letters",
            *(f"messages/{one}" for one in ids),
        ]
        for path in paths:
            answer = client.get(f"/api/v1/{path}")
            assert answer.status_code in (200, 403, 404), (path, answer.text)
            yield path, answer.content
    port = stack.environment["PARLEY_METRICS_PORT"]
    yield "metrics", httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).raise_for_status().content


def told_by_prefect(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """What Prefect's API tells whoever may ask it, decrypted."""
    with stack.prefect() as client:
        for path in ("flow_runs", "task_runs", "logs", "artifacts", "block_documents", "events"):
            body = {"include_secrets": True} if path == "block_documents" else {}
            answer = client.post(f"{path}/filter", json=body)
            assert answer.is_success, (path, answer.text)
            yield f"prefect's {path}", answer.content


async def test_no_canary_is_found_in_clear(tmp_path: Path) -> None:
    canaries = Canaries()
    with company() as (port, seen):
        async with SlackDriver() as slack, MailDriver() as mail, Stack(toml=TOML) as stack:
            slack.fake.host = "127.0.0.1"
            canaries.tokens |= {"bot token": BOT_TOKEN, "app token": APP_TOKEN, "signing": SIGNING_SECRET}
            accounts = {"bot_token": BOT_TOKEN, "app_token": APP_TOKEN, "signing_secret": SIGNING_SECRET}
            await asyncio.to_thread(
                lambda: connect(stack, "slack", "office", accounts, base_url=slack.fake.base_url)
            )
            await asyncio.to_thread(
                lambda: save_block(
                    stack,
                    "rest_api",
                    "parley-rest-api",
                    "erp",
                    {"token": canaries.new("token of an API")},
                    base_url=f"http://127.0.0.1:{port}",
                    private_networks="127.0.0.0/8",
                )
            )
            await asyncio.to_thread(
                lambda: stack.admin("person_link", name="owner", account="office", user_id="UALICE")
            )
            await listening(stack, "office")
            ids = await live(stack, canaries, slack)
            await by_mail(stack, canaries, mail)
            assert canaries.tokens["token of an API"] in seen[0]
            await asyncio.to_thread(lambda: backups(stack, tmp_path / "backup"))
            found = await asyncio.to_thread(lambda: search(stack, canaries, ids, tmp_path))
            assert found == {}
            assert await asyncio.to_thread(lambda: holding_the_key(stack, tmp_path)) == []


def holding_the_key(stack: Stack, backup: Path) -> list[str]:
    """The files of the data folder and of the backup that hold the key, which lies elsewhere."""
    (text,) = [one["key"] for one in json.loads(stack.settings.key_file.read_bytes())["keys"]]
    forms = (text.encode(), base64.b64decode(text))
    found = [*contents(stack.home), *contents(backup)]
    return [name for name, content in found if any(form in content for form in forms)]


def search(stack: Stack, canaries: Canaries, ids: list[str], tmp_path: Path) -> dict[str, list[str]]:
    """Where which canaries are."""
    places = {
        "files": contents(stack.folder),
        "backup": contents(tmp_path),
        "process": processes(stack),
        "api": told_others(stack, ids),
        "prefect": told_by_prefect(stack),
    }
    looked, found = 0, {}
    for kind, every in places.items():
        for name, content in every:
            looked += 1
            if names := canaries.found_in(content):
                found[f"{kind}: {name}"] = names
    assert looked > 50
    return found


def test_a_canary_in_clear_is_found(tmp_path: Path) -> None:
    """The search itself: as it is, in base64 at any place, in a file of another kind."""
    canaries = Canaries()
    token = canaries.new("one")
    other = canaries.new("other")
    for content in (
        f"x{token}y".encode(),
        base64.b64encode(f"ab{token}yz".encode()),
        token.encode().hex().encode(),
    ):
        assert canaries.found_in(content) == ["one"]
    assert canaries.found_in(f"{other[:-1]}".encode()) == []
