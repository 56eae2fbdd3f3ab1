"""Events over the REST API: what it takes and answers, over a fake hub."""

from __future__ import annotations

import httpx
import pytest

from tests.web.fake_front import FakeFront

E = "/api/v1/events"


async def test_an_event_is_published_once(ada: httpx.AsyncClient, front: FakeFront) -> None:
    event = {"topic": "shop.late", "title": "Late", "data": {"order": 7}}
    for _ in range(2):
        answer = await ada.post(E, json=event, headers={"idempotency-key": "k1"})
        assert answer.status_code == 204
        assert answer.content == b""
    assert [one.data for one in front.published.values()] == [{"order": 7}]


@pytest.mark.parametrize(
    "event",
    [{}, {"topic": 7}, {"topic": "a", "severity": "loud"}, {"topic": "a", "data": {"x": "y" * 70_000}}, []],
)
async def test_what_is_no_event_is_refused(ada: httpx.AsyncClient, front: FakeFront, event: object) -> None:
    answer = await ada.post(E, json=event)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert not front.published


async def test_events_are_read_from_a_place_on(ada: httpx.AsyncClient) -> None:
    for n in range(3):
        await ada.post(E, json={"topic": "shop.late", "title": str(n)})
    page = (await ada.get(E, params={"topic": ["shop.#"], "after": 1, "limit": 1})).json()
    assert [one["title"] for one in page["items"]] == ["1"]
    assert (page["after"], page["lost"]) == (2, False)
    assert (await ada.get(E, params={"topic": "shop.#"})).json() == {"items": [], "after": 3, "lost": False}


@pytest.mark.parametrize("query", [{}, {"topic": "a", "after": -1}, {"topic": "a", "limit": 1000}])
async def test_what_cannot_be_asked_is_refused(ada: httpx.AsyncClient, query: dict[str, str | int]) -> None:
    assert (await ada.get(E, params=query)).status_code == 422


async def test_others_may_not(web: httpx.AsyncClient) -> None:
    web.headers["authorization"] = "Bearer token-ben"
    assert (await web.post(E, json={"topic": "shop.late"})).status_code == 403
    assert (await web.get(E, params={"topic": "#"})).status_code == 403
    del web.headers["authorization"]
    assert (await web.get(E, params={"topic": "#"})).status_code == 401


async def test_the_openapi_shows_them(ada: httpx.AsyncClient) -> None:
    document = (await ada.get("/api/v1/openapi.json")).json()
    assert {"get", "post"} <= set(document["paths"][E])
    assert "NewEvent" in document["components"]["schemas"]
