"""Dead letters over the REST API: what it takes and answers, over a fake hub."""

from __future__ import annotations

import httpx
import pytest

from parley.messages.model import now
from parley.web.front import DeadLetterView
from tests.web.fake_front import FakeFront

D = "/api/v1/dead-letters"


def put(front: FakeFront, name: str, kind: str = "run", *, doubtful: bool = False) -> None:
    """One that waits for a decision."""
    front.letters[name] = DeadLetterView(
        id=name,
        kind=kind,
        subject=f"{kind}:{name}",
        automation="repair",
        reason="gone",
        doubtful=doubtful,
        state="open",
        created_at=now(),
    )


async def test_they_are_listed_in_pages_newest_first(ada: httpx.AsyncClient, front: FakeFront) -> None:
    for n in range(5):
        put(front, f"l{n}", "run" if n else "delivery")
    page = (await ada.get(D, params={"limit": 3})).json()
    assert [one["id"] for one in page["items"]] == ["l4", "l3", "l2"]
    rest = (await ada.get(D, params={"limit": 3, "cursor": page["next"]})).json()
    assert [one["id"] for one in rest["items"]] == ["l1", "l0"]
    assert rest["next"] is None
    assert [one["id"] for one in (await ada.get(D, params={"kind": "delivery"})).json()["items"]] == ["l0"]


async def test_one_is_done_again_once(ada: httpx.AsyncClient, front: FakeFront) -> None:
    put(front, "l1")
    assert (await ada.get(f"{D}/l1")).json()["state"] == "open"
    done = await ada.post(f"{D}/l1/replay", json={})
    assert (done.status_code, done.json()["state"], done.json()["settled_by"]) == (200, "replayed", "ada")
    assert (await ada.post(f"{D}/l1/replay", json={})).status_code == 400
    assert (await ada.post(f"{D}/l1/discard")).status_code == 400


async def test_one_that_may_have_had_effects_wants_a_second_word(
    ada: httpx.AsyncClient, front: FakeFront
) -> None:
    put(front, "l1", doubtful=True)
    answer = await ada.post(f"{D}/l1/replay", json={})
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:parley:problem:needs-confirmation"
    assert front.letters["l1"].state == "open"
    assert (await ada.post(f"{D}/l1/replay", json={"confirm": True})).status_code == 200


async def test_one_is_let_be(ada: httpx.AsyncClient, front: FakeFront) -> None:
    put(front, "l1", doubtful=True)
    assert (await ada.post(f"{D}/l1/discard")).json()["state"] == "discarded"
    assert (await ada.get(D)).json()["items"] == []
    assert len((await ada.get(D, params={"settled": "true"})).json()["items"]) == 1


@pytest.mark.parametrize(("verb", "path"), [("get", "/l9"), ("post", "/l9/replay"), ("post", "/l9/discard")])
async def test_what_is_not_there(ada: httpx.AsyncClient, verb: str, path: str) -> None:
    answer = await ada.request(verb, D + path, json={} if verb == "post" else None)
    assert answer.status_code == 404


async def test_who_may(web: httpx.AsyncClient, front: FakeFront) -> None:
    put(front, "l1")
    calls = [("get", D), ("get", f"{D}/l1"), ("post", f"{D}/l1/replay"), ("post", f"{D}/l1/discard")]
    for token, codes in {
        "": [401, 401, 403, 403],  # a page of elsewhere is refused before anybody looks who asks
        "token-ben": [403] * 4,
        "token-cleo": [200, 200, 403, 403],
    }.items():
        headers = {"authorization": f"Bearer {token}"} if token else {}
        answers = [
            await web.request(verb, path, headers=headers, json={} if verb == "post" else None)
            for verb, path in calls
        ]
        assert [one.status_code for one in answers] == codes
    assert front.letters["l1"].state == "open"


@pytest.mark.parametrize("query", [{"kind": "else"}, {"limit": 0}, {"limit": 1000}])
async def test_what_cannot_be_asked_is_refused(ada: httpx.AsyncClient, query: dict[str, str | int]) -> None:
    assert (await ada.get(D, params=query)).status_code == 422
