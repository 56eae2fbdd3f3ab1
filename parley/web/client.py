"""The Python client of the REST API: `AsyncClient`, and `Client` for programs without an event loop.

::

    with Client("http://127.0.0.1:8080", token) as parley:
        answer = parley.say("/order 1024")
        print(answer.state, answer.replies[0].text)

What changes something carries an Idempotency-Key, so that it is sent again when a connection breaks or the hub is
restarting, and happens once. Errors are those of `parley.errors`.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import random
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

import parley.errors
from parley.errors import BadArguments, Denied, LinkError, ParleyError, RateLimited
from parley.messages.model import File
from parley.web.wire import (
    API,
    ApprovalOut,
    AutomationOut,
    CancelOut,
    DeadLetterOut,
    EventOut,
    EventsOut,
    FileOut,
    Me,
    MessageOut,
    NewEvent,
    Page,
    RunOut,
)

Out = TypeVar("Out", bound=BaseModel)
Kind = Literal["message", "run", "delivery", "expired"]
"""Kinds of dead letters."""
Result = TypeVar("Result")

PATIENCE: Final = 60.0
"""Seconds for which a request that did not get through is sent again."""

_POLL = 25.0  # a broken connection is noticed within this time, however long the answer takes
_MARGIN = 15.0
_AGAIN = frozenset({408, 429, 502, 503, 504})
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0


class AsyncClient:
    """The REST API as one principal. `patience`: seconds for which what did not get through is sent again."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        patience: float = PATIENCE,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._patience = patience
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(_POLL + _MARGIN, connect=5),
            verify=verify,
            transport=transport,
            trust_env=False,  # a proxy of the environment has no business with our token
        )

    async def say(
        self,
        text: str,
        *,
        wait: float = 30,
        files: Sequence[File] = (),
        thread: str | None = None,
        acting_as: str | None = None,
        key: str | None = None,
    ) -> MessageOut:
        """Say something, and wait up to `wait` seconds for the final answer; `final` tells whether it came.

        `key` is your own id of this message: said again with the same one, nothing happens twice.
        """
        body = {
            "text": text,
            "thread": thread,
            "acting_as": acting_as,
            "files": [_sent(file) for file in files],
        }
        return await self._start("/messages", body, wait, key)

    async def run(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        /,
        *,
        wait: float = 30,
        key: str | None = None,
        **more: Any,
    ) -> MessageOut:
        """Run one automation with typed parameters, as a mapping or by name; waits and answers as `say`."""
        path = f"/automations/{quote(name, safe='')}/runs"
        return await self._start(path, {**(parameters or {}), **more}, wait, key)

    async def message(self, message_id: str, *, wait: float = 0) -> MessageOut:
        """A message and what became of it, after waiting up to `wait` seconds until it is final."""
        until = time.monotonic() + wait
        path = f"/messages/{quote(message_id, safe='')}"
        while True:
            left = min(_POLL, max(0.0, until - time.monotonic()))
            view = await self._model(MessageOut, "GET", path, params={"wait": f"{left:.3f}"})
            if view.final or time.monotonic() >= until:
                return view

    async def file(self, file: FileOut) -> bytes:
        """The content of a reply's file."""
        return (await self._send("GET", file.url)).content

    async def automations(self) -> list[AutomationOut]:
        """What you may run."""
        return [one async for one in self._pages(Page[AutomationOut], "/automations")]

    def runs(self) -> AsyncIterator[RunOut]:
        """Requests and their runs, newest first, fetched as they are asked for."""
        return self._pages(Page[RunOut], "/runs")

    async def cancel(self, request_id: str) -> bool:
        """Ask for the end of a request; whether there was one that is open."""
        try:
            path = f"/runs/{quote(request_id, safe='')}/cancel"
            return (await self._model(CancelOut, "POST", path)).asked
        except NotThere:
            return False

    def dead_letters(
        self, kind: Kind | None = None, *, settled: bool = False
    ) -> AsyncIterator[DeadLetterOut]:
        """What ended without having been carried out or delivered, newest first; with `settled` all of it.

        For the owner, operators and auditors.
        """
        wanted = {"settled": str(settled).lower()} | ({"kind": kind} if kind else {})
        return self._pages(Page[DeadLetterOut], "/dead-letters", wanted)

    async def dead_letter(self, letter_id: str) -> DeadLetterOut:
        """One of them, with what is known of it. Raises `NotThere`."""
        return await self._model(DeadLetterOut, "GET", f"/dead-letters/{quote(letter_id, safe='')}")

    async def replay(self, letter_id: str, *, confirm: bool = False) -> DeadLetterOut:
        """Do a dead letter again, once. For the owner and operators.

        Raises `NeedsConfirmation` where it may have had effects, or may have arrived, and `confirm` is not true, and
        `BadArguments` when it was decided before.
        """
        path = f"/dead-letters/{quote(letter_id, safe='')}/replay"
        return await self._model(DeadLetterOut, "POST", path, json={"confirm": confirm})

    async def discard(self, letter_id: str) -> DeadLetterOut:
        """Let a dead letter be. For the owner and operators. Raises `BadArguments` when it was decided before."""
        return await self._model(DeadLetterOut, "POST", f"/dead-letters/{quote(letter_id, safe='')}/discard")

    async def approvals(self) -> list[ApprovalOut]:
        """What waits for one's approval, and what one's own requests wait for, the first to end first.

        To decide one, `say` `/approve CODE` or `/refuse CODE why`.
        """
        found = (await self._send("GET", f"{API}/approvals")).json()
        return [ApprovalOut.model_validate(one) for one in found]

    async def publish(
        self,
        topic: str,
        data: Mapping[str, Any] | None = None,
        *,
        title: str = "",
        text: str = "",
        key: str = "",
        closes: bool = False,
        url: str = "",
        severity: Literal["info", "warning", "critical"] = "info",
        idempotency_key: str | None = None,
    ) -> None:
        """Publish an event, as `parley.publish` does in a run. For the owner and operators.

        Published again with the same `idempotency_key` nothing happens twice.
        """
        event = NewEvent(
            topic=topic,
            data=dict(data or {}),
            title=title,
            text=text,
            key=key,
            closes=closes,
            url=url,
            severity=severity,
        )
        headers = {"idempotency-key": idempotency_key or str(uuid.uuid4())}
        await self._send("POST", f"{API}/events", json=event.model_dump(), headers=headers)

    async def subscribe(self, *topics: str, after: int | None = None) -> AsyncIterator[EventOut]:
        """Events of these topics as they happen, in order and each once; without end. For the owner and operators.

        From now on, or behind `after`, the `sequence` of the last one that you had: over a lost connection and a
        restart of either side none is lost within a week. Raises `EventsLost` when some are no longer kept.
        """
        waits = 0.0
        while True:
            params: dict[str, Any] = {"topic": list(topics), "wait": f"{waits:.3f}"}
            if after is not None:
                params["after"] = after
            page = await self._model(EventsOut, "GET", "/events", params=params)
            if page.lost:
                raise EventsLost("Events behind your place are no longer kept: begin anew without `after`.")
            for event in page.items:
                yield event
            after, waits = page.after, _POLL

    async def status(self) -> dict[str, Any]:
        """How the installation is doing."""
        found: dict[str, Any] = (await self._send("GET", f"{API}/status")).json()
        return found

    async def me(self) -> Me:
        """Who you are there."""
        return await self._model(Me, "GET", "/me")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _start(self, path: str, body: Mapping[str, Any], wait: float, key: str | None) -> MessageOut:
        until = time.monotonic() + wait
        headers = {"idempotency-key": key or str(uuid.uuid4())}
        first = {"wait": f"{min(wait, _POLL):.3f}"}
        view = await self._model(MessageOut, "POST", path, json=body, headers=headers, params=first)
        left = until - time.monotonic()
        return view if view.final or left <= 0 else await self.message(view.id, wait=left)

    async def _pages(
        self, page: type[Page[Out]], path: str, wanted: Mapping[str, str] | None = None
    ) -> AsyncIterator[Out]:
        cursor: dict[str, str] = {}
        while True:
            found = await self._model(page, "GET", path, params={**(wanted or {}), **cursor})
            for item in found.items:
                yield item
            if found.next is None:
                return
            cursor = {"cursor": found.next}

    async def _model(self, model: type[Out], method: str, path: str, **options: Any) -> Out:
        return model.model_validate_json((await self._send(method, API + path, **options)).content)

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        until = time.monotonic() + self._patience
        wait = _FIRST_WAIT
        while True:
            try:
                response = await self._http.request(method, path, **options)
            except httpx.TransportError as error:
                failure: ParleyError = LinkError(
                    f"{self._http.base_url} cannot be reached ({type(error).__name__}): is `parley up` running?"
                )
            else:
                if response.is_success:
                    return response
                failure = error_of(response)
                if response.status_code not in _AGAIN:
                    raise failure
            wait = min(wait * 2, _LONGEST_WAIT)
            pause = max(wait * random.uniform(0.5, 1), _retry_after(failure))  # noqa: S311 - jitter, not a secret
            if time.monotonic() + pause > until:
                raise failure
            await asyncio.sleep(pause)


