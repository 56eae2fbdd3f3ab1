"""Databases as a first start leaves them, made once for a run of the tests and copied from then on.

Bringing Prefect's database up to date takes seconds of a processor, ours a good part of one, and dozens of tests begin
with both. What a first start does is tested where it is the matter (`fresh`), and once more by making these. The
secrets of an installation are files beside its databases and are not copied: each still makes its own.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

FOLDER: Final = "TESTS_PREPARED"
"""The environment variable that names the folder of one run of the tests; what is started without it starts fresh."""


@contextmanager
def folder() -> Iterator[None]:
    """The folder of a run, for itself and for the processes that it shares its tests with."""
    made = tempfile.mkdtemp(prefix="parley-prepared-")
    os.environ[FOLDER] = made
    try:
        yield
    finally:
        del os.environ[FOLDER]
        shutil.rmtree(made, ignore_errors=True)


def prefect_database(home: Path) -> None:
    """Put Prefect's database into a home that has none; nothing where no folder is named."""
    _copy("prefect.db", _make_prefect, home / "prefect" / "prefect.db")


def store(path: Path) -> None:
    """Put an empty store of ours there; nothing where no folder is named."""
    _copy("parley.db", _make_store, path)


def _copy(name: str, make: Callable[[Path], Path], to: Path) -> None:
    kept = os.environ.get(FOLDER)
    if kept is None or to.exists():
        return
    _made_once(Path(kept) / name, make)
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(Path(kept) / name, to)
    to.chmod(0o600)


def _made_once(path: Path, make: Callable[[Path], Path]) -> None:
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        with tempfile.TemporaryDirectory(prefix="parley-") as scratch:
            source = make(Path(scratch))
            # Through SQLite, which knows what of it is still in other files.
            with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(f"{path}.new")) as copy:
                live.backup(copy)
        Path(f"{path}.new").replace(path)


def _make_prefect(home: Path) -> Path:
    from tests.prefect_fixture import running_server

    with running_server(home, fresh=True, measured=False):
        return home / "prefect" / "prefect.db"


def _make_store(home: Path) -> Path:
    from parley.store.engine import Store

    path = home / "parley.db"

    async def made() -> None:
        await (await Store.open(path)).aclose()

    # In a thread of its own: whoever asks may be in a loop already.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, made()).result()
    return path
