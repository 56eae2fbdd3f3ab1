"""Failpoints: named moments of a message's way at which a test has this process killed. A testing aid.

Only this process's own environment arms one, `PARLEY_FAILPOINT="start.granted:kill:3"`: the third time that the moment
comes, the process kills itself (SIGKILL); several are separated by commas. It is read once, when this module is
imported: no file, setting, message, call, or job variable that comes later can arm one. An unknown name or form ends
the process at once, so that no test believes it has killed what lived on. Turns are counted over a process and its
forks.
"""

from __future__ import annotations

import os
import re
import signal
from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

VARIABLE: Final = "PARLEY_FAILPOINT"

FAILPOINTS: Final[Mapping[str, str]] = MappingProxyType({
    "accept.received": "listeners: the platform has given an event, nobody has stored it",
    "inbox.received": "hub: an event has come, nothing is written",
    "inbox.stored": "hub: the event is committed, nobody has been told",
    "accept.stored": "listeners: the hub has stored the event, the platform is not acknowledged",
    "request.decided": "hub: what an event leads to is decided, nothing of it is written",
    "request.stored": "hub: request, run and replies are committed, none of them is under way",
    "dispatch.creating": "hub: Prefect is about to be asked for the flow run",
    "dispatch.created": "hub: Prefect has the flow run, no worker knows of it",
    "dispatch.batched": "hub: Prefect has a flow run for several requests, no worker knows of it",
    "dispatch.ordered": "hub: a worker has taken the order, nothing here says so",
    "dispatch.batch-ordered": "hub: a worker has taken the order of several requests, nothing here says so",
    "order.taken": "worker: the order has come, no child has it",
    "start.asked": "run: the flow run has begun in Prefect, no start is granted",
    "start.granting": "hub: the start is asked for, nothing is written",
    "start.granted": "hub: the start is committed, the run does not know",
    "run.started": "run: the start is granted, nothing has been done",
    "run.ended": "run: the function has done its work, nobody knows",
    "end.closing": "hub: a run's end has come, nothing of it is written",
    "end.closed": "hub: request, answer and counts are committed, the answer is not under way",
    "run.closed": "run: the hub has closed the request, Prefect does not know",
    "order.ended": "worker: a child has told its end, the hub does not know",
    "delivery.claimed": "hub: the delivery stands as being sent, nobody has it",
    "delivery.taken": "listeners: the delivery has come, the platform has nothing of it",
    "delivery.sent": "listeners: the platform has it, the hub does not know",
    "delivery.told": "hub: the platform has it, nothing here says so",
    "delivery.settled": "hub: the delivery is committed as sent, nothing has followed from it",
    "reconcile.begun": "hub: leases are extended after a start, nothing has been looked at",
    "reconcile.step": "hub: between two steps of the reconciler",
    "reconcile.lost": "hub: a silent run is given up and answered, Prefect still holds it for running",
})  # fmt: skip
"""Each commit boundary of the way, by the side on which the process dies: what is known there and what is not."""

_FORM: Final = re.compile(r"([a-z-]+\.[a-z-]+):kill:([1-9]\d{0,3})")
_GO, _DIE = b".", b"!"


def failpoint(name: str) -> None:
    """Die here if a test says so; free otherwise."""
    if _armed and name in _armed:
        _take_turn(name, _armed[name])


def _take_turn(name: str, turns: int) -> None:
    try:
        turn = os.read(turns, 1)
    except BlockingIOError:  # pragma: no cover - only while the writing end is open
        return
    if turn == _DIE:
        os.write(2, f"failpoint {name}: killed\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def _arm(text: str) -> dict[str, int]:
    """A file for each armed name, with a byte for each turn: a read takes one turn from a process and all its forks."""
    deaths: dict[str, set[int]] = defaultdict(set)
    for one in text.split(","):
        found = _FORM.fullmatch(one.strip())
        if found is None or found[1] not in FAILPOINTS:
            raise SystemExit(
                f"{VARIABLE}={one.strip()!r} is no failpoint: a testing aid, see parley/failpoints.py."
            )
        deaths[found[1]].add(int(found[2]))
    # Whoever armed one without meaning to finds this in the log of each process that may die of it.
    os.write(2, f"{VARIABLE} is set: this process (pid {os.getpid()}) kills itself at {text}\n".encode())
    return {name: _turns(at) for name, at in deaths.items()}


def _turns(deaths: set[int]) -> int:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, b"".join(_DIE if turn in deaths else _GO for turn in range(1, max(deaths) + 1)))
    os.close(writing)
    return reading


_armed: Final[dict[str, int]] = _arm(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else {}