class Client:
    """`AsyncClient` for programs without an event loop; the same methods, waiting for their results."""

    def __init__(
        self, url: str, token: str, *, patience: float = PATIENCE, verify: ssl.SSLContext | bool = True
    ) -> None:
        self._runner = asyncio.Runner()
        self._client = self._run(_made(url, token, patience, verify))

    def say(
        self,
        text: str,
        *,
        wait: float = 30,
        files: Sequence[File] = (),
        thread: str | None = None,
        acting_as: str | None = None,
        key: str | None = None,
    ) -> MessageOut:
        """As `AsyncClient.say`."""
        said = self._client.say(text, wait=wait, files=files, thread=thread, acting_as=acting_as, key=key)
        return self._run(said)

    def run(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        /,
        *,
        wait: float = 30,
        key: str | None = None,
        **more: Any,
    ) -> MessageOut:
        """As `AsyncClient.run`."""
        return self._run(self._client.run(name, parameters, wait=wait, key=key, **more))

    def message(self, message_id: str, *, wait: float = 0) -> MessageOut:
        """As `AsyncClient.message`."""
        return self._run(self._client.message(message_id, wait=wait))

    def file(self, file: FileOut) -> bytes:
        """As `AsyncClient.file`."""
        return self._run(self._client.file(file))

    def automations(self) -> list[AutomationOut]:
        """As `AsyncClient.automations`."""
        return self._run(self._client.automations())

    def runs(self) -> Iterator[RunOut]:
        """As `AsyncClient.runs`."""
        pages = self._client.runs()
        while (one := self._run(_next(pages))) is not None:
            yield one

    def cancel(self, request_id: str) -> bool:
        """As `AsyncClient.cancel`."""
        return self._run(self._client.cancel(request_id))

    def dead_letters(self, kind: Kind | None = None, *, settled: bool = False) -> Iterator[DeadLetterOut]:
        """As `AsyncClient.dead_letters`."""
        pages = self._client.dead_letters(kind, settled=settled)
        while (one := self._run(_next(pages))) is not None:
            yield one

    def dead_letter(self, letter_id: str) -> DeadLetterOut:
        """As `AsyncClient.dead_letter`."""
        return self._run(self._client.dead_letter(letter_id))

    def replay(self, letter_id: str, *, confirm: bool = False) -> DeadLetterOut:
        """As `AsyncClient.replay`."""
        return self._run(self._client.replay(letter_id, confirm=confirm))

    def discard(self, letter_id: str) -> DeadLetterOut:
        """As `AsyncClient.discard`."""
        return self._run(self._client.discard(letter_id))

    def approvals(self) -> list[ApprovalOut]:
        """As `AsyncClient.approvals`."""
        return self._run(self._client.approvals())

    def publish(
        self,
        topic: str,
        data: Mapping[str, Any] | None = None,
        *,
        title: str = "",
        text: str = "",
        key: str = "",
        closes: bool = False,
        url: str = "",
        severity: Literal["info", "warning", "critical"] = "info",
        idempotency_key: str | None = None,
    ) -> None:
        """As `AsyncClient.publish`."""
        published = self._client.publish(
            topic,
            data,
            title=title,
            text=text,
            key=key,
            closes=closes,
            url=url,
            severity=severity,
            idempotency_key=idempotency_key,
        )
        self._run(published)

    def subscribe(self, *topics: str, after: int | None = None) -> Iterator[EventOut]:
        """As `AsyncClient.subscribe`."""
        events = self._client.subscribe(*topics, after=after)
        while (one := self._run(_next(events))) is not None:
            yield one

    def status(self) -> dict[str, Any]:
        """As `AsyncClient.status`."""
        return self._run(self._client.status())

    def me(self) -> Me:
        """As `AsyncClient.me`."""
        return self._run(self._client.me())

    def close(self) -> None:
        """Close the connections."""
        self._run(self._client.aclose())
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)


