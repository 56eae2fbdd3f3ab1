"""The command line as people use it: its own process, a real socket to a hub of the test's, the real REST API."""

from __future__ import annotations

import asyncio
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from blocks import save
from blocks.slack import SlackAccount
from parley import settings
from parley.cli import connecting, main
from parley.cli.saying import read_text
from parley.cli.terminal import shown, size
from parley.errors import BadArguments, ConfigurationError, LinkError
from parley.link.calls import AdminCall
from parley.link.connection import Handler
from parley.link.server import LinkServer, Peer, make_tokens
from parley.metrics import Metrics
from parley.processes import record
from parley.web.serve import serve
from tests.ports import PLAIN, free_port, free_ports
from tests.prefect_fixture import PrefectServer, plain_environment
from tests.web.fake_front import FakeFront


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@dataclass
class House:
    """A hub of the test's: answers administrative verbs from `answers`, the REST API from a `FakeFront`."""

    home: Path
    environment: dict[str, str]
    front: FakeFront = field(default_factory=FakeFront)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    async def admin(self, args: dict[str, Any]) -> Any:
        call = AdminCall.model_validate(args)
        self.asked.append((call.verb, call.arguments))
        answer = self.answers.get(call.verb)
        if isinstance(answer, Exception):
            raise answer
        return answer(**call.arguments) if callable(answer) else answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        def handlers(_: Peer) -> Mapping[str, Handler]:
            return {"admin": self.admin}

        tokens = make_tokens(self.home / "run")
        async with (
            serve(self.front, settings.load(self.environment), metrics=Metrics()),
            LinkServer(tokens, handlers).listen(self.home / "run" / "hub.sock"),
        ):
            yield

    async def parley(self, *arguments: str, given: bytes = b"", **more: str) -> Done:
        """Run one command."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "parley.cli",
            *arguments,
            env=plain_environment() | self.environment | more,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(given), 60)
        assert b"Traceback" not in err, err.decode()
        return Done(process.returncode or 0, out.decode(), err.decode())


def house_at(home: Path, **environment: str) -> House:
    names = ("PARLEY_PORT", "PARLEY_HOOKS_PORT", "PARLEY_METRICS_PORT")
    chosen = dict(zip(names, map(str, free_ports(3)), strict=True))
    own = {
        "PARLEY_HOME": str(home),
        "PARLEY_KEY_FILE": str(home.parent / "key"),
        "PARLEY_CONFIG": str(home / "c.toml"),
    }
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "c.toml").touch()
    house = House(home, own | chosen | environment)
    house.answers["token"] = lambda **_: {"token": "token-ada"}
    return house


@pytest.fixture
def stopped() -> Iterator[House]:
    """Settings and a home; nothing runs. In a short path: a Unix socket's may have 100 bytes."""
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        yield house_at(Path(folder) / "data")


@pytest.fixture
async def house(stopped: House) -> AsyncIterator[House]:
    async with stopped.running():
        yield stopped


# -- starting


