"""What our launcher takes out of Prefect's server changes nothing of what it lets in, refuses, answers and stores."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
from fastapi import Depends, FastAPI
from prefect.server.api import dependencies, server
from prefect.server.api.middleware import CsrfMiddleware
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.settings import (
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_CSRF_PROTECTION_ENABLED,
    temporary_settings,
)
from prefect.utilities.schema_tools import validation
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from deployments import lean_http, lean_server
from parley.runs import patches
from tests.prefect_fixture import PrefectServer

pytestmark = pytest.mark.prefect


@pytest.fixture
def lean() -> None:
    lean_server.install()


@pytest.fixture(autouse=True)
def _plain_afterwards() -> Iterator[None]:
    yield
    patches.uninstall([*lean_server.PATCHES, *lean_http.PATCHES])


# Fails when Prefect changed underneath: read its new source, mend ours, add the digest


@pytest.mark.parametrize("patch", [*lean_server.PATCHES, *lean_http.PATCHES], ids=lambda patch: patch.name)
def test_patch_was_written_against_the_installed_prefect(patch: patches.Patch) -> None:
    assert patch.fits(), f"{patch.target} is now {patches.source_digest(patch.present)}"


def test_every_middleware_of_prefects_is_one_that_is_known() -> None:
    with temporary_settings(
        {PREFECT_SERVER_API_AUTH_STRING: "user:word", PREFECT_SERVER_CSRF_PROTECTION_ENABLED: True}
    ):
        app = server.create_app(final=False, ignore_cache=True)

    assert lean_http.make_lean(app) == []
    classes: list[Any] = [middleware.cls for middleware in app.user_middleware]
    assert lean_http.CsrfGuard in classes
    assert CsrfMiddleware not in classes


# JSON schemas


def test_a_bad_schema_is_refused_each_time(lean: None) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="Invalid schema"):
            validation.is_valid_schema({"type": "no such type"}, preprocess=False)


def test_a_good_schema_is_checked_once_for_each_way_of_checking() -> None:
    checked: list[Any] = []
    check = lean_server.PATCHES[0].replace(lambda schema, **options: checked.append((schema, options)))
    for _ in range(3):
        check({"type": "object", "title": "a"})
        check({"title": "a", "type": "object"}, format_checker="strict")

    assert checked == [
        ({"type": "object", "title": "a"}, {}),
        ({"type": "object", "title": "a"}, {"format_checker": "strict"}),
    ]


def test_what_was_checked_still_validates(lean: None) -> None:
    schema: Any = {"type": "object", "properties": {"n": {"type": "integer"}}, "title": str(uuid4())}
    for _ in range(2):
        with pytest.raises(validation.ValidationError, match="'n'"):
            validation.validate({"n": "seven"}, schema, raise_on_error=True, preprocess=False)


def test_a_schema_that_changed_is_checked_anew(lean: None) -> None:
    schema: Any = {"type": "object", "title": str(uuid4())}
    validation.is_valid_schema(schema, preprocess=False)
    schema["type"] = "nothing"
    with pytest.raises(ValueError, match="Invalid schema"):
        validation.is_valid_schema(schema, preprocess=False)


# Events


def event(**values: Any) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "event": "test.happened",
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": "test.thing", "name": "a thing"},
        "related": [{"prefect.resource.id": "test.other", "prefect.resource.role": "friend"}],
        "payload": {"n": 7},
    } | values


def test_readers_of_an_event_share_it(lean: None) -> None:
    data = json.dumps(event()).encode()
    assert ReceivedEvent.model_validate_json(data) is ReceivedEvent.model_validate_json(data)
    assert ReceivedEvent.model_validate_json(data.decode()).payload == {"n": 7}


def test_what_is_no_event_is_refused_each_time(lean: None) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="resource"):
            ReceivedEvent.model_validate_json(b'{"event": "x"}')


def test_events_are_stored_whole_and_once(prefect_server: PrefectServer) -> None:
    """In one go, one of them twice, and once more in a later batch."""
    kind = f"test.{uuid4().hex}"
    sent = [event(event=kind, payload={"n": number}) for number in range(40)]
    with prefect_server.client() as client:
        client.post("/events", json=[*sent, sent[0]]).raise_for_status()
        stored = _stored(client, kind, 40)
        client.post("/events", json=[sent[1], event(event=kind)]).raise_for_status()
        again = _stored(client, kind, 41)

    assert {one["id"] for one in stored} == {one["id"] for one in sent}
    assert len(again) == 41
    assert sorted(one["payload"]["n"] for one in stored) == list(range(40))
    assert stored[0]["resource"] == sent[0]["resource"]
    assert stored[0]["related"] == sent[0]["related"]


def _stored(client: httpx.Client, kind: str, count: int) -> list[dict[str, Any]]:
    """All events of this kind, found by the resources of theirs too, once there are so many."""
    wanted = {"event": {"name": [kind]}, "any_resource": {"id": ["test.other"]}}
    deadline = time.monotonic() + 20
    while True:
        found = client.post("/events/filter", json={"filter": wanted, "limit": 50}).raise_for_status().json()
        if found["total"] >= count or time.monotonic() > deadline:
            return list(found["events"])
        time.sleep(0.2)


# Requests


def test_a_token_counts_for_its_client_and_until_the_next(prefect_server: PrefectServer) -> None:
    with prefect_server.client() as client:

        def change(token: str, name: str) -> httpx.Response:
            headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": name}
            return client.post("/flows/", json={"name": "csrf"}, headers=headers)

        def fetched(name: str) -> str:
            return str(client.get("/csrf-token", params={"client": name}).json()["token"])

        first, other = fetched("one"), fetched("other")
        assert [change(first, "one").status_code for _ in range(2)] == [201, 200]
        assert change(first, "other").status_code == 403
        assert change(other, "one").status_code == 403
        assert change("", "one").status_code == 403
        refused = change(first, "nobody")
        assert (refused.status_code, refused.json()["detail"]) == (
            403,
            "Invalid CSRF token or client identifier.",
        )

        second = fetched("one")
        assert change(second, "one").status_code == 200
        assert change(first, "one").status_code == 403


def test_json_without_a_content_type_is_taken(prefect_server: PrefectServer) -> None:
    with prefect_server.client() as client:
        body = json.dumps({"name": "untyped"}).encode()
        assert client.post("/flows/", content=body).status_code == 201


async def test_dependencies_say_the_same_without_a_thread() -> None:
    app = FastAPI()

    @app.get("/")
    async def answer(
        client: Annotated[Any, Depends(dependencies.get_prefect_client_version)],
        version: Annotated[Any, Depends(dependencies.provide_request_api_version)],
    ) -> list[str]:
        return [client, str(version)]

    async def asked(version: str) -> Any:
        headers = {"user-agent": "prefect/3.8.8 (API 0.8.4)", "x-prefect-api-version": version}
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.get("/", headers=headers)).json()

    before = [await asked("0.8.4"), await asked("new")]
    threads = threading.active_count()
    patches.install(lean_http.PATCHES)
    assert before[0] == ["3.8.8", "0.8.4"]
    assert [await asked("0.8.4"), await asked("new")] == before
    assert threading.active_count() <= threads


async def test_a_function_that_refuses_answers_and_one_that_lets_through_changes_the_request() -> None:
    async def dispatch(request: Request, call_next: Any) -> Response:
        if request.headers.get("secret") != "word":
            return PlainTextResponse("no", 401)
        request.scope["headers"] = [*request.scope["headers"], (b"seen", b"yes")]
        return await call_next(request)  # type: ignore[no-any-return]

    app = FastAPI()
    app.add_middleware(lean_http.DecidingFirst, dispatch=dispatch)

    @app.post("/")
    async def answer(request: Request) -> dict[str, Any]:
        return {"seen": request.headers.get("seen"), "body": await request.json()}

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post("/", json=[1])).status_code == 401
        let_in = await client.post("/", json=[1], headers={"secret": "word"})
    assert let_in.json() == {"seen": "yes", "body": [1]}


def test_an_unknown_middleware_stays_and_is_told() -> None:
    async def after(request: Request, call_next: Any) -> Response:
        answer: Response = await call_next(request)
        answer.headers["late"] = "yes"
        return answer

    app, api = FastAPI(), FastAPI()
    app.mount("/api", api)
    api.add_middleware(BaseHTTPMiddleware, dispatch=after)

    assert lean_http.make_lean(app) == ["after"]
    classes: list[Any] = [middleware.cls for middleware in api.user_middleware]
    assert classes == [BaseHTTPMiddleware]
