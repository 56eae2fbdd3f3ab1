"""What the contract suite asks of a service that only calls us; `tests.fakes.<its name>.DRIVER` keeps it."""

from __future__ import annotations

from typing import ClassVar, Protocol

from connectors._hook_source import HookSource
from parley.messages import HookRequest

NOW = 1_760_000_000
"""The moment at which all calls are made, in seconds since 1970, where the test does not say another."""


class Caller(Protocol):
    """One service with its secret, and what it calls us with: headers and bodies as it really sends them."""

    name: ClassVar[str]
    cannot_age: ClassVar[str]
    """Why an old call cannot be told from a new one; "" where it can."""
    cannot_sign: ClassVar[str]
    """Why a changed body cannot be told from a genuine one; "" where it can."""

    def connector(self, account: str) -> HookSource:
        """A connector with the service's secret, whose clock stands at `NOW`."""

    def secrets(self) -> tuple[str, ...]:
        """The secrets in use: none of them may ever be printed, logged or be in an error's text."""

    def calls(self) -> dict[str, HookRequest]:
        """One genuine call for each topic, by topic; each is of something else. Of an alert, of a push ..."""

    def aged(self, seconds: int) -> HookRequest:
        """A genuine call that was made so many seconds ago."""

    def again(self, topic: str) -> HookRequest:
        """The same thing as `calls()[topic]`, as the service sends it a second time."""

    def idle(self) -> HookRequest:
        """A genuine call that reports nothing of use: a ping, or an event that we do not know."""

    def forged(self) -> dict[str, HookRequest]:
        """Calls that are not from the service, each by what is wrong with it."""


def posted(body: bytes, headers: dict[str, str], kind: str = "application/json") -> HookRequest:
    """A call as the hooks' port hands it on."""
    lower = {name.lower(): value for name, value in headers.items()}
    return HookRequest(
        method="POST",
        path="/hooks/the-account",
        headers={"content-type": kind, **lower},
        body=body,
        remote="203.0.113.7",
    )
