"""Registered scripts: what reaches them, what they may use, and that nothing of them is left behind."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect import Flow

from flows._scripts import argv, check, registered, revision, revisions, run
from flows.repair_alert import _subscriptions, repair_alert
from parley.errors import BadArguments, ConfigurationError
from parley.settings import Script
from tests.runs.fake_hub import FakeHub, hub
from tests.runs.prefect_client import IN_PREFECT, prefect_api, run_deployed

__all__ = ["hub", "prefect_api"]

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and prctl")

TEXT = {"type": "string"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    (tmp_path / "parley.toml").touch()
    return tmp_path


def program(code: str, *arguments: str, **options: Any) -> Script:
    return Script(argv=(sys.executable, "-I", "-S", "-c", code, *arguments), **options)


def shell_payloads() -> list[str]:
    """Two hundred texts that would do something in a shell, an option parser, a template or a format string."""
    seeds = [
        "; rm -rf /", "&& id", "| cat /etc/passwd", "`id`", "$(id)", "${IFS}id", "> /tmp/x", "< /etc/passwd", "\n id",
        "'; id; '", '"; id; "', "a' || 'b", "\\", "\\\\", "*", "?", "[a-z]", "{a,b}", "~root", "!!", "#comment", "%0a",
        "%s%n", "{0.__class__}", "{{7*7}}", "{host}", "$HOME", "$PATH", "a b", "\t", "\r\n", "\x1b[31m", "\x7f",
        "é", "日本語", "\u202eabc", "🙂", "..", "../../etc/passwd", "/dev/null", "file:///etc/passwd", "http://x/",
        "@/etc/passwd", "=cmd", "'", '"', "", " ", "a" * 5000, "null",
    ]  # fmt: skip
    return [f"{before}{seed}{after}" for seed in seeds for before in ("", "web1") for after in ("", " x")]


ECHO = "import sys; sys.stdout.buffer.write(sys.argv[1].encode('utf-8', 'surrogateescape'))"


def test_there_are_two_hundred_payloads() -> None:
    assert len(shell_payloads()) == 200


async def test_every_payload_arrives_byte_for_byte() -> None:
    script = program(ECHO, "{text}", parameters={"text": TEXT})
    limit = asyncio.Semaphore(4)

    async def sent(payload: str) -> str:
        async with limit:
            outcome = await run(script, argv(script, {"text": payload}))
            assert outcome.succeeded
            return outcome.output

    payloads = shell_payloads()
    assert await asyncio.gather(*(sent(payload) for payload in payloads)) == payloads


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (TEXT, "a\0b"),
        (TEXT, "\ud800"),
        (TEXT, "-rf"),
        (TEXT, "--help"),
        (TEXT, 5),
        (TEXT, ["a"]),
        (TEXT, {"$ref": "x"}),
        ({"type": "string", "pattern": "^[a-z]+$"}, "web; id"),
        ({"type": "string", "pattern": "^[a-z]+$"}, "web\n"),
        ({"type": "string", "enum": ["a"]}, "b"),
        ({"type": "integer", "maximum": 5}, 6),
        ({"type": "integer"}, "6"),
        ({"type": "boolean"}, "true"),
    ],
)
def test_a_wrong_value_is_refused(schema: dict[str, Any], value: object) -> None:
    script = program("", "{it}", parameters={"it": schema})
    with pytest.raises(BadArguments, match="it: "):
        argv(script, {"it": value})


def test_values_become_one_argument_each() -> None:
    script = program(
        "x", "{n}", "{flag}", "{kind}", "{n}",
        parameters={"n": {"type": "integer"}, "flag": {"type": "boolean"}, "kind": {"enum": ["-x"], "default": "-x"}},
    )  # fmt: skip
    assert argv(script, {"n": -3, "flag": True})[-4:] == ["-3", "true", "-x", "-3"]
    with pytest.raises(BadArguments, match="n: a value is missing"):
        argv(script, {"flag": True})
    with pytest.raises(BadArguments, match="no such parameter"):
        argv(script, {"n": 1, "flag": True, "more": 2})


@pytest.mark.parametrize(
    ("arguments", "parameters", "says"),
    [
        (("run", "{what}"), {}, "no such parameter"),
        (("run", "--host={host}"), {"host": TEXT}, "of its own"),
        (("{host}",), {"host": TEXT}, "what is run"),
        (("run",), {"host": {}}, "type"),
        (("run",), {"host": {"type": "object"}}, "type"),
        (("run",), {"host": {"type": "string", "minLength": "x"}}, "host"),
        (("run",), {"a-b": TEXT}, "name"),
        (("run",), {"script": TEXT}, "name"),
    ],
)
def test_a_bad_registration_is_refused(
    arguments: tuple[str, ...], parameters: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        check("x", Script(argv=arguments, parameters=parameters))


def test_braces_that_are_no_parameter_are_text() -> None:
    script = Script(argv=("awk", "{print $1}", "x"))
    check("x", script)
    assert argv(script, {}) == ["awk", "{print $1}", "x"]


def test_another_script_file_is_another_revision(tmp_path: Path) -> None:
    path = tmp_path / "fix.sh"
    path.write_text("echo 1")
    scripts = {"fix": Script(argv=("/bin/sh", str(path)))}
    before = revision(scripts)
    path.write_text("echo 2")
    assert revision(scripts) != before


def test_a_large_file_far_behind_counts_too(tmp_path: Path) -> None:
    path = tmp_path / "rules.bin"
    path.write_bytes(b"0" * 3 * 2**20)
    scripts = {"fix": Script(argv=("/bin/sh", "-c", "true", "x", "y", str(path)))}
    before = revision(scripts)
    path.write_bytes(b"0" * (3 * 2**20 - 1) + b"1")
    assert revision(scripts) != before


def test_a_script_is_approved_together_with_its_fallback_and_without_its_neighbours(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.sh" for name in ("mend", "reboot", "other")}
    for path in paths.values():
        path.write_text("true")
    scripts = {name: Script(argv=("/bin/sh", str(path))) for name, path in paths.items()}
    scripts["mend"] = scripts["mend"].model_copy(update={"fallback": "reboot"})
    before = revisions(scripts)
    paths["other"].write_text("false")
    assert revisions(scripts)["mend"] == before["mend"]
    paths["reboot"].write_text("false")
    assert revisions(scripts)["mend"] != before["mend"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[scripts.a]\nargv = ["true"]\nfallback = "b"', "name another registered script"),
        ('[scripts.a]\nargv = ["true"]\nfallback = "a"', "name another registered script"),
        (
            (
                '[scripts.a]\nargv = ["true"]\nfallback = "b"\n'
                '[scripts.b]\nargv = ["echo", "{host}"]\nparameters.host.type = "string"'
            ),
            "needs 'host'",
        ),
        ('[scripts.a]\nargv = ["true"]\n[[scripts.a.mends]]\nwith.host = "{labels.host}"', "names 'host'"),
        ('[scripts.a]\nargv = ["true"]\n[[scripts.a.mends]]\nfrom = "no topic!"', "from"),
    ],
)
def test_a_script_that_could_not_mend_anything_is_refused(home: Path, text: str, says: str) -> None:
    (home / "parley.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        registered()


def test_what_a_script_mends_is_what_its_flow_waits_for(home: Path) -> None:
    (home / "parley.toml").write_text(
        """
        [scripts.restart]
        argv = ["true", "{host}"]
        parameters.host.type = "string"
        mends = [{ where = { "labels.alertname" = "Down" }, with = { host = "{labels.host}" }, label = "Mend" }]
        """
    )
    (waiting,) = _subscriptions(registered())
    assert waiting.pattern == "*.alert.firing"
    assert waiting.where == {"labels.alertname": ("Down",)}
    assert waiting.parameters == {"script": "restart", "host": "{labels.host}"}
    assert waiting.label == "Mend"


async def test_it_sees_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "parley:secret")
    monkeypatch.setenv("PARLEY_RUN_TOKEN", "t")
    script = program("import os, json; print(json.dumps(dict(os.environ)))", environment={"STAGE": "prod"})
    outcome = await run(script, argv(script, {}))
    assert set(json.loads(outcome.output)) - {"LC_CTYPE"} == {"PATH", "LANG", "STAGE"}


async def test_it_has_no_input_and_no_file_of_ours() -> None:
    script = program(
        "import os, sys; print(repr(sys.stdin.read()), sorted(map(int, os.listdir('/proc/self/fd')))[:4])"
    )
    outcome = await run(script, argv(script, {}))
    assert outcome.output == "'' [0, 1, 2, 3]\n"  # 3 is the listing itself


async def test_errors_and_output_come_together_and_the_code_is_told() -> None:
    script = program("import sys; print('out', flush=True); sys.exit('no')")
    outcome = await run(script, argv(script, {}))
    assert (outcome.how, outcome.code, outcome.output) == ("ended", 1, "out\nno\n")


async def test_a_program_that_is_not_there_is_told() -> None:
    outcome = await run(Script(argv=("/no/such/program",)), ["/no/such/program"])
    assert outcome.code == 127
    assert "cannot be started" in outcome.output


async def test_output_is_kept_to_its_limit() -> None:
    script = program("print('x' * 1_000_000)", output_kb=10)
    outcome = await run(script, argv(script, {}))
    assert outcome.cut
    assert len(outcome.output) == 10 * 1024
    assert outcome.succeeded


@linux
@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("x = bytearray(400 * 2**20)", {"memory_mb": 200}),
        ("while True: pass", {"cpu_seconds": 1}),
        ("f = open('big', 'wb')\nwhile True: f.write(b'x' * 2**20)", {}),
    ],
    ids=["memory", "cpu", "file"],
)
async def test_limits_end_it(code: str, options: dict[str, Any]) -> None:
    script = program(code, timeout=50, **options)
    outcome = await run(script, argv(script, {}))
    assert outcome.how == "ended"
    assert outcome.code != 0


FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"])
away = subprocess.Popen(["sleep", "600"], start_new_session=True)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid} {away.pid}")
os.rename(sys.argv[1], sys.argv[1] + ".ready")
%s
"""


