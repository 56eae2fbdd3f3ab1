"""The supervisor: whatever ends is started again, whatever happens to it nothing is left, and a stop has an order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from parley.processes import environment, ports, record, supervisor, table
from parley.processes.health import status
from parley.processes.log_file import LogFile
from parley.settings import Settings, load
from tests.prefect_fixture import free_port, plain_environment
from tests.processes.small_stack import SERVER, SLEEPER, STUBBORN, polite, program

T = TypeVar("T")

LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel of Linux ends children of a dead parent"
)


class Running:
    """A supervisor on a thread of its own, and what it said."""

    def __init__(self, home: Path, programs: Sequence[table.Program]) -> None:
        record.make_home(home)
        self.home = home
        self.said: list[str] = []
        self.code: int | None = None
        self.supervisor = supervisor.Supervisor(home, programs, say=self.said.append, tick=0.02)
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.code = self.supervisor.run()
        self.supervisor.close()

    def entry(self, role: str) -> record.Entry | None:
        return next((entry for entry in record.read(self.home) if entry.role == role), None)

    def started(self, role: str, *, restarts: int = 0) -> record.Entry:
        """Wait until a process runs that was started again so often."""

        def there() -> record.Entry | None:
            entry = self.entry(role)
            return entry if entry and entry.restarts >= restarts and record.lives(entry) else None

        return until(there)

    def wrote(self, role: str, text: str) -> None:
        log = self.home / "logs" / f"{role}.log"
        until(lambda: log.exists() and text in log.read_text())

    def text(self) -> str:
        return "\n".join(self.said)


def until(there: Callable[[], T | None], seconds: float = 15) -> T:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := there():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s")


@contextmanager
def running(home: Path, *programs: table.Program) -> Iterator[Running]:
    stack = Running(home, programs)
    stack.thread.start()
    try:
        yield stack
    finally:
        stack.supervisor.stop()
        stack.thread.join(20)
        assert not stack.thread.is_alive()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    names = ("PARLEY_PORT", "PARLEY_HOOKS_PORT", "PARLEY_METRICS_PORT", "PARLEY_PREFECT_PORT")
    given = {name: str(free_port()) for name in names} | {"PARLEY_HOME": str(tmp_path)}
    return load(given | {"PARLEY_KEY_FILE": str(tmp_path / "elsewhere" / "key")})


def test_a_killed_process_is_running_again(tmp_path: Path) -> None:
    with running(tmp_path, program("a"), program("b")) as stack:
        first, other = stack.started("a"), stack.started("b")
        os.kill(first.pid, signal.SIGKILL)
        second = stack.started("a", restarts=1)
        assert second.pid != first.pid
        assert second.restarts == 1
        assert stack.entry("b") == other
        assert "a was ended by SIGKILL; again in 0.1 s" in stack.text()
    assert stack.code == 0
    assert not record.lives(second)
    assert record.read(tmp_path) == []


def test_what_runs_stands_back_behind_what_listens_with_all_its_children(tmp_path: Path) -> None:
    says = "import os, subprocess; print(os.nice(0)); subprocess.run(['nice'])"
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    with running(tmp_path, program("front", says), program("behind", says, nice=3)) as stack:
        stack.wrote("front", f"{ours}\n{ours}\n")
        stack.wrote("behind", f"{ours + 3}\n{ours + 3}\n")


def test_a_process_that_keeps_dying_is_tried_less_often_and_its_last_words_are_shown(tmp_path: Path) -> None:
    with running(tmp_path, program("a", "import sys; sys.exit('the database is damaged')")) as stack:
        until(lambda: "ended 3 times" in stack.text())
    waits = [line.rsplit(" in ", 1)[1].split()[0] for line in stack.said if "again in" in line][:3]
    assert waits == ["0.1", "0.2", "0.4"]
    assert stack.text().count("the database is damaged") == 1
    assert str(tmp_path / "logs" / "a.log") in stack.text()


def test_a_wrong_setting_ends_the_start_with_its_message(tmp_path: Path) -> None:
    refusing = program(
        "a", "import sys; print('parley.toml: port 0 is no port', file=sys.stderr); sys.exit(2)"
    )
    stack = Running(tmp_path, [program("b"), refusing])
    stack._run()
    assert stack.code == 2
    assert "a cannot start:\nparley.toml: port 0 is no port" in stack.text()
    assert record.read(tmp_path) == []


def test_what_is_to_run_once_runs_once(tmp_path: Path) -> None:
    """Repeated until it succeeds, then no more."""
    attempts = tmp_path / "attempts"
    code = (
        "import pathlib, sys\n"
        "file = pathlib.Path(sys.argv[1]); n = len(file.read_text()) if file.exists() else 0\n"
        "file.write_text('x' * (n + 1)); sys.exit(0 if n == 2 else 1)"
    )
    with running(tmp_path, program("b"), program("a", code, str(attempts), once=True)) as stack:
        until(lambda: attempts.exists() and attempts.read_text() == "xxx" and stack.entry("a") is None)
        b = stack.started("b")
        os.kill(b.pid, signal.SIGKILL)
        stack.started("b", restarts=1)
    assert attempts.read_text() == "xxx"


def test_what_ran_once_runs_again_when_its_file_has_changed(tmp_path: Path) -> None:
    """Deployments are registered anew when parley.toml says something else."""
    file, seen = tmp_path / "parley.toml", tmp_path / "seen"
    code = (
        "import pathlib, sys\n"
        "text = pathlib.Path(sys.argv[1]).read_text()\n"
        "open(sys.argv[2], 'a').write(text + ' '); sys.exit(text == 'broken')"
    )
    file.write_text("first")
    reader = program("a", code, str(file), str(seen), once=True, reads=file, longest_wait=600)
    with running(tmp_path, reader):
        for text in ("first", "broken", "mended"):
            file.write_text(text)
            until(lambda: seen.exists() and seen.read_text().split()[-1:] == [file.read_text()])


def test_a_program_that_is_not_there_is_no_reason_to_end(tmp_path: Path) -> None:
    absent = table.Program(role="a", argv=("/nowhere/program",), environment={}, stage=1, grace=1)
    with running(tmp_path, absent, program("b")) as stack:
        stack.started("b")
        until(lambda: "a ended with exit code 1" in stack.text() or "a cannot be started" in stack.text())


def test_the_stop_has_an_order(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    programs = [polite("server", diary, 3), polite("hub", diary, 2), polite("worker", diary, 1)]
    with running(tmp_path, *programs) as stack:
        for each in programs:
            stack.wrote(each.role, "here")
    assert stack.code == 0
    assert diary.read_text().split() == ["worker", "hub", "server"]


def test_what_does_not_end_in_its_time_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, program("a", STUBBORN, grace=0.2)) as stack:
        entry = stack.started("a")
        stack.wrote("a", "here")
    assert "a did not end within 0 s and is killed" in stack.text()
    assert not record.lives(entry)


def test_a_second_ctrl_c_hurries(tmp_path: Path) -> None:
    with running(tmp_path, program("a", STUBBORN, grace=600)) as stack:
        stack.wrote("a", "here")
        stack.supervisor.stop()
        until(lambda: "stopping" in stack.text())
        stack.supervisor.stop()
        stack.thread.join(10)
        assert not stack.thread.is_alive()
    assert "is killed" in stack.text()


def test_a_process_that_hangs_is_killed_and_comes_back(tmp_path: Path) -> None:
    """An error is an answer: only silence counts, and only several in a row."""
    port, deaf = free_port(), tmp_path / "deaf"
    probe = table.Probe(host="127.0.0.1", port=port, path="/healthz", every=0.05, timeout=0.1, failures=3)
    with running(tmp_path, program("hub", SERVER, str(port), str(deaf), probe=probe)) as stack:
        first = stack.started("hub")
        until(lambda: status(probe) == 503)
        deaf.touch()
        until(lambda: f"hub (pid {first.pid}) does not answer" in stack.text())
        deaf.unlink()
        stack.started("hub", restarts=1)
        until(lambda: status(probe) == 503)


def test_ctrl_c_reaches_the_supervisor_alone_and_it_ends_with_0(tmp_path: Path) -> None:
    process = _small_stack(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 0
    assert (tmp_path / "diary").read_text().split() == ["a", "b", "c"]


@LINUX
def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    process = _small_stack(tmp_path)
    entries = [entry for entry in record.read(tmp_path) if entry.role != "supervisor"]
    process.kill()
    process.wait()
    until(lambda: not any(record.lives(entry) for entry in entries))
    assert sorted((tmp_path / "diary").read_text().split()) == ["a", "b", "c"], "they were told, not killed"


def test_what_a_killed_supervisor_left_is_ended_before_the_next_start(tmp_path: Path) -> None:
    record.make_home(tmp_path)
    left = [subprocess.Popen([sys.executable, "-S", "-c", SLEEPER]) for _ in range(3)]
    try:
        entries = [
            record.Entry(role, one.pid, "", 0, record.born(one.pid))
            for role, one in zip(("hub", "worker", "prefect"), left, strict=True)
        ]
        # A later process that got the number of an earlier one of ours is none of our business.
        entries[2] = entries[2]._replace(born=1.0)
        record.write(tmp_path, entries)
        supervisor.end_leftovers(tmp_path)
        assert left[0].wait(5) == -signal.SIGTERM
        assert left[1].poll() is None, "a worker finishes its runs"
        assert left[2].poll() is None
    finally:
        for one in left:
            one.kill()
            one.wait()


def _small_stack(home: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.processes.small_stack", str(home)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    logs = [home / "logs" / f"{role}.log" for role in "abc"]
    until(lambda: all(log.exists() and "here" in log.read_text() for log in logs))
    return process


# -- before anything is started


def _up(home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "parley.processes.supervisor"],
        env=plain_environment() | {"PARLEY_HOME": str(home)} | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_broken_file_is_told_in_one_message(tmp_path: Path) -> None:
    config = tmp_path / "parley.toml"
    config.write_text("[worker]\nchildren = 0\n")
    done = _up(tmp_path / "home", PARLEY_CONFIG=str(config))
    assert done.returncode == 2
    assert "worker.children" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_second_one_for_the_same_home_is_refused(tmp_path: Path) -> None:
    record.make_home(tmp_path)
    held = record.lock(tmp_path)
    record.write_pid(tmp_path)
    done = _up(tmp_path)
    os.close(held)
    assert done.returncode == 2
    assert f"running for {tmp_path} already (pid {os.getpid()})" in done.stderr


def test_a_taken_port_is_named_with_its_holder_and_how_to_move(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _up(tmp_path, PARLEY_HOOKS_PORT=str(port), PARLEY_METRICS_PORT=str(port))
    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1, for hooks," in done.stderr
    assert "PARLEY_HOOKS_PORT" in done.stderr
    assert "PARLEY_METRICS_PORT and PARLEY_HOOKS_PORT are both" in done.stderr
    if sys.platform == "linux":
        assert f"(pid {os.getpid()})" in done.stderr
    assert not (tmp_path / "logs" / "hub.log").exists()


def test_the_folders_are_closed_to_others(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    record.make_home(home)
    assert [oct(folder.stat().st_mode & 0o777) for folder in (home, home / "run")] == ["0o700", "0o700"]


# -- the table


def test_the_embedded_default_has_four_processes(settings: Settings) -> None:
    programs = {one.role: one for one in table.programs(settings)}
    assert list(programs) == ["prefect", "hub", "worker", "listeners"]
    assert programs["worker"].stage < programs["hub"].stage < programs["prefect"].stage
    assert str(settings.prefect_port) in programs["prefect"].argv


def test_beside_an_existing_prefect_and_its_workers_there_are_fewer(tmp_path: Path) -> None:
    config = tmp_path / "parley.toml"
    config.write_text('[prefect]\nworker = "stock"\n')
    given = {"PARLEY_CONFIG": str(config), "PARLEY_HOME": str(tmp_path), "PREFECT_API_URL": "http://p/api"}
    existing = load(given)
    programs = {one.role: one for one in table.programs(existing)}
    assert list(programs) == ["hub", "register", "listeners"]
    assert programs["register"].once
    assert "PARLEY_PREFECT_PORT" not in {port.variable for port in ports.ports_of(existing)}


SECRETS = {
    "PARLEY_KEY_FILE": "/keys/key",
    "PARLEY_DATABASE_URL": "postgresql://u:secret@db/parley",
    "PARLEY_WORKER_TOKEN": "w",
    "PARLEY_LISTENERS_TOKEN": "l",
    "PREFECT_API_KEY": "cloud",
    "OTHER": "kept",
}


def test_no_process_is_told_a_secret_that_it_has_no_use_for(settings: Settings) -> None:
    hub = environment.hub_environment(settings, SECRETS)
    worker = environment.client_environment(settings, "worker", SECRETS)
    listeners = environment.client_environment(settings, "listeners", SECRETS)
    prefect = environment.prefect_environment(SECRETS)
    assert {"PARLEY_KEY_FILE", "PARLEY_DATABASE_URL"} <= set(hub)
    for other in (worker, listeners, prefect):
        assert not {"PARLEY_KEY_FILE", "PARLEY_DATABASE_URL"} & set(other)
        assert other["OTHER"] == "kept"
    assert ("PARLEY_LISTENERS_TOKEN" in worker, "PARLEY_WORKER_TOKEN" in worker) == (False, True)
    assert ("PARLEY_LISTENERS_TOKEN" in listeners, "PARLEY_WORKER_TOKEN" in listeners) == (True, False)
    assert not {name for name in prefect if name.startswith("PARLEY_")}
    for one in (hub, worker, listeners):
        assert one["PREFECT_API_URL"] == settings.api_url
        assert one["PARLEY_OWN_PREFECT"] == "1"
        assert "PREFECT_API_KEY" not in one, "it would win over the password of our own server"


def test_an_existing_prefect_keeps_its_own_credentials(tmp_path: Path) -> None:
    given = {
        "PREFECT_API_URL": "https://prefect.example/api",
        "PREFECT_API_KEY": "k",
        "PARLEY_HOME": str(tmp_path),
    }
    existing = load(given)
    for one in (
        environment.hub_environment(existing, given),
        environment.client_environment(existing, "worker", given),
    ):
        assert (one["PREFECT_API_URL"], one["PREFECT_API_KEY"]) == ("https://prefect.example/api", "k")
        assert "PARLEY_OWN_PREFECT" not in one


# -- logs


def test_a_log_does_not_grow_without_end(tmp_path: Path) -> None:
    """The process that writes to it keeps its descriptor, and loses nothing that it writes later."""
    log = LogFile(tmp_path, "hub", largest=1000)
    writer = log.open()
    os.write(writer, b"old line\n" * 200)
    log.rotate()
    os.write(writer, b"new line\n")
    os.close(writer)
    assert (tmp_path / "hub.log").read_text() == "new line\n"
    assert (tmp_path / "hub.log.1").read_text().count("old line") == 200
    assert log.tail() == "new line"


def test_the_last_words_are_those_of_the_present_process(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "hub")
    for text in (b"of the first\n", b"one\n\ntwo\nthree\n"):
        writer = log.open()
        os.write(writer, text)
        os.close(writer)
    assert log.tail(2) == "two\nthree"
    assert "of the first" not in log.tail()


def test_the_supervisor_stays_small() -> None:
    script = "import sys, parley.processes.supervisor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"prefect", "sqlalchemy", "websockets", "httpx", "psutil", "cryptography"} & set(
        done.stdout.split()
    )
