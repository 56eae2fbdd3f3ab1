"""What Prefect's engine spends on every deployment run for nothing in a warm process, taken out.

Three costs that no setting can turn off, replaced in place by `install()`:

===================================  =================================  ===========================================
in Prefect                           cost a run                         here
===================================  =================================  ===========================================
a thread and a websocket that watch  165 ms, joined inside the event    none: the worker is told by its own channel
for a suspend from outside           loop, blocking all other runs      and calls `request_suspension`
a heartbeat thread that sleeps in    up to 1 s at the end of every      the same beats, from a thread that an event
whole seconds                        sync flow                          wakes at once
the server's default result          two to four requests               read once in `STORAGE_SECONDS`
storage, asked for again and again
===================================  =================================  ===========================================

States, task runs, logs, events and heartbeats stay as they are. A patch goes in only where Prefect's own source is,
letter for letter, the one that it was written against; otherwise Prefect's plain path stays, with a warning. The other
avoidable cost, a client and its TLS context a run, needs no patch: see `parley.runs.execute`.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from prefect import _flow_run_suspension as suspension
from prefect import flow_engine, results
from prefect.client.schemas.objects import State
from prefect.settings import get_current_settings

from parley.runs import patches
from parley.runs.patches import Patch, source_digest

__all__ = ["PATCHES", "Patch", "install", "lean", "request_suspension", "source_digest", "uninstall"]

STORAGE_SECONDS: Final = 60.0
"""For how long the server's default result storage is remembered: a change there is taken up within this time."""


def install() -> list[str]:
    """Put every patch that fits into this process and return the names of those that do not, each warned about.

    Called once before the first run, in the parent of forked children or in each; a second call changes nothing.
    """
    return patches.install(PATCHES)


def uninstall() -> None:
    """Put Prefect's own functions back."""
    patches.uninstall(PATCHES)


@contextmanager
def lean() -> Iterator[list[str]]:
    """Have the patches installed for the length of a block; yields what `install` returns."""
    missing = install()
    try:
        yield missing
    finally:
        uninstall()


def request_suspension(flow_run_id: UUID, state: State) -> bool:
    """Tell a run of this process that the server has suspended it, and return whether it is one.

    `state` is the Suspended state that the server holds. The run ends at its next step, as with Prefect's observer.
    """
    return suspension.mark_flow_run_suspension_requested(flow_run_id, state)


def _no_observer(_: Any) -> Any:
    @contextmanager
    def observe_flow_run_suspension(*_: Any, **__: Any) -> Iterator[None]:
        # The engine has registered the run already: `request_suspension` finds it without a thread of its own.
        yield

    return observe_flow_run_suspension


def _prompt_heartbeats(_: Any) -> Any:
    @contextmanager
    def send_heartbeats(
        engine: flow_engine.BaseFlowRunEngine[Any, Any],
        join_on_exit: bool = True,
    ) -> Iterator[None]:
        del join_on_exit  # the thread ends at once, whoever waits for it
        if engine.heartbeat_seconds is None:
            yield
            return
        ended = threading.Event()
        # With the caller's context, so that the events go to the server of these settings.
        context = contextvars.copy_context()
        beats = threading.Thread(
            target=context.run, args=(_beat, engine, ended), name="heartbeat", daemon=True
        )
        beats.start()
        try:
            yield
        finally:
            ended.set()

    return send_heartbeats


def _beat(engine: flow_engine.BaseFlowRunEngine[Any, Any], ended: threading.Event) -> None:
    resource, related = engine._build_heartbeat_event_template()  # noqa: SLF001 - the engine's own heartbeat
    interval = max(engine.heartbeat_seconds or 0, flow_engine.MINIMUM_HEARTBEAT_INTERVAL)
    while True:
        # A beat after the last state would have an automation on missing beats wait for the next one.
        if engine.flow_run and engine.flow_run.state and engine.flow_run.state.is_final():
            return
        try:
            engine._emit_flow_run_heartbeat(resource, related)  # noqa: SLF001
        except Exception:
            engine.logger.debug("Failed to emit heartbeat", exc_info=True)
        if ended.wait(interval):
            return


class _Remembered:
    """What was read from each API, and until when it is believed."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str | None], tuple[float, UUID | None]] = {}

    def get(self, kind: str) -> tuple[bool, UUID | None]:
        until, value = self._values.get((kind, _api()), (0.0, None))
        return time.monotonic() < until, value

    def put(self, kind: str, value: UUID | None) -> UUID | None:
        self._values[kind, _api()] = (time.monotonic() + STORAGE_SECONDS, value)
        return value


def _api() -> str | None:
    return get_current_settings().api.url


def _remembered_storage(original: Any) -> Any:
    storage = _Remembered()

    def read() -> UUID | None:
        known, value = storage.get("sync")
        return value if known else storage.put("sync", original())

    return read


def _remembered_storage_async(original: Any) -> Any:
    storage = _Remembered()

    async def read() -> UUID | None:
        known, value = storage.get("async")
        return value if known else storage.put("async", await original())

    return read


PATCHES: Final = (
    Patch(flow_engine, "observe_flow_run_suspension", frozenset({"c342ca7443cedf86"}), _no_observer),
    Patch(flow_engine, "_send_heartbeats", frozenset({"83e152cb73a04e97"}), _prompt_heartbeats),
    Patch(
        results,
        "_read_server_default_result_storage_block_id",
        frozenset({"cd297cdfa6f8530e"}),
        _remembered_storage,
    ),
    Patch(
        results,
        "_aread_server_default_result_storage_block_id",
        frozenset({"f8a04649e3d4d51e"}),
        _remembered_storage_async,
    ),
)
"""In the order of what they save."""
