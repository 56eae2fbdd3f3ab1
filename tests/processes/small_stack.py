"""Stand-in processes for tests of the supervisor; `python -m tests.processes.small_stack HOME` runs three."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from parley.processes import record, supervisor
from parley.processes.table import Program

SLEEPER = "import time; time.sleep(600)"

POLITE = """
import signal, sys, time
def stop(*_):
    with open({diary!r}, "a") as diary: diary.write({role!r} + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("here", flush=True)
time.sleep(600)
"""

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("here", flush=True)
time.sleep(600)
"""

SERVER = """
import pathlib, socket, sys
door = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    guest, _ = door.accept()
    guest.recv(1000)
    if pathlib.Path(sys.argv[2]).exists():
        continue  # and say nothing
    guest.sendall(b"HTTP/1.1 503 Not Well\\r\\n\\r\\n")
    guest.close()
"""


def program(role: str, code: str = SLEEPER, *arguments: str, stage: int = 1, **others: Any) -> Program:
    """A process that runs a few lines of Python."""
    return Program(
        role=role,
        argv=(sys.executable, "-S", "-c", code, *arguments),
        environment={"PATH": os.environ.get("PATH", "")},
        stage=stage,
        grace=others.pop("grace", 5),
        **others,
    )


def polite(role: str, diary: Path, stage: int) -> Program:
    """Writes its name into a diary when it is told to stop."""
    return program(role, POLITE.format(diary=str(diary), role=role), stage=stage)


def main(home: Path) -> int:
    """Run three until told to stop."""
    record.make_home(home)
    programs = [polite(role, home / "diary", stage) for role, stage in (("c", 3), ("b", 2), ("a", 1))]
    stack = supervisor.Supervisor(home, programs, say=supervisor.show)
    supervisor.on_signals(stack.stop, wake=stack.wake)
    return stack.run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
