"""The worker as a process of its own: what the supervisor starts as `python -m parley.runs.worker`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

from parley import log_lines, prefect_env, settings
from parley.errors import ConfigurationError

if TYPE_CHECKING:
    from parley.runs.prefect_worker import ParleyWorker

logger = logging.getLogger("parley.worker")


def main() -> int:
    """Run the worker until SIGTERM or SIGINT; returns the exit code."""
    log_lines.configure()
    try:
        loaded = settings.load()
        prepare_environment(loaded)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    from parley.runs import nursery

    stem = nursery.plant() if nursery.FORKS else None
    return asyncio.run(_serve(loaded, stem))


def prepare_environment(loaded: settings.Settings) -> None:
    """Put into this process what Prefect reads when it is imported."""
    if loaded.own_prefect:
        prefect_env.apply(
            prefect_env.client_environment(
                loaded.home, port=loaded.prefect_port, certificate=loaded.prefect_trust
            )
        )
    else:
        # The user's server: their key and profile for it stay as they are.
        os.environ.update(prefect_env.neutral_environment(loaded.home))
    os.environ["PARLEY_HOME"] = str(loaded.home)
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", "5")


async def _serve(loaded: settings.Settings, stem: socket.socket | None) -> int:
    from parley.runs.prefect_worker import ParleyWorker

    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    name = f"{socket.gethostname()}-{os.getpid()}"
    worker = ParleyWorker(loaded.file.prefect.pool, name=name, settings=loaded, stem=stem)
    running = asyncio.create_task(worker.start(printer=logger.debug))
    stopping = asyncio.create_task(told_to_stop.wait())
    ready = asyncio.create_task(_say_when_ready(worker))
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    stopping.cancel()
    if running.done():
        logger.error("the worker ended by itself", exc_info=running.exception())
        return 1
    logger.info("stopping: running runs have %.0f s to finish", 20)
    await worker.wind_down()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return 0


async def _say_when_ready(worker: ParleyWorker) -> None:
    await worker.crew.ready.wait()
    logger.info(
        "ready: pid %d, pool %s, %d warm children", os.getpid(), worker.work_pool_name, worker.crew.warm
    )
