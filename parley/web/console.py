"""The chat page, and the WebSocket that brings it what happens.

The page sends over REST, with ids of its own, and hears over the WebSocket: after each (re)connection the
conversation so far, then every reply as it comes, and the state of the messages that it asks to watch. Replies have
ids, so that what comes twice is shown once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from importlib.resources import files
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from fastapi import APIRouter, Request, WebSocket
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json, to_jsonable_python
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.websockets import WebSocketDisconnect

from parley.errors import ParleyError
from parley.messages.model import Reply, Route, now
from parley.people.principals import Principal
from parley.web.auth import Doors
from parley.web.front import Front, MessageView
from parley.web.outgoing import files_out, me_out, message_out
from parley.web.problems import Problem
from parley.web.site import Site
from parley.web.wire import API

logger = logging.getLogger(__name__)

router = APIRouter(include_in_schema=False)

RECHECK_SECONDS = 5.0
"""How long a page may hear on after its session ended, or with the rights of before."""

LOGGED_OUT = 4401
"""Close code: log in again."""

MOST_WATCHED = 100
_WATCH_SECONDS = 25.0

_HOME = (files("parley.web") / "pages" / "console.html").read_text("utf-8")


@router.get("/")
async def page(request: Request) -> Response:
    """The chat page, for who is logged in."""
    doors: Doors = request.app.state.doors
    if await doors.visitor(request) is None:
        return RedirectResponse("/login", 303)
    return HTMLResponse(_HOME)


class Watch(BaseModel):
    """From the page: tell me what becomes of this message."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    type: Literal["watch"]
    id: str = Field(min_length=1, max_length=100)


@router.websocket("/ws")
async def events(socket: WebSocket) -> None:
    """What happens in one's console, for as long as one is logged in."""
    doors: Doors = socket.app.state.doors
    try:
        principal = await doors.principal(socket)
    except Problem as problem:
        await socket.send_denial_response(problem.response())
        return
    await socket.accept()
    await _Session(socket, doors, principal).run()


class _Session:
    """One open page."""

    def __init__(self, socket: WebSocket, doors: Doors, principal: Principal) -> None:
        self._socket = socket
        self._doors = doors
        self._principal = principal
        self._front: Front = socket.app.state.front
        self._site: Site = socket.app.state.site
        self._sending = asyncio.Lock()
        self._watching: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until the page, the session or the hub goes."""
        try:
            # Listening begins before the history is read: nothing falls between the two.
            async with self._front.console(self._principal) as replies:
                await self._send(self._hello())
                await self._send({"type": "history", "lines": await self._history()})
                await _first_of(self._replies(replies), self._requests(), self._until_logged_out())
        except (WebSocketDisconnect, RuntimeError):
            # Starlette raises RuntimeError for a send after the close.
            logger.debug("a page went away")
        except ParleyError as error:
            logger.warning("a page's connection is closed: %s", error)
            await self._socket.close(1013)
        finally:
            for task in list(self._watching.values()):
                task.cancel()

    def _hello(self) -> dict[str, Any]:
        return {"type": "hello", "me": me_out(self._principal), "prefect": self._site.prefect}

    async def _history(self) -> list[dict[str, Any]]:
        return [_line_of(entry) for entry in await self._front.history(self._principal)]

    async def _replies(self, replies: AsyncIterator[tuple[Reply, Route, str]]) -> None:
        async for reply, route, reply_id in replies:
            await self._send(
                {"type": "reply"} | line(reply, reply_id, now().isoformat()) | {"thread": route.thread}
            )

    async def _requests(self) -> None:
        while True:
            asked = await self._socket.receive_text()
            try:
                watch = Watch.model_validate_json(asked)
            except ValidationError:
                await self._socket.close(1003, "not understood")
                return
            if watch.id not in self._watching and len(self._watching) < MOST_WATCHED:
                self._watching[watch.id] = asyncio.create_task(self._watch(watch.id))

    async def _watch(self, message_id: str) -> None:
        told: dict[str, Any] = {}
        try:
            view = await self._front.message(self._principal, message_id)
            while view is not None:
                state = self._state(view)
                if state != told:
                    await self._send(state)
                    told = state
                if view.final:
                    return
                asking = self._principal
                view = await self._front.wait_for(asking, message_id, _WATCH_SECONDS)
                if self._principal != asking:
                    # Who may see it is asked once more: rights change while a page is open.
                    view = await self._front.message(self._principal, message_id)
        except (ParleyError, WebSocketDisconnect, RuntimeError) as error:
            logger.debug("no longer watching a message: %s", error)
        finally:
            self._watching.pop(message_id, None)

    def _state(self, view: MessageView) -> dict[str, Any]:
        out = message_out(view, self._site.prefect)
        return {"type": "state"} | out.model_dump(exclude={"replies"}, mode="json")

    async def _until_logged_out(self) -> None:
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            try:
                self._principal = await self._doors.principal(self._socket)
            except Problem:
                await self._socket.close(LOGGED_OUT)
                return

    async def _send(self, event: dict[str, Any]) -> None:
        async with self._sending:
            await self._socket.send_text(to_json(event).decode())


def line(reply: Reply, reply_id: str, at: str) -> dict[str, Any]:
    """A reply as the page shows it."""
    found = files_out(reply.files, f"{API}/console/replies/{quote(reply_id, safe='')}")
    shown = reply.model_dump(mode="json", include={"text", "table", "buttons"})
    return {"who": "parley", "id": reply_id, "at": at, "files": to_jsonable_python(found)} | shown


def _line_of(entry: dict[str, Any]) -> dict[str, Any]:
    reply = entry.get("reply")
    if not isinstance(reply, Reply):
        return entry
    return line(reply, entry["id"], entry["at"]) | {"message_id": entry.get("message_id")}


async def _first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends, end the others, and raise what it raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
