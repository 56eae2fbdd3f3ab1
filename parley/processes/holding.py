"""Holding one account: its connector, kept listening whatever happens to the platform, the SDK, the hub or Prefect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, Protocol

from parley.errors import (
    AuthError,
    ConnectorError,
    Denied,
    LinkError,
    ParleyError,
    StoreUnavailable,
    Superseded,
    TooLarge,
    Unreachable,
)
from parley.failpoints import failpoint
from parley.link.calls import AcceptCall, AccountState, HeldAccount
from parley.messages.connector import Connector
from parley.messages.model import Accepted, CommandEntry, Event, File, Message

logger = logging.getLogger(__name__)

Commands = tuple[CommandEntry, ...]
Told = Callable[[AccountState], None]

CHECK_SECONDS: Final = 30.0
MOST_OF_FILES: Final = 100 * 1024 * 1024
"""Bytes of a message's files together: as base64 they are a third more, and have to fit into one call of the hub."""

CLOSE_SECONDS: Final = 2.0
"""What a connector gets to let go; one that does not is left behind, so that the others are not held up."""


class Ended(StrEnum):
    """Why an account is not held any more."""

    RELEASED = "released"
    CANCELLED = "cancelled"


class PrefectAway(Unreachable):
    """The Block cannot be read because Prefect does not answer."""


class Calls(Protocol):
    """The hub, as a holding needs it."""

    async def call(self, name: str, args: Any = None, *, timeout: float | None = 60.0) -> Any:
        """Call the hub."""


class AccountBlock(Protocol):
    """The opened Block of an account."""

    def connector(self, account: str) -> Connector:
        """Make the account's connector."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A Block, ready to use; `digest` changes with its content."""

    block: AccountBlock = field(repr=False)
    digest: str


