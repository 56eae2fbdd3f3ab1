"""The first process of a container notes orphans' ends, and leaves its own children to whoever waits for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, os, time
from parley.processes.supervisor import reap

PR_SET_CHILD_SUBREAPER = 36  # orphans come to us, as they come to the first process of a container
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

def ended():
    found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found.si_pid if found else None

def eventually(holds):
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)

# A child that leaves three children of its own, and is waited for.
read, write = os.pipe()
parent = os.fork()
if parent == 0:
    for _ in range(3):
        if os.fork() == 0:
            os.read(read, 1)
            os._exit(0)
    os._exit(0)
assert os.waitpid(parent, 0) == (parent, 0)
os.write(write, b"...")
eventually(ended)

def reaped_all():
    reap(set())
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False

eventually(reaped_all)

# One of our own stays for whoever started it.
own = os.fork()
if own == 0:
    os._exit(7)
eventually(ended)
reap({own})
assert os.waitstatus_to_exitcode(os.waitpid(own, 0)[1]) == 7
print("done")
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux gives orphans to a process that asks for them"
)
def test_orphans_are_reaped_and_own_children_left() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "done", done.stderr
