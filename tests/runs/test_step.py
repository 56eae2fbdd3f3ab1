"""`@step`: which errors are tried again, how often, and when the alternative has its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import sqlalchemy.exc
from prefect import Task, flow

from parley import automation, step
from parley.errors import BadArguments, StoreUnavailable, Unknown, Unreachable
from parley.runs.step import BACK_OFF, RETRIES, may_pass
from tests.runs.fake_hub import FakeHub, hub
from tests.runs.prefect_client import IN_PREFECT, prefect_api, run_deployed

__all__ = ["hub", "prefect_api"]

FAST = {"back_off": (0.01, 0.01, 0.01), "jitter": 0.0}

REQUEST = httpx.Request("GET", "http://example.test")


def answered(status: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(status, request=REQUEST))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (Unreachable("x"), True),
        (StoreUnavailable("x"), True),
        (Unknown("x"), False),
        (BadArguments("x"), False),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(28, "No space left on device"), True),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (httpx.ConnectError("x"), True),
        (httpx.ReadTimeout("x"), True),
        (answered(429), True),
        (answered(503), True),
        (answered(404), False),
        (answered(500), False),
        (sqlalchemy.exc.OperationalError("select", {}, Exception()), True),
        (sqlalchemy.exc.IntegrityError("insert", {}, Exception()), False),
        (ValueError(), False),
        (TypeError(), False),
        (KeyError(), False),
        (RuntimeError(), False),
    ],
    ids=lambda value: f"{type(value).__name__}-{value}" if isinstance(value, Exception) else str(value),
)
def test_only_errors_that_may_pass_are_tried_again(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes


def test_a_lost_connection_to_postgres_may_pass() -> None:
    asyncpg = pytest.importorskip("asyncpg")
    assert may_pass(asyncpg.ConnectionDoesNotExistError())
    assert may_pass(asyncpg.CannotConnectNowError())
    assert not may_pass(asyncpg.UniqueViolationError())


def test_bare_and_with_arguments_it_is_a_task_with_three_retries() -> None:
    @step
    def bare() -> int:
        return 1

    @step(name="named")
    def named() -> int:
        return 1

    assert isinstance(bare, Task)
    assert isinstance(named, Task)
    assert named.name == "named"
    assert bare.retries == RETRIES == 3
    assert bare.retry_delay_seconds == list(BACK_OFF)
    assert bare.retry_jitter_factor


class Calls:
    """Counts, and fails the first times."""

    def __init__(self) -> None:
        self.count = 0
        self.spare = 0

    def once(self, error: Exception, fail: int) -> str:
        self.count += 1
        if self.count <= fail:
            raise error
        return f"attempt {self.count}"

    def instead(self, *args: Any) -> str:
        self.spare += 1
        return "spare"


CALLS = Calls()


@pytest.fixture
def calls() -> Calls:
    CALLS.__init__()  # type: ignore[misc]
    return CALLS


def make(kind: str, **options: Any) -> Callable[..., Any]:
    """A flow with one step that fails `fail` times with `error`."""
    if kind == "sync":

        @step(**{**FAST, **options})
        def work(error: Exception, fail: int) -> str:
            return CALLS.once(error, fail)

    else:

        @step(**{**FAST, **options})
        async def work(error: Exception, fail: int) -> str:
            return CALLS.once(error, fail)

    @flow(name=f"steps-{kind}")
    async def steps(error: Exception, fail: int) -> str:
        result = work(error, fail)
        return str(await result if asyncio.iscoroutine(result) else result)

    return steps


@pytest.mark.parametrize("kind", ["sync", "async"])
class TestInPrefect:
    pytestmark = IN_PREFECT

    async def test_it_succeeds_on_the_fourth_attempt(self, calls: Calls, kind: str) -> None:
        assert await make(kind)(ConnectionError("x"), 3) == "attempt 4"

    async def test_it_gives_up_after_four(self, calls: Calls, kind: str) -> None:
        with pytest.raises(ConnectionError):
            await make(kind)(ConnectionError("x"), 9)
        assert calls.count == 4

    async def test_an_error_that_stays_is_not_tried_again(self, calls: Calls, kind: str) -> None:
        with pytest.raises(ValueError, match="x"):
            await make(kind)(ValueError("x"), 9)
        assert calls.count == 1

    async def test_the_author_may_say_what_is_tried_again(self, calls: Calls, kind: str) -> None:
        assert await make(kind, retry_on=(ValueError,))(ValueError("x"), 1) == "attempt 2"

    async def test_the_author_may_judge_by_a_function(self, calls: Calls, kind: str) -> None:
        assert await make(kind, retry_on=lambda error: "x" in str(error))(KeyError("x"), 2) == "attempt 3"

    async def test_the_alternative_has_its_turn_once_after_the_retries(self, calls: Calls, kind: str) -> None:
        assert await make(kind, fallback=calls.instead)(ConnectionError("x"), 9) == "spare"
        assert (calls.count, calls.spare) == (4, 1)

    async def test_the_alternative_comes_at_once_for_an_error_that_stays(
        self, calls: Calls, kind: str
    ) -> None:
        assert await make(kind, fallback=calls.instead)(ValueError("x"), 9) == "spare"
        assert (calls.count, calls.spare) == (1, 1)

    async def test_an_alternative_that_fails_is_not_tried_again(self, calls: Calls, kind: str) -> None:
        def failing(*_args: Any) -> str:
            calls.spare += 1
            raise ConnectionError("spare is away too")

        with pytest.raises(ConnectionError, match="spare"):
            await make(kind, fallback=failing)(ValueError("x"), 9)
        assert (calls.count, calls.spare) == (1, 1)


def _spare() -> str:
    return "old stock"


@step(fallback=_spare, retries=0)
async def stock() -> str:
    raise ConnectionError("warehouse is away")


@step(retries=1, back_off=(0.01,), timeout=0.1, fallback=_spare)
async def hanging() -> str:
    await asyncio.sleep(30)
    return "never"


@automation(command="falls-back")
@flow(name="falls-back")
async def falls_back() -> str:
    return await stock()


@flow
async def hangs() -> str:
    return await hanging()


class TestAnswer:
    pytestmark = IN_PREFECT

    async def test_the_answer_says_that_an_alternative_was_used(self, hub: FakeHub) -> None:
        await run_deployed(falls_back)
        finish = hub.finish()
        assert finish.fell_back
        assert finish.reply is not None
        assert finish.reply.text.startswith("old stock")
        assert "stock" in finish.reply.text.partition("\n")[2]

    async def test_a_time_out_is_tried_again_and_then_has_its_alternative(self, prefect_api: object) -> None:
        assert await hangs() == "old stock"


async def test_without_prefect_the_function_has_its_alternative_too() -> None:
    assert await stock.fn() == "old stock"
