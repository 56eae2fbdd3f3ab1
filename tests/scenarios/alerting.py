"""A real Alertmanager, on a port of its own, that reads the alertmanager.yml which a page shows."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.stack import free_ports

PROGRAM = "prometheus-alertmanager"


@asynccontextmanager
async def alertmanager(folder: Path, configuration: str, port: int) -> AsyncIterator[None]:
    """Runs within the block. Skipped where it is not installed; in CI that is a failure."""
    program = shutil.which(PROGRAM)
    if program is None:
        message = f"{PROGRAM} is not installed: `make test-servers` brings it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    (folder / "alertmanager.yml").write_text(configuration, encoding="utf-8")
    with (folder / "alertmanager.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            str(program),
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            stdout=log,
            stderr=log,
        )
    try:
        await _ready(process, port, folder / "alertmanager.log")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def free_port() -> int:
    """A port for it."""
    return free_ports(1)[0]


async def _ready(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    async with asyncio.timeout(30), httpx.AsyncClient(trust_env=False) as client:
        while process.returncode is None:
            try:
                if (await client.get(f"http://127.0.0.1:{port}/-/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
    said = await asyncio.to_thread(log.read_text, errors="replace")
    raise AssertionError(f"Alertmanager does not start:\n{said}")
