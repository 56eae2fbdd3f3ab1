"""People who write to a running stack and do not give up, and a nemesis that kills its processes meanwhile."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, Self

import httpx
import psutil

from tests.faults.history import Ended, History, Kill, Sent
from tests.stack import Stack

AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
PATIENCE: Final = 60.0
FINAL: Final = frozenset({"done", "failed", "refused", "cancelled", "expired", "dead"})
ALLOWED: Final = {"prefect": 30.0}
"""Seconds within which a killed process has a successor that works, on a machine that is its own; 10 for the others."""


class People:
    """Clients of one stack that write down what they send and what they are told."""

    def __init__(
        self, stack: Stack, history: History, *, patience: float = PATIENCE, wait: float = 10.0
    ) -> None:
        """`patience`: seconds until one gives up on a request; `wait`: how long one asks the system to wait."""
        self._stack = stack
        self._history = history
        self._patience, self._wait = patience, wait
        self._client = httpx.Client(
            base_url=stack.url, headers=stack.headers, timeout=httpx.Timeout(20, connect=5), trust_env=False
        )
        self.refused = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def send(self, key: str, text: str, conversation: str) -> Sent:
        """Send one message, again with the same key until it is acknowledged, and write that down."""
        began = time.monotonic()
        body = {"text": text, "thread": conversation}
        answer, sendings = self._insist(
            "POST", "/api/v1/messages", json=body, headers={"idempotency-key": key}
        )
        sent = Sent(
            key=key,
            conversation=conversation,
            began=began,
            acknowledged=time.monotonic(),
            message_id=answer["id"],
            sendings=sendings,
        )
        self._history.sent.append(sent)
        return sent

    def outcome(self, message_id: str, until: float) -> Ended:
        """What became of a message, as it is told when it is final or when it is `until` (monotonic)."""
        while True:
            left = max(0.0, min(self._wait, until - time.monotonic()))
            view, _ = self._insist("GET", f"/api/v1/messages/{message_id}", params={"wait": f"{left:.1f}"})
            if view["state"] in FINAL or time.monotonic() >= until:
                return Ended(
                    message_id=message_id,
                    state=view["state"],
                    run_id=view["run_id"],
                    reason=view["reason"],
                    replies=tuple(reply["text"] for reply in view["replies"]),
                    seconds=view["timings"].get("total_ms", 0.0) / 1000,
                )

    def outcomes(self, seconds: float) -> None:
        """Wait for the end of everything that was acknowledged."""
        until = time.monotonic() + seconds
        ids = list(dict.fromkeys(one.message_id for one in self._history.sent))
        with ThreadPoolExecutor(8) as threads:
            for ended in threads.map(lambda one: self.outcome(one, until), ids):
                self._history.ended[ended.message_id] = ended

    def _insist(self, method: str, path: str, **options: Any) -> tuple[dict[str, Any], int]:
        end, wait, sendings = time.monotonic() + self._patience, 0.1, 0
        while True:
            sendings += 1
            answer = None
            with suppress(httpx.TransportError):
                answer = self._client.request(method, path, **options)
            if answer is not None:
                self._history.texts.append(answer.text)
                if answer.status_code not in AGAIN:
                    found: dict[str, Any] = answer.raise_for_status().json()
                    return found, sendings
                self.refused += 1
            if time.monotonic() > end:
                raise AssertionError(
                    f"{method} {path} did not get through: {answer.text if answer else 'no answer'}"
                )
            time.sleep(wait)
            wait = min(1.0, wait * 2)


class Nemesis:
    """Kills processes of a stack with SIGKILL and watches how long they take to come back."""

    def __init__(self, stack: Stack, history: History) -> None:
        self._stack = stack
        self._history = history
        self._watching = ThreadPoolExecutor(16)
        self._watches: list[Future[None]] = []
        self.processes_killed: Counter[str] = Counter()

    def run(self, roles: Iterable[str], messages: int, chance: random.Random) -> None:
        """Kill one process of each role in turn, spread over so many messages; one more while Prefect is away."""
        several = list(roles)
        for number, role in enumerate(several):
            due = messages * (number + chance.uniform(0.1, 0.9)) / len(several)
            while len(self._history.sent) < due and (number == 0 or several[number - 1] != "prefect"):
                time.sleep(0.02)
            time.sleep(chance.uniform(0.0, 1.0))
            self.kill(role)

    def kill(self, role: str) -> None:
        """Kill one now, or all children: those at work are among them. Their return is watched on the side."""
        before = within(10, lambda: self.pids(role), f"a living {role}")
        killed = before if role == "child" else before[:1]
        self.processes_killed[role] += len(killed)
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._watches.append(self._watching.submit(self._watch, role, set(before), time.monotonic()))

    def close(self) -> None:
        """Wait until every return was seen, or did not come in time."""
        for watch in self._watches:
            watch.result()
        self._watching.shutdown()

    def pids(self, role: str) -> list[int]:
        """The living processes of a role; `child` are those that run automations, `nursery` what they come from."""
        if role not in ("child", "nursery"):
            return [
                row["pid"]
                for row in self._stack.processes()
                if row["role"] == role and row["state"] == "running"
            ]
        with suppress(psutil.Error, IndexError):
            worker = psutil.Process(self.pids("worker")[0])
            stems = worker.children()
            nurseries = [nursery for stem in stems for nursery in stem.children()]
            found = (
                nurseries if role == "nursery" else [child for one in nurseries for child in one.children()]
            )
            return [one.pid for one in found if one.status() != psutil.STATUS_ZOMBIE]
        return []

    def _watch(self, role: str, before: set[int], killed: float) -> None:
        allowed = ALLOWED.get(role, 10.0) * crowding()
        back = None
        while back is None and time.monotonic() < killed + 2 * allowed:
            if set(self.pids(role)) - before and self._works(role):
                back = time.monotonic() - killed
                allowed = max(allowed, ALLOWED.get(role, 10.0) * crowding())
            time.sleep(0.05)
        self._history.kills.append(Kill(role=role, at=killed, back=back, allowed=allowed))

    def _works(self, role: str) -> bool:
        part = {"child": "worker", "nursery": "worker"}.get(role, role)
        try:
            answer = httpx.get(f"{self._stack.url}/readyz", timeout=5, trust_env=False)
        except httpx.HTTPError:
            return False
        # 503 names what is missing; the hub works when it can tell.
        return answer.is_success or (answer.status_code == 503 and part not in answer.text)


def crowding() -> float:
    """How many times longer something may take because others use this machine too; 1 where it is merely busy."""
    return max(1.0, os.getloadavg()[0] / (4 * (os.cpu_count() or 1)))


def within(seconds: float, found: Callable[[], list[int]], what: str) -> list[int]:
    """What is found within so many seconds. Raises AssertionError."""
    end = time.monotonic() + seconds
    while not (several := found()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return several


def open_flow_runs(stack: Stack, seconds: float) -> list[str]:
    """The flow runs of this project that Prefect still holds for open after so many seconds, with their states."""
    end = time.monotonic() + seconds
    while (found := _open_now(stack)) and time.monotonic() < end:
        time.sleep(0.5)
    return found


def _open_now(stack: Stack) -> list[str]:
    with stack.prefect() as client:
        states = ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED"]
        body = {"flow_runs": {"state": {"type": {"any_": states}}, "tags": {"all_": ["parley", "by:owner"]}}}
        runs = client.post("/flow_runs/filter", json={**body, "limit": 200}).raise_for_status().json()
    return [f"{run['name']} {run['state_name']}" for run in runs]


def stopped(pid: int, seconds: float) -> None:
    """Have a process stand still for so long (SIGSTOP), then go on."""
    os.kill(pid, signal.SIGSTOP)
    try:
        threading.Event().wait(seconds)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
