"""`@cached`: what is read again and again is read once, by one, for those who may have it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from prefect import flow, task
from pydantic import BaseModel, Field, SecretStr

from parley import Aged, Sealed, automation, cached, step
from parley.errors import ConfigurationError
from parley.runs.context import entered
from tests.fakes._driver import eventually
from tests.runs.fake_hub import FakeHub, hub
from tests.runs.prefect_client import IN_PREFECT, prefect_api, run_deployed

__all__ = ["hub", "prefect_api"]


class Source:
    """Where data comes from: counts how often it is read, and can be made slow or broken."""

    def __init__(self) -> None:
        self.reads: list[Any] = []
        self.open = threading.Event()
        self.open.set()
        self.error: Exception | None = None

    def read(self, what: Any) -> str:
        self.reads.append(what)
        assert self.open.wait(30)
        if self.error:
            raise self.error
        return f"{what} {len(self.reads)}"

    async def aread(self, what: Any) -> str:
        self.reads.append(what)
        while not self.open.is_set():  # noqa: ASYNC110 - set for all threads and loops
            await asyncio.sleep(0.005)
        if self.error:
            raise self.error
        return f"{what} {len(self.reads)}"


SOURCE = Source()


@pytest.fixture(autouse=True)
def source() -> Iterator[Source]:
    SOURCE.__init__()  # type: ignore[misc]
    yield SOURCE
    SOURCE.open.set()
    for function in (stock, astock, shared_stock):
        function.forget_all()


@cached(max_age=60)
def stock(article: str, *, house: int = 1) -> str:
    return SOURCE.read((article, house))


@cached(max_age=60, most=2)
async def astock(article: str, house: int = 1) -> str:
    """How many there are."""
    return await SOURCE.aread((article, house))


@cached(max_age=60, shared=True)
async def shared_stock(article: str) -> str:
    return await SOURCE.aread(article)


# --- keys, ages, forgetting ------------------------------------------------------------------------------------------


def test_it_is_read_once_however_it_is_asked_for(source: Source) -> None:
    assert stock("a") == stock(article="a") == stock("a", house=1) == "('a', 1) 1"
    assert stock("a", house=2) == "('a', 2) 2"
    assert len(source.reads) == 2


async def test_an_async_function_stays_one(source: Source) -> None:
    assert asyncio.iscoroutinefunction(astock)
    assert (astock.__name__, astock.__doc__) == ("astock", "How many there are.")  # type: ignore[attr-defined]
    assert await astock("a") == await astock("a", 1) == await astock("a", house=1)
    assert len(source.reads) == 1


def test_values_that_only_look_alike_are_others() -> None:
    @cached(max_age=60)
    def kind(value: object) -> str:
        return type(value).__name__

    assert [kind(1), kind(1.0), kind(True), kind("1")] == ["int", "float", "bool", "str"]


async def test_the_age_is_told(source: Source) -> None:
    before = time.monotonic()
    assert astock.age("a") is None
    first = await astock.with_age("a")
    await asyncio.sleep(0.05)
    again = await astock.with_age("a")
    assert isinstance(again, Aged)
    assert again.value == first.value == "('a', 1) 1"
    assert first.age <= 0.05 <= again.age <= time.monotonic() - before
    told = astock.age("a")
    assert told is not None
    assert again.age <= told
    assert "('a', 1)" not in repr(again)
    assert stock.with_age("a").age < 1


async def test_it_counts_from_when_reading_began(source: Source) -> None:
    @cached(max_age=60)
    async def slow() -> int:
        await asyncio.sleep(0.05)
        return 1

    assert (await slow.with_age()).age >= 0.05


def test_it_is_read_again_when_it_is_too_old(source: Source) -> None:
    @cached(max_age=0.05)
    def short(article: str) -> str:
        return source.read(article)

    assert short("a") == short("a") == "a 1"
    time.sleep(0.06)
    assert short.age("a") is None
    assert short("a") == "a 2"


async def test_only_so_many_are_kept(source: Source) -> None:
    for article in "abac":
        await astock(article)
    assert [astock.age(article) is None for article in "abc"] == [False, True, False]


async def test_what_is_forgotten_is_read_again(source: Source) -> None:
    for article in "ab":
        await astock(article)
    astock.forget("a", house=1)
    assert (await astock("a"), await astock("b")) == ("('a', 1) 3", "('b', 1) 2")
    astock.forget_all()
    assert astock.age("a") is None


def test_none_is_a_value(source: Source) -> None:
    @cached(max_age=60)
    def nothing() -> None:
        source.reads.append(1)

    nothing()
    nothing()
    assert len(source.reads) == 1


# --- one computation -------------------------------------------------------------------------------------------------


def test_threads_wait_for_the_one_who_reads(source: Source) -> None:
    source.open.clear()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(stock, "a") for _ in range(8)]
        time.sleep(0.05)
        assert len(source.reads) == 1
        source.open.set()
        assert {one.result(10) for one in asked} == {"('a', 1) 1"}


async def test_tasks_wait_for_the_one_who_reads_and_others_are_not_held_up(source: Source) -> None:
    source.open.clear()
    asked = [asyncio.create_task(astock("a")) for _ in range(20)]
    await eventually(lambda: source.reads, "the first")
    another = asyncio.create_task(astock("b"))
    await eventually(lambda: len(source.reads) == 2, "another article")
    source.open.set()
    assert set(await asyncio.gather(*asked)) == {"('a', 1) 2"}
    await another
    assert len(source.reads) == 2


def test_event_loops_of_several_threads_wait_for_one_another(source: Source) -> None:
    source.open.clear()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(asyncio.run, astock("a")) for _ in range(4)]
        time.sleep(0.1)
        source.open.set()
        assert {one.result(10) for one in asked} == {"('a', 1) 1"}
    assert len(source.reads) == 1


async def test_an_error_is_given_to_all_who_wait_and_not_kept(source: Source) -> None:
    source.open.clear()
    source.error = ConnectionError("away")
    asked = [asyncio.create_task(astock("a")) for _ in range(3)]
    await eventually(lambda: source.reads, "the first")
    source.open.set()
    assert [type(one) for one in await asyncio.gather(*asked, return_exceptions=True)] == [
        ConnectionError
    ] * 3
    assert len(source.reads) == 1
    source.error = None
    assert await astock("a") == "('a', 1) 2"


def test_an_error_in_a_thread_is_not_kept(source: Source) -> None:
    source.error = ConnectionError("away")
    for _ in range(2):
        with pytest.raises(ConnectionError):
            stock("a")
    assert len(source.reads) == 2


async def test_when_the_one_who_reads_is_cancelled_another_reads(source: Source) -> None:
    source.open.clear()
    first = asyncio.create_task(astock("a"))
    await eventually(lambda: source.reads, "the first")
    others = [asyncio.create_task(astock("a")) for _ in range(3)]
    await asyncio.sleep(0.02)
    first.cancel()
    await eventually(lambda: len(source.reads) == 2, "one of the others")
    source.open.set()
    assert set(await asyncio.gather(*others)) == {"('a', 1) 2"}
    assert first.cancelled()
    assert len(source.reads) == 2


async def test_one_who_waits_and_gives_up_cancels_nobody_else(source: Source) -> None:
    source.open.clear()
    first, second, third = (asyncio.create_task(astock("a")) for _ in range(3))
    await eventually(lambda: source.reads, "the first")
    second.cancel()
    await asyncio.sleep(0.02)
    source.open.set()
    assert await first == await third == "('a', 1) 1"
    assert second.cancelled()


async def test_what_is_forgotten_while_it_is_read_is_not_kept(source: Source) -> None:
    source.open.clear()
    first = asyncio.create_task(astock("a"))
    await eventually(lambda: source.reads, "the first")
    astock.forget("a")
    second = asyncio.create_task(astock("a"))
    await eventually(lambda: len(source.reads) == 2, "one who asks after that")
    source.open.set()
    await asyncio.gather(first, second)
    assert len(source.reads) == 2
    assert astock.age("a") is not None


async def test_a_function_that_needs_itself_is_told_so() -> None:
    @cached(max_age=60)
    async def circle(number: int) -> int:
        return await circle(number)

    @cached(max_age=60)
    def round_trip(number: int) -> int:
        return round_trip(number)

    @cached(max_age=60)
    def sum_to(number: int) -> int:
        return number + sum_to(number - 1) if number else 0

    with pytest.raises(RuntimeError, match="needs its own value"):
        await asyncio.wait_for(circle(1), 10)
    with pytest.raises(RuntimeError, match="needs its own value"):
        round_trip(1)
    assert sum_to(10) == 55


# --- what cannot be kept ---------------------------------------------------------------------------------------------


class Login(BaseModel):
    name: str
    password: SecretStr = SecretStr("")


@dataclass(frozen=True)
class Held:
    login: Login


@pytest.mark.parametrize(
    ("argument", "name"), [({"a": 1}, "dict"), ([1], "list"), (Login(name="x"), "Login"), (([],), "tuple")]
)
def test_an_argument_that_is_no_key_is_named_and_not_shown(argument: Any, name: str) -> None:
    @cached(max_age=60)
    def read(what: Any, **more: Any) -> int:
        return 1

    if name != "Login":
        with pytest.raises(TypeError, match=rf"'what' \({name}\) cannot be a key"):
            read(argument)
        with pytest.raises(TypeError, match="'more'"):
            read(1, other=argument)
    else:
        assert read(argument) == 1  # holds a secret: nothing is kept, so that it needs to be no key


def test_arguments_that_do_not_fit_are_refused_as_ever() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'article'"):
        stock()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "secret",
    [SecretStr("s3cret"), (1, SecretStr("s3cret")), Held(Login(name="a", password=SecretStr("s3cret")))],
    ids=["plain", "in a tuple", "in a model in a dataclass"],
)
def test_a_secret_is_neither_a_key_nor_kept(secret: Any, caplog: pytest.LogCaptureFixture) -> None:
    count = 0

    @cached(max_age=60)
    def takes(what: object) -> int:
        nonlocal count
        count += 1
        return count

    @cached(max_age=60)
    def gives() -> Any:
        nonlocal count
        count += 1
        return [{"of": secret}]

    assert (takes(secret), takes(secret)) == (1, 2)
    assert takes.age(secret) is None
    takes.forget(secret)
    gives()
    assert gives() == [{"of": secret}]
    assert count == 4
    assert gives.age() is None
    assert len([line for line in caplog.messages if "has a secret" in line]) == 2
    assert "s3cret" not in caplog.text


async def test_an_async_call_with_a_secret_is_computed_each_time() -> None:
    @cached(max_age=60)
    async def takes(token: SecretStr) -> str:
        return token.get_secret_value()

    assert (await takes.with_age(SecretStr("a"))).value == "a"
    assert takes.age(SecretStr("a")) is None


def test_what_holds_itself_is_looked_through() -> None:
    @cached(max_age=60)
    def ring() -> list[Any]:
        made: list[Any] = [1]
        made.append(made)
        return made

    assert ring() is ring()


def test_what_can_be_read_only_once_is_refused() -> None:
    @cached(max_age=60)
    def once() -> Any:
        return iter([1])

    @cached(max_age=60)
    def later() -> Any:
        return asyncio.sleep(0)

    with pytest.raises(TypeError, match="only once"):
        once()
    with pytest.raises(TypeError, match="async def"):
        later()


def test_where_it_cannot_stand() -> None:
    def generator() -> Iterator[int]:
        yield 1

    for wrong in (generator, step(lambda: 1), flow(lambda: 1), len):
        with pytest.raises(ConfigurationError):
            cached(max_age=1)(wrong)
    options: list[Callable[[], Any]] = [
        lambda: cached(max_age=0),
        lambda: cached(max_age=float("inf")),
        lambda: cached(max_age=float("nan")),
        lambda: cached(max_age=1, most=0),
    ]
    for wrong_option in options:
        with pytest.raises(ConfigurationError, match="@cached"):
            wrong_option()


# --- in runs ---------------------------------------------------------------------------------------------------------


@step(retries=2, back_off=(0.01,), jitter=0)
@cached(max_age=60)
async def of_a_person(article: str) -> str:
    return await SOURCE.aread(article)


@step
@cached(max_age=60, shared=True)
def of_all(article: str) -> str:
    return SOURCE.read(article)


@automation(command="reads")
@flow(name="cached-reads")
async def reads() -> str:
    return await of_a_person("a")


@automation(command="reads-too")
@flow(name="cached-reads-too")
async def reads_too() -> str:
    return await of_a_person("a")


@automation(command="reads-shared")
@flow(name="cached-reads-shared")
def reads_shared() -> str:
    return of_all("a")


@automation(command="many")
@flow(name="cached-many")
def many() -> str:
    return " ".join(sorted({one.result() for one in [of_all.submit("m") for _ in range(5)]}))


@task
@cached(max_age=60)
def login(key: str) -> str:
    SOURCE.reads.append("login")
    return "in"


@cached(max_age=60)
def echo(number: int) -> dict[str, str]:
    SOURCE.reads.append("echo")
    return {"key": CURRENT[-1]}


CURRENT: list[str] = []


@automation(command="seals")
@flow(name="cached-seals")
def seals(key: Annotated[Sealed[str], Field(description="Key.")] = "") -> str:
    CURRENT.append(key)
    login(key)
    login(key)
    echo(1)
    echo(1)
    return "in"


class TestInRuns:
    pytestmark = IN_PREFECT

    @pytest.fixture(autouse=True)
    def empty(self) -> None:
        for function in (of_a_person.fn, of_all.fn, login.fn, echo):
            getattr(function, "forget_all")()  # noqa: B009 - the type of a task's function does not tell

    async def test_a_person_is_given_nothing_that_was_read_for_another(self, hub: FakeHub) -> None:
        said = []
        for person, automated in (("ada", reads), ("ada", reads), ("bob", reads), ("ada", reads_too)):
            hub.started = hub.started.model_copy(
                update={"principal": person, "command": automated.name.removeprefix("cached-")}
            )
            said.append(await (await run_deployed(automated)).aresult())
        assert said == ["a 1", "a 1", "a 2", "a 3"]

    async def test_what_is_shared_is_read_once_for_everybody(self, hub: FakeHub) -> None:
        said = []
        for person in ("ada", "bob"):
            hub.started = hub.started.model_copy(update={"principal": person})
            said.append(await (await run_deployed(reads_shared)).aresult())
        assert said == ["a 1", "a 1"]

    async def test_tasks_in_threads_read_once(self, hub: FakeHub, source: Source) -> None:
        assert await (await run_deployed(many)).aresult() == "m 1"
        assert source.reads == ["m"]

    async def test_a_step_tries_again_and_what_it_gets_then_is_kept(
        self, prefect_api: object, source: Source
    ) -> None:
        attempts = 0

        @step(retries=2, back_off=(0.01,), jitter=0)
        @cached(max_age=60)
        async def shaky() -> str:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                raise ConnectionError("away")
            return "here"

        @flow(name="cached-shaky")
        async def twice() -> tuple[str, str]:
            return await shaky(), await shaky()

        assert await twice() == ("here", "here")
        assert attempts == 2

    async def test_a_sealed_parameter_is_neither_a_key_nor_kept(self, hub: FakeHub, source: Source) -> None:
        hub.started = hub.started.model_copy(update={"sealed": {"key": "s3cret"}})
        await run_deployed(seals, key="sealed:key")
        assert source.reads == ["login", "login", "echo", "echo"]


def test_nothing_is_kept_in_a_thread_that_cannot_tell_whose_run_it_is() -> None:
    source, run = Source(), object()

    @cached(max_age=60, shared=True)
    def read(what: str) -> str:
        return source.read(what)

    with ThreadPoolExecutor(1) as bare:
        with entered(run):  # type: ignore[arg-type] # whose it is is all that counts
            assert [bare.submit(read, "a").result() for _ in range(2)] == ["a 1", "a 2"]
        assert [bare.submit(read, "a").result() for _ in range(2)] == ["a 3", "a 3"], (
            "outside of runs as ever"
        )
