"""Automations that are given secrets and are careless with them: they log, fail, print, report and ask."""

from __future__ import annotations

import logging

from prefect import flow, get_run_logger
from pydantic import BaseModel, Field

from blocks.rest_api import call_api
from parley import AutomationError, File, Report, Sealed, ask, automation, current_message, say, step


class Given(BaseModel):
    """What a person is asked for."""

    word: str = Field(description="The word.")


class Stock(BaseModel):
    """What the API answers."""

    pieces: int


@step(retries=0)
async def careless(pin: str) -> str:
    """Its error says what it was given."""
    raise ValueError(f"the door does not open with {pin}")


@automation(command="keepsafe", summary="Log a PIN.", effect="read")
@flow(log_prints=True)
async def keepsafe(pin: Sealed[str]) -> str:
    get_run_logger().warning("the PIN is %s", pin)
    logging.getLogger("careless").error("again: %r", {"pin": pin})
    print("printed", pin)
    said = current_message()
    say(f"heard: {said.text if said else '-'}")
    return f"kept {pin}"


@automation(command="failsafe", summary="Fail with a PIN.", effect="read")
@flow
async def failsafe(pin: Sealed[str]) -> str:
    return await careless(pin)


@automation(command="turnaway", summary="Fail with a sentence that has the PIN in it.", effect="read")
@flow
def turnaway(pin: Sealed[str]) -> str:
    raise AutomationError(f"{pin} is not accepted.")


@automation(command="account", summary="A report for one person.", effect="read")
@flow
def account(pin: Sealed[str]) -> Report:
    file = File(name="account.txt", content=f"account of {pin}".encode(), media_type="text/plain")
    return Report(f"account of {pin}", key="account", files=(file,))


@automation(command="wonder", summary="Ask for a word.", effect="read")
@flow
async def wonder() -> str:
    given = await ask(Given)
    return f"heard {len(given.word)} characters"


@automation(
    command="stock", summary="Ask an API, and tell its token.", effect="read", blocks=("parley-rest-api/erp",)
)
@flow
async def stock() -> str:
    found = await call_api("erp", "GET", "/stock/{article}", values={"article": "a"}, model=Stock)
    return f"{found.pieces} pieces"
