"""The worker of runs in containers as a process: what the supervisor starts where parley.toml has [containers]."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
from contextlib import suppress

import httpx

from parley import log_lines, settings
from parley.errors import ConfigurationError, LinkError
from parley.link.calls import Role
from parley.link.client import HubClient, default_address, role_token
from parley.runs import container_engine
from parley.runs.worker_process import prepare_environment

logger = logging.getLogger("parley.containers")

ENGINE_SECONDS = 5.0
"""How often an engine that does not answer is asked again."""


def main() -> int:
    """Run the worker until SIGTERM or SIGINT; returns the exit code."""
    log_lines.configure()
    try:
        loaded = settings.load()
        prepare_environment(loaded)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = os.environ.get("PARLEY_CONTAINERS_POLL", "2")
    return asyncio.run(_serve(loaded))


async def _serve(loaded: settings.Settings) -> int:
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    serving = asyncio.create_task(_work(loaded, told_to_stop))
    stopping = asyncio.create_task(told_to_stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        stopping.cancel()
        logger.error("the worker ended by itself", exc_info=serving.exception())
        return 1
    await asyncio.wait((serving,), timeout=22)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return 0


async def _work(loaded: settings.Settings, told_to_stop: asyncio.Event) -> None:
    await _engine()
    await _prefect()
    shutil.rmtree(loaded.run_folder / "gate", ignore_errors=True)
    async with HubClient(
        default_address(loaded), Role.CONTAINERS, await _token(loaded), name="containers"
    ) as hub:
        from parley.runs._container_worker import ContainerWorker

        worker = ContainerWorker(loaded, hub, name=f"{socket.gethostname()}-containers-{os.getpid()}")
        running = asyncio.create_task(worker.start(printer=logger.info))
        watching = asyncio.create_task(worker.watch_cancelling())
        stopping = asyncio.create_task(told_to_stop.wait())
        try:
            await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            await worker.wind_down()
        finally:
            for task in (running, watching, stopping):
                task.cancel()
            await asyncio.gather(running, watching, stopping, return_exceptions=True)


async def _engine() -> None:
    told = ""
    while reason := await asyncio.to_thread(_no_engine):
        if reason != told:
            logger.warning("no container engine answers (%s); runs in containers wait for it", reason)
        told = reason
        await asyncio.sleep(ENGINE_SECONDS)


async def _prefect() -> None:
    # Prefect's worker that finds no server at its start looks again after half a minute only.
    from parley.runs.container_gate import server_client

    async with server_client() as client:
        while True:
            with suppress(httpx.HTTPError):
                if (await client.get("/health", timeout=5)).is_success:
                    return
            await asyncio.sleep(0.3)


def _no_engine() -> str:
    from docker.errors import DockerException  # type: ignore[import-untyped]

    try:
        client = container_engine.connect()
    except DockerException as error:
        return " ".join(str(error).split())[:200]
    try:
        client.ping()
        return ""
    except (DockerException, OSError) as error:
        return " ".join(str(error).split())[:200]
    finally:
        client.close()


async def _token(loaded: settings.Settings) -> str:
    while True:
        try:
            return role_token(loaded, Role.CONTAINERS)
        except LinkError:
            await asyncio.sleep(0.5)  # the hub makes it at its first start


if __name__ == "__main__":
    sys.exit(main())
