"""What the web needs of the hub. The hub implements it; the web knows nothing else of the hub."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from pydantic import AwareDatetime, Field

from parley.messages.model import Accepted, File, HookRequest, HookResponse, Model, Reply, Route
from parley.messages.published import Happening
from parley.people.audit import AuditRow
from parley.people.audit_reading import Wanted
from parley.people.principals import Principal
from parley.people.sign_in import SignIn
from parley.runs.catalogue import AutomationSpec


class ReplyView(Model):
    """One reply to a message, as it was written; `state` is its delivery's."""

    id: str
    reply: Reply
    state: str
    created_at: AwareDatetime


class MessageView(Model):
    """A message and what became of it. `state` is the public state, `final` whether it can still change by itself."""

    id: str
    state: str
    final: bool
    run_id: str | None = None
    flow_run_id: str | None = None
    automation: str | None = None
    reason: str | None = None
    replies: tuple[ReplyView, ...] = ()
    received_at: AwareDatetime
    timings: dict[str, float] = Field(default_factory=dict)


class RunView(Model):
    """One request and its latest run."""

    id: str
    automation: str
    state: str
    origin: str
    actor: str
    reason: str | None = None
    flow_run_id: str | None = None
    created_at: AwareDatetime
    ended_at: AwareDatetime | None = None


class DeadLetterView(Model):
    """What ended without having been carried out or delivered; see `parley.runs.dead_letters`."""

    id: str
    kind: str
    subject: str
    automation: str | None = None
    account: str | None = None
    actor: str | None = None
    reason: str
    doubtful: bool
    state: str
    created_at: AwareDatetime
    settled_at: AwareDatetime | None = None
    settled_by: str | None = None
    facts: dict[str, str] = Field(default_factory=dict)


class ApprovalView(Model):
    """What waits for an approval; see `parley.runs.open_approvals`."""

    code: str
    request_id: str
    automation: str
    what: str
    actor: str
    needed: int
    approved_by: tuple[str, ...]
    created_at: AwareDatetime
    expires_at: AwareDatetime
    mine: bool
    may: bool


class EventView(Model):
    """An event on the bus and its place in the log."""

    sequence: int
    topic: str
    account: str
    title: str = ""
    text: str = ""
    url: str = ""
    key: str = ""
    closes: bool = False
    severity: str = "info"
    data: dict[str, Any] = Field(default_factory=dict)
    at: AwareDatetime


class EventsView(Model):
    """Events, and the place to go on from. `lost`: there were others, which are no longer kept."""

    items: tuple[EventView, ...]
    after: int
    lost: bool = False


