"""The hub as a run reaches it: one connection a process, on its own thread with its own loop.

A thread of its own, because beats have to go out while the automation blocks its loop or is not async at all. It is
made when it is first needed and belongs to the process that made it, so a forked child makes another.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from pydantic import BaseModel

from parley.errors import LinkError, ParleyError
from parley.link.calls import Role
from parley.link.client import HubClient, default_address, role_token
from parley.settings import Settings

T = TypeVar("T")

RUN_TOKEN: Final = "PARLEY_RUN_TOKEN"  # noqa: S105 - the name of a variable
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0

_handed: list[str] = []


class Client(Protocol):
    """What the thread needs of a connection to the hub."""

    async def call(self, name: str, args: BaseModel, *, timeout: float | None = 60.0) -> Any:
        """Call the hub; raises its error as the class of `parley.errors`."""
        ...

    async def aclose(self) -> None:
        """Close the connection."""
        ...


Connect = Callable[[], Coroutine[Any, Any, Client]]


class HubThread:
    """Runs calls to the hub on a thread of its own. Every method may be called from any thread."""

    def __init__(self, connect: Connect) -> None:
        self.pid: int = os.getpid()
        self._connect = connect
        self._client: Client | None = None
        self._loop = asyncio.new_event_loop()
        self._connecting = asyncio.Lock()
        self._thread = threading.Thread(target=self._run, name="parley-hub", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run `work` on the thread's loop. Raises `LinkError` in a process that was forked off this one."""
        if os.getpid() != self.pid or self._loop.is_closed():
            work.close()
            raise LinkError("this process has no connection to the hub: it was forked inside a run.")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def call(self, name: str, args: BaseModel, *, timeout: float | None = 60.0) -> Any:
        """Call the hub, from the thread's own loop."""
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect()
        return await self._client.call(name, args, timeout=timeout)

    async def insist(self, name: str, args: BaseModel, *, within: float) -> Any:
        """Call the hub again and again while its errors may pass, for at most `within` seconds."""
        loop = asyncio.get_running_loop()
        end, wait = loop.time() + within, _FIRST_WAIT
        while True:
            try:
                return await self.call(name, args, timeout=max(1.0, end - loop.time()))
            except ParleyError as error:
                if not error.retryable or loop.time() + wait > end:
                    raise
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    def close(self) -> None:
        """End the connection and the thread."""
        if os.getpid() != self.pid or self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _end(self) -> None:
        if self._client is not None:
            await self._client.aclose()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


_current: dict[tuple[int, str, Role], HubThread] = {}
_making = threading.Lock()


def is_configured() -> bool:
    """Whether this process was told where a hub is (`PARLEY_HUB`) or whose installation it serves (`PARLEY_HOME`)."""
    return bool(os.environ.get("PARLEY_HUB") or os.environ.get("PARLEY_HOME"))


def hub() -> HubThread:
    """This process's thread to the hub, made at the first use. Raises `ParleyError` when it cannot be addressed."""
    settings = _settings()
    role = Role.RUN if run_token() else Role.WORKER
    key = (os.getpid(), default_address(settings), role)
    with _making:
        found = _current.get(key)
        if found is None:
            secret = "" if role is Role.RUN else role_token(settings, role)
            found = _current[key] = HubThread(_opener(key[1], role, secret))
        return found


def close_all() -> None:
    """End this process's connections; the next use makes new ones."""
    with _making:
        mine = [key for key in _current if key[0] == os.getpid()]
        for key in mine:
            _current.pop(key).close()


def run_token() -> str:
    """The token of the run that this process executes, or nothing when Prefect started it by itself."""
    return _handed[-1] if _handed else os.environ.get(RUN_TOKEN, "")


@contextmanager
def handed(token: str) -> Iterator[None]:
    """Execute a run whose token the worker was handed with its order; a process has one such run at a time."""
    # No context variable: the worker may run the flow in a context that was copied long before.
    _handed.append(token)
    try:
        yield
    finally:
        _handed.pop()


def _settings() -> Settings:
    # Without parley.toml: a mistake in it must not stop runs, and only the folder matters here.
    home = Path(os.environ.get("PARLEY_HOME", "data")).absolute()
    return Settings(home=home, config=home / "parley.toml", key_file=home / "key")


def _opener(address: str, role: Role, secret: str) -> Connect:
    async def connect() -> Client:
        client = HubClient(address, role, secret, name="run")
        await client.start()
        return client

    return connect


def _forget_after_fork() -> None:
    # Another thread of the parent may have held the lock; the parent's threads do not exist here.
    global _making  # noqa: PLW0603
    _making = threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