Load = Callable[[HeldAccount, Calls], Awaitable[Loaded]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds between attempts: doubled from `first` to `longest`, which holds for refused credentials at once.

    `superseded`: where another process holds the account. Each attempt throws that one out, so they are rare.
    """

    first: float = 1.0
    longest: float = 60.0
    prefect_away: float = 5.0
    superseded: float = 300.0


class Holding:
    """One account in this process, from `start` to `release`.

    `state` is what the hub was told last, `connector` there is while it is connected, `ended` tells why it was over.
    """

    def __init__(
        self,
        account: HeldAccount,
        hub: Calls,
        load: Load,
        *,
        menu: Callable[[], Commands],
        patience: Patience,
    ) -> None:
        self.account = account
        self.connector: Connector | None = None
        self.state: AccountState = AccountState(account=account.name, state="connecting")
        self.confirmed: bool = False
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._hub = hub
        self._load = load
        self._menu = menu
        self._patience = patience
        self._told: set[Told] = set()
        self._digest = ""
        self._again = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._lost: set[asyncio.Task[Any]] = set()

    @property
    def name(self) -> str:
        """The account's name."""
        return self.account.name

    def start(self) -> None:
        """Begin to hold; returns at once."""
        self._keeping = asyncio.create_task(self._keep(), name=f"hold {self.name}")

    async def release(self, how: Ended, reason: str = "") -> None:
        """Let go of the account, within a few seconds."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait({keeping}, timeout=2 * CLOSE_SECONDS)
        if self.ended.done():
            return
        try:
            async with asyncio.timeout(1):
                await self._say("stopped", reason)
        except (ParleyError, TimeoutError):
            pass  # the end of our connection tells the hub as well
        if not self.ended.done():
            self.ended.set_result(how)

    async def restart(self, account: HeldAccount | None = None) -> None:
        """Connect anew, with another Block if `account` says so."""
        if account is not None:
            self.account = account
        if keeping := self._keeping:
            keeping.cancel()
            await asyncio.wait({keeping}, timeout=2 * CLOSE_SECONDS)
            # Released, or restarted by somebody else, in the meantime: then there is nothing left to do.
            if self._keeping is keeping:
                self.start()

    async def refresh(self) -> None:
        """Connect anew if the Block has changed; an account that waits for its next attempt makes it now."""
        if self.connector is None:
            self._again.set()
            return
        try:
            loaded = await self._load(self.account, self._hub)
        except Exception as error:  # noqa: BLE001 - it works with the Block that it has
            logger.warning("account %s: its Block could not be read again: %r", self.name, error)
            return
        if loaded.digest != self._digest:
            logger.info("account %s: its Block has changed", self.name)
            await self.restart()

    async def report(self, hub: Calls) -> None:
        """Tell a hub that has just started how it is. An account that another process holds by now is let go."""
        try:
            await hub.call("account_state", self.state, timeout=10)
        except Denied as error:
            logger.warning("account %s: %s", self.name, error)
            self.confirmed = False
            self._spawn(self.restart())

    def watch(self, told: Told) -> None:
        """Have `told` called with the present state and each change."""
        self._told.add(told)
        told(self.state)

    def unwatch(self, told: Told) -> None:
        """Call it no more."""
        self._told.discard(told)

    async def _keep(self) -> None:
        loop, wait = asyncio.get_running_loop(), self._patience.first
        while True:
            began = loop.time()
            try:
                await self._hold()
            except asyncio.CancelledError:
                # An SDK may let a cancellation of its own out; only ours is to be obeyed.
                if _asked_to_end():
                    raise
                error: BaseException = ConnectorError("the connection was cancelled from within")
            except (Exception, SystemExit) as raised:  # noqa: BLE001 - whatever an SDK does, the others go on
                error = raised
            if loop.time() - began > self._patience.longest:
                wait = self._patience.first
            await self._failed(error)
            pause, wait = self._pause(error, wait), min(wait * 2, self._patience.longest)
            await self._pass(pause)

    async def _hold(self) -> None:
        """Connect and listen; ends only by an exception."""
        await self._say("connecting")
        loaded = await self._load(self.account, self._hub)
        self._digest = loaded.digest
        connector = loaded.block.connector(self.name)
        _check_platform(connector, self.account)
        self.connector = connector
        tasks: set[asyncio.Task[None]] = set()
        try:
            problem = await self._problem(connector)
            tasks = {
                asyncio.create_task(connector.listen(self._accept), name=f"listen {self.name}"),
                asyncio.create_task(self._prove(connector, problem), name=f"prove {self.name}"),
            }
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.cancelled():
                    raise ConnectorError("the connection was cancelled from within")
                task.result()
            raise ConnectorError("the connector stopped listening by itself")
        finally:
            self.connector = None
            await self._put_away(connector, tasks)

    async def _prove(self, connector: Connector, problem: str) -> None:
        """Say that the account listens once its credentials are proven; the connector tries by itself meanwhile."""
        wait = self._patience.first
        while problem:
            await self._say("connecting", problem)
            await asyncio.sleep(wait)
            wait = min(wait * 2, self._patience.longest)
            problem = await self._problem(connector)
        await self._say("listening")
        await self.show_menu()
        await asyncio.Event().wait()

    async def _problem(self, connector: Connector) -> str:
        """Why the platform does not answer, or nothing. Raises `AuthError`."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await connector.check()
        except AuthError:
            raise
        except TimeoutError:
            return f"the platform did not answer within {CHECK_SECONDS:.0f} s"
        except ConnectorError as error:
            return str(error) or type(error).__name__
        return ""

    async def show_menu(self) -> None:
        """Give the connector the commands there are, if they are known."""
        connector, commands = self.connector, self._menu()
        if connector is None or not commands:
            return
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await connector.catalogue_changed(commands)
        except Exception as error:  # noqa: BLE001 - a menu is a convenience
            logger.warning("account %s: its menu of commands was not set: %r", self.name, error)

    async def accept(self, event: Event) -> Accepted:
        """Store an event of this account. Raises `StoreUnavailable`, also when the hub cannot be reached."""
        return await self._accept(event)

    async def _accept(self, event: Event) -> Accepted:
        route = event.route.model_copy(update={"account": self.name})
        stamped = event.model_copy(update={"account": self.name, "route": route})
        try:
            try:
                return await self._stored(stamped)
            except TooLarge:
                # The platform would give the same again for ever, and nothing after it would be heard.
                if not (isinstance(stamped, Message) and stamped.files):
                    raise
                return await self._stored(with_fewer_files(stamped))
        except LinkError as error:
            # For a connector it is the same: nothing is known to be stored, so nothing is acknowledged.
            raise StoreUnavailable(str(error)) from error

    async def _stored(self, event: Event) -> Accepted:
        failpoint("accept.received")
        accepted = Accepted.model_validate(await self._hub.call("accept", AcceptCall(event=event)))
        failpoint("accept.stored")
        return accepted

    async def _failed(self, error: BaseException) -> None:
        reason = reason_of(error, self.account.platform)
        logger.warning(
            "account %s: %s", self.name, reason, exc_info=None if isinstance(error, ParleyError) else error
        )
        try:
            passing = isinstance(error, (Unreachable, LinkError))
            await self._say("connecting" if passing else "failed", reason)
        except ParleyError:
            pass  # it was Denied, and is again

    async def _pass(self, seconds: float) -> None:
        self._again.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._again.wait()
        except TimeoutError:
            pass

    def _pause(self, error: BaseException, wait: float) -> float:
        if isinstance(error, Superseded):
            return self._patience.superseded
        if isinstance(error, AuthError):
            return self._patience.longest
        if isinstance(error, PrefectAway):
            return min(wait, self._patience.prefect_away)
        return wait

    async def _say(
        self, state: Literal["connecting", "listening", "stopped", "failed"], reason: str = ""
    ) -> None:
        said = AccountState(account=self.name, state=state, reason=reason)
        if said != self.state:
            self.state = said
            for told in tuple(self._told):
                told(said)
        try:
            await self._hub.call("account_state", said, timeout=10)
            self.confirmed = True
        except LinkError as error:
            # It is told when it is back (`report`): listening does not wait for that.
            logger.info("the hub was not told that account %s is %s: %s", self.name, state, error)

    async def _put_away(self, connector: Connector, tasks: set[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
            for task in stuck:
                logger.warning("account %s: %s does not end and is left behind", self.name, task.get_name())
                self._spawn_done(task)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await connector.aclose()
        except Exception as error:  # noqa: BLE001 - it is thrown away in any case
            logger.warning("account %s: its connector did not close: %r", self.name, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._spawn_done(asyncio.create_task(work))

    def _spawn_done(self, task: asyncio.Task[Any]) -> None:
        self._lost.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._lost.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.warning("account %s: %r", self.name, error)


def with_fewer_files(message: Message, most: int = MOST_OF_FILES) -> Message:
    """The message with its first files, of at most this many bytes together; at least one is left out, and named."""
    kept: list[File] = []
    left_out: list[str] = []
    size = 0
    for number, file in enumerate(message.files, start=1):
        size += len(file.content)
        fits = size <= most and not (number == len(message.files) and not left_out)
        if fits:
            kept.append(file)
        else:
            left_out.append(f"{file.name}: too large together with the other files")
    return message.model_copy(update={"files": tuple(kept), "left_out": (*message.left_out, *left_out)})


def reason_of(error: BaseException, platform: str) -> str:
    """Why an account does not listen, for the people who look after it."""
    if isinstance(error, ParleyError):
        return str(error) or type(error).__name__
    if isinstance(error, ImportError):
        return (
            f"{error.name or error} is not installed: pip install 'prefect-parley[{platform}]' "
            "where the listeners run, then start them again."
        )
    # The text of a stranger may hold anything, a token too: it stays in the log.
    return f"{type(error).__name__}: the log of the listeners says more"


def _check_platform(connector: Connector, account: HeldAccount) -> None:
    if connector.name != account.platform:
        raise ConnectorError(
            f"the Block {account.block} is for {connector.name}, the account {account.name} for {account.platform}: "
            "name another Block or platform."
        )


def _asked_to_end() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
