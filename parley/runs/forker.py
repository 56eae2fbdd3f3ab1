"""Forks a process for each socket that it is sent, watches what it forked, and tells how each ended.

A process that forks must be alone in itself: no second thread, no event loop. Two kinds of process are made of this:
the stem (Prefect imported) forks nurseries, and a nursery (the automations imported too) forks children that run.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

from parley.runs.channel import Channel, adopt, close_files

Entry = Callable[[Channel], None]
"""What a forked process does with its socket; the process ends when this returns."""

_FAILED: Final = 70


class Forker:
    """Serves one channel: `{"fork": key}` with a socket -> `{"forked": key, "pid"}`, later `{"exited": pid, "code"}`.

    When the other end of the channel is gone nothing more is forked, and `serve` returns once the last child has ended:
    children that are at work are left to finish it.
    """

    def __init__(self, channel: Channel, entry: Entry, *, afresh: Sequence[str] = ()) -> None:
        """Where this process cannot be forked, `afresh` are Python's arguments that start one like it instead."""
        self._channel = channel
        self._entry = entry
        self._afresh = afresh
        self._children: set[int] = set()
        self._wake, self._woken = socket.socketpair()
        self._open = True

    def serve(self) -> None:
        """Fork and watch until the other end is gone and the last child has ended."""
        if not self._afresh:
            _must_be_alone()
        self._listen_to_signals()
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while self._open or self._children:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._woken in ready:
                    self._woken.recv(4096)
                    self._reap()
                if self._open and self._channel in ready and not self._take(selector):
                    self._open = False
                    selector.unregister(self._channel)

    def _listen_to_signals(self) -> None:
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        ignore_signals()

    def _take(self, selector: selectors.BaseSelector) -> bool:
        received = self._channel.receive()
        if received is None:
            return False
        message, files = received
        if "fork" not in message or len(files) != 1:
            close_files(files)
            return True
        pid = self._fork(files[0], selector)
        self._children.add(pid)
        os.close(files[0])
        self._channel.send({"forked": message["fork"], "pid": pid})
        return True

    def _fork(self, number: int, selector: selectors.BaseSelector) -> int:
        if self._afresh:
            return start_afresh(self._afresh, number)
        _flush()
        pid = os.fork()
        if pid == 0:
            _run(lambda: self._become(number, selector))
        with suppress(OSError):  # the child does the same: whichever is first
            os.setpgid(pid, pid)
        return pid

    def _become(self, number: int, selector: selectors.BaseSelector) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with suppress(OSError):
            os.setpgid(0, 0)
        selector.close()
        self._wake.close()
        self._woken.close()
        self._channel.close()
        self._entry(Channel(adopt(number)))

    def _reap(self) -> None:
        while self._children:
            pid = _ended_child()
            if pid is None:
                return
            # What the child itself started in its group dies with it, while the dead leader still keeps the number.
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if pid in self._children:
                self._children.discard(pid)
                self._channel.send({"exited": pid, "code": os.waitstatus_to_exitcode(status)})


def ignore_signals() -> None:
    """Leave it to the worker when this process ends: it closes its end.

    A terminal's Ctrl-C or a service manager's SIGTERM to the whole group must not take the watcher away from runs that
    are being ended in good order.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def fork(entry: Entry, connection: socket.socket, *, close: socket.socket) -> int:
    """Fork this process, which must be alone in itself; the copy runs `entry` and ends. Returns its pid."""
    _must_be_alone()
    _flush()
    pid = os.fork()
    if pid == 0:

        def become() -> None:
            with suppress(OSError):
                os.setpgid(0, 0)
            close.close()
            entry(Channel(connection))

        _run(become)
    connection.close()
    return pid


def start_afresh(arguments: Sequence[str], number: int) -> int:
    """Start a Python in a group of its own, with that file open and its number as last argument. Returns its pid."""
    os.set_inheritable(number, True)
    ours = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    argv = [sys.executable, *arguments, str(number)]
    return os.posix_spawn(sys.executable, argv, os.environ, setpgroup=0, setsigdef=ours)


def _run(become: Callable[[], None]) -> NoReturn:
    code = _FAILED
    try:
        become()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the copy must never return into its parent's code
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _must_be_alone() -> None:
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    if threads:
        raise RuntimeError(f"a process with threads cannot be forked: {', '.join(threads)}")


def _ended_child() -> int | None:
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return ended.si_pid if ended else None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


def _nothing(*_: Any) -> None:
    """A handler, so that the signal wakes `select` instead of being dropped."""
