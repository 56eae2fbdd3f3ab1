"""What is costly to look at: how old it may be, and how often it is looked at."""

from __future__ import annotations

import asyncio

import pytest

from parley.processes.refreshed import Refreshed


class Looks:
    """Counts how often it was looked at; `held` lets a look take its time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.count = 0
        self.fails = False
        self.held = asyncio.Event()
        self.held.set()
        self.kept = Refreshed(self.look, fresh=5, usable=30, clock=lambda: self.now)

    async def look(self) -> int:
        self.count += 1
        number = self.count
        await self.held.wait()
        if self.fails:
            raise OSError("nothing to see")
        return number


@pytest.fixture
async def looks() -> Looks:
    return Looks()


async def test_for_a_while_it_is_shown_again(looks: Looks) -> None:
    assert await looks.kept.get() == (1, 0)
    looks.now += 5
    assert await looks.kept.get() == (1, 5)


async def test_later_it_is_shown_once_more_and_looked_at_for_the_next(looks: Looks) -> None:
    await looks.kept.get()
    looks.now += 6
    assert await looks.kept.get() == (1, 6)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await looks.kept.get() == (2, 0)


async def test_who_asks_after_long_waits(looks: Looks) -> None:
    await looks.kept.get()
    looks.now += 31
    assert await looks.kept.get() == (2, 0)


async def test_all_who_wait_wait_for_one_look(looks: Looks) -> None:
    looks.held.clear()
    asking = [asyncio.create_task(looks.kept.get()) for _ in range(20)]
    await asyncio.sleep(0)
    looks.held.set()
    assert {value for value, _ in await asyncio.gather(*asking)} == {1}


async def test_one_that_must_be_new_does_not_take_a_look_that_began_before(looks: Looks) -> None:
    looks.held.clear()
    earlier = asyncio.create_task(looks.kept.get())
    await asyncio.sleep(0)
    anew = asyncio.create_task(looks.kept.get(anew=True))
    await asyncio.sleep(0)
    looks.held.set()
    assert [(await one)[0] for one in (earlier, anew)] == [1, 2]


async def test_a_look_that_fails_is_told_to_who_waits_and_keeps_nothing(looks: Looks) -> None:
    looks.fails = True
    with pytest.raises(OSError, match="nothing to see"):
        await looks.kept.get()
    looks.fails = False
    assert await looks.kept.get() == (2, 0)


async def test_who_gives_up_takes_nobody_along(looks: Looks) -> None:
    looks.held.clear()
    one, other = (asyncio.create_task(looks.kept.get()) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    looks.held.set()
    assert (await other)[0] == 1
