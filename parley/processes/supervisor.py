"""The supervisor, `parley up`: starts the processes of the stack, starts again what ended, stops all in order.

It imports neither Prefect nor the store and holds no secret. Whatever happens to it, nothing that it started outlives
it: each process has SIGTERM coming when its parent dies.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

from parley.errors import ConfigurationError
from parley.processes import ports, record, table
from parley.processes.announcement import Announcement
from parley.processes.child import Child, how
from parley.processes.health import Watchdog
from parley.processes.log_file import LogFile
from parley.settings import Settings, keep, load
from parley.tls.ports import check as check_tls

CONFIGURATION_EXIT: Final = 2
"""What our processes end with when a setting is wrong: starting them again would not mend it."""

TOLD_AT_FIRST: Final = 5
TOLD_EVERY: Final = 12
LEFTOVER_SECONDS: Final = 12.0
HURRY_SECONDS: Final = 1.0
ROTATE_SECONDS: Final = 5.0


class Supervisor:
    """Keeps `programs` running until it is told to stop. `run` belongs to the main thread's lifetime: see lifeline."""

    def __init__(
        self, home: Path, programs: Sequence[table.Program], *, say: Callable[[str], None], tick: float = 1.0
    ) -> None:
        self._home = home
        self._children = [Child(program, LogFile(home / "logs", program.role)) for program in programs]
        self._watchdogs = {
            child.program.role: self._watchdog(child.program.role, child.program.probe)
            for child in self._children
            if child.program.probe
        }
        self._hung: set[str] = set()
        self._say = say
        self._tick = tick
        self._stops = 0
        self._rotated = time.monotonic()
        self.woken, self.wake = socket.socketpair()
        for end in (self.woken, self.wake):
            end.setblocking(False)

    def run(self) -> int:
        """Run until `stop`; returns the exit code: 0, or 2 when a process refused its configuration at the start."""
        record.write_pid(self._home)
        try:
            code = self._keep()
        finally:
            for watchdog in self._watchdogs.values():
                watchdog.stop()
            self._say("stopping")
            self._stop_all()
            record.remove(self._home)
        return code

    def stop(self) -> None:
        """Stop in order; a second call hurries. May be called in a signal handler and from other threads."""
        self._stops += 1
        self._wake_up()

    def close(self) -> None:
        """Give back what it woke up by; after `run`, once no signal is sent there any more."""
        self.woken.close()
        self.wake.close()

    def _keep(self) -> int:
        for child in self._children:
            child.due = time.monotonic()
        for watchdog in self._watchdogs.values():
            watchdog.start()
        while not self._stops:
            self._end_hung()
            for child in self._children:
                code = child.ended()
                if code is not None and self._refused(child, code):
                    return CONFIGURATION_EXIT
                child.look_again()
                if child.due is not None and child.due <= time.monotonic():
                    self._start(child)
            if os.getpid() == 1:
                reap({child.pid for child in self._children})
            self._rotate()
            self._sleep(self._until_next())
        return 0

    def _start(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:
            wait = child.schedule()
            self._say(f"{child.program.role} cannot be started ({error}); again in {wait:.1f} s")
            return
        if watchdog := self._watchdogs.get(child.program.role):
            watchdog.restarted()
        self._write()

    def _refused(self, child: Child, code: int) -> bool:
        """Take note that a process has ended; true when the whole start is to end with it."""
        role = child.program.role
        if child.program.once and code == 0:
            child.done = True
            self._write()
            return False
        if code == CONFIGURATION_EXIT and child.restarts == 0:
            self._say(f"{role} cannot start:\n{child.log.tail(20)}")
            return True
        wait = child.schedule()
        self._write()
        if child.quick_ends <= TOLD_AT_FIRST or child.quick_ends % TOLD_EVERY == 0:
            self._say(f"{role} {how(code)}; again in {wait:.1f} s{self._why(child)}")
        return False

    def _why(self, child: Child) -> str:
        if child.quick_ends != 3 and child.quick_ends % TOLD_EVERY:
            return ""
        return (
            f"\n  it ended {child.quick_ends} times soon after its start; the last lines of {child.log.path}:\n    "
            + child.log.tail().replace("\n", "\n    ")
        )

    def _stop_all(self) -> None:
        stages = sorted({child.program.stage for child in self._children})
        for stage in stages:
            self._stop_stage([child for child in self._children if child.program.stage == stage])

    def _stop_stage(self, children: list[Child]) -> None:
        began = time.monotonic()
        left = [child for child in children if child.pid is not None]
        for child in left:
            child.send(signal.SIGTERM)
        while left := [child for child in left if child.ended() is None and child.pid is not None]:
            patience = HURRY_SECONDS if self._stops > 1 else None
            waited = time.monotonic() - began
            for child in left:
                if waited > min(child.program.grace, patience or child.program.grace):
                    self._say(f"{child.program.role} did not end within {waited:.0f} s and is killed")
                    child.send(signal.SIGKILL)
            self._sleep(0.05)
        self._write()

    def _watchdog(self, role: str, probe: table.Probe) -> Watchdog:
        def hung() -> None:
            self._hung.add(role)
            self._wake_up()

        return Watchdog(probe, hung)

    def _end_hung(self) -> None:
        while self._hung:
            role = self._hung.pop()
            for child in self._children:
                if child.program.role == role and child.pid is not None:
                    self._say(f"{role} (pid {child.pid}) does not answer and is killed")
                    child.send(signal.SIGKILL)

    def _write(self) -> None:
        me = record.Entry("supervisor", os.getpid(), _now(), 0, record.born(os.getpid()))
        try:
            record.write(self._home, [me, *(entry for child in self._children if (entry := child.entry))])
        except OSError as error:
            self._say(f"run/processes.json cannot be written ({error.strerror}); the processes run on")

    def _rotate(self) -> None:
        if time.monotonic() - self._rotated < ROTATE_SECONDS:
            return
        self._rotated = time.monotonic()
        for child in self._children:
            child.log.rotate()

    def _until_next(self) -> float:
        dues = [child.due - time.monotonic() for child in self._children if child.due is not None]
        return max(0.0, min([self._tick, *dues]))

    def _sleep(self, seconds: float) -> None:
        """Until something happens: a signal, a child's end, a call to `stop`; at most so long."""
        ready, _, _ = select.select([self.woken], [], [], seconds)
        if ready:
            with suppress(BlockingIOError):
                self.woken.recv(4096)

    def _wake_up(self) -> None:
        with suppress(OSError):
            self.wake.send(b"\0")


def main() -> int:
    """Run the stack until SIGTERM or Ctrl-C; returns the exit code: 0, or 2 when a setting has to be mended first."""
    began = time.monotonic()
    os.umask(0o077)
    try:
        settings = load()
        record.make_home(settings.home)
        held = record.lock(settings.home)
        end_leftovers(settings.home)
        check_tls(settings)
        ports.check(ports.ports_of(settings))
        programs = table.programs(settings)
        keep(settings)
    except ConfigurationError as error:
        sys.stderr.write(f"parley: {error}\n")
        return CONFIGURATION_EXIT
    try:
        return _serve(settings, programs, began)
    finally:
        os.close(held)


def _serve(settings: Settings, programs: Sequence[table.Program], began: float) -> int:
    log = LogFile(settings.home / "logs", "supervisor")
    log.rotate()

    def say(text: str) -> None:
        show(text)
        with suppress(OSError):
            log.write(f"{_now()} {text}\n")

    supervisor = Supervisor(settings.home, programs, say=say)
    announcement = Announcement(settings, say, show, began)

    def stop() -> None:
        announcement.stop()
        supervisor.stop()

    on_signals(stop, wake=supervisor.wake)
    say(f"parley is starting in {settings.home}")
    announcement.start()
    code = supervisor.run()
    signal.set_wakeup_fd(-1)
    supervisor.close()
    announcement.stop()
    say("stopped")
    return code


def on_signals(stop: Callable[[], None], *, wake: socket.socket) -> None:
    """Have SIGTERM, SIGINT and SIGHUP call `stop`, and these and the end of a child wake; in the main thread only."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handle)
    # The handler does nothing: that the signal came is what wakes select().
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)


def reap(own: Collection[int | None]) -> None:
    """As the first process of a container: take note of the ends of orphans that were handed to us.

    `own` are ours to wait for where they were started; what is left to others by them is met again later.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in own:
            return
        with suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)


def end_leftovers(home: Path) -> None:
    """End what a killed supervisor left, so that its ports are free; the worker may finish its runs by itself."""
    left = [e for e in record.read(home) if e.role not in ("supervisor", "worker") and record.lives(e)]
    for number, seconds in ((signal.SIGTERM, LEFTOVER_SECONDS), (signal.SIGKILL, 2.0)):
        for entry in left:
            with suppress(ProcessLookupError):
                os.kill(entry.pid, number)
        end = time.monotonic() + seconds
        while (left := [entry for entry in left if record.lives(entry)]) and time.monotonic() < end:
            time.sleep(0.05)


def show(text: str) -> None:
    """Write to the console; that it is gone stops nothing."""
    with suppress(OSError, ValueError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


if __name__ == "__main__":
    sys.exit(main())
