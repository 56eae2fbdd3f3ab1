"""Dispatch: a queued request becomes a Prefect flow run, in the order of its lane.

The run's id is Prefect's idempotency key, so that a repeated creation finds the first one. With our own worker the
flow run is created Pending and handed over at once; under stock workers it is created Scheduled and they poll for it.
A bounded number of runs is asked for at once. While Prefect does not answer everything waits, and nothing is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from parley.errors import LinkError, ParleyError, StoreUnavailable
from parley.failpoints import failpoint
from parley.link.calls import CancelOrder, RunOrder
from parley.link.server import Peer
from parley.messages.model import now
from parley.people.sealing import Keyring
from parley.runs.batches import Batches
from parley.runs.catalogue import AutomationSpec, Catalogue, Lane
from parley.runs.gate import Gate
from parley.runs.lanes import Lanes, Waiting
from parley.runs.prefect_api import PrefectApi, PrefectRefused, PrefectUnavailable
from parley.runs.requests import QueuedRun, outward, run_token, short

logger = logging.getLogger(__name__)

URGENT = frozenset({Lane.CONTROL, Lane.ALERTS})
KEPT_FOR_URGENT = 2
"""Places beyond the ordinary ones that only control and alerts may take."""
MOST_ELSEWHERE = 2000
"""Runs of existing deployments, and in containers, that were handed over and have not ended."""
MOST_ATTEMPTS = 60
MOST_GIVEN_BACK = 10
"""How often workers may give a run back that they could not begin, some 25 s in all, before it fails."""


@dataclass(slots=True)
class InFlight:
    """A run that was handed to Prefect and has not ended. `elsewhere`: it takes no room of ours.

    `handed_at`: when Prefect had made its flow run, so that it may start. `place`: the run whose place it takes, of
    those that there is room for. `batch_id`: it shares its flow run with others.
    """

    queued: QueuedRun
    elsewhere: bool = False
    flow_run_id: str | None = None
    worker: Peer | None = None
    handed_at: datetime | None = None
    place: str = ""
    batch_id: str | None = None


class Dispatcher:
    """Hands runs over, as many at once as there is room for."""

    def __init__(
        self,
        prefect: PrefectApi,
        keyring: Keyring,
        *,
        catalogue: Callable[[], Catalogue],
        workers: Callable[[], list[Peer]],
        refused: Callable[[QueuedRun, str], Awaitable[None]],
        unstarted: Callable[[str], Awaitable[bool]],
        handed: Callable[[QueuedRun, float], None] = lambda _queued, _seconds: None,
        room: int,
        stock_environment: dict[str, str] | None = None,
        waiting: Waiting | None = None,
        batches: Batches | None = None,
        denied: Callable[[QueuedRun], Awaitable[bool]] | None = None,
    ) -> None:
        self._denied = denied
        self._prefect = prefect
        self._keyring = keyring
        self._catalogue = catalogue
        self._workers = workers
        self._refused = refused
        self._unstarted = unstarted
        self._handed = handed
        self.room: int = room
        self._stock = stock_environment
        self._lanes = Lanes(waiting, under_way=self._under_way)
        self._batches = batches
        self._known: set[str] = set()
        self._flow_runs: dict[str, str] = {}
        self._deployments: dict[str, str] = {}
        self._given_back: Counter[str] = Counter()
        self._awake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = 0
        self.in_flight: dict[str, InFlight] = {}
        self.gate: Gate = Gate()

    def add(self, queued: QueuedRun) -> None:
        """Take a run whose request is committed as queued; a second time changes nothing."""
        if queued.run_id in self._known:
            return
        if self._lanes.add(queued):
            self._known.add(queued.run_id)
        self._awake.set()

    def take_up(self) -> None:
        """Take what waits in the store, a page at a time: what an earlier hub left."""
        self._lanes.look_in_store()
        self._awake.set()

    def ended(self, run_id: str) -> None:
        """A run has come to its end, however: its place is free."""
        self._known.discard(run_id)
        self._given_back.pop(run_id, None)
        flight = self.in_flight.pop(run_id, None)
        if flight and flight.batch_id:
            pass  # the others of its flow run may go on
        elif flight and flight.flow_run_id:
            self._flow_runs.pop(flight.flow_run_id, None)
        else:
            # Between two orders: which flow run it was is only known from there.
            for flow_run_id in [one for one, of in self._flow_runs.items() if of == run_id]:
                del self._flow_runs[flow_run_id]
        self._lanes.drop(run_id)
        self._awake.set()

    def order_again(self, run_id: str) -> None:
        """A run whose start was never granted is handed over once more."""
        flight = self.in_flight.get(run_id)
        if flight:
            self._put_back(replace(flight.queued, attempt=flight.queued.attempt + 1))

    def _put_back(self, queued: QueuedRun) -> None:
        if self.in_flight.pop(queued.run_id, None) is not None:
            self._lanes.put_back(queued)
        self._awake.set()

    async def given_back(self, run_id: str, reason: str) -> None:
        """A worker could not begin this run: again, a little later each time; in the end it fails with the reason."""
        flight = self.in_flight.get(run_id)
        if flight is None:
            return
        self._given_back[run_id] += 1
        if self._given_back[run_id] >= MOST_GIVEN_BACK:
            await self._refuse(flight.queued, reason)
            return
        self._do(self._later(flight.queued, reason, self._given_back[run_id] - 1))

    def run_of(self, flow_run_id: str) -> str | None:
        """The run that has this flow run for itself, when it was dispatched by this hub."""
        return self._flow_runs.get(flow_run_id)

    def runs_of(self, flow_run_id: str) -> list[str]:
        """The runs that are going on in this flow run, as far as they were dispatched by this hub."""
        alone = self._flow_runs.get(flow_run_id)
        if alone is not None:
            return [alone]
        return [run_id for run_id, flight in self.in_flight.items() if flight.flow_run_id == flow_run_id]

    def _under_way(self, automation: str) -> int:
        return sum(1 for flight in self.in_flight.values() if flight.queued.automation == automation)

    def is_batched(self, run_id: str) -> bool:
        """Whether this run was handed over together with others."""
        flight = self.in_flight.get(run_id)
        return flight is not None and flight.batch_id is not None

    def has_no_worker(self, run_id: str) -> bool:
        """Whether nobody has the order of this run any more: the worker that took it is gone."""
        flight = self.in_flight.get(run_id)
        return flight is not None and flight.worker is not None and flight.worker.gone.is_set()

    def queue_sizes(self) -> dict[str, int]:
        """How many wait, by lane: in memory, and in the store behind them."""
        return self._lanes.sizes()

    def queue_ages(self) -> dict[str, float]:
        """Seconds that the first of each lane has waited; 0 where nobody waits."""
        at = now()
        return {
            lane.value: max(0.0, (at - first.queued_at).total_seconds()) if first else 0.0
            for lane, first in self._lanes.first().items()
        }

    def waits_for(self) -> str | None:
        """What keeps queued runs from being handed over: `prefect`, `worker`, or nothing but their turn."""
        if self.gate.is_shut:
            return "prefect"
        return "worker" if self._stock is None and not self._workers() else None

    def waiting(self) -> Iterator[QueuedRun]:
        """Runs in memory that no worker was told of yet, those that Prefect is being asked for among them."""
        for flight in list(self.in_flight.values()):
            if flight.worker is None and not (flight.elsewhere and flight.flow_run_id):
                yield flight.queued
        yield from self._lanes

    def worker_changed(self) -> None:
        """A worker came: what waited for one goes on."""
        self._awake.set()

    async def run(self) -> None:
        """Dispatch until cancelled."""
        try:
            while True:
                await self._awake.wait()
                self._awake.clear()
                for lane in self._lanes.low():
                    self._do(self._refill(lane))
                while (queued := self._next()) is not None:
                    group = (queued, *self._others_like(queued))
                    for one in group:
                        self.in_flight[one.run_id] = InFlight(
                            one, self._runs_elsewhere(one), place=queued.run_id
                        )
                    self.gate.enter(queued.run_id)
                    self._do(self._hand_over_together(group) if len(group) > 1 else self._hand_over(queued))
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cancel(self, flow_run_id: str, reason: str) -> bool:
        """Ask whoever runs it to end this flow run; whether one of our workers had it."""
        if await self.end(flow_run_id):
            return True
        await self._prefect.set_state(flow_run_id, "CANCELLING", "Cancelling", reason)
        return False

    async def end(self, flow_run_id: str) -> bool:
        """Have our workers end this flow run, which then is Cancelled in Prefect; whether one of them had it."""
        for worker in self._workers():
            try:
                if await worker.call("cancel", CancelOrder(flow_run_id=flow_run_id), timeout=10):
                    return True
            except (LinkError, TimeoutError) as error:
                logger.warning("%s did not answer a cancel: %s", worker, error)
        return False

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _refill(self, lane: Lane) -> None:
        try:
            fresh = await self._lanes.refill(lane, self._known)
            self._known.update(one.run_id for one in fresh)
            if not fresh and lane in self._lanes.low():
                await asyncio.sleep(1)  # nothing of what is there can be read now
        except StoreUnavailable as error:
            logger.info("what waits in the store is read later: %s", error)
            await asyncio.sleep(1)
        self._awake.set()

    def _next(self) -> QueuedRun | None:
        elsewhere = sum(1 for flight in self.in_flight.values() if flight.elsewhere)
        busy = len({flight.place for flight in self.in_flight.values() if not flight.elsewhere})

        def fits(queued: QueuedRun) -> bool:
            more = KEPT_FOR_URGENT if queued.lane in URGENT else 0
            if not self.gate.lets_in(more):
                return False
            return elsewhere < MOST_ELSEWHERE if self._runs_elsewhere(queued) else busy < self.room + more

        return self._lanes.take(fits)

    def _others_like(self, queued: QueuedRun) -> list[QueuedRun]:
        """What waits in the same lane and may share this one's flow run; taken out of it."""
        spec = self._catalogue().find(queued.automation)
        if spec is None or spec.batch < 2 or queued.alone or self._batches is None or not self._pushes(spec):
            return []
        return self._lanes.take_like(queued, spec.batch - 1)

    def _runs_elsewhere(self, queued: QueuedRun) -> bool:
        # An existing deployment's runs go to its own workers, and may take hours there; containers have their limit.
        spec = self._catalogue().find(queued.automation)
        return spec is not None and (not spec.wrapped or _in_container(spec))

    def is_polled(self, run_id: str) -> bool:
        """Whether a worker takes this run from Prefect, so that another order of ours would reach nobody."""
        flight = self.in_flight.get(run_id)
        spec = self._catalogue().find(flight.queued.automation) if flight else None
        return spec is not None and _in_container(spec)

    async def _hand_over(self, queued: QueuedRun) -> None:
        try:
            await self._order(queued)
        except PrefectUnavailable as error:
            # It keeps its place: when Prefect is back, what waits goes on in the order of the lanes.
            logger.info("run %s waits: %s", queued.run_id, error)
            self._passed(queued.run_id, answered=False)
            flight = self.in_flight.get(queued.run_id)
            if flight is not None and flight.queued is queued:
                # By itself from now on: its flow run may have been made, though the answer was lost.
                self._put_back(replace(queued, again=True))
        except (LinkError, TimeoutError) as error:
            await self._later(queued, str(error))
        except PrefectRefused as error:
            self._passed(queued.run_id)
            await self._prefect_refused(queued, error)
        except StoreUnavailable as error:
            await self._later(queued, str(error))  # our own store: that passes, too
        except ParleyError as error:
            await self._refuse(queued, str(error))
        except Exception:
            logger.exception("run %s could not be handed over", queued.run_id)
            reason = "an error of our own; the hub's log says which"
            self._passed(queued.run_id)
            await (self._later if queued.attempt < MOST_ATTEMPTS else self._refuse)(queued, reason)
        finally:
            self._passed(queued.run_id)

    async def _hand_over_together(self, group: tuple[QueuedRun, ...]) -> None:
        leader = group[0].run_id
        try:
            await self._order_together(group)
        except PrefectUnavailable as error:
            logger.info("%d runs wait: %s", len(group), error)
            self._passed(leader, answered=False)
            for queued in self._still_held(group):
                self._put_back(queued)
        except Exception as error:
            if isinstance(error, PrefectRefused):
                self._forget_deployment(group[0])  # it may be made anew
            # Whatever is wrong with doing it together: each goes on by itself, and tells its own trouble.
            expected = isinstance(error, ParleyError | TimeoutError)
            logger.warning("%d runs go on one by one: %s", len(group), error, exc_info=not expected)
            for queued in self._still_held(group):
                self.order_again(queued.run_id)
        finally:
            self._passed(leader)

    def _forget_deployment(self, queued: QueuedRun) -> None:
        spec = self._catalogue().find(queued.automation)
        if spec is not None:
            self._deployments.pop(spec.deployment, None)
            self._deployments.pop(spec.batch_deployment, None)

    def _still_held(self, group: tuple[QueuedRun, ...]) -> list[QueuedRun]:
        return [
            queued
            for queued in group
            if (flight := self.in_flight.get(queued.run_id)) is not None and flight.queued is queued
        ]

    async def _order_together(self, group: tuple[QueuedRun, ...]) -> None:
        spec = self._catalogue().find(group[0].automation)
        if spec is None or self._batches is None:
            raise PrefectRefused("not in the catalogue", 404)
        batch_id = await self._batches.form(spec.command, [queued.run_id for queued in group])
        for queued in self._still_held(group):
            self.in_flight[queued.run_id].batch_id = batch_id
        flow_run = await self._create_together(batch_id, spec, group)
        failpoint("dispatch.batched")
        self._passed(group[0].run_id)
        flow_run_id = str(flow_run["id"])
        for queued in self._still_held(group):
            flight = self.in_flight[queued.run_id]
            flight.flow_run_id, flight.handed_at = flow_run_id, now()
            self._handed(queued, (flight.handed_at - queued.queued_at).total_seconds())
        await self._batches.made(batch_id, flow_run_id)
        if held := self._still_held(group):
            await self._push_together(batch_id, spec, held, flow_run)

    async def _create_together(
        self, batch_id: str, spec: AutomationSpec, group: tuple[QueuedRun, ...]
    ) -> dict[str, Any]:
        asked = [
            {
                "run": queued.run_id,
                "request": short(queued.request_id),
                "parameters": outward(spec, queued.request_id, queued.values),
            }
            for queued in group
        ]
        return await self._prefect.create_flow_run(
            await self._deployment(spec.batch_deployment),
            key=batch_id,
            name=f"{spec.command}-{short(batch_id)}-{len(group)}",
            parameters={"asked": asked},
            tags=("parley", f"command:{spec.command}", "batch"),
            pending=True,
        )

    async def _push_together(
        self, batch_id: str, spec: AutomationSpec, held: list[QueuedRun], flow_run: dict[str, Any]
    ) -> None:
        worker = self._next_worker()
        for queued in held:
            self.in_flight[queued.run_id].worker = worker
        order = RunOrder(
            run_id=batch_id,
            flow_run_id=str(flow_run["id"]),
            automation=spec.name,
            entrypoint=spec.entrypoint,
            flow_run=flow_run,
            token=run_token(self._keyring, held[0].run_id),  # for the connection
            tokens={queued.run_id: run_token(self._keyring, queued.run_id) for queued in held},
            time_limit=spec.time_limit,
            urgent=held[0].lane in URGENT,
        )
        await worker.call("run", order, timeout=15)
        failpoint("dispatch.batch-ordered")

    def _passed(self, run_id: str, *, answered: bool = True) -> None:
        """Prefect is not being asked for this run any more: the next one may be."""
        look_again = self.gate.leave(run_id, answered=answered)
        if look_again is None:
            self._awake.set()
        else:
            asyncio.get_running_loop().call_later(look_again, self._awake.set)

    async def _refuse(self, queued: QueuedRun, reason: str) -> None:
        try:
            await self._refused(queued, reason)
        except StoreUnavailable as error:
            await self._later(queued, str(error))

    async def _order(self, queued: QueuedRun) -> None:
        spec = self._catalogue().find(queued.automation)
        if spec is None:
            raise PrefectRefused("not in the catalogue", 404)
        if not spec.wrapped and await self._must_not_begin(queued):
            return  # an existing deployment does not ask for its start: this is it
        flow_run = await self._create(queued, spec)
        failpoint("dispatch.created")
        self._passed(queued.run_id)
        flight = self.in_flight.get(queued.run_id)
        if queued.run_id not in self._known:
            # It was ended while Prefect made it.
            await self._prefect.set_state(
                str(flow_run["id"]), "CANCELLED", "Cancelled", "ended before its start"
            )
            return
        if flight is None:
            return
        flight.flow_run_id = str(flow_run["id"])
        flight.handed_at = now()
        if queued.attempt == 0:
            self._handed(queued, (flight.handed_at - queued.queued_at).total_seconds())
        self._flow_runs[flight.flow_run_id] = queued.run_id
        if self._pushes(spec):
            startable = await self._startable(queued.run_id, flow_run)
            if startable is not None:
                await self._push(queued, spec, flight, startable)

    async def _must_not_begin(self, queued: QueuedRun) -> bool:
        if self._denied is None:
            return False
        # It may have been handed over before, and be running: then it goes on, whatever has changed since.
        found = await self._prefect.flow_runs_of([queued.run_id]) if queued.alone else []
        left = next(iter(found), None)
        if left is not None and (left.get("state") or {}).get("type") != "SCHEDULED":
            return False
        if not await self._denied(queued):
            return False
        if left is not None:
            flow_run_id = str(left["id"])
            await self._prefect.set_state(
                flow_run_id, "CANCELLED", "Cancelled", "it may not start any more", force=False
            )
        return True

    async def _startable(self, run_id: str, flow_run: dict[str, Any]) -> dict[str, Any] | None:
        # Found again after its process died before our start was granted: Prefect may hold it for crashed.
        state = (flow_run.get("state") or {}).get("type")
        if state in ("PENDING", "SCHEDULED"):
            return flow_run
        if not await self._unstarted(run_id):
            return None  # the order before this one came through after all: its state is its own
        await self._prefect.set_state(str(flow_run["id"]), "PENDING", "Pending", "handed over once more")
        return await self._prefect.flow_run(str(flow_run["id"]))

    async def _create(self, queued: QueuedRun, spec: AutomationSpec) -> dict[str, Any]:
        deployment_id = await self._deployment(spec.deployment)
        failpoint("dispatch.creating")
        return await self._prefect.create_flow_run(
            deployment_id,
            key=queued.run_id,
            name=f"{spec.command}-{short(queued.run_id)}",
            parameters=outward(spec, queued.request_id, queued.values),
            tags=("parley", f"command:{spec.command}", f"by:{queued.actor}"),
            pending=self._pushes(spec),
            # The containers' worker asks the hub for the token itself: it need not stand in Prefect.
            job_variables=self._job_variables(queued) if spec.wrapped and not _in_container(spec) else None,
        )

    async def _deployment(self, name: str) -> str:
        if name not in self._deployments:
            self._deployments[name] = await self._prefect.deployment_id(name)
        return self._deployments[name]

    def _pushes(self, spec: AutomationSpec) -> bool:
        return self._stock is None and spec.wrapped and not _in_container(spec)

    def _job_variables(self, queued: QueuedRun) -> dict[str, Any] | None:
        if self._stock is None:
            return None
        token = run_token(self._keyring, queued.run_id)
        return {"env": self._stock | {"PARLEY_RUN_TOKEN": token}}

    async def _push(
        self, queued: QueuedRun, spec: AutomationSpec, flight: InFlight, flow_run: dict[str, Any]
    ) -> None:
        flight.worker = self._next_worker()
        order = RunOrder(
            run_id=queued.run_id,
            flow_run_id=str(flow_run["id"]),
            automation=spec.name,
            entrypoint=spec.entrypoint,
            flow_run=flow_run,
            token=run_token(self._keyring, queued.run_id),
            time_limit=spec.time_limit,
            urgent=queued.lane in URGENT,
        )
        await flight.worker.call("run", order, timeout=15)
        failpoint("dispatch.ordered")

    def _next_worker(self) -> Peer:
        workers = self._workers()
        if not workers:
            raise LinkError("no worker is connected")
        self._turn += 1
        return workers[self._turn % len(workers)]

    async def _later(self, queued: QueuedRun, reason: str, attempt: int | None = None) -> None:
        logger.info("run %s waits: %s", queued.run_id, reason)
        wait = min(5.0, 0.1 * 2 ** min(queued.attempt + 1 if attempt is None else attempt, 6))
        await asyncio.sleep(wait)
        flight = self.in_flight.get(queued.run_id)
        if flight is not None and flight.queued is queued:
            self.order_again(queued.run_id)

    async def _prefect_refused(self, queued: QueuedRun, error: PrefectRefused) -> None:
        # Just after a start the deployments may still be on their way; later their absence is an answer.
        self._forget_deployment(queued)
        if error.status == 404 and queued.attempt < MOST_ATTEMPTS // 2:
            await self._later(queued, str(error))
            return
        await self._refuse(queued, str(error))


def _in_container(spec: AutomationSpec) -> bool:
    return spec.isolation == "container"
