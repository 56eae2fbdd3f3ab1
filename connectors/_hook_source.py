"""A service that only calls us: what every such connector shares.

A connector says how a request is proven (`prove`) and which events it is (`events`); the order of things is here, once:
method, proof over the raw bytes, form, all events stored, only then 2xx. What a service reports and we have no use for
is answered as taken, or it would be sent again and the service might switch the hook off.
"""

from __future__ import annotations

import asyncio
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import ClassVar

from connectors._hook_json import Unreadable
from parley.errors import ConfigurationError, Unsupported
from parley.messages import (
    Accept,
    Capabilities,
    Connector,
    ConversationKind,
    Event,
    HookRequest,
    HookResponse,
    Receipt,
    Reply,
    Route,
    Sender,
    derived_id,
)

SENDER_ID = "service"
"""The id of the one sender that such an account has: the service itself. People it tells of are data, never senders."""

_DELIVERY = re.compile(r"[\x21-\x7e]{1,200}")
_LONGEST_SCOPE = 500
_TAKEN, _OF_NO_USE = HookResponse(status=200), HookResponse(status=204)


class HookSource(Connector):
    """One account of a service that calls `/hooks/<account>` and that we never call."""

    capabilities: ClassVar[Capabilities] = Capabilities(hooks=True, sends=False)
    service: ClassVar[str]
    """The service's name as people write it."""

    def __init__(self, account: str, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(account)
        self._clock = clock

    def __repr__(self) -> str:
        return f"{type(self).__name__}(account={self.account!r})"

    @abstractmethod
    def prove(self, request: HookRequest, now: float) -> None:
        """Raises `BadSignature` when the service did not make this request, or did not make it now."""

    @abstractmethod
    def events(self, request: HookRequest) -> Sequence[Event]:
        """What a proven request reports; nothing when it is of no use here. Raises `Unreadable`."""

    def stored(self, event: Event) -> None:
        """An event of a call is in the inbox."""

    async def listen(self, accept: Accept) -> None:
        """Wait: the service calls us."""
        await asyncio.Event().wait()

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        """Raises `Unsupported`: nobody is there."""
        raise Unsupported(f"{self.service} only calls us: nothing can be sent there.")

    async def check(self) -> None:
        """Nothing can be asked of a service that only calls us: the first call shows whether the secret is right."""

    async def handle_hook(self, request: HookRequest, accept: Accept) -> HookResponse:
        """Prove, read, store all, then 2xx. Raises `BadSignature`, or `StoreUnavailable`: then it is sent again.

        A repeated call is harmless, and so is one that was half stored: the ids of its events are the same.
        """
        if request.method != "POST":
            return answer(405, f"{self.service} calls this address with POST.", allow="POST")
        self.prove(request, self._clock())
        try:
            found = self.events(request)
        except Unreadable as error:
            return answer(error.status, str(error))
        for event in found:
            await accept(event)
            self.stored(event)
        return _TAKEN if found else _OF_NO_USE


class SignedSource(HookSource):
    """One whose calls are signed with a secret, which may be changed while calls come in."""

    def __init__(
        self,
        account: str,
        *,
        secret: str,
        old_secret: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`old_secret` is still taken while the secret is being changed. Raises `ConfigurationError`."""
        super().__init__(account, clock=clock)
        self._secrets = required(secret=secret, old_secret=old_secret)


def answer(status: int, text: str, **headers: str) -> HookResponse:
    """An answer in plain words."""
    headers = {"content-type": "text/plain; charset=utf-8"} | headers
    return HookResponse(status=status, headers=headers, body=f"{text}\n".encode())


@lru_cache(maxsize=64)
def sender(name: str) -> Sender:
    """The service as the sender of what it reports."""
    return Sender(id=SENDER_ID, name=name)


@lru_cache(maxsize=1000)
def scope(account: str, name: str) -> Route:
    """The route of a notice: a conversation of the service's own about this subject, which nobody can answer into."""
    short = name if 0 < len(name) <= _LONGEST_SCOPE else derived_id(name) if name else "all"
    return Route(account=account, conversation=short, kind=ConversationKind.CHANNEL)


def delivery_id(request: HookRequest, *names: str) -> str:
    """The service's own id of this delivery, from the first of these headers; without any, one made of the body."""
    for name in names:
        if _DELIVERY.fullmatch(found := request.headers.get(name, "")):
            return found
    return derived_id(request.body)


def required(**secrets: str) -> tuple[str, ...]:
    """The secrets that are set, in order; the first names what is needed. Raises `ConfigurationError`."""
    first = next(iter(secrets))
    if not secrets[first]:
        raise ConfigurationError(f"{first} is empty: nobody's calls could be proven.")
    return tuple(secret for secret in secrets.values() if secret)


def authorizations(
    tokens: tuple[str, ...], username: str, password: str
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """What an Authorization header may hold: bearer tokens and logins. Raises `ConfigurationError` for none."""
    if bool(username) != bool(password):
        raise ConfigurationError("username and password belong together: one of them is empty.")
    if not (tokens[0] or username):
        raise ConfigurationError(
            "Neither token nor username and password are set: nobody's calls could be proven."
        )
    return tuple(token for token in tokens if token), ((username, password),) if username else ()
