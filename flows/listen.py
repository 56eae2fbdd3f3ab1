"""The listener: a long flow run that holds one account, so that people can write to us there.

`parley up` has one for every account by itself. Beside a Prefect server of your own, a worker of yours can hold an
account as well: run the deployment `listen/parley` with the account's name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed

from parley.link.calls import AccountState, Role
from parley.link.client import default_address, role_token
from parley.processes.holding import Ended
from parley.processes.listening import Listening
from parley.settings import load


@flow(name="listen")
async def listen(account: str) -> State[None]:
    """Hold an account and take what people write there, until it is cancelled, disabled or stopped.

    Args:
        account: Name of the account, as `parley accounts` lists it.
    """
    logger = get_run_logger()

    def told(said: AccountState) -> None:
        logger.info("account %s: %s%s", said.account, said.state, f" ({said.reason})" if said.reason else "")

    async with _listening() as listening:
        ended = await listening.hold(account, told=told)
    if ended is Ended.CANCELLED:
        return Cancelled(
            message=f"{account} is not held until the accounts change or the listeners start again"
        )
    return Completed(message=f"{account} was let go")


@asynccontextmanager
async def _listening() -> AsyncIterator[Listening]:
    """That of this process, which other runs share; in a process of the run's own, one of its own."""
    if Listening.current is not None:
        yield Listening.current
        return
    settings = load()
    async with Listening(default_address(settings), role_token(settings, Role.LISTENERS)) as listening:
        yield listening
