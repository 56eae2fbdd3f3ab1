"""The listeners: every enabled account held in one process. `python -m parley.processes.listeners`.

Prefect is imported when there is an account to hold, and not before: an installation that is only reached at its own
console keeps a small process here, ready for the first `parley connect`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from parley import log_lines, prefect_env
from parley.errors import ConfigurationError, LinkError
from parley.link.calls import Role
from parley.link.client import default_address, role_token
from parley.processes.account_blocks import import_alone
from parley.processes.listening import Listening
from parley.settings import Settings, load

logger = logging.getLogger("parley.listeners")

STOP_SECONDS: Final = 4.5


def main() -> int:
    """Hold accounts until SIGTERM or SIGINT; returns the exit code."""
    log_lines.configure()
    # Before there is any thread. Prefect's engine puts in handlers of its own, one a run, that raise in whatever runs
    # at that moment: blocked, the signal waits for the one thread that asks for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        settings = load()
        _prepare_environment(settings)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    asyncio.run(_serve(settings))
    return 0


_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def _prepare_environment(settings: Settings) -> None:
    if settings.own_prefect:
        prefect_env.apply(
            prefect_env.client_environment(
                settings.home, port=settings.prefect_port, certificate=settings.prefect_trust
            )
        )
    else:
        os.environ.update(prefect_env.neutral_environment(settings.home))


async def _serve(settings: Settings) -> None:
    told_to_stop = _stop_event()
    serving = asyncio.create_task(_listen(settings, told_to_stop))
    stopping = asyncio.create_task(told_to_stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await serving


async def _listen(settings: Settings, told_to_stop: asyncio.Event) -> None:
    token = partial(role_token, settings, Role.LISTENERS)
    if not await _is_made(token, told_to_stop):
        return
    async with Listening(default_address(settings), token, everything=True) as listening:
        logger.info("ready: pid %d", os.getpid())
        first = asyncio.create_task(listening.changed.wait())
        stop = asyncio.create_task(told_to_stop.wait())
        await asyncio.wait((first, stop), return_when=asyncio.FIRST_COMPLETED)
        first.cancel()
        if not told_to_stop.is_set():
            await _show_in_prefect(listening, settings, stop)


async def _show_in_prefect(listening: Listening, settings: Settings, stop: asyncio.Task[bool]) -> None:
    module = await asyncio.to_thread(import_alone, "parley.processes.listener_runs")
    runs = module.ListenerRuns(listening, settings)
    running = asyncio.create_task(runs.run())
    await asyncio.wait((running, stop), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        logger.error("flow runs are not shown any more", exc_info=running.exception())
        await stop
    await listening.stop()
    await runs.finish()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def _is_made(token: Callable[[], str], told_to_stop: asyncio.Event) -> bool:
    """Wait until there is our token, which the hub makes at its first start; false when told to stop before."""
    told = False
    while not told_to_stop.is_set():
        try:
            token()
            return True
        except LinkError as error:
            if not told:
                logger.info("waiting for the hub: %s", error)
            told = True
        await asyncio.sleep(0.2)
    return False


def _stop_event() -> asyncio.Event:
    event, loop = asyncio.Event(), asyncio.get_running_loop()

    def wait() -> None:
        signal.sigwait(_SIGNALS)
        loop.call_soon_threadsafe(event.set)
        # An SDK may block the event loop, or have a thread that never ends and that the interpreter waits for.
        time.sleep(STOP_SECONDS)
        logger.warning("not everything was let go within %s s", STOP_SECONDS)
        os._exit(0)

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return event


if __name__ == "__main__":
    sys.exit(main())
