"""The whole stack with its store in PostgreSQL: one code for both."""

from __future__ import annotations

import asyncio

import pytest

from tests.postgres_fixture import postgres_server, postgres_url
from tests.stack import Stack

__all__ = ["postgres_server", "postgres_url"]

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(240)]


async def test_a_message_is_answered_over_a_restart_of_the_hub(postgres_url: str) -> None:
    """Commands, questions and a killed hub are the same as with SQLite."""
    async with Stack(extra={"PARLEY_DATABASE_URL": postgres_url}) as stack:
        answered = await asyncio.to_thread(stack.say, "/order 1024", key="once")
        assert (answered["state"], "1024" in answered["replies"][-1]["text"]) == ("done", True)
        assert (await asyncio.to_thread(stack.say, "/order"))["state"] == "needs-input"
        killed = await asyncio.to_thread(stack.kill, "hub")
        await asyncio.to_thread(stack.back, "hub", killed)
        await asyncio.to_thread(stack.until, stack.ready, 60, "the stack is ready again")
        assert (await asyncio.to_thread(stack.say, "1024"))["state"] == "done"
        assert (await asyncio.to_thread(stack.say, "/order 1024", key="once"))["id"] == answered["id"]
        assert not (stack.home / "parley.db").exists()
