"""What the people on duty read in the console, and when: one who looks on, and comes back after each interruption."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.stack import Stack


@dataclass(frozen=True, slots=True)
class Line:
    """A line outside of all threads, and when it was seen (monotonic)."""

    text: str
    at: float


class Duty:
    """Looks on from `__enter__` to `__exit__`."""

    def __init__(self, stack: Stack) -> None:
        self.heard: list[Line] = []
        self._stack = stack
        self._ids: set[str] = set()
        self._stop = threading.Event()
        self._looking = threading.Thread(target=self._look, name="duty", daemon=True)

    def __enter__(self) -> Self:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._looking.join(10)

    def since(self, began: float, words: str) -> list[Line]:
        """The lines since this moment that hold these words."""
        return [one for one in self.heard if one.at >= began and words in one.text]

    def _look(self) -> None:
        address = self._stack.url.replace("http", "ws", 1) + "/ws"
        while not self._stop.is_set():
            with (
                suppress(OSError, WebSocketException, TimeoutError, EOFError),
                connect(
                    address,
                    additional_headers=self._stack.headers,
                    proxy=None,
                    open_timeout=5,
                    close_timeout=1,
                ) as page,
            ):
                self._listen(page)
            self._stop.wait(0.3)

    def _listen(self, page: Any) -> None:
        while not self._stop.is_set():
            try:
                event = json.loads(page.recv(timeout=1))
            except TimeoutError:
                continue
            lines = event["lines"] if event["type"] == "history" else [event]
            for line in lines:
                self._note(line)

    def _note(self, line: dict[str, Any]) -> None:
        if line.get("who") != "parley" or line["id"] in self._ids:
            return
        self._ids.add(line["id"])
        self.heard.append(Line(str(line.get("text", "")), time.monotonic()))
