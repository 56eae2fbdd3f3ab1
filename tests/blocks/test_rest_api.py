"""A company's API, called over a real connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel, SecretStr, ValidationError

from blocks._base import SEALED_PREFIX
from blocks._rest_client import LostAnswer, NotFound, RestClient, validated
from blocks.rest_api import RestApi
from parley.errors import AuthError, BadArguments, ConfigurationError, RateLimited, Rejected, Unreachable
from parley.runs.step import may_pass
from tests.fakes._driver import eventually
from tests.prefect_fixture import free_port
from tests.runs.prefect_client import IN_PREFECT, prefect_api

__all__ = ["prefect_api"]

TOKEN = "t0p-s3cret-token"


class Order(BaseModel):
    number: int
    state: str


@dataclass
class Company:
    """A server that answers what the test says, and keeps what it was asked."""

    port: int = field(default_factory=free_port)
    asked: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    peers: set[Any] = field(default_factory=set)
    answer: Callable[[], web.StreamResponse] = lambda: web.json_response({"number": 1024, "state": "shipped"})
    hang_up: bool = False

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.bodies.append(await request.read())
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        if self.hang_up:
            request.transport.close()
        return self.answer()


@pytest.fixture
async def company() -> AsyncIterator[Company]:
    here, app = Company(), web.Application()
    app.router.add_route("*", "/{path:.*}", here.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", here.port).start()
    yield here
    await runner.cleanup()


@pytest.fixture
async def client(company: Company) -> AsyncIterator[RestClient]:
    made = block(company).client()
    yield made
    await made.aclose()


def block(company: Company, **changed: Any) -> RestApi:
    fields = {
        "base_url": f"http://127.0.0.1:{company.port}/v1",
        "token": SecretStr(TOKEN),
        "private_networks": ("127.0.0.0/8",),
        "answer_seconds": 1.0,
    }
    return RestApi(**(fields | changed))


async def test_a_call_is_json_with_the_token_on_one_connection(company: Company, client: RestClient) -> None:
    for number in (1, 2, 3):
        found = await client.call("get", "/orders/{number}", values={"number": number}, query={"full": True})
    assert validated(found, Order) == Order(number=1024, state="shipped")
    request = company.asked[-1]
    assert (request.method, request.raw_path) == ("GET", "/v1/orders/3?full=true")
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert len(company.peers) == 1


async def test_a_body_goes_as_json_with_its_idempotency_key(company: Company, client: RestClient) -> None:
    await client.call("POST", "/orders", body=Order(number=1, state="新"), idempotency_key="k-1")
    assert Order.model_validate_json(company.bodies[0]) == Order(number=1, state="新")
    assert company.asked[0].headers["idempotency-key"] == "k-1"


@pytest.mark.parametrize(
    "value", ["../admin", "a/b", "a?b=c", "a#b", "%2e%2e", "@evil", "//evil.example", "a b"]
)
async def test_a_value_cannot_leave_its_place_in_the_path(
    company: Company, client: RestClient, value: str
) -> None:
    await client.call("GET", "/orders/{id}/legs", values={"id": value})
    path = company.asked[0].raw_path
    assert path.startswith("/v1/orders/")
    assert path.endswith("/legs")
    assert company.asked[0].match_info["path"] == f"v1/orders/{value}/legs"
    assert path.count("/") == 4


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/a/{x}", {}), ("/a", {"x": 1}), ("/a/{x}", {"x": ".."}), ("/a/{x}", {"x": ""}), ("//evil/a", {}),
        ("http://evil/a", {}), ("/a?x=1", {}), ("/a#b", {}), ("\\\\evil", {}),
    ],
)  # fmt: skip
async def test_a_path_that_is_none_is_refused_unsent(
    company: Company, client: RestClient, path: str, values: dict[str, Any]
) -> None:
    with pytest.raises(BadArguments):
        await client.call("GET", path, values=values)
    assert company.asked == []


@pytest.mark.parametrize(
    ("status", "method", "kind", "again"),
    [
        (401, "GET", AuthError, False),
        (403, "GET", AuthError, False),
        (404, "GET", NotFound, False),
        (409, "PUT", Rejected, False),
        (302, "GET", Rejected, False),
        (500, "GET", Rejected, False),
        (429, "POST", RateLimited, True),
        (503, "GET", RateLimited, True),
        (503, "POST", LostAnswer, False),
        (502, "GET", LostAnswer, True),
        (504, "POST", LostAnswer, False),
    ],
)
async def test_each_refusal_says_what_is_known_and_whether_to_try_again(
    company: Company, client: RestClient, status: int, method: str, kind: type[Exception], *, again: bool
) -> None:
    company.answer = lambda: web.Response(
        status=status, text="secret inner workings", headers={"retry-after": "7"}
    )
    with pytest.raises(kind) as refused:
        await client.call(method, "/orders")
    assert type(refused.value) is kind
    assert may_pass(refused.value) is again
    assert str(status) in str(refused.value)
    assert "inner workings" not in str(refused.value)
    assert getattr(refused.value, "retry_after", 7.0) == 7.0


async def test_the_title_of_a_problem_is_told(company: Company, client: RestClient) -> None:
    company.answer = lambda: web.json_response(
        {"title": "Order is closed", "detail": "..."}, status=409, content_type="application/problem+json"
    )
    with pytest.raises(Rejected, match=r"\(409: Order is closed\)"):
        await client.call("POST", "/orders")


@pytest.mark.parametrize(
    ("method", "key", "again"), [("GET", "", True), ("POST", "", False), ("POST", "k", True)]
)
async def test_a_lost_answer_is_repeated_only_where_that_does_nothing_twice(
    company: Company, client: RestClient, method: str, key: str, *, again: bool
) -> None:
    company.hang_up = True
    with pytest.raises(LostAnswer) as lost:
        await client.call(method, "/orders", idempotency_key=key)
    assert may_pass(lost.value) is again


async def test_what_never_left_may_always_be_tried_again(company: Company) -> None:
    nobody = block(company, base_url=f"http://127.0.0.1:{free_port()}").client()
    with pytest.raises(Unreachable) as gone:
        await nobody.call("POST", "/orders")
    assert may_pass(gone.value)
    await nobody.aclose()


async def test_a_silent_api_is_waited_for_no_longer_than_allowed(company: Company) -> None:
    silent = asyncio.Event()

    async def wait(_request: web.Request) -> web.StreamResponse:
        await silent.wait()
        return web.Response()

    app, port = web.Application(), free_port()
    app.router.add_get("/{path:.*}", wait)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    slow = block(company, base_url=f"http://127.0.0.1:{port}", answer_seconds=0.2).client()
    with pytest.raises(LostAnswer, match="ReadTimeout"):
        await slow.call("GET", "/orders")
    silent.set()
    await slow.aclose()
    await runner.cleanup()


async def test_an_answer_that_is_too_long_or_no_json_is_refused(company: Company) -> None:
    small = block(company, most_megabytes=0.001).client()
    company.answer = lambda: web.Response(text="[" + "1," * 5000 + "1]")
    with pytest.raises(Rejected, match="longer"):
        await small.call("GET", "/orders")
    for text in ("<html>", "[" * 500):
        company.answer = lambda text=text: web.Response(text=text)  # type: ignore[misc]
        with pytest.raises(Rejected, match="not JSON"):
            await small.call("GET", "/orders")
    company.answer = lambda: web.Response(status=204)
    assert await small.call("DELETE", "/orders") is None
    await small.aclose()


async def test_an_answer_that_does_not_unpack_is_a_lost_one(company: Company, client: RestClient) -> None:
    company.answer = lambda: web.Response(body=b"no gzip", headers={"content-encoding": "gzip"})
    with pytest.raises(LostAnswer) as lost:
        await client.call("POST", "/orders", body={})
    assert not lost.value.retryable


def test_an_answer_of_another_shape_names_the_field_and_not_its_value() -> None:
    with pytest.raises(Rejected, match="number") as refused:
        validated({"number": "confidential", "state": "x"}, Order)
    assert "confidential" not in str(refused.value)
    assert validated([{"number": 1, "state": "x"}], list[Order]) == [Order(number=1, state="x")]


async def test_a_private_network_that_is_not_named_is_never_called(company: Company) -> None:
    outside = block(company, private_networks=()).client()
    with pytest.raises(Rejected, match="must not be called"):
        await outside.call("GET", "/orders")
    assert company.asked == []
    await outside.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "http://erp.example.org",
        "https://u:p@erp.example.org",
        "https://erp.example.org?a=b",
        "ftp://x",
        "erp",
    ],
)
def test_an_address_over_which_a_token_could_leak_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        RestApi(base_url=url)


def test_the_token_never_shows_and_a_sealed_one_is_not_used(company: Company) -> None:
    here = block(company)
    assert TOKEN not in repr(here) + str(here) + repr(here.client()) + repr(vars(here.client()))
    with pytest.raises(ConfigurationError, match="sealed"):
        block(company, token=SecretStr(SEALED_PREFIX + "abc")).client()


async def test_networks_are_given_as_a_list_or_a_line() -> None:
    given = RestApi(base_url="https://erp.example.org", private_networks="10.0.0.0/8, 192.168.0.0/16")
    assert len(given.private_networks) == 2
    with pytest.raises(ValidationError):
        RestApi(base_url="https://erp.example.org", private_networks=("ten",))


# --- a Block that changes --------------------------------------------------------------------------------------------


@dataclass
class Gate:
    """Holds answers back until it is opened."""

    waiting: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> web.StreamResponse:
        self.waiting += 1
        await self.opened.wait()
        return web.json_response({"number": 1, "state": "late"})


@asynccontextmanager
async def serving(gate: Gate) -> AsyncIterator[tuple[int, list[asyncio.BaseTransport]]]:
    """A server whose answers the gate holds back: its port, and the connections to it."""
    open_now: list[asyncio.BaseTransport] = []

    async def take(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        if request.transport not in open_now:
            open_now.append(request.transport)
        return await gate()

    app, port = web.Application(), free_port()
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield port, open_now
    finally:
        await runner.cleanup()


def all_closed(connections: list[asyncio.BaseTransport]) -> bool:
    return all(one.is_closing() for one in connections)


async def test_a_client_that_is_retired_ends_what_is_under_way_and_then_closes(company: Company) -> None:
    gate = Gate()
    async with serving(gate) as (port, connections):
        old = block(company, base_url=f"http://127.0.0.1:{port}", answer_seconds=30.0).client()
        calls = [asyncio.create_task(old.call("GET", "/orders")) for _ in range(3)]
        await eventually(lambda: gate.waiting == 3, "they are under way")
        await old.retire()
        assert not any(one.is_closing() for one in connections)
        gate.opened.set()
        assert [answer["state"] for answer in await asyncio.gather(*calls)] == ["late"] * 3
        await eventually(lambda: all_closed(connections), "its connections are closed")
        assert (await old.call("GET", "/orders"))["state"] == "late"  # who still has it is served
        assert len(connections) == 4
        await eventually(lambda: all_closed(connections), "and that connection is not kept")


async def test_a_retired_client_whose_last_call_is_cancelled_closes(company: Company) -> None:
    gate = Gate()
    async with serving(gate) as (port, connections):
        old = block(company, base_url=f"http://127.0.0.1:{port}", answer_seconds=30.0).client()
        call = asyncio.create_task(old.call("GET", "/orders"))
        await eventually(lambda: gate.waiting, "it is under way")
        await old.retire()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await eventually(lambda: all_closed(connections), "its connection is closed")
        gate.opened.set()


class TestInPrefect:
    pytestmark = IN_PREFECT

    async def test_a_block_that_changed_is_taken_up_and_the_old_connections_are_closed(
        self, prefect_api: object, company: Company, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("blocks.rest_api.KEPT_SECONDS", 0.0)
        gate = Gate()
        async with serving(gate) as (port, connections):
            name = f"erp-{port}"
            before = block(
                company, base_url=f"http://127.0.0.1:{port}", token=SecretStr(""), answer_seconds=30
            )
            await before.save(name)
            old = await RestApi.open(name)
            assert await RestApi.open(name) is old
            call = asyncio.create_task(old.call("GET", "/orders"))
            await eventually(lambda: gate.waiting, "it is under way")
            await block(company, token=SecretStr("")).save(name, overwrite=True)
            several = await asyncio.gather(*(RestApi.open(name) for _ in range(4)))
            assert len({id(one) for one in several}) == 1  # many who find the change at once make one
            new = several[0]
            assert new is not old
            assert (await new.call("GET", "/orders"))["state"] == "shipped"
            assert not all_closed(connections)
            gate.opened.set()
            assert (await call)["state"] == "late"
            await eventually(lambda: all_closed(connections), "the old connections are closed")
            used = new._http
            await RestApi.adelete(name)
            with pytest.raises(ConfigurationError, match="there is no Block"):
                await RestApi.open(name)
            assert used.is_closed
