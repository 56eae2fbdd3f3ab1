"""Run by Python itself at the start of every process of a stack under faults: gives it an environment of its own.

`parley up` starts all processes with one environment. This folder stands first on their PYTHONPATH; `FAULTS_FOLDER`
names the folder in which `tests.faults.arming` leaves what a process is to find, by its module. Ours reads nothing but
its environment, as anywhere else.
"""

import json
import os
import select
import sys
import time
from pathlib import Path


def _module() -> str:
    argv = sys.orig_argv
    return argv[argv.index("-m") + 1] if "-m" in argv[:-1] else ""


def _give(folder: Path) -> None:
    preloaded = os.environ.get("LD_PRELOAD")
    _take(folder / "always.json")
    if os.environ.get("LD_PRELOAD") != preloaded:  # what the loader reads is read before us
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this very process, from its beginning
    _take(_charge(folder))
    while (folder / "wait").exists():  # a server that does not come
        time.sleep(0.05)


def _take(file: Path | None) -> None:
    if file is not None and file.exists():
        os.environ.update(json.loads(file.read_text()))


def _charge(folder: Path) -> Path | None:
    for file in sorted(folder.glob("charge-*")):
        taken = file.with_name(f"taken-{file.name}-{os.getpid()}")
        try:
            file.rename(taken)
        except FileNotFoundError:
            continue
        return taken
    return None


def _sleep(seconds: float) -> None:
    # libfaketime 0.9.10 has clock_nanosleep(), by which time.sleep() waits, fail where the monotonic clock is true.
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)


if os.environ.get("FAULTS_CLOCK"):
    time.sleep = _sleep  # type: ignore[assignment]
    (Path(os.environ["FAULTS_CLOCK"]) / f"pid-{os.getpid()}").touch()

if os.environ.get("FAULTS_FOLDER") and _module():
    _give(Path(os.environ["FAULTS_FOLDER"]) / _module())
