"""What single processes of a stack find in their environment, from their next start on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.stack import ROOT

MODULES: Final = {
    "hub": "parley.processes.hub",
    "listeners": "parley.processes.listeners",
    "worker": "parley.runs.worker",
    "prefect": "deployments.prefect_server",
}


class Arming:
    """A folder that `armed/sitecustomize.py` looks into in every process of a stack."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        for module in MODULES.values():
            (folder / module).mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """What the stack is started with."""
        armed = Path(__file__).with_name("armed")
        return {"FAULTS_FOLDER": str(self._folder), "PYTHONPATH": f"{armed}:{ROOT}"}

    def always(self, role: str, values: Mapping[str, str]) -> None:
        """Every process of this role finds these, beside those that it was given before."""
        file = self._of(role) / "always.json"
        given = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**given, **values}))

    def charge(self, role: str, failpoints: str) -> None:
        """The next process of this role that is not charged yet finds these armed."""
        file = self._of(role) / f"charge-{next(self._numbers):06}"
        fresh = file.with_name(f"new-{file.name}")
        fresh.write_text(json.dumps({"PARLEY_FAILPOINT": failpoints}))
        fresh.rename(file)

    def left(self, role: str) -> int:
        """How many charges nobody has taken."""
        return len(list(self._of(role).glob("charge-*")))

    def disarm(self, role: str) -> None:
        """Take the charges back that nobody has taken."""
        for file in self._of(role).glob("charge-*"):
            file.unlink(missing_ok=True)

    def hold_back(self, role: str, *, back: bool) -> None:
        """Whether the next processes of this role wait before they begin anything."""
        file = self._of(role) / "wait"
        file.touch() if back else file.unlink(missing_ok=True)

    def _of(self, role: str) -> Path:
        return self._folder / MODULES[role]