def test_help_comes_at_once() -> None:
    """Processor time, so that a busy machine does not matter: the best of three."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    took = []
    for _ in range(3):
        before = spent()
        subprocess.run([sys.executable, "-m", "parley.cli", "--help"], check=True, capture_output=True)
        took.append(spent() - before)
    assert min(took) < 0.3


def test_the_command_line_starts_without_prefect_and_store() -> None:
    heavy = ("prefect", "sqlalchemy", "fastapi", "pydantic")
    script = f"import parley.cli.commands, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["say"], ["say", "x", "--nope"], ["say", "x", "--wait", "-1"], ["runs", "--limit", "0"]],
)
async def test_wrong_use_is_2(stopped: House, arguments: list[str]) -> None:
    done = await stopped.parley(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Error:" in done.err


@pytest.mark.parametrize("command", ["status", "say hi", "token", "runs", "people list", "audit verify"])
async def test_nothing_runs_is_one_line_and_2(stopped: House, command: str) -> None:
    done = await stopped.parley(*command.split())
    assert (done.code, done.out) == (2, "")
    assert done.err == f"parley: nothing is running in {stopped.home}: start it with `parley up`.\n"


async def test_a_broken_setting_is_named(stopped: House) -> None:
    done = await stopped.parley("status", PARLEY_PORT="http")
    assert done.code == 2
    assert done.err.startswith("parley: PARLEY_PORT='http' is not a port")
    (stopped.home / "c.toml").write_text("[worker]\nchildren = 0\n")
    done = await stopped.parley("say", "hi")
    assert done.code == 2
    assert "worker.children" in done.err


# -- say


async def test_say_prints_the_answer_and_names_its_file(house: House) -> None:
    done = await house.parley("say", "/order 1024")
    assert done.code == 0
    assert done.out.splitlines() == [
        "Order 1024 is on its way.",
        "",
        "place     when",
        "--------  -----",
        "Shenzhen  2 Nov",
        "上海      3 Nov",
        "[file] logistics-1024.csv (31 B)",
        "[Tell me when it arrives] watch 1024",
    ]
    assert house.asked == [("token", {"label": "command line", "days": 30})]


async def test_say_keeps_its_token_and_gets_a_new_one_when_it_ends(house: House) -> None:
    for _ in range(2):
        assert (await house.parley("say", "/order 1")).code == 0
    assert len(house.asked) == 1
    (kept,) = (house.home / "run").glob("say-*.token")
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.write_text("token-of-last-month")
    assert (await house.parley("say", "/order 1")).code == 0
    assert len(house.asked) == 2
    assert len(house.front.messages) == 3


async def test_say_as_json_is_the_whole_message(house: House, tmp_path: Path) -> None:
    done = await house.parley("say", "/order 1024", "--json", "--save", str(tmp_path))
    data = done.data
    assert (data["state"], data["run_id"], data["timings"]) == ("done", "run-m0000", {"total_ms": 184.2})
    (file,) = data["replies"][0]["files"]
    assert file["path"] == str(tmp_path / "logistics-1024.csv")


async def test_files_are_saved_beside_what_is_there(house: House, tmp_path: Path) -> None:
    for _ in range(2):
        done = await house.parley("say", "/order 1024", "--save", str(tmp_path / "new"))
        assert done.code == 0
    assert "-> " in done.out
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "logistics-1024.csv",
        "logistics-1024-1.csv",
    }


async def test_say_sends_files_and_standard_input(house: House, tmp_path: Path) -> None:
    (tmp_path / "图.txt").write_text("x")
    done = await house.parley("say", "-", "--file", str(tmp_path / "图.txt"), given="/order 7 ü".encode())
    assert done.code == 0
    (kept,) = house.front.messages.values()
    assert (kept.said, kept.files[0].name, kept.files[0].media_type) == ("/order 7 ü", "图.txt", "text/plain")
    done = await house.parley("say", "x", "--file", str(tmp_path / "none"))
    assert (done.code, "cannot be read" in done.err) == (2, True)
    done = await house.parley("say", "-", given=b"\xff")
    assert (done.code, "not UTF-8" in done.err) == (2, True)


async def test_what_did_not_come_out_well_is_1(house: House) -> None:
    failed = await house.parley("say", "/fail")
    assert (failed.code, failed.out) == (1, "It did not work: the shop does not answer.\n")
    late = await house.parley("say", "/slow", "--wait", "0.1")
    assert (late.code, "no final answer yet: it is running" in late.err) == (1, True)


async def test_what_was_refused_is_2(house: House) -> None:
    done = await house.parley("say", "")
    assert (done.code, "The message is empty" in done.err) == (2, True)


async def test_say_waits_through_a_restart_of_the_hub(stopped: House) -> None:
    """The supervisor is there; the hub breaks off the connection and comes back: the message is said once."""
    port = int(stopped.environment["PARLEY_PORT"])
    make_tokens(stopped.home / "run")
    record.write(stopped.home, [record.Entry("supervisor", os.getpid(), "now", 0, record.born(os.getpid()))])
    kept = stopped.home / "run" / f"say-{port}.token"
    kept.touch(0o600)
    kept.write_text("token-ada")
    tried = asyncio.Event()

    async def break_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        tried.set()

    async with await asyncio.start_server(break_off, "127.0.0.1", port):
        saying = asyncio.create_task(stopped.parley("say", "/order 1024"))
        await tried.wait()
    async with stopped.running():
        done = await saying
    assert done.code == 0
    assert len(stopped.front.messages) == 1


# -- what the hub is asked


STATUS = {
    "processes": [{"role": "hub", "pid": 7, "pss_mb": 90.5, "state": "running"}],
    "accounts": [{"name": "console", "platform": "console", "state": "listening", "reason": ""}],
    "queue": {"waiting": 3, "lanes": {"people": 3}},
}


async def test_status_for_people_and_for_programs(house: House) -> None:
    house.answers["status"] = STATUS
    assert (await house.parley("status", "--json")).data == STATUS
    out = (await house.parley("status")).out
    assert "hub   7    90.5    running" in out
    assert "queue: waiting 3 (people 3)" in out


LEG = {"n": 20, "p50_ms": 12.4, "p95_ms": 1480.2}
FULL_STATUS = {
    "processes": [
        {"role": "hub", "pid": 7, "pss_mb": 90.5, "state": "running"},
        *({"role": "child", "pid": 10 + number, "pss_mb": 20.0, "state": "running"} for number in range(6)),
    ],
    "accounts": [
        {"name": "console", "platform": "console", "state": "listening", "reason": ""},
        {"name": "a" * 60, "platform": "wecom_bot", "state": "down", "reason": "the platform says no " * 9},
    ],
    "queue": {
        "waiting": 12,
        "lanes": {"control": 0, "alerts": 2, "people": 10, "schedules": 0},
        "running": 6,
        "unhandled": 123456,
        "undelivered": 123456,
        "ambiguous": 123456,
    },
    "stations": {
        "minutes": 10,
        "ended": 21,
        "failed": 1,
        "legs": dict.fromkeys(("understood", "allowed", "started", "done", "delivered"), LEG)
        | {"whole": {"n": 20, "p50_ms": 210.0, "p95_ms": 480.0}},
        "commands": [
            {
                "command": "restart-" + "service-" * 6,
                "ended": 20,
                "failed": 1,
                "legs": {"started": LEG, "done": {"n": 20, "p50_ms": 99.0, "p95_ms": 100.0}, "whole": LEG},
            },
            {"command": "hanging", "ended": 1, "failed": 0, "legs": {}},
        ],
    },
    "children": {"busy": 4, "warm": 2, "changing": 0, "waiting": 0},
    "prefect": {"url": "http://127.0.0.1:4200/api", "reachable": True, "ms": 8.25},
    "disk": {"store_bytes": 3_100_000, "free_bytes": 12_345_678_901, "total_bytes": 50_000_000_000},
    "configuration": "in force",
}


async def test_status_says_how_long_each_station_takes_in_80_columns(house: House) -> None:
    house.answers["status"] = FULL_STATUS
    out = (await house.parley("status")).out
    assert max(map(len, out.splitlines())) <= 80
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "child x6 - 120.0 running" in lines
    assert "the last 10 minutes: 21 runs ended, 1 failed" in lines
    assert "delivered 20 12 ms 1.5 s" in lines
    assert "whole 20 210 ms 480 ms" in lines
    assert any(
        line.startswith("/restart-service-") and line.endswith("20 1 12 ms 1.5 s done 99 ms")
        for line in lines
    )
    assert "/hanging 1 0 - - -" in lines
    assert "children: busy 4, warm 2, changing 0, waiting 0" in lines
    assert "prefect: http://127.0.0.1:4200/api answers in 8.2 ms" in lines
    assert "disk: store 3.1 MB, 12.3 GB free of 50.0 GB" in lines


async def test_status_before_anything_was_run(house: House) -> None:
    quiet = {"minutes": 10, "ended": 0, "failed": 0, "legs": {}, "commands": []}
    down = {"url": "http://127.0.0.1:4200/api", "reachable": False, "ms": None}
    house.answers["status"] = FULL_STATUS | {"stations": quiet, "prefect": down, "children": {}}
    out = (await house.parley("status")).out
    assert "the last 10 minutes: 0 runs ended, 0 failed" in out
    assert "STATION" not in out
    assert "prefect: http://127.0.0.1:4200/api does not answer" in out
    assert "children:" not in out


@pytest.mark.parametrize(
    ("command", "verb", "arguments"),
    [
        ("token --as ben --label ci --days 7", "token", {"as_name": "ben", "label": "ci", "days": 7.0}),
        (
            "people add ben",
            "person_add",
            {"name": "ben", "role": "user", "automations": [], "kind": "person"},
        ),
        (
            "people add nagios --service --role operator --automation repair-*",
            "person_add",
            {"name": "nagios", "role": "operator", "automations": ["repair-*"], "kind": "service"},
        ),
        (
            "people add li --language zh",
            "person_add",
            {"name": "li", "role": "user", "automations": [], "kind": "person", "language": "zh"},
        ),
        ("people role ben owner", "person_role", {"name": "ben", "role": "owner"}),
        (
            "people link ben team U1 --verified",
            "person_link",
            {"name": "ben", "account": "team", "user_id": "U1", "verified": True},
        ),
        ("people disable ben", "person_disable", {"name": "ben"}),
        ("people grant ben night-shift", "person_grant", {"name": "ben", "role": "night-shift"}),
        ("person revoke ben night-shift", "person_revoke", {"name": "ben", "role": "night-shift"}),
        ("people remove ben", "person_remove", {"name": "ben"}),
        ("grant report --to console:owner", "grant", {"automation": "report", "to": "console:owner"}),
        ("audit show --limit 5", "audit_show", {"limit": 5}),
    ],
)
async def test_commands_ask_the_hub(house: House, command: str, verb: str, arguments: dict[str, Any]) -> None:
    house.answers |= {"audit_show": [], "person_revoke": True}
    done = await house.parley(*command.split())
    assert done.code == 0, done.err
    assert house.asked == [(verb, arguments)]


async def test_the_hubs_refusal_is_one_line(house: House) -> None:
    house.answers["person_add"] = ConfigurationError("'king' is not a role: choose owner, user.")
    done = await house.parley("people", "add", "ben", "--role", "king")
    assert (done.code, done.err) == (2, "parley: 'king' is not a role: choose owner, user.\n")
    house.answers["person_unlink"] = False
    house.answers["ungrant"] = 0
    assert (await house.parley("people", "unlink", "team", "U1")).code == 1
    assert (await house.parley("ungrant", "report")).code == 1


async def test_an_invitation_is_what_somebody_sends(house: House) -> None:
    house.answers["person_invite"] = {"code": "ACDE-FHJK-MNPQ"}
    assert (await house.parley("people", "invite", "ben")).out.splitlines()[-1] == "/link ACDE-FHJK-MNPQ"
    assert (await house.parley("people", "invite", "ben", "--json")).data == {"code": "ACDE-FHJK-MNPQ"}
    house.answers |= {"person_grant": False, "person_revoke": False}
    again = await house.parley("people", "grant", "ben", "night-shift")
    assert (again.code, again.out) == (0, "ben has the role night-shift already.\n")
    assert (await house.parley("people", "revoke", "ben", "night-shift")).code == 1


async def test_a_broken_chain_is_1(house: House) -> None:
    house.answers["audit_verify"] = {"rows": 3, "problems": ["row 2 was changed"]}
    done = await house.parley("audit", "verify")
    assert (done.code, done.out, done.err) == (1, "3 rows, 1 problems.\n", "parley: row 2 was changed\n")


async def test_the_audit_is_verified_part_by_part(house: House) -> None:
    parts = {
        0: {"rows": 2, "anchors": 1, "problems": ["row 2 is gone"], "next": {"sequence": 2}},
        2: {"rows": 1, "problems": [], "notes": ["a line was cut off"], "more": 4, "next": None},
    }
    house.answers["audit_verify"] = lambda place=None: parts[place["sequence"] if place else 0]
    done = await house.parley("audit", "verify")
    assert (done.code, done.err) == (1, "parley: row 2 is gone\n")
    assert done.out == "Note: a line was cut off\n3 rows, 1 anchors, 5 problems.\n"
    told = json.loads((await house.parley("audit", "verify", "--json")).out)
    assert (told["rows"], told["more"]) == (3, 4)


async def test_the_audit_is_exported_as_lines(house: House) -> None:
    rows = [{"sequence": number, "action": "run:x", "actor": "ann\u202e"} for number in range(1, 6)]

    def page(after: int, limit: int, action: str) -> list[dict[str, Any]]:
        assert action == "run:*"
        return rows[after : after + 2]

    house.answers["audit_page"] = page
    done = await house.parley("audit", "export", "--action", "run:*")
    assert [json.loads(line) for line in done.out.splitlines()] == rows
    assert [asked["after"] for _, asked in house.asked] == [0, 2, 4, 5]


async def test_the_story_of_a_request(house: House) -> None:
    house.answers["audit_request"] = [
        {"at": "2026-11-23T10:00:00", "what": "run started", "who": None, "details": {}, "sequence": 4}
    ]
    done = await house.parley("audit", "show", "--request", "4f1d02aa")
    assert "run started" in done.out
    assert house.asked == [("audit_request", {"identifier": "4f1d02aa"})]


LETTER: dict[str, Any] = {
    "id": "01a2079d-2813-71fd-865e-43fe875166f9",
    "code": "875166f9",
    "kind": "run",
    "automation": "repair",
    "account": "team",
    "actor": "ann",
    "reason": "gone",
    "doubtful": True,
    "state": "open",
    "created_at": "2026-11-23T09:00:00+00:00",
    "settled_by": None,
    "facts": {"command": "/repair host=web1"},
}


async def test_tokens_are_listed_and_revoked(house: House) -> None:
    row = {
        "id": "01900000-0000-7000-8000-0000ab875166",
        "code": "ab875166",
        "person": "ann",
        "kind": "bearer",
    }
    house.answers = {
        "tokens": [row | {"label": None, "since": "2026-11-24T00:00:00+00:00", "until": None}],
        "token_revoke": 2,
        "tokens_revoke_all": {"tokens": 3, "sessions": 1},
    }
    assert "ab875166" in (await house.parley("tokens", "list")).out
    assert (await house.parley("tokens", "list", "--of", "ann", "--json")).data[0]["person"] == "ann"
    assert "2 session(s) ended" in (await house.parley("tokens", "revoke", "ab875166")).out
    assert "3 token(s) of ann are revoked" in (await house.parley("tokens", "revoke", "--all-of", "ann")).out
    asked = [
        ("tokens", {}),
        ("tokens", {"name": "ann"}),
        ("token_revoke", {"code": "ab875166"}),
        ("tokens_revoke_all", {"name": "ann"}),
    ]
    assert house.asked == asked
    for wrong in ((), ("ab875166", "--all-of", "ann")):
        done = await house.parley("tokens", "revoke", *wrong)
        assert done.code == 1
        assert "--all-of NAME" in done.err
    assert house.asked == asked


async def test_dead_letters_are_listed_and_shown(house: House) -> None:
    house.answers |= {"dead_letters": [LETTER], "dead_letter": LETTER}
    out = (await house.parley("dlq", "list", "--kind", "run", "--all")).out
    assert "875166f9" in out
    assert house.asked == [("dead_letters", {"limit": 50, "kind": "run", "settled": True})]
    assert (await house.parley("dlq", "list", "--json")).data == [LETTER]
    assert "command: /repair host=web1" in (await house.parley("dlq", "show", "875166f9")).out


async def test_what_may_have_had_effects_is_not_done_again_without_a_second_word(house: House) -> None:
    house.answers |= {"dead_letter": LETTER, "dead_letter_replay": LETTER | {"state": "replayed"}}
    done = await house.parley("dlq", "replay", "875166f9")
    assert (done.code, done.err) == (1, "parley: it may have had effects: look first, then say --yes.\n")
    assert [verb for verb, _ in house.asked] == ["dead_letter"]
    done = await house.parley("dlq", "replay", "875166f9", "--yes", "--json")
    assert done.data["state"] == "replayed"
    assert house.asked[-1] == ("dead_letter_replay", {"identifier": LETTER["id"], "confirmed": True})
    house.answers["dead_letter_discard"] = BadArguments("ann has done this again already.")
    refused = await house.parley("dlq", "discard", "875166f9")
    assert (refused.code, refused.err) == (2, "parley: ann has done this again already.\n")


KEYS = {
    "source": "file",
    "newest": "0000000a",
    "keys": [{"id": "00000009", "wraps": False}, {"id": "0000000a", "wraps": True}],
    "data_keys": [{"id": "000000d1", "kind": "data", "seals": True, "wrapped_by": "0000000a"}],
    "resealing": True,
}


async def test_keys_are_shown_rotated_and_retired(house: House) -> None:
    house.answers |= {
        "keys": KEYS,
        "keys_rotate": lambda data: {"data_key": "000000d2"} if data else {"key": "0000000b", "rewrapped": 2},
        "keys_retire": ConfigurationError("7 values are sealed with the key 000000d1."),
    }
    shown = await house.parley("keys", "show")
    assert "wrapped by: 0000000a (file)" in shown.out
    assert "also there: 00000009" in shown.out
    assert "000000d1" in shown.out
    assert "being sealed anew" in shown.out
    assert (await house.parley("keys", "rotate")).out.startswith("0000000b wraps the data keys (2).")
    assert (await house.parley("keys", "rotate", "--data")).out.startswith("000000d2 seals from now on")
    refused = await house.parley("keys", "retire", "000000d1")
    assert (refused.code, refused.err) == (2, "parley: 7 values are sealed with the key 000000d1.\n")


async def test_keys_are_checked_step_by_step(house: House) -> None:
    steps = {
        (0, None): {"opened": 5, "broken": [], "next": {"place": 0, "after": "m5"}},
        (0, "m5"): {
            "opened": 1,
            "broken": ["message / event_sealed / m6"],
            "next": {"place": 1, "after": None},
        },
        (1, None): {"opened": 2, "broken": [], "next": None},
    }
    house.answers["keys_check"] = lambda place=0, after=None: steps[place, after]
    done = await house.parley("keys", "check")
    assert (done.code, done.out) == (1, "8 values open, 1 do not.\n")
    assert done.err == "parley: does not open: message / event_sealed / m6\n"
    told = (await house.parley("keys", "check", "--json")).data
    assert told == {"opened": 8, "broken": ["message / event_sealed / m6"]}


async def test_lists_are_json_for_programs(house: House) -> None:
    house.answers |= {
        "accounts": STATUS["accounts"],
        "people": [],
        "grants": [],
        "keys": KEYS,
        "catalogue": {"automations": [], "broken": [{"source": "flows.x", "reason": "does not import"}]},
    }
    for command in ("accounts", "people list", "grants", "keys show", "automations", "connectors", "runs"):
        assert (await house.parley(*command.split(), "--json")).data is not None
    done = await house.parley("automations")
    assert (done.code, done.err) == (0, "parley: flows.x: does not import\n")
    await house.parley("say", "/order 1")
    assert (await house.parley("runs", "--json")).data[0]["automation"] == "order_status"


async def test_platforms_are_listed_with_what_they_can_do(stopped: House) -> None:
    done = await stopped.parley("connectors")
    heading, _, *lines = done.out.splitlines()
    rows = {cells[0]: cells[1:] for cells in map(str.split, lines)}
    assert heading.split()[:4] == ["NAME", "RECEIVES", "SENDS", "HOOKS"]
    assert rows["github"] == ["yes", "no", "yes", "no", "no", "no", "0", "no"]
    assert rows["slack"][-3:] == ["25", "26.2", "MB"]
    assert {name for name, cells in rows.items() if cells[1] == "no"} >= {"alertmanager", "sentry"}
    known = {row["name"]: row for row in (await stopped.parley("connectors", "--json")).data}
    assert (known["github"]["sends"], known["slack"]["max_file"]) == (False, 26_214_400)


async def test_the_doctor_looks_without_a_hub_too(stopped: House) -> None:
    stopped.home.chmod(0o755)
    done = await stopped.parley("doctor", "--json")
    wrong = {row["check"]: row["mend"] for row in done.data if not row["ok"]}
    assert done.code == 1
    assert set(wrong) == {"key file", "home", "hub"}
    assert wrong["home"] == f"chmod go= {stopped.home}"
    done = await stopped.parley("doctor", PARLEY_PORT="x")
    assert (done.code, "PARLEY_PORT" in done.out) == (1, True)


# -- down


async def test_down_ends_the_supervisor_and_waits(stopped: House) -> None:
    assert (await stopped.parley("down")).out == f"nothing is running in {stopped.home}.\n"
    script = "import signal, time; signal.signal(15, lambda *_: exit()); print(flush=True); time.sleep(60)"
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    assert other.stdout is not None
    await other.stdout.readline()
    (stopped.home / "run").mkdir()
    record.write(stopped.home, [record.Entry("supervisor", other.pid, "now", 0, record.born(other.pid))])
    reaping = asyncio.create_task(other.wait())
    assert (await stopped.parley("down")).out == "ended.\n"
    assert await reaping == 0


async def test_down_leaves_a_stranger_with_the_same_pid_alone(stopped: House) -> None:
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
    (stopped.home / "run").mkdir()
    record.write(stopped.home, [record.Entry("supervisor", other.pid, "then", 0, 1.0)])
    assert (await stopped.parley("down")).code == 0
    assert other.returncode is None
    other.send_signal(signal.SIGKILL)
    await other.wait()


# -- connect


def test_fields_of_a_connection(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("xoxb-1\n")
    given = connecting.parse_fields([f"bot_token=@{tmp_path / 'secret'}", "hear=a=b"])
    assert given == {"bot_token": "xoxb-1", "hear": "a=b"}
    variables = {"PARLEY_SLACK_BOT_TOKEN": "xoxb-2", "PARLEY_PORT": "1"}
    assert connecting.from_environment("slack", variables) == {"bot_token": "xoxb-2"}
    for wrong in ("x", "=y", "a b=c", f"a=@{tmp_path / 'none'}"):
        with pytest.raises(BadArguments):
            connecting.parse_fields([wrong])
    with pytest.raises(BadArguments, match="PARLEY_MAIL_"):
        connecting.from_environment("mail", variables)


def test_the_saver_knows_its_blocks() -> None:
    about = save.description(save.block_of("slack"))
    fields = {field["name"]: field for field in about["fields"]}
    assert about["block_type"] == "parley-slack-account"
    assert (fields["bot_token"]["secret"], fields["bot_token"]["required"]) == (True, True)
    assert (fields["hear"]["secret"], fields["hear"]["required"]) == (False, False)
    for platform in ("nope", "_base", "save", "../slack", ""):
        with pytest.raises(ConfigurationError):
            save.block_of(platform)


async def test_the_saver_takes_no_secret_in_clear() -> None:
    with pytest.raises(ConfigurationError, match="not sealed: bot_token"):
        await save.save(SlackAccount, "team", {"bot_token": "xoxb-1"})
    with pytest.raises(ConfigurationError, match="hear") as refused:
        await save.save(SlackAccount, "team", {"bot_token": "sealed:v1:x", "hear": "canary"})
    assert "canary" not in str(refused.value)


async def test_the_saver_waits_for_a_prefect_that_does_not_listen_yet() -> None:
    port, tries = free_port(), 0
    async with AsyncExitStack() as listening:

        async def attempt() -> None:
            nonlocal tries
            tries += 1
            if tries == 2:
                server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
                await listening.enter_async_context(server)
            async with httpx.AsyncClient(verify=PLAIN) as client:
                await client.get(f"http://127.0.0.1:{port}/")

        with pytest.raises(httpx.RemoteProtocolError):
            await save.once_prefect_answers(attempt)  # what may have arrived is not sent again
    assert tries == 2


@pytest.mark.prefect
async def test_connect_seals_saves_and_announces(prefect_server: PrefectServer) -> None:
    """Against a real Prefect server: what it holds is sealed, the hub is told, nothing is left in clear."""
    house = house_at(prefect_server.home, PARLEY_PREFECT_PORT=str(prefect_server.port))
    house.answers |= {
        "seal": lambda value, **_: {"sealed": f"sealed:v1:{value[::-1]}"},
        "add_account": None,
    }
    async with house.running():
        done = await house.parley(
            "connect",
            "slack",
            "team",
            "--from-env",
            "--field",
            "hear=all",
            "--json",
            PARLEY_SLACK_BOT_TOKEN="xoxb-1",
        )
        assert done.code == 0, done.err
        assert done.data["block"] == "parley-slack-account/team"
        verbs = [verb for verb, _ in house.asked]
        assert verbs == ["seal", "add_account"]
        assert house.asked[0][1]["block_type"] == "parley-slack-account"
        assert house.asked[1][1] == {
            "name": "team",
            "platform": "slack",
            "block": "parley-slack-account/team",
        }
        unknown = await house.parley("connect", "slack", "team", "--field", "bot_tokn=x")
        assert (unknown.code, "there is no field 'bot_tokn'" in unknown.err) == (2, True)
        missing = await house.parley("connect", "slack", "team")
        assert (missing.code, "--field bot_token=... is missing" in missing.err) == (2, True)
    path = "/block_types/slug/parley-slack-account/block_documents/name/team"
    with prefect_server.client() as client:
        saved = client.get(path, params={"include_secrets": "true"}).raise_for_status().json()["data"]
    assert (saved["bot_token"], saved["hear"]) == ("sealed:v1:1-bxox", "all")


async def test_an_account_has_a_plain_name(stopped: House) -> None:
    done = await stopped.parley("connect", "slack", "My Team", "--field", "bot_token=x")
    assert (done.code, "cannot be an account's name" in done.err) == (2, True)


# -- printing


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    assert shown("a\x1b[2Jb\x07\u202ec\r\nd\te") == "a\\x1b[2Jb\\x07\\u202ec\\r\nd\te"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (31, "31 B"), (1234, "1.2 kB"), (250_000, "250 kB"), (26_214_400, "26.2 MB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_text_is_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("查".encode())))
    assert (read_text("x"), read_text("-")) == ("x", "查")


def test_main_ends_with_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(_: object) -> None:
        raise LinkError("nobody\nthere")

    monkeypatch.setattr("parley.cli.installation.Installation.must_run", unreachable)
    with pytest.raises(SystemExit) as ended:
        main(["accounts"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "parley: nobody\nthere\n"