class NotThere(BadArguments):
    """There is no such message, request or file of yours."""


class EventsLost(ParleyError):
    """Events behind the place of a subscription are no longer kept."""


def error_of(response: httpx.Response) -> ParleyError:
    """The error that an answer stands for: of the class that the hub raised where it is one of ours."""
    try:
        problem = response.json()
        detail, kind = str(problem["detail"]), str(problem["type"]).rpartition(":")[2]
    except (ValueError, KeyError, TypeError):
        detail, kind = f"HTTP {response.status_code}", ""
    found = getattr(parley.errors, "".join(part.capitalize() for part in kind.split("-")), None)
    if response.status_code == 429:
        return RateLimited(detail, _seconds(response.headers.get("retry-after")))
    if inspect.isclass(found) and issubclass(found, ParleyError):
        return found(detail)
    if response.status_code in (401, 403, 421):
        return Denied(detail)
    if response.status_code == 404:
        return NotThere(detail)
    return LinkError(detail) if response.status_code >= 500 else BadArguments(detail)


def _sent(file: File) -> dict[str, str]:
    content = base64.b64encode(file.content).decode()
    return {"name": file.name, "media_type": file.media_type, "content": content}


def _retry_after(failure: ParleyError) -> float:
    return failure.retry_after if isinstance(failure, RateLimited) else 0.0


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isascii() and text.isdigit() else 1.0


async def _made(url: str, token: str, patience: float, verify: ssl.SSLContext | bool) -> AsyncClient:
    return AsyncClient(url, token, patience=patience, verify=verify)


async def _next(pages: AsyncIterator[Result]) -> Result | None:
    return await anext(pages, None)


__all__ = ["PATIENCE", "AsyncClient", "Client", "EventsLost", "NotThere", "error_of"]
