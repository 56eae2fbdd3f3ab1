"""The stacks and the stock Prefect that benchmarks run on: each its own, or, in a dry run, one for all of them.

A dry run (`--effort 0`) proves that every row is made and measures nothing that anybody should read: there a fresh
stack for each benchmark would be most of its time.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks import stock
from tests.postgres_fixture import cluster, installed_programs
from tests.prefect_fixture import running_server
from tests.stack import READY_SECONDS, Stack

TEXT: Final = "/order 1024"
UNAPPROVED: Final = """
[[approvals]]
automations = "repair"
needed = 0
"""
"""What is measured is the way of a message; nobody is there to approve."""

TOML: Final = f"""
[automations]
modules = ["flows", "benchmarks.automations"]
{UNAPPROVED}"""
EVERY_SECOND: Final = {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}
"""What somebody sets who finds that ten seconds are long; Prefect takes whole seconds only."""

_CLIENT: Final = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED")


class DryRun:
    """What its benchmarks share, made when it is first asked for. Close it in the end."""

    def __init__(self) -> None:
        self._everything = ExitStack()
        self._stack: Stack | None = None
        self._alone: tuple[subprocess.Popen[bytes], stock.Stock] | None = None
        self.started = (0.0, 0.0)
        self.stock_started = 0.0

    def close(self) -> None:
        """End all of it."""
        self._everything.close()

    @property
    def stack(self) -> Stack:
        """The one stack; `started` says how long it took until it was ready, and until its first answer."""
        if self._stack is None:
            self._stack = made = Stack(toml=TOML)
            self._everything.callback(made.close)
            self.started = first_answer(made)
        return self._stack

    @property
    def alone(self) -> tuple[subprocess.Popen[bytes], stock.Stock]:
        """The stock server with one `flow.serve()`; `stock_started` says how long that took, with one run."""
        if self._alone is None:
            start = time.perf_counter()
            self._alone = self._everything.enter_context(_stock_alone(EVERY_SECOND))
            _ = self._alone[1].run_order()
            self.stock_started = time.perf_counter() - start
        return self._alone


_dry: DryRun | None = None


@contextmanager
def dry_run() -> Iterator[DryRun]:
    """Within it, benchmarks without effort share what they run on."""
    global _dry  # noqa: PLW0603 - the benchmarks of a program, one after another
    _dry = DryRun()
    try:
        yield _dry
    finally:
        _dry.close()
        _dry = None


def shared(effort: float) -> DryRun | None:
    """The dry run that this is, if it is one."""
    return _dry if effort == 0 else None


@contextmanager
def stack(effort: float, toml: str = "") -> Iterator[Stack]:
    """A stack that has started."""
    if dry := shared(effort):
        yield dry.stack
    else:
        with Stack(toml=toml) as own:
            yield own


@contextmanager
def postgres(toml: str = "") -> Iterator[Stack]:
    """A stack that has started, with both databases in a PostgreSQL of its own that has each commit on its disk.

    Prefect's server is started by our launcher beside it: that is the one that can be told of another database.
    """
    programs = installed_programs()
    assert programs, "PostgreSQL is not installed: `make test-servers` brings it."
    with ExitStack() as everything:
        server = everything.enter_context(cluster(programs, synchronous=True))
        theirs, ours = (asyncio.run(server.create_database()) for _ in range(2))
        home = Path(everything.enter_context(tempfile.TemporaryDirectory(prefix="prefect-")))
        url = theirs.replace("postgresql://", "postgresql+asyncpg://")
        prefect = everything.enter_context(running_server(home, "--database-url", url, fresh=True))
        extra = {name: value for name, value in prefect.environment.items() if name in _CLIENT}
        yield everything.enter_context(Stack(toml=toml, extra=extra | {"PARLEY_DATABASE_URL": ours}))


@contextmanager
def serving(effort: float, on: Stack, extra: Mapping[str, str] | None = None) -> Iterator[stock.Stock]:
    """`flow.serve()` with stock settings but for `extra` on this stack's Prefect; in a dry run on the stock server."""
    if dry := shared(effort):
        yield dry.alone[1]
    else:
        environment = stock.stock_environment(on.prefect_environment, on.folder)
        with stock.serving(environment | dict(extra or {}), on.folder) as peer:
            yield peer


@contextmanager
def stock_alone(effort: float) -> Iterator[tuple[subprocess.Popen[bytes], stock.Stock]]:
    """A stock Prefect server in a home of its own, and `flow.serve()` beside it."""
    if dry := shared(effort):
        yield dry.alone
    else:
        with _stock_alone({}) as both:
            yield both


@contextmanager
def stock_server(effort: float) -> Iterator[tuple[Mapping[str, str], Path]]:
    """A stock Prefect server with nothing beside it: its clients' environment, and a folder. Shared in a dry run."""
    with tempfile.TemporaryDirectory(prefix="stock-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if dry := shared(effort):
            yield dry.alone[1].environment, folder
        else:
            with stock.server(folder) as (_, environment):
                yield environment, folder


@contextmanager
def _stock_alone(extra: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], stock.Stock]]:
    with tempfile.TemporaryDirectory(prefix="stock-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (
            stock.server(folder) as (server, environment),
            stock.serving(environment | extra, folder) as serve,
        ):
            yield server, serve


def first_answer(made: Stack) -> tuple[float, float]:
    """Start it; returns the seconds until every part was ready, and until the first answer."""
    start = time.perf_counter()
    made.launch()
    made.until(made.ready, READY_SECONDS, "the stack is ready")
    ready = time.perf_counter() - start
    made.log_in()
    said = made.say(TEXT)
    answered = time.perf_counter() - start
    assert said["state"] == "done", said
    assert said["flow_run_id"], said
    return ready, answered
