"""A hub for tests of what runs in a run's process: the real link on a real socket, answers given by the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from parley.errors import ParleyError
from parley.link.calls import FinishCall, Started
from parley.link.connection import Handler
from parley.link.server import LinkServer, Peer, make_tokens
from parley.runs import hub_thread

Answer = Callable[[dict[str, Any]], Awaitable[Any]]


class FakeHub:
    """Grants every start and records every call, in order; a test may change any answer."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.started = Started(run_id="r1", epoch=1, token="t1", command="c", origin="chat", principal="ada")
        self.answers: dict[str, Answer] = {"start": self._grant, "beat": self._true}
        self.refuse: dict[str, ParleyError] = {}
        self.heard = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._listening = threading.Event()

    def of(self, name: str) -> list[dict[str, Any]]:
        """The arguments of all calls of this name."""
        return [args for called, args in self.calls if called == name]

    def names(self) -> list[str]:
        """What was called, in order, without the beats."""
        return [name for name, _ in self.calls if name != "beat"]

    def finish(self) -> FinishCall:
        """The one finish there was."""
        (args,) = self.of("finish")
        return FinishCall.model_validate(args)

    def wait_for(self, name: str, count: int = 1, timeout: float = 10) -> None:
        """Wait until a call has come `count` times."""
        with self.heard:
            assert self.heard.wait_for(lambda: len(self.of(name)) >= count, timeout), f"no {name}"

    async def _grant(self, _args: dict[str, Any]) -> Started:
        return self.started

    async def _true(self, _args: dict[str, Any]) -> bool:
        return True

    def _handlers(self, _peer: Peer) -> Mapping[str, Handler]:
        calls = ("start", "beat", "say", "ask", "finish", "log_action", "publish", "publish_catalogue")
        return {name: self._handler(name) for name in calls}

    def _handler(self, name: str) -> Handler:
        async def handle(args: dict[str, Any]) -> Any:
            with self.heard:
                self.calls.append((name, args))
                self.heard.notify_all()
            if name in self.refuse:
                raise self.refuse[name]
            answer = self.answers.get(name)
            return await answer(args) if answer else None

        return handle

    @contextmanager
    def serving(self) -> Iterator[FakeHub]:
        """Serve on `<home>/run/hub.sock`, on a thread of its own."""
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        thread.start()
        assert self._listening.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(10)
            self._loop.close()

    async def _serve(self) -> None:
        run_folder = self.home / "run"
        server = LinkServer(make_tokens(run_folder), self._handlers)
        async with server.listen(run_folder / "hub.sock"):
            self._listening.set()
            await self._stop.wait()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub of its own for one test; the environment points to it."""
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))
    monkeypatch.delenv("PARLEY_HUB", raising=False)
    monkeypatch.setenv("PARLEY_RUN_TOKEN", "t1")
    with FakeHub(tmp_path).serving() as fake:
        try:
            yield fake
        finally:
            hub_thread.close_all()
