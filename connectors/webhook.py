"""Webhook: any program that signs as Standard Webhooks has it (https://www.standardwebhooks.com), in and out.

In: a signed POST to `/hooks/<account>` with `{"type": "order.late", ...}` is a notice; where the account `speaks`, one
with `{"text": "/order 1024"}` and no type is a message, asked by the service principal. `webhook-id` is the native id.

Out: what is said in one of the account's conversations is a signed POST of JSON to one address. `webhook-id` is the
delivery's token: by the standard the receiver takes what it has had already for a repetition, so that sending again is
safe. The form of both is in docs/connect-services.md.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import ClassVar, NoReturn
from uuid import uuid4

from connectors._hook_json import json_body
from connectors._hook_post import Poster, Reach, target_of
from connectors._hook_proofs import prove_standard_webhook, standard_key, standard_signature
from connectors._hook_source import HookSource, required
from connectors._waiting import pause, retry_after
from connectors._webhook_form import MAX_FILES, Spoken, parse, render
from parley.errors import (
    AuthError,
    ConfigurationError,
    ConnectorError,
    RateLimited,
    Rejected,
    Unknown,
    Unreachable,
)
from parley.messages import (
    Accept,
    Capabilities,
    HookRequest,
    Message,
    Notice,
    Receipt,
    Reply,
    Route,
    derived_id,
)

__all__ = ["CONNECTOR", "Webhook", "parse", "render"]

LONGEST_PAUSE = 60.0

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,200}")
_FROM_A_PROXY = {407, 408, 421, 425}

log = logging.getLogger(__name__)


class Webhook(HookSource):
    """One program, with one secret for both directions or one for each."""

    name: ClassVar[str] = "webhook"
    service: ClassVar[str] = "The service"
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_text=100_000,
        markup="markdown",
        threads=True,
        edits=True,
        # As base64 in JSON: what one can send is what one can take.
        max_file=512 * 1024,
        max_files=MAX_FILES,
        idempotent_send=True,
        hooks=True,
    )

    def __init__(
        self,
        account: str,
        *,
        secret: str,
        old_secret: str = "",
        url: str = "",
        reach: Reach = "public",
        speaks: bool = False,
        service: str = "webhook",
        clock: Callable[[], float] = time.time,
        poster: Callable[[], Poster] | None = None,
    ) -> None:
        """Signed with `secret`; `old_secret` is still taken, and signed with as well, while it is being changed.

        Without `url` nothing can be sent. `service` is the name people see. `poster` makes what posts to `url`.
        Raises `ConfigurationError`.
        """
        super().__init__(account, clock=clock)
        given = required(secret=secret, old_secret=old_secret)
        self._keys = tuple(standard_key(one, "secret") for one in given)
        self._spoken = Spoken(account=account, service=service or "webhook", speaks=speaks)
        target = target_of(url, "url") if url.strip() else None
        if target and target.startswith("http:") and reach != "private":
            raise ConfigurationError(
                "url must begin with https://: what goes over the Internet is not sent in clear."
            )
        self._poster = poster() if poster and target else Poster(target, reach) if target else None

    # -- receiving

    def prove(self, request: HookRequest, now: float) -> None:
        """The signature over id, time and body, and a time within five minutes."""
        prove_standard_webhook(self._keys, request.headers, request.body, now)

    def events(self, request: HookRequest) -> tuple[Notice | Message, ...]:
        """The notice or message in a call."""
        return (parse(json_body(request), self._spoken, request.headers["webhook-id"]),)

    async def listen(self, accept: Accept) -> None:
        """Prove once that the address takes our signature, then wait for calls; a silent address is no hindrance."""
        failures = 0
        while True:
            try:
                await self.check()
                break
            except AuthError:
                raise
            except ConnectorError as error:
                failures += 1
                log.warning("webhook %s: %s", self.account, error)
            await asyncio.sleep(pause(failures, first=1.0, longest=LONGEST_PAUSE))
        await asyncio.Event().wait()

    # -- sending

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        """Post one reply; its id is the token, under which the receiver knows it again."""
        self._own(route)
        message_id = _message_id(token)
        await self._post(message_id, render(reply, route, "message", message_id))
        return Receipt(native_ids=(message_id,))

    async def edit_message(self, native_id: str, reply: Reply, route: Route) -> Receipt:
        """Post what a message is to be instead."""
        self._own(route)
        # Each edit is a message of its own: the same words may come back later.
        await self._post(f"edit_{uuid4().hex}", render(reply, route, "message.edited", native_id))
        return Receipt(native_ids=(native_id,))

    async def check(self) -> None:
        """Post a signed `{"type": "ping"}`; without an address there is nothing to ask.

        Any answer but a refusal of the signature will do: a receiver need not know pings.
        """
        if self._poster is None:
            return
        try:
            status, _ = await self._send(f"ping_{uuid4().hex}", b'{"type":"ping","data":{}}')
        except (Unknown, Rejected) as error:
            raise Unreachable(str(error)) from None
        if status in (401, 403):
            raise AuthError(f"The address refuses our signature ({status}).")
        if status >= 500:
            raise Unreachable(f"The address answers with {status}.")

    async def aclose(self) -> None:
        """Close the connections; may be called twice."""
        if self._poster is not None:
            await self._poster.aclose()

    def _own(self, route: Route) -> None:
        if route.account != self.account:
            raise Rejected("This answer belongs to another account.")
        if self._poster is None:
            raise Rejected("This account has no url: nothing can be sent there.")

    async def _post(self, message_id: str, body: bytes) -> None:
        status, headers = await self._send(message_id, body)
        if not 200 <= status < 300:
            _raise_for(status, headers)

    async def _send(self, message_id: str, body: bytes) -> tuple[int, Mapping[str, str]]:
        if self._poster is None:
            raise Rejected("This account has no url: nothing can be sent there.")
        stamp = int(self._clock())
        signatures = [standard_signature(key, message_id, stamp, body) for key in self._keys]
        headers = {
            "content-type": "application/json",
            "user-agent": "prefect-parley",
            "webhook-id": message_id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": " ".join(signatures),
        }
        return await self._poster.post(body, headers)


def _raise_for(status: int, headers: Mapping[str, str]) -> NoReturn:
    """Raise what an answer that is not 2xx means."""
    wait = headers.get("retry-after")
    if status == 429 or (status == 503 and wait):
        raise RateLimited(f"The address asks us to wait ({status}).", retry_after(wait, datetime.now(UTC)))
    if status in (401, 403):
        raise AuthError(f"The address refuses our signature ({status}): is it the same secret there?")
    if status == 503 or status in _FROM_A_PROXY:
        raise Unreachable(f"The address did not take the message ({status}).")
    if status >= 500:
        raise Unknown(f"The address failed in the middle ({status}); whether it was taken is not known.")
    moved = " It leads elsewhere: set the new address." if 300 <= status < 400 else ""
    raise Rejected(f"The address refuses the message ({status}).{moved}")


def _message_id(token: str) -> str:
    if _TOKEN.fullmatch(token):
        return token
    return f"msg_{derived_id(token).removeprefix('sha256:')}" if token else f"msg_{uuid4().hex}"


CONNECTOR = Webhook
