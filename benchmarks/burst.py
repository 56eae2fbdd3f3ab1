"""A peak: 150 messages a second for a minute, of people on one account, in an open loop; somebody asks for `/status`.

The moments are fixed beforehand and the time of an acknowledgement counts from them, so that waiting to be sent counts
too. Acknowledged is on disk. Each message asks for a run of one task; they wait in the lane of people, and the control
lane has to answer all the while. So has an automation that people look something up with, whose requests share flow
runs: one message in thirty. Then it is counted how long the last of them takes, and whether each was run.

Beside it the same peak at a web endpoint that has Prefect create a flow run for each message (`burst_peer`).
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from benchmarks import burst_peer, stacks
from benchmarks.machine import ProcessorTime, watched
from benchmarks.rows import Row, percentile
from parley.link.calls import AcceptCall, AdminCall, Role
from parley.link.client import HubClient, default_address, role_token
from parley.messages.model import ConversationKind, Message, Route, Sender
from tests.stack import Stack

RATE, SECONDS, LEAST_SECONDS = 150, 60.0, 1.0
LEAST_RATE: Final = 20
ASKED_EVERY: Final = 0.5
"""Seconds between two questions in the control lane."""

LOOKED_UP_EVERY: Final = 30
"""One message of so many asks for an order."""

PEOPLE: Final = 200
PATIENCE: Final = 1800.0
"""Seconds after the peak in which all are run, or lost."""

ACCOUNT: Final = "console"
GOALS: Final = {
    "ack_p99_ms": 200,
    "control_p95_ms": 480,
    "batched_p95_ms": 480,
    "drained_s": 600,
    "lost": 0,
}


def measure(effort: float = 1.0) -> list[Row]:
    """`burst.ack_p99_ms`, `answered_in_the_peak`, `control_p95_ms`, `batched_p95_ms`, `drained_s` and `lost`."""
    seconds = max(LEAST_SECONDS, SECONDS * min(1.0, effort))
    rate = RATE if effort else LEAST_RATE
    moments = [number / rate for number in range(round(seconds * rate))]
    with watched() as conditions, stacks.stack(effort, stacks.TOML) as stack:
        peak = Peak(stack, moments)
        asyncio.run(peak.take(seconds))
        conditions.update({"rate_per_s": rate, "seconds": seconds, "goals": GOALS} | peak.conditions)
    with watched() as theirs:
        peer = burst_peer.measured(effort, moments, seconds)
        theirs.update(peer.conditions, ack_p99_ms_by_second=by_second(peer.milliseconds, peer.moments))
    conditions["theirs"] = theirs
    n = len(moments)
    waited = percentile(peak.acknowledged, 0.99), percentile(peer.milliseconds, 0.99)
    return [
        _row("ack_p99_ms", waited[0], n, conditions, waited[1], waited[1] / waited[0]),
        _row(
            "answered_in_the_peak",
            float(peak.done),
            n,
            conditions,
            float(peer.answered),
            peak.done / peer.answered if peer.answered else None,
        ),
        _row("control_p95_ms", percentile(peak.control, 0.95), len(peak.control), conditions),
        _row("batched_p95_ms", percentile(peak.batched, 0.95), len(peak.batched), conditions),
        _row("drained_s", peak.drained, n, conditions),
        _row("lost", float(peak.lost), n, conditions),
    ]


def _row(
    name: str,
    ours: float,
    n: int,
    conditions: dict[str, Any],
    theirs: float | None = None,
    ratio: float | None = None,
) -> Row:
    unit = name.rsplit("_", 1)[1] if name.endswith(("_ms", "_s")) else "messages"
    peer = None if theirs is None else burst_peer.PEER
    return Row(
        name=f"burst.{name}",
        unit=unit,
        ours=ours,
        n=n,
        peer=peer,
        theirs=theirs,
        ratio=ratio,
        conditions=conditions,
    )


def by_second(milliseconds: Sequence[float], moments: Sequence[float]) -> list[int]:
    """The 99th percentile of those that were planned in each second."""
    seconds: dict[int, list[float]] = {}
    for took, moment in zip(milliseconds, moments, strict=True):
        seconds.setdefault(int(moment), []).append(took)
    return [round(percentile(seconds.get(number, [0.0]), 0.99)) for number in range(max(seconds) + 1)]


class Peak:
    """The messages of one peak, from their planned moments to the last run."""

    def __init__(self, stack: Stack, moments: list[float]) -> None:
        self._stack = stack
        self._moments = moments
        self._tag = f"{time.time():.0f}"
        self.acknowledged = [0.0] * len(moments)
        self.control: list[float] = []
        self.batched: list[float] = []
        self.done = 0
        """How many were answered when the peak was over."""

        self.drained = 0.0
        self.lost = len(moments)
        self.conditions: dict[str, Any] = {}

    async def take(self, seconds: float) -> None:
        """Send all of it, then wait until it is done."""
        chosen = self._stack.settings
        token = role_token(chosen, Role.LISTENERS)
        await self._introduce()
        before = await asyncio.to_thread(self._done)
        processor = ProcessorTime(self._stack)
        async with HubClient(default_address(chosen), Role.LISTENERS, token, name="burst") as hub:
            began = time.monotonic() + 0.1
            asking = asyncio.create_task(self._ask(began, began + seconds))
            await _each(self._moments, began, lambda number: self._send(hub, number, began))
            ended = time.monotonic()
            self.done = await asyncio.to_thread(self._done) - before
            await asking
        self.conditions["processor_ms_each_in_the_peak"] = processor.each(len(self._moments))
        await self._drain(before, ended)
        self.batched = await asyncio.to_thread(self._looked_up, time.time() - (time.monotonic() - began))
        self.conditions["processor_ms_each"] = processor.each(len(self._moments))
        self.conditions |= {
            "ack_p50_ms": round(percentile(self.acknowledged, 0.5), 1),
            "ack_most_ms": round(max(self.acknowledged), 1),
            "ack_p99_ms_by_second": by_second(self.acknowledged, self._moments),
            "control_p50_ms": round(percentile(self.control, 0.5), 1),
            "control_most_ms": round(max(self.control), 1),
            "batched_p50_ms": round(percentile(self.batched, 0.5), 1),
            "batched_most_ms": round(max(self.batched), 1),
        }

    async def _introduce(self) -> None:
        """A pace is allowed to each person: two hundred of them come to it together, one would be told to wait."""
        chosen = self._stack.settings
        token = role_token(chosen, Role.COMMAND_LINE)
        async with HubClient(default_address(chosen), Role.COMMAND_LINE, token, name="burst") as hub:
            for number in range(PEOPLE):
                one = {"name": _person(number)}
                for verb, more in (("person_add", {"role": "user"}), ("person_link", _known_as(number))):
                    await hub.call("admin", AdminCall(verb=verb, arguments=one | more), timeout=30)

    async def _send(self, hub: HubClient, number: int, began: float) -> None:
        answer = await hub.call("accept", AcceptCall(event=self._message(number)), timeout=60)
        assert answer["new"], answer
        self.acknowledged[number] = (time.monotonic() - began - self._moments[number]) * 1e3

    def _message(self, number: int) -> Message:
        return Message(
            account=ACCOUNT,
            native_id=f"burst-{self._tag}-{number}",
            sender=Sender(id=_person(number)),
            route=Route(
                account=ACCOUNT,
                conversation=_person(number),
                kind=ConversationKind.DIRECT,
            ),
            text=f"/double {number}" if number % LOOKED_UP_EVERY else "/order 1024",
        )

    async def _ask(self, began: float, until: float) -> None:
        moments = [ASKED_EVERY * number for number in range(max(1, round((until - began) / ASKED_EVERY)))]
        async with httpx.AsyncClient(
            base_url=self._stack.url, headers=self._stack.headers, timeout=60, trust_env=False
        ) as client:

            async def ask(number: int) -> None:
                answer = await client.post(
                    "/api/v1/messages", params={"wait": 30}, json={"text": "/status", "thread": f"c{number}"}
                )
                assert answer.raise_for_status().json()["state"] == "done", answer.text
                self.control.append((time.monotonic() - began - moments[number]) * 1e3)

            await _each(moments, began, ask)

    async def _drain(self, before: int, ended: float) -> None:
        while time.monotonic() - ended < PATIENCE:
            done = await asyncio.to_thread(self._done) - before
            self.lost = len(self._moments) - done
            self.drained = time.monotonic() - ended
            if self.lost <= 0 or (await asyncio.to_thread(self._is_over)):
                return
            await asyncio.sleep(1)

    def _is_over(self) -> bool:
        """Whether nothing will come any more: all are handled, and none of what they asked for is open."""
        ((unhandled,),) = self._read(
            "select count(*) from message where native_id like ? and state = 'received'"
        )
        ((open_ones,),) = self._read(
            "select count(*) from message join request on request.message_id = message.id"
            " where message.native_id like ? and request.state in ('queued', 'running')"
        )
        return not unhandled and not open_ones

    def _done(self) -> int:
        ((count,),) = self._read(
            "select count(*) from message join request on request.message_id = message.id"
            " where message.native_id like ? and request.state = 'done'"
        )
        return int(count)

    def _looked_up(self, began: float) -> list[float]:
        """Milliseconds from the planned moment of each order until its answer was shown; it began then by the clock."""
        rows = self._read(
            "select message.native_id, min(delivery.sent_at) from message"
            " join request on request.message_id = message.id"
            " join delivery on delivery.source = 'request:' || request.id"
            " where message.native_id like ? and request.automation = 'order' and delivery.sent_at is not null"
            " group by message.id"
        )
        moments = {f"burst-{self._tag}-{number}": moment for number, moment in enumerate(self._moments)}
        return [
            (datetime.fromisoformat(sent).replace(tzinfo=UTC).timestamp() - began - moments[native]) * 1e3
            for native, sent in rows
        ]

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        (path,) = self._stack.home.glob("*.db")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return database.execute(query, (f"burst-{self._tag}-%",)).fetchall()


def _person(number: int) -> str:
    return f"burst-{number % PEOPLE}"


def _known_as(number: int) -> dict[str, str]:
    return {"account": ACCOUNT, "user_id": _person(number)}


async def _each(moments: list[float], began: float, do: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Do each at its moment, whether or not those before have ended; return when all have. One that fails ends all."""
    async with asyncio.TaskGroup() as group:
        for number, moment in enumerate(moments):
            await asyncio.sleep(max(0.0, began + moment - time.monotonic()))
            group.create_task(do(number))
