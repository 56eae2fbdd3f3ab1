"""The process that forks: it forks what it is sent, tells how each ended, and leaves children at work alone."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parley.runs.channel import Channel, pair

PROGRAM = """
import os, signal, subprocess, sys
from parley.runs.channel import Channel, adopt
from parley.runs.forker import Forker

def child(channel):
    if sys.argv[2] == "family":
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        channel.send({"grandchild": grandchild.pid})
    channel.send({"ready": os.getpid(), "group": os.getpgrp()})
    while (received := channel.receive()) is not None:
        channel.send({"echo": received[0]})
        if received[0].get("exit") is not None:
            sys.exit(received[0]["exit"])
    if sys.argv[2] == "busy":
        os.read(0, 1)  # at work until the test says so

Forker(Channel(adopt(int(sys.argv[1]))), child).serve()
"""


class Running:
    """A forking process and this test's end of its channel."""

    def __init__(self, behaviour: str) -> None:
        ours, theirs = pair()
        os.set_inheritable(theirs.fileno(), True)
        argv = [sys.executable, "-c", PROGRAM, str(theirs.fileno()), behaviour]
        self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdin=subprocess.PIPE)
        theirs.close()
        self.channel = Channel(ours)
        self.children: list[Channel] = []

    def fork(self, key: int) -> tuple[Channel, int]:
        ours, theirs = pair()
        socket.send_fds(self._raw(), [_frame({"fork": key})], [theirs.fileno()])
        theirs.close()
        forked = receive(self.channel)
        assert forked["forked"] == key
        self.children.append(Channel(ours))
        return self.children[-1], int(str(forked["pid"]))

    def _raw(self) -> socket.socket:
        return self.channel._socket

    def close(self) -> None:
        for channel in (self.channel, *self.children):
            channel.close()
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait(10)


def _frame(message: dict[str, object]) -> bytes:
    import json

    body = json.dumps(message).encode()
    return len(body).to_bytes(4, "big") + body


def receive(channel: Channel) -> dict[str, object]:
    received = channel.receive()
    assert received is not None
    return received[0]


@pytest.fixture
def forking(request: pytest.FixtureRequest) -> Iterator[Running]:
    running = Running(getattr(request, "param", "plain"))
    yield running
    running.close()


def test_children_answer_and_their_end_is_told(forking: Running) -> None:
    """Each child has its own socket and group; its exit code reaches the worker."""
    first, first_pid = forking.fork(1)
    second, second_pid = forking.fork(2)
    assert receive(first) == {"ready": first_pid, "group": first_pid}
    assert receive(second) == {"ready": second_pid, "group": second_pid}
    second.send({"exit": 7})
    assert receive(second) == {"echo": {"exit": 7}}
    assert receive(forking.channel) == {"exited": second_pid, "code": 7}
    first.send({"still": "here"})
    assert receive(first) == {"echo": {"still": "here"}}


def test_a_killed_child_is_told_apart(forking: Running) -> None:
    """A kill -9 is reported as the signal that it was, and the child's socket closes."""
    child, pid = forking.fork(1)
    receive(child)
    os.kill(pid, signal.SIGKILL)
    assert receive(forking.channel) == {"exited": pid, "code": -signal.SIGKILL}
    assert child.receive() is None


@pytest.mark.parametrize("forking", ["family"], indirect=True)
def test_what_a_dead_child_started_dies_with_it(forking: Running) -> None:
    """Processes in the child's group do not outlive it."""
    child, pid = forking.fork(1)
    grandchild = int(str(receive(child)["grandchild"]))
    handle = os.pidfd_open(grandchild)
    os.kill(pid, signal.SIGKILL)
    assert receive(forking.channel)["exited"] == pid
    assert select.select([handle], [], [], 10)[0], "the grandchild lives"
    os.close(handle)


@pytest.mark.parametrize("forking", ["busy"], indirect=True)
def test_the_forker_waits_for_children_at_work(forking: Running) -> None:
    """With the worker gone, idle children leave at once and the forker stays for the one that is busy."""
    child, pid = forking.fork(1)
    receive(child)
    forking.channel.close()
    child.close()
    handle = os.pidfd_open(pid)
    assert not select.select([handle], [], [], 0.3)[0]
    assert forking.process.poll() is None
    assert forking.process.stdin
    forking.process.stdin.close()
    assert forking.process.wait(10) == 0
    os.close(handle)


def test_signals_of_the_terminal_do_not_end_it(forking: Running) -> None:
    """Ctrl-C and SIGTERM to the whole group leave the watcher in place: the worker ends it."""
    forking.fork(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        forking.process.send_signal(number)
    child, pid = forking.fork(2)
    assert receive(child)["ready"] == pid


def test_files_of_one_child_are_not_open_in_another(forking: Running) -> None:
    """A child holds its own socket only, so that each end of a channel means what it says."""
    first, first_pid = forking.fork(1)
    second, second_pid = forking.fork(2)
    receive(first)
    receive(second)
    assert len(sockets(second_pid)) == len(sockets(first_pid)) == 1


def sockets(pid: int) -> list[str]:
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link.startswith("socket:")]
