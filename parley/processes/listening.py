"""The accounts that this process holds, and the one connection to the hub that serves them all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar, Self

from pydantic import TypeAdapter

from parley.errors import ConfigurationError, LinkError, ParleyError, Unknown, Unreachable
from parley.failpoints import failpoint
from parley.link.calls import CommandMenu, DeliverCall, HeldAccount, HookCall, Role
from parley.link.client import HubClient
from parley.link.connection import Handler
from parley.messages.connector import Connector
from parley.messages.model import HookResponse, Receipt
from parley.processes import account_blocks
from parley.processes.holding import Calls, Commands, Ended, Holding, Load, Patience, Told

logger = logging.getLogger(__name__)

_ACCOUNTS = TypeAdapter(list[HeldAccount])


class Listening:
    """Holds accounts, and answers the hub for them. With `everything` it holds all that the hub names.

    Each account lives for itself: one that fails, hangs or lacks its SDK is tried again later, and says why.
    """

    current: ClassVar[Listening | None] = None
    """That of this process which holds everything, if there is one: flow runs here share it."""

    def __init__(
        self,
        address: str,
        token: str | Callable[[], str],
        *,
        everything: bool = False,
        load: Load = account_blocks.load,
        patience: Patience | None = None,
    ) -> None:
        self._hub = HubClient(
            address,
            Role.LISTENERS,
            token,
            handlers=self._handlers(),
            name="listeners",
            on_connected=self._on_connected,
        )
        self._everything = everything
        self._stopping = False
        self._load = load
        self._patience = patience or Patience()
        self._holdings: dict[str, Holding] = {}
        self._cancelled: set[str] = set()
        self._menu: Commands = ()
        self._syncing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.changed: asyncio.Event = asyncio.Event()

    @property
    def holdings(self) -> Mapping[str, Holding]:
        """The accounts of this process by name."""
        return self._holdings

    async def accounts(self) -> list[HeldAccount]:
        """Every enabled account, as the hub knows them. Raises `LinkError`."""
        return _ACCOUNTS.validate_python(await self._hub.call("held_accounts"))

    async def hold(self, account: str, *, told: Told | None = None) -> Ended:
        """Hold an account, or join its holding, until it ends; `told` hears of each state.

        Cancelling the caller ends nothing: `release` does. Raises ConfigurationError when the hub has no such account.
        """
        # A flow run may come to this point when the account has been let go of already: it must not take it up again.
        if self._stopping:
            return Ended.RELEASED
        if account in self._cancelled:
            return Ended.CANCELLED
        holding = self._holdings.get(account) or self._begin(await self._find(account))
        if told:
            holding.watch(told)
        try:
            return await asyncio.shield(holding.ended)
        finally:
            if told:
                holding.unwatch(told)

    async def release(self, account: str, how: Ended, reason: str = "") -> None:
        """Let go of an account. One that was cancelled is not taken up again before `accounts_changed` or a restart."""
        holding = self._holdings.pop(account, None)
        if holding is None:
            return
        if how is Ended.CANCELLED:
            self._cancelled.add(account)
        await holding.release(how, reason)
        self._notify()

    async def stop(self) -> None:
        """Let go of all accounts, within a few seconds, and take up no other."""
        self._stopping = True
        await asyncio.gather(
            *(self.release(name, Ended.RELEASED, "stopped") for name in list(self._holdings))
        )

    async def __aenter__(self) -> Self:
        if self._everything:
            Listening.current = self
        await self._hub.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if Listening.current is self:
            Listening.current = None
        await self.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._hub.aclose()

    # -- which accounts

    async def _find(self, name: str) -> HeldAccount:
        for account in await self.accounts():
            if account.name == name:
                return account
        raise ConfigurationError(
            f"there is no enabled account {name!r}: `parley accounts` lists them, `parley connect` makes one."
        )

    def _begin(self, account: HeldAccount) -> Holding:
        # Between the question to the hub and now somebody else may have begun.
        if account.name in self._holdings:
            return self._holdings[account.name]
        holding = Holding(account, self._hub, self._load, menu=lambda: self._menu, patience=self._patience)
        self._holdings[account.name] = holding
        holding.start()
        self._notify()
        return holding

    async def _sync(self, *, refresh: bool) -> None:
        async with self._syncing:
            try:
                wanted = {account.name: account for account in await self.accounts()}
            except LinkError as error:
                logger.info("the accounts are asked for again when the hub is back: %s", error)
                return
            await asyncio.gather(
                *(self._match(holding, wanted, refresh=refresh) for holding in list(self._holdings.values()))
            )
            if self._everything and not self._stopping:
                for name, account in wanted.items():
                    if name not in self._cancelled:
                        self._begin(account)

    async def _match(self, holding: Holding, wanted: Mapping[str, HeldAccount], *, refresh: bool) -> None:
        account = wanted.get(holding.name)
        if account is None:
            await self.release(holding.name, Ended.RELEASED, "the account was removed or disabled")
        elif account != holding.account:
            await holding.restart(account)
        elif refresh:
            await holding.refresh()

    async def _on_connected(self, hub: Calls) -> None:
        for holding in list(self._holdings.values()):
            try:
                await holding.report(hub)
            except (ParleyError, TimeoutError) as error:
                logger.warning("the hub was not told of account %s: %s", holding.name, error)
        self._spawn(self._sync(refresh=False))

    # -- what the hub asks

    def _handlers(self) -> dict[str, Handler]:
        return {
            "deliver": self._deliver,
            "hook": self._hook,
            "command_menu": self._command_menu,
            "accounts_changed": self._accounts_changed,
        }

    async def _deliver(self, args: dict[str, Any]) -> Receipt:
        call = DeliverCall.model_validate(args)
        holding = self._holdings.get(call.account)
        if holding is None or holding.connector is None:
            raise Unreachable(f"the account {call.account} is not connected now.")
        try:
            return await deliver(holding.connector, call)
        except ParleyError:
            raise
        except Exception as error:
            logger.exception("account %s: a delivery failed", call.account)
            raise Unknown(f"{type(error).__name__} while sending: it may have arrived.") from error

    async def _hook(self, args: dict[str, Any]) -> HookResponse:
        call = HookCall.model_validate(args)
        holding = self._holdings.get(call.account)
        if holding is None or holding.connector is None:
            return HookResponse(status=503, headers={"retry-after": "5"}, body=b"not connected now\n")
        return await holding.connector.handle_hook(call.request, holding.accept)

    async def _command_menu(self, args: dict[str, Any]) -> None:
        self._menu = CommandMenu.model_validate(args).commands
        for holding in self._holdings.values():
            self._spawn(holding.show_menu())

    async def _accounts_changed(self, _args: dict[str, Any]) -> None:
        self._cancelled.clear()
        self._spawn(self._sync(refresh=True))

    def _notify(self) -> None:
        self.changed.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def deliver(connector: Connector, call: DeliverCall) -> Receipt:
    """Send; where an earlier attempt may have arrived, only if the platform does not have it.

    Raises `Unknown` when that cannot be found out: a person has to look. An edit may be made twice.
    """
    failpoint("delivery.taken")
    if call.edits is not None:
        return await connector.edit_message(call.edits, call.reply, call.route)
    if call.again and not connector.capabilities.idempotent_send:
        find_sent = getattr(connector, "find_sent", None)
        if find_sent is None:
            raise Unknown(f"{connector.name} cannot tell whether an earlier attempt arrived.")
        found: Receipt | None = await find_sent(call.token, call.route)
        if found is not None:
            return found
    receipt = await connector.send_message(call.reply, call.route, token=call.token)
    failpoint("delivery.sent")
    return receipt
