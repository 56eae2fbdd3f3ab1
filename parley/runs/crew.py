"""The worker's side of its children: who is warm, who runs what, what waits, and how a run is ended.

Nothing here talks to Prefect or to the hub.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from parley.errors import LinkError
from parley.link.calls import RunOrder
from parley.runs import nursery
from parley.runs.catalogue import Catalogue
from parley.runs.channel import AsyncChannel, pair
from parley.runs.child import CANCEL, END, Ended, Work
from parley.settings import Worker as WorkerSettings

logger = logging.getLogger(__name__)

GRACE: Final = 5.0
"""Seconds between the signal that ends a run and the one that ends its process."""

LEAVING: Final = 15.0
"""Seconds that a child gets to send its last logs and events and leave."""

INSIST: Final = 1.5

FRESH: Final = 0.5
"""Seconds for which a waiting order is as Prefect gave it."""

GROWTH_MB: Final = 256.0
"""A child that holds this much more than after its first run is replaced."""

SURPLUS_AGE: Final = 60.0
"""Seconds that a child beyond the warm ones, or a worn one, is kept without a run: to make one and warm it up costs as
much as several runs, and the next peak comes soon."""

How = Literal["finished", "crashed", "cancelled", "timed-out", "refused"]
Ending = Literal["cancelled", "timed-out", "crashed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run left its child, in the words of `RunEnded`. `begun`: a child had begun it."""

    how: How
    state: str = ""
    reason: str = ""
    begun: bool = True


@dataclass(slots=True)
class Held:
    """An order between `submit` and its outcome."""

    work: Work
    time_limit: float | None
    outcome: asyncio.Future[Outcome]
    child: _Child | None = None
    begun: bool = False
    ending: tuple[Ending, str] | None = None
    timer: asyncio.TimerHandle | None = None
    since: float = 0.0

    @property
    def id(self) -> str:
        """The flow run's id."""
        return self.work.order.flow_run_id


@dataclass(slots=True, eq=False)
class _Nursery:
    channel: AsyncChannel
    catalogue: asyncio.Future[Catalogue]
    born: dict[int, asyncio.Future[int]] = field(default_factory=dict)
    exited: dict[int, asyncio.Future[int]] = field(default_factory=dict)
    alive: bool = True


@dataclass(slots=True, eq=False)
class _Child:
    nursery: _Nursery
    channel: AsyncChannel
    pid: int = 0
    handle: int = -1
    ready: bool = False
    leaving: bool = False
    runs: int = 0
    idle_since: float = 0.0
    first_memory: float = 0.0
    held: Held | None = None

    @property
    def idle(self) -> bool:
        return self.ready and self.held is None and not self.leaving


