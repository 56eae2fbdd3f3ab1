"""An automation whose module starts a thread when it is imported, as careless libraries do."""

from __future__ import annotations

import threading

from prefect import flow

from parley.runs.automation import automation

_released = threading.Event()
threading.Thread(target=_released.wait, name="careless", daemon=True).start()


@automation()
@flow
def careless() -> str:
    return "done"
