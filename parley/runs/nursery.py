"""The processes that warm children are forked from, and how the worker gets the first of them.

The *stem* has imported Prefect and nothing of ours that an author wrote; it forks a *nursery* for each version of
parley.toml. A nursery imports the automations, tells the worker their catalogue, and forks *children* that share its
pages. All three end by themselves when the worker is gone, children after the run that they are at.
"""

from __future__ import annotations

import gc
import logging
import socket
import sys
import threading
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from parley.runs import forker
from parley.runs.channel import Channel, adopt, pair
from parley.runs.forker import Forker

if TYPE_CHECKING:
    from prefect import Flow

    from parley.runs.catalogue import Catalogue

logger = logging.getLogger(__name__)

Flows = Mapping[str, "Flow[..., Any]"]
"""The automations of this installation by the flow's name."""

FORKS: Final = sys.platform.startswith("linux")
"""Elsewhere system libraries start threads behind our back, and a forked copy of such a process may hang."""

_FIRST_RUN: Final = (
    "anyio._backends._asyncio",
    "graphviz",
    "parley.runs.execute",
    "parley.runs.hub_thread",
    "parley.runs.register",
    "prefect._internal.states",
    "prefect.concurrency._asyncio",
    "prefect.concurrency._sync",
    "prefect.concurrency.services",
    "prefect.events.clients",
    "prefect.task_engine",
    "prefect.utilities.visualization",
    "rich._emoji_codes",
    "websockets.asyncio.client",
)
"""What Prefect imports in the middle of the first run: some 10 MB and 100 ms a child, if each did it for itself."""

_AFRESH: Final = ("-m", "parley.runs.nursery")


def plant() -> socket.socket:
    """Fork the stem off this process, which must have no thread yet; Prefect is imported first so that both share it.

    Returns the worker's end of its channel.
    """
    import_module("prefect.main")
    import_module("prefect.workers.base")

    ours, theirs = pair()
    gc.collect()
    gc.freeze()
    forker.fork(stem, theirs, close=ours)
    return ours


def sow() -> tuple[int, socket.socket]:
    """Start the stem as a new process, from anywhere; returns its pid, to be reaped, and the worker's end."""
    ours, theirs = pair()
    try:
        return forker.start_afresh((*_AFRESH, "stem"), theirs.fileno()), ours
    finally:
        theirs.close()


def stem(channel: Channel) -> None:
    """Fork a nursery for each socket that comes, until the worker is gone."""
    forker.ignore_signals()
    import_module("prefect.main")

    gc.collect()
    gc.freeze()
    Forker(channel, nursery, afresh=() if FORKS else (*_AFRESH, "nursery")).serve()


def nursery(channel: Channel) -> None:
    """Import the automations, tell `{"catalogue"}` or `{"failed": reason}`, then fork children on demand."""
    from parley.runs.child import serve

    forker.ignore_signals()
    try:
        flows, catalogue = preload()
    except BaseException as error:
        channel.send({"failed": f"{type(error).__name__}: {error}"})
        raise
    channel.send({"catalogue": catalogue.model_dump(mode="json")})
    gc.collect()
    gc.freeze()
    forks = _is_alone() and FORKS
    Forker(channel, partial(serve, flows=flows), afresh=() if forks else ("-m", "parley.runs.child")).serve()


def preload() -> tuple[Flows, Catalogue]:
    """Import every automation and make Prefect's engine lean; nothing here may start a thread. Raises `ParleyError`."""
    from parley import settings
    from parley.runs import describe, lean

    lean.install()
    for name in _FIRST_RUN:
        if find_spec(name):
            import_module(name)
    file = settings.load().file
    return describe.find(file.automations, file.containers)


def _is_alone() -> bool:
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        logger.warning(
            "an automation started threads while it was imported (%s): children are started afresh instead of forked,"
            " which takes seconds and memory. Start threads inside the flow instead.",
            ", ".join(others),
        )
    return not others


if __name__ == "__main__":
    {"stem": stem, "nursery": nursery}[sys.argv[1]](Channel(adopt(int(sys.argv[2]))))