class Crew:
    """Warm children and the orders they run. `on_catalogue` hears of each new catalogue.

    At most `settings.children` run at once; where that is more than one, the last place is kept for urgent orders.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        stem: socket.socket | None = None,
        on_catalogue: Callable[[Catalogue], None],
    ) -> None:
        self._settings = settings
        self._given_stem = stem
        self._on_catalogue = on_catalogue
        self._stem: AsyncChannel | None = None
        self._stem_pid: int | None = None
        self._nursery: _Nursery | None = None
        self._children: set[_Child] = set()
        self._held: dict[str, Held] = {}
        self._waiting: tuple[deque[Held], deque[Held]] = (deque(), deque())
        self._tasks: set[asyncio.Task[None]] = set()
        self._keys = 0
        self._stopping = False
        self._changed = asyncio.Event()
        self._resting: asyncio.TimerHandle | None = None
        self.ready = asyncio.Event()
        """Set once a child has been ready."""

    # -- what the worker asks

    def start(self) -> None:
        """Begin to make children ready; orders may be submitted at once."""
        self._start_nursery()

    def submit(self, work: Work, *, time_limit: float | None = None) -> asyncio.Future[Outcome]:
        """Run this order as soon as there is room; the same flow run again is the same order.

        Raises `LinkError` while the worker stops: the order was not taken.
        """
        if (held := self._held.get(work.order.flow_run_id)) is not None:
            return held.outcome
        if self._stopping:
            raise LinkError("this worker is stopping and takes no new runs.")
        held = Held(work, time_limit, asyncio.get_running_loop().create_future(), since=_now())
        self._held[held.id] = held
        self._waiting[0 if work.order.urgent else 1].append(held)
        self._fill()
        return held.outcome

    def end(self, flow_run_id: str, ending: Ending, reason: str) -> bool:
        """End this run if it is here and not ending already; its outcome comes when its child is done with it."""
        held = self._held.get(flow_run_id)
        if held is None or held.ending is not None:
            return held is not None
        held.ending = (ending, reason)
        if held.child is None:
            self._forget(held)
            self._resolve(held, Outcome(ending, reason=reason, begun=False))
        else:
            number = CANCEL if ending == "cancelled" else END
            self._signal(held.child, number)
            # A second one reaches code that blocks its event loop.
            self._later(INSIST, self._signal_again, held.child, number)
            self._later(GRACE, self._kill, held.child)
        return True

    def holding(self) -> list[str]:
        """The flow runs that are here: in children or waiting for one."""
        return list(self._held)

    @property
    def warm(self) -> int:
        """How many children wait for work."""
        return sum(1 for child in self._children if child.idle)

    def counts(self) -> dict[str, int]:
        """How many children are busy, warm or on their way to be ready or to leave; how many orders wait for one."""
        busy = sum(1 for child in self._children if child.held is not None)
        return {
            "busy": busy,
            "warm": self.warm,
            "changing": len(self._children) - busy - self.warm,
            "waiting": sum(map(len, self._waiting)),
        }

    def pids(self) -> list[int]:
        """The children there are."""
        return [child.pid for child in self._children if child.pid]

    def pid_of(self, flow_run_id: str) -> int | None:
        """The child that runs this flow run."""
        held = self._held.get(flow_run_id)
        return held.child.pid if held and held.child else None

    async def reload(self, settings: WorkerSettings) -> Catalogue:
        """Take up new settings and import the automations anew; runs that are going on finish as they began.

        Raises `LinkError` when the automations cannot be imported at all: the old ones stay.
        """
        self._settings = settings
        old, new = self._nursery, self._make_nursery()
        try:
            catalogue = await new.catalogue
        except LinkError:
            new.channel.end()
            raise
        self._nursery = new
        self._on_catalogue(catalogue)
        if old is not None:
            self._retire_children_of(old)
        self._fill()
        return catalogue

    async def register(self, catalogue: Catalogue) -> Catalogue:
        """Have a child of its own ensure the deployments; it has imported the flows, this process has not.

        Returns the catalogue with what only Prefect knows. Raises `LinkError` when it did not come to that.
        """
        home = self._nursery
        if home is None or not home.alive:
            raise LinkError("the process that forks children is not there")
        channel = self._fork(home)[0]
        try:
            while (message := await channel.receive()) is not None:
                if "ready" in message:
                    await channel.send({"register": catalogue.model_dump(mode="json")})
                elif "registered" in message:
                    return Catalogue.model_validate(message["registered"])
                elif "failed" in message:
                    raise LinkError(message["failed"])
            raise LinkError("the child that registers ended")
        finally:
            channel.close()

    async def stop(self, patience: float) -> None:
        """Take nothing new, give running ones `patience` seconds, end them, and leave no process behind."""
        self._stopping = True
        for held in self._unbegun():
            self._forget(held)
            reason = "the worker stopped before a child began this run: it can be ordered again"
            self._resolve(held, Outcome("refused", reason=reason, begun=False))
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._until(lambda: not self._held)
        for flow_run_id in list(self._held):
            self.end(flow_run_id, "crashed", "the worker was stopped")
        await self._until(lambda: not self._held)
        for child in list(self._children):
            self._retire(child)
        await self._end_processes()

    # -- children

    def _fill(self) -> None:
        """Hand waiting orders to idle children and have as many children made as are wanted."""
        # The one that has run most, first: its caches are warm, and the pages of the others stay shared.
        idle = [child for child in self._children if child.idle]
        for child in sorted(idle, key=lambda child: child.runs, reverse=True):
            held = self._next()
            if held is None:
                break
            self._hand(held, child)
        if self._nursery is not None and self._nursery.alive and not self._stopping:
            for _ in range(self._wanted() - len(self._present())):
                self._make_child(self._nursery)
        self._changed.set()

    def _next(self) -> Held | None:
        urgent, others = self._waiting
        if urgent:
            return urgent.popleft()
        ordinary = sum(1 for held in self._held.values() if held.child and not held.work.order.urgent)
        room = max(1, self._settings.children - 1)
        return others.popleft() if others and ordinary < room else None

    def _wanted(self) -> int:
        busy = sum(1 for child in self._children if child.held)
        waiting = sum(len(queue) for queue in self._waiting)
        return min(self._settings.children, busy + max(self._settings.warm, waiting))

    def _present(self) -> list[_Child]:
        return [child for child in self._children if not child.leaving]

    def _hand(self, held: Held, child: _Child) -> None:
        held.child, child.held = child, held
        child.runs += 1
        if held.time_limit is not None:
            reason = f"the run took longer than its {held.time_limit:g} seconds"
            held.timer = self._later(held.time_limit, self.end, held.id, "timed-out", reason)
        work = held.work.model_copy(update={"waited": _now() - held.since > FRESH})
        self._do(child.channel.send({"work": work.model_dump(mode="json")}))

    def _make_child(self, home: _Nursery) -> None:
        try:
            channel, born = self._fork(home)
        except OSError:
            return  # the nursery is gone, which `_hear_nursery` is about to hear
        child = _Child(home, channel)
        self._children.add(child)
        born.add_done_callback(lambda number: _is_born(child, number))
        self._do(self._tend(child, born))

    def _fork(self, home: _Nursery) -> tuple[AsyncChannel, asyncio.Future[int]]:
        ours, theirs = pair()
        self._keys += 1
        born: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            home.channel.send_file({"fork": self._keys}, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        home.born[self._keys] = born
        return AsyncChannel(ours), born

    async def _tend(self, child: _Child, born: asyncio.Future[int]) -> None:
        # The child may be heard before its nursery says its number; it says it itself, first.
        while (message := await child.channel.receive()) is not None:
            if "ready" in message:
                self._is_ready(child, message["ready"])
            elif "begun" in message and child.held:
                self._has_begun(child.held)
            elif "ended" in message:
                self._has_ended(child, Ended.model_validate(message["ended"]), message["memory_mb"])
            self._fill()
        await self._is_gone(child, born)

    def _is_ready(self, child: _Child, pid: int) -> None:
        child.pid, child.ready, child.idle_since = pid, True, _now()
        self.ready.set()
        with suppress(OSError, AttributeError):
            child.handle = os.pidfd_open(pid)

    def _has_begun(self, held: Held) -> None:
        held.begun = True
        if held.ending is not None and held.child is not None:
            # The signal came while the child still read its order, and was not taken.
            self._signal(held.child, CANCEL if held.ending[0] == "cancelled" else END)

    def _has_ended(self, child: _Child, ended: Ended, memory: float) -> None:
        held, child.held, child.idle_since = child.held, None, _now()
        child.first_memory = child.first_memory or memory
        if held is not None:
            self._forget(held)
            self._resolve(held, _outcome(held, ended))
        spent = child.runs >= self._settings.runs or memory - child.first_memory > GROWTH_MB
        if spent or ended.how == "signalled" or (held and held.ending) or child.nursery is not self._nursery:
            self._retire(child)
        else:
            self._rest_later()

    async def _is_gone(self, child: _Child, born: asyncio.Future[int]) -> None:
        child.leaving = True
        code = await self._exit_code(child, born)
        if code is None:
            # Its nursery cannot tell, or it closed its channel and lives on: without a channel it is of no use.
            self._signal(child, signal.SIGKILL)
        self._children.discard(child)
        child.channel.close()
        if child.handle >= 0:
            os.close(child.handle)
            child.handle = -1
        if child.held is not None:
            self._was_lost(child.held, code)
        elif not child.ready:
            # Made and gone without a word: do not make the next one at full speed.
            self._later(1.0, self._fill)
            return
        self._fill()

    async def _exit_code(self, child: _Child, born: asyncio.Future[int]) -> int | None:
        """How the process ended; None when its nursery died before it could tell."""
        home = child.nursery
        if not home.alive:
            return None
        try:
            async with asyncio.timeout(GRACE):
                child.pid = child.pid or await born
                return await home.exited.setdefault(child.pid, asyncio.get_running_loop().create_future())
        except (TimeoutError, LinkError):
            return None
        finally:
            home.exited.pop(child.pid, None)

    def _was_lost(self, held: Held, code: int | None) -> None:
        self._forget(held)
        if held.ending is not None:
            how, reason = held.ending
            self._resolve(held, Outcome(how, reason=reason, begun=held.begun))
        elif held.begun:
            self._resolve(held, Outcome("crashed", reason=f"the run's process {_said(code)}"))
        else:
            reason = f"the child {_said(code)} before it began this run: it can be ordered again"
            self._resolve(held, Outcome("refused", reason=reason, begun=False))

    def _retire(self, child: _Child) -> None:
        child.leaving = True
        child.channel.end()
        self._later(LEAVING, self._kill_lingering, child)

    def _kill_lingering(self, child: _Child) -> None:
        # Something that a flow left behind, an endless task for one, keeps it from leaving.
        if child in self._children:
            logger.warning("child %d does not leave by itself and is killed", child.pid)
            self._signal(child, signal.SIGKILL)

    def _rest(self) -> None:
        """Let those go that nobody has needed for long: the ones beyond the warm ones, and when all rest the worn ones.

        A child that has run has 30 MB of pages that it shared with its parent before. Of the warm ones one such is
        kept, which takes what comes one after another; the others are made anew.
        """
        self._resting = None
        idle = sorted((one for one in self._children if one.idle), key=lambda child: child.idle_since)
        rested = [one for one in idle if _now() - one.idle_since >= SURPLUS_AGE]
        spare = max(0, len(idle) - self._settings.warm)
        leaving, staying = idle[:spare], idle[spare:]
        if len(rested) == len(self._present()):
            worn = sorted((one for one in staying if one.runs), key=lambda child: child.runs)
            leaving += worn[:-1]
        for child in leaving:
            if child in rested:
                self._retire(child)
        self._fill()
        if young := idle[len(rested) :]:
            self._rest_later(young[0].idle_since + SURPLUS_AGE - _now())

    def _rest_later(self, seconds: float = SURPLUS_AGE) -> None:
        if self._resting is None:
            self._resting = self._later(seconds + 0.1, self._rest)

    def _retire_children_of(self, home: _Nursery) -> None:
        for child in self._children:
            if child.nursery is home and child.held is None:
                self._retire(child)
        self._let_go(home)

    def _let_go(self, home: _Nursery) -> None:
        """Close an old nursery's channel once nobody needs to hear how its children end."""
        if not any(child.nursery is home for child in self._children):
            home.channel.end()
        else:
            self._later(0.5, self._let_go, home)

    def _signal(self, child: _Child, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if child.handle >= 0:
                signal.pidfd_send_signal(child.handle, number)
            elif child.pid:
                os.kill(child.pid, number)

    def _signal_again(self, child: _Child, number: signal.Signals) -> None:
        if child in self._children and child.held is not None:
            self._signal(child, number)

    def _kill(self, child: _Child) -> None:
        self._signal_again(child, signal.SIGKILL)

    # -- stem and nurseries

    def _start_nursery(self) -> None:
        self._nursery = self._make_nursery()

    def _make_nursery(self) -> _Nursery:
        ours, theirs = pair()
        made = _Nursery(AsyncChannel(ours), asyncio.get_running_loop().create_future())
        self._keys += 1
        try:
            self._present_stem().send_file({"fork": self._keys}, theirs)
        finally:
            theirs.close()
        self._do(self._hear_nursery(made))
        return made

    def _present_stem(self) -> AsyncChannel:
        if self._stem is None:
            if self._given_stem is not None:
                connection, self._given_stem = self._given_stem, None
            else:
                self._stem_pid, connection = nursery.sow()
            self._stem = AsyncChannel(connection)
            self._do(self._hear_stem(self._stem))
        return self._stem

    async def _hear_stem(self, stem: AsyncChannel) -> None:
        while await stem.receive() is not None:
            pass
        stem.close()
        self._stem = None
        if self._stem_pid is not None:
            pid, self._stem_pid = self._stem_pid, None
            await asyncio.to_thread(os.waitpid, pid, 0)

    async def _hear_nursery(self, home: _Nursery) -> None:
        while (message := await home.channel.receive()) is not None:
            self._nursery_said(home, message)
        home.alive = False
        home.channel.close()
        _fail(home.catalogue, "the process that forks children ended")
        for waiting in (*home.born.values(), *home.exited.values()):
            _fail(waiting, "the process that forks children ended")
        if home is self._nursery and not self._stopping:
            logger.warning("the process that forks children ended; another is started")
            self._later(0.2, self._replace_nursery)

    def _nursery_said(self, home: _Nursery, message: dict[str, Any]) -> None:
        if "catalogue" in message:
            catalogue = Catalogue.model_validate(message["catalogue"])
            if not home.catalogue.done():
                home.catalogue.set_result(catalogue)
            if home is self._nursery:
                self._on_catalogue(catalogue)
                self._fill()
        elif "failed" in message:
            logger.error("the automations cannot be imported: %s", message["failed"])
            _fail(home.catalogue, f"the automations cannot be imported: {message['failed']}")
        elif "forked" in message:
            _tell(home.born.pop(message["forked"], None), message["pid"])
        elif "exited" in message:
            loop = asyncio.get_running_loop()
            _tell(home.exited.setdefault(message["exited"], loop.create_future()), message["code"])

    def _replace_nursery(self) -> None:
        if self._stopping:
            return
        for child in self._children:
            if child.held is None and child.nursery is self._nursery:
                self._retire(child)
        try:
            self._start_nursery()
        except OSError:
            self._later(1.0, self._replace_nursery)

    async def _end_processes(self) -> None:
        await self._until(lambda: not self._children)
        if self._nursery is not None:
            self._nursery.channel.end()
        if self._stem is not None:
            self._stem.end()
        others = [task for task in self._tasks if task is not asyncio.current_task()]
        if others and (await asyncio.wait(others, timeout=LEAVING))[1]:
            logger.warning("a process that forks children has not ended yet")

    # -- small things

    def _resolve(self, held: Held, outcome: Outcome) -> None:
        if held.timer is not None:
            held.timer.cancel()
        if not held.outcome.done():
            held.outcome.set_result(outcome)
        self._changed.set()

    def _forget(self, held: Held) -> None:
        self._held.pop(held.id, None)
        for queue in self._waiting:
            with suppress(ValueError):
                queue.remove(held)

    def _unbegun(self) -> Iterator[Held]:
        yield from [held for held in self._held.values() if held.child is None]

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._changed.clear()
            await self._changed.wait()

    def _do(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _later(self, seconds: float, call: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, call, *args)


def _is_born(child: _Child, number: asyncio.Future[int]) -> None:
    if not number.cancelled() and number.exception() is None:
        child.pid = number.result()


def _outcome(held: Held, ended: Ended) -> Outcome:
    if held.ending is not None and ended.state != "Completed":
        how, reason = held.ending
        return Outcome(how, ended.state, reason)
    if ended.how == "ended":
        return Outcome("finished", ended.state)
    if ended.how == "signalled":
        return Outcome("crashed", ended.state, "the run's process was told to end")
    return Outcome("refused", ended.state, ended.reason, begun=ended.how != "elsewhere")


def _now() -> float:
    return asyncio.get_running_loop().time()


def _said(code: int | None) -> str:
    if code is None:
        return "is gone"
    if code >= 0:
        return f"ended with code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _tell(waiting: asyncio.Future[int] | None, value: int) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(value)


def _fail(waiting: asyncio.Future[Any], reason: str) -> None:
    if not waiting.done():
        waiting.set_exception(LinkError(reason))
        waiting.exception()  # nobody may be waiting, and that is fine


__all__ = ["GRACE", "Crew", "Ending", "How", "Outcome", "RunOrder"]
