"""The stem and the nursery: what they tell, how they fork, what their children share, and how they end."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from parley.runs.catalogue import Catalogue
from parley.runs.crew import Crew
from parley.settings import Worker
from tests.prefect_fixture import PrefectServer, plain_environment
from tests.prefect_fixture import own_server as prefect_server

__all__ = ["prefect_server"]

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


class Family:
    """A crew, and what its processes are."""

    def __init__(self, crew: Crew, catalogues: asyncio.Queue[Catalogue]) -> None:
        self.crew = crew
        self.catalogues = catalogues
        self._others = psutil.Process().children()

    async def ready(self, count: int) -> list[psutil.Process]:
        """Wait until so many children are ready."""
        async with asyncio.timeout(45):
            while self.crew.warm < count:  # noqa: ASYNC110 - other processes get ready
                await asyncio.sleep(0.05)
        return [psutil.Process(pid) for pid in self.crew.pids()]

    def processes(self) -> list[psutil.Process]:
        """Everything that the crew has started and that lives; this process may have started others before."""
        started = [process for process in psutil.Process().children() if process not in self._others]
        return [*started, *(one for process in started for one in process.children(recursive=True))]


@pytest.fixture
async def family(
    request: pytest.FixtureRequest,
    prefect_server: PrefectServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Family]:
    """Three warm children of the modules that the test names."""
    (tmp_path / "parley.toml").write_text(f"[automations]\nmodules = {request.param}\nentry_points = false\n")
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    for name, value in prefect_server.environment.items():
        monkeypatch.setenv(name, value)
    catalogues: asyncio.Queue[Catalogue] = asyncio.Queue()
    crew = Crew(Worker(children=4, warm=3), on_catalogue=catalogues.put_nowait)
    started = Family(crew, catalogues)
    crew.start()
    yield started
    await crew.stop(1)


of_modules = pytest.mark.parametrize


@of_modules("family", ['["tests.runs.worker_flows", "tests.runs.not_there"]'], indirect=True)
async def test_the_catalogue_names_what_there_is_and_what_is_broken(family: Family) -> None:
    """One module that does not import does not hide the others."""
    catalogue = await asyncio.wait_for(family.catalogues.get(), 45)
    assert "quick" in catalogue.by_command()
    assert [broken.source for broken in catalogue.broken] == ["tests.runs.not_there"]


@of_modules("family", ['["tests.runs.worker_flows"]'], indirect=True)
async def test_warm_children_share_their_pages(family: Family) -> None:
    """Three of them together hold less than one that had imported Prefect for itself."""
    children = await family.ready(3)
    alone = [process.memory_full_info().uss / 1e6 for process in children]
    assert sum(alone) < 75, alone


@of_modules("family", ['["tests.runs.worker_flows"]'], indirect=True)
async def test_nothing_is_left_when_the_crew_stops(family: Family) -> None:
    """Children, nursery and stem are gone when `stop` returns."""
    await family.ready(3)
    family_of_crew = family.processes()
    assert len(family_of_crew) >= 5
    await family.crew.stop(1)
    assert not [process for process in family_of_crew if _lives(process)]


@of_modules("family", ['["tests.runs.threaded_flows"]'], indirect=True)
async def test_a_module_that_starts_threads_gets_children_of_their_own(family: Family) -> None:
    """A process with threads is not forked: children are started afresh, and work."""
    children = await family.ready(1)
    assert "parley.runs.child" in " ".join(children[0].cmdline())


def test_importing_what_is_shared_starts_no_thread(tmp_path: Path) -> None:
    """Prefect, our engine and the automations are imported by one thread only, so that forking is safe."""
    program = (
        "import threading, prefect.main, prefect.workers.base\n"
        "from parley.runs import nursery\n"
        "flows, catalogue = nursery.preload()\n"
        "print(len(flows), [thread.name for thread in threading.enumerate()])\n"
    )
    (tmp_path / "parley.toml").write_text('[automations]\nmodules = ["tests.runs.worker_flows"]\n')
    environment = plain_environment() | {
        "PARLEY_CONFIG": str(tmp_path / "parley.toml"),
        "PREFECT_HOME": str(tmp_path),
    }
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert said.split(maxsplit=1)[1].strip() == "['MainThread']"


@contextmanager
def planted(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that plants a stem as the worker does, and then waits."""
    program = (
        "import signal\nfrom parley.runs import nursery\nkept = nursery.plant()\n"
        "print(flush=True)\nsignal.pause()\n"
    )
    environment = plain_environment() | {"PREFECT_HOME": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def test_the_stem_ends_with_its_worker(tmp_path: Path) -> None:
    """A worker that is killed leaves no stem behind."""
    with planted(tmp_path) as worker:
        assert worker.stdout
        worker.stdout.readline()
        (stem,) = psutil.Process(worker.pid).children()
        handle = os.pidfd_open(stem.pid)
        worker.send_signal(signal.SIGKILL)
        assert select.select([handle], [], [], 20)[0]
        os.close(handle)


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