def family(tmp_path: Path, then: str, **options: Any) -> Script:
    return program(FAMILY % then, str(tmp_path / "pids"), **options)


async def pids(tmp_path: Path) -> list[int]:
    ready = tmp_path / "pids.ready"
    async with asyncio.timeout(20):
        while not ready.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
    return [int(pid) for pid in ready.read_text().split()]


async def gone(processes: list[int]) -> None:
    async with asyncio.timeout(10):
        while any(psutil.pid_exists(pid) for pid in processes):  # noqa: ASYNC110 - nobody tells of a death
            await asyncio.sleep(0.01)


BOMB = """
import os, time
end = time.time() + 20
while time.time() < end:
    try:
        os.fork()
    except OSError:
        pass
"""


@linux
class TestNothingIsLeft:
    """By pid: the script, its child, and one that left its session."""

    async def test_after_a_time_out(self, tmp_path: Path) -> None:
        script = family(tmp_path, "time.sleep(600)", timeout=1)
        outcome = await run(script, argv(script, {}))
        assert (outcome.how, outcome.code) == ("timeout", None)
        await gone(await pids(tmp_path))

    async def test_after_an_ordinary_end(self, tmp_path: Path) -> None:
        script = family(tmp_path, "print('done')")
        outcome = await run(script, argv(script, {}))
        assert (outcome.succeeded, outcome.output) == (True, "done\n")
        await gone(await pids(tmp_path))

    async def test_after_a_cancellation(self, tmp_path: Path) -> None:
        script = family(tmp_path, "time.sleep(600)")
        running = asyncio.create_task(run(script, argv(script, {})))
        processes = await pids(tmp_path)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await gone(processes)

    async def test_after_our_own_death(self, tmp_path: Path) -> None:
        code = (
            "import asyncio, sys; from flows._scripts import argv, run; from parley.settings import Script;"
            "script = Script.model_validate_json(sys.argv[1]); asyncio.run(run(script, argv(script, {})))"
        )
        script = family(tmp_path, "time.sleep(600)")
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, script.model_dump_json())
        processes = await pids(tmp_path)
        parent.kill()
        await parent.wait()
        await gone(processes)

    async def test_after_a_fork_bomb(self, tmp_path: Path) -> None:
        script = program(BOMB, timeout=40)
        before = len(psutil.pids())
        started = time.monotonic()
        outcome = await run(script, argv(script, {}))
        assert outcome.how == "processes" or outcome.code != 0
        assert time.monotonic() - started < 15
        assert len(psutil.pids()) < before + 40


