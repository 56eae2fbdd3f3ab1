"""One run, inside its container: `python -m parley.runs.container_run`.

The container has no network; the mounted folder holds its order and the sockets that it may use. Programs reach them by
loopback: each address of `ways` is listened on and passed on to a socket of the folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from parley import log_lines
from parley.link.calls import RunOrder
from parley.link.forward import Forwarder, bound, unix
from parley.messages.model import Model

FOLDER: Final = Path("/run/parley")
ORDER: Final = "order.json"
FILE: Final = "parley.toml"
SAID: Final = "parley-ended: "
"""What stands before the last line of the container's output, in which it says how it ended."""

PREFECT_PORT: Final = 4200


class Way(Model):
    """`host` and `port` here lead to the socket `name`."""

    host: str
    port: int
    name: str


class ContainerOrder(Model):
    """What the worker leaves in the folder."""

    order: RunOrder
    ways: tuple[Way, ...]


def main(folder: Path = FOLDER) -> int:
    """Run it; 0 when the engine came to its end, whatever the run's state is then."""
    log_lines.configure(form="%(levelname)s %(name)s: %(message)s")
    told = ContainerOrder.model_validate_json((folder / ORDER).read_bytes())
    _open(folder, told.ways)
    from parley.runs.child import CANCEL, END, Child, Work
    from parley.runs.execute import Executor

    with Executor() as executor:
        child = Child({}, executor)
        for number in (CANCEL, END):
            signal.signal(number, child.interrupt)
        # As the server holds it now: it is pending since its worker took it.
        ended = child.run(Work(order=told.order, waited=True), lambda: None)
    sys.stdout.flush()
    print(SAID + json.dumps(ended.model_dump(mode="json")), flush=True)  # noqa: T201 - the worker reads it
    return 0 if ended.how in ("ended", "elsewhere") else 1


def _open(folder: Path, ways: tuple[Way, ...]) -> None:
    """Listen on every way from now on, on a thread of its own."""
    listening = [(way, bound(way.host, way.port)) for way in ways]
    opened = threading.Event()

    async def pass_on() -> None:
        for way, one in listening:
            await Forwarder(f"{way.host}:{way.port}", unix(str(folder / way.name))).listen(one)
        opened.set()
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(pass_on()), name="ways", daemon=True).start()
    opened.wait(10)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