class Front(Protocol):
    """The hub, seen from the web. Every method checks the rights of the principal it is given."""

    sign_in: SignIn
    """Ways in, and sessions."""

    async def principal_of(self, secret: str, *, session: bool, touches: bool = True) -> Principal | None:
        """Whose bearer token (or browser session) this is. `touches`: a session is used by this, and lives on."""

    async def log_in(self, secret: str, *, agent: str = "", address: str = "") -> str | None:
        """Turn a one-time login secret or a bearer token into a new session's secret; None when it is not good.

        `agent` is the browser's User-Agent; little of it is kept. `address` is whom tries are counted for.
        """

    async def log_out(self, secret: str) -> None:
        """End a session."""

    async def say(
        self,
        principal: Principal,
        text: str,
        *,
        files: Sequence[File] = (),
        native_id: str | None = None,
        thread: str | None = None,
        acting_as: str | None = None,
    ) -> Accepted:
        """Store a message of this principal. `native_id` is the Idempotency-Key, scoped to the caller.

        `acting_as`: a name to speak for. Raises `Denied`, `StoreUnavailable`.
        """

    async def press(
        self, principal: Principal, value: str, *, thread: str | None = None, native_id: str | None = None
    ) -> Accepted:
        """A button of a reply was pressed. `native_id` as in `say`: the page presses again when a connection broke."""

    async def message(self, principal: Principal, message_id: str) -> MessageView | None:
        """A message of one's own (any, for the owner and auditors)."""

    async def wait_for(self, principal: Principal, message_id: str, seconds: float) -> MessageView | None:
        """As `message`, after waiting until it is final or the time is over."""

    async def reply_file(
        self, principal: Principal, message_id: str | None, reply_id: str, index: int
    ) -> File | None:
        """One file of a reply to a message of one's own; without `message_id`, of any reply in one's own console.

        The second is for what nobody asked for, such as a scheduled report: it answers no message.
        """

    async def start_automation(
        self, principal: Principal, name: str, values: dict[str, Any], *, native_id: str | None = None
    ) -> Accepted:
        """Ask for one automation with typed values. Raises `UnknownCommand`, `BadArguments`, `Denied`."""

    def automations(self, principal: Principal) -> list[AutomationSpec]:
        """What this principal may run."""

    async def runs(self, principal: Principal, *, limit: int, before: str | None) -> list[RunView]:
        """One's own requests (all, for the owner and auditors), newest first, older than the id `before`."""

    async def cancel(self, principal: Principal, request_id: str) -> bool:
        """Ask for the end of a request of one's own; whether there was one that is open."""

    async def dead_letters(
        self, principal: Principal, *, limit: int, kind: str | None, settled: bool, before: str | None
    ) -> list[DeadLetterView]:
        """The newest, open ones unless `settled`, older than the id `before`. Raises `Denied`."""

    async def dead_letter(self, principal: Principal, identifier: str) -> DeadLetterView | None:
        """One by its id, or the last eight characters of that, with what is known of it. Raises `Denied`."""

    async def replay(
        self, principal: Principal, identifier: str, *, confirmed: bool
    ) -> DeadLetterView | None:
        """Do it again, once. Raises `Denied`, `NeedsConfirmation`, and `BadArguments` when it was decided before."""

    async def discard(self, principal: Principal, identifier: str) -> DeadLetterView | None:
        """Let it be. Raises `Denied`, and `BadArguments` when it was decided before."""

    async def audit(
        self, principal: Principal, wanted: Wanted, *, limit: int, before: int | None
    ) -> Sequence[AuditRow]:
        """Rows of the audit, newest first, before the number `before`. Raises `Denied` but for owner and auditors."""

    async def approvals(self, principal: Principal) -> list[ApprovalView]:
        """What waits for this principal's approval, and what they asked for that waits, the first to end first."""

    async def publish(self, principal: Principal, event: Happening, *, native_id: str | None) -> None:
        """Publish an event on the bus. `native_id` as in `say`. Raises `Denied`, `BadArguments`."""

    async def events(
        self,
        principal: Principal,
        patterns: Sequence[str],
        *,
        after: int | None,
        limit: int,
        seconds: float,
    ) -> EventsView:
        """Events of these topics behind a place (None: from now on), after waiting for the first."""

    async def history(self, principal: Principal, *, limit: int = 50) -> list[dict[str, Any]]:
        """The console conversation of this principal, oldest first.

        `{"who": "me", "id": <message>, "text", "at"}` or `{"who": "parley", "id": <reply>, "reply": Reply, "at",
        "message_id"}`; `at` is ISO 8601.
        """

    def console(
        self, principal: Principal
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[Reply, Route, str]]]:
        """Replies in the console conversation of this principal from now on: (reply, route, id of the reply).

        The id is the one that `history` and `ReplyView` give the same reply, so that a page shows it once.
        """

    async def hook(self, account: str, request: HookRequest) -> HookResponse:
        """A request for `/hooks/<account>`: 404 unknown account, 401 bad signature, 503 no holder or store."""

    async def status(self) -> dict[str, Any]:
        """`parley status --json`: processes, accounts, queue."""

    async def ready(self) -> dict[str, bool]:
        """Which of store, prefect, worker, listeners are ready."""