def test_the_sample_is_registered_where_nothing_else_is(home: Path) -> None:
    assert list(registered()) == ["restart-service"]
    (home / "parley.toml").write_text('[scripts.mine]\nargv = ["true"]\n')
    assert list(registered()) == ["mine"]


def test_its_parameters_are_those_of_the_scripts() -> None:
    assert list(repair_alert.parameters.properties) == ["script", "host", "service"]
    assert repair_alert.parameters.required == ["script"]


class TestInPrefect:
    pytestmark = IN_PREFECT

    async def test_a_repair_is_recorded_announced_and_reported(self, hub: FakeHub, home: Path) -> None:
        state = await run_deployed(repair_alert, script="restart-service", host="web1")
        assert state.is_completed()
        assert hub.names() == ["start", "log_action", "say", "finish"]
        assert "web1" in hub.of("log_action")[0]["details"]["argv"]
        reply = hub.finish().reply
        assert reply is not None
        assert "succeeded" in reply.text
        assert "web on web1 was restarted." in reply.text

    @pytest.mark.parametrize(
        ("parameters", "says"),
        [
            ({"script": "restart-service"}, "host: a value is missing"),
            ({"script": "restart-service", "host": "web1; id"}, "host: "),
            ({"script": "restart-service", "host": "web1", "service": "all"}, "service: "),
        ],
    )
    async def test_wrong_arguments_run_nothing(
        self, hub: FakeHub, home: Path, parameters: dict[str, Any], says: str
    ) -> None:
        await run_refused(repair_alert, parameters)
        assert hub.finish().kind == "arguments"
        assert says in hub.finish().reason
        assert not (home / "samples" / "restarts.log").exists()


async def run_refused(flow: Flow[..., Any], parameters: dict[str, Any]) -> None:
    state = await run_deployed(flow, **parameters)
    assert state.is_failed()


def test_the_shown_scripts_are_checked_when_they_are_read(home: Path) -> None:
    (home / "parley.toml").write_text(
        '[scripts.bad]\nargv = ["true", "--x={y}"]\n[scripts.bad.parameters.y]\ntype = "string"\n'
    )
    with pytest.raises(ConfigurationError, match="of its own"):
        registered()
