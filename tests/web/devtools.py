"""A headless Chromium, driven through its DevTools protocol: just what the page's tests need."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

PATIENCE = 20.0

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


def chromium() -> str | None:
    """The program, where it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One page. What it logs as an error, or throws, is in `complaints`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Take answers and events until the browser goes."""
        async for text in self._socket:
            said = json.loads(text)
            if "id" in said:
                waiting = self._waiting.pop(said["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(said)
            elif said["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(said["params"]["exceptionDetails"]))
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                entry = said["params"]["entry"]
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """One DevTools command."""
        number = next(self._ids)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        said = await asyncio.wait_for(waiting, PATIENCE)
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    async def look(self, expression: str) -> Any:
        """What a JavaScript expression is worth in the page."""
        found = await self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until it is worth something."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    # A page that is just being left has no world to look into.
                    with suppress(AssertionError):
                        if found := await self.look(expression):
                            return found
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"never came: {expression}; complaints: {self.complaints}") from None

    async def go(self, url: str) -> None:
        """Open an address."""
        await self.command("Page.navigate", url=url)

    async def type(self, text: str) -> None:
        """Type into what has the focus."""
        await self.command("Input.insertText", text=text)

    async def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key; `text` is what it types, without which a form is not sent."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.command("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        await self.command("Input.dispatchKeyEvent", type="keyUp", **about)

    async def enter(self) -> None:
        """Press Enter."""
        await self.press("Enter", 13, "\r")


@asynccontextmanager
async def browser(*flags: str) -> AsyncIterator[Page]:
    """A fresh browser with one empty page."""
    program = chromium()
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="parley-chromium-", ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            program,
            *_FLAGS,
            *flags,
            f"--user-data-dir={folder}",
            "about:blank",
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with _page_of(process) as page:
                yield page
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()


@asynccontextmanager
async def _page_of(process: asyncio.subprocess.Process) -> AsyncIterator[Page]:
    async with asyncio.timeout(PATIENCE * 2):
        port = await _debugging_port(process)
        address = await _first_page(port)
    async with connect(address, max_size=None, proxy=None) as socket:
        page = Page(socket)
        listening = asyncio.create_task(page.listen())
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.command(f"{domain}.enable")
            yield page
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def _debugging_port(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        if b"DevTools listening on ws://" in line:
            return line.decode().split("ws://")[1].split("/")[0]
    raise AssertionError("Chromium did not start")


async def _first_page(host: str) -> str:
    import httpx

    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            targets = (await client.get(f"http://{host}/json")).json()
            for target in targets:
                if target["type"] == "page":
                    return str(target["webSocketDebuggerUrl"])
            await asyncio.sleep(0.05)
