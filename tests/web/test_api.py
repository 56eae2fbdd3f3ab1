"""The REST API over a fake hub: what it answers, and how it waits."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from parley.messages.model import Reply
from parley.settings import Settings
from parley.web.limits import Rate
from tests.web.conftest import transport_of
from tests.web.fake_front import FakeFront

M = "/api/v1/messages"


async def test_a_message_is_answered_within_the_wait(ada: httpx.AsyncClient) -> None:
    """200 with the final state, the replies, their files and the time that it took."""
    answer = await ada.post(M, params={"wait": 5}, json={"text": "/order 1024"})
    said = answer.json()
    assert answer.status_code == 200
    assert answer.headers["location"] == f"{M}/{said['id']}"
    assert (said["state"], said["final"], said["run_id"]) == ("done", True, f"run-{said['id']}")
    assert said["timings"] == {"total_ms": 184.2}
    (reply,) = said["replies"]
    assert (
        reply["text"]
        == "Order **1024** is on its way.\n\nplace     when\n--------  -----\nShenzhen  2 Nov\n上海      3 Nov"
    )
    assert reply["table"]["columns"] == ["place", "when"]
    assert reply["buttons"][0]["value"] == "watch 1024"
    (file,) = reply["files"]
    assert (file["name"], file["size"], file["media_type"]) == ("logistics-1024.csv", 31, "text/csv")
    assert said["flow_run_url"].endswith(f"/runs/flow-run/flow-{said['id']}")


async def test_the_wait_runs_out_with_the_present_state(ada: httpx.AsyncClient) -> None:
    answer = await ada.post(M, params={"wait": 0.05}, json={"text": "/slow"})
    assert (answer.status_code, answer.json()["state"], answer.json()["final"]) == (202, "running", False)


async def test_without_a_wait_the_message_is_only_stored(ada: httpx.AsyncClient) -> None:
    answer = await ada.post(M, json={"text": "/slow"})
    assert answer.status_code == 202


async def test_who_waits_hears_at_once(ada: httpx.AsyncClient, front: FakeFront) -> None:
    message_id = (await ada.post(M, json={"text": "/slow"})).json()["id"]
    waiting = asyncio.create_task(ada.get(f"{M}/{message_id}", params={"wait": 60}))
    await asyncio.sleep(0)
    front.finish(message_id, Reply(text="There."))
    assert (await waiting).json()["replies"][0]["text"] == "There."


async def test_a_stopping_hub_answers_who_waits(front: FakeFront, configured: Settings, origin: str) -> None:
    transport = transport_of(front, configured)
    async with httpx.AsyncClient(
        transport=transport, base_url=origin, headers={"authorization": "Bearer token-ada"}
    ) as client:
        waiting = asyncio.create_task(client.post(M, params={"wait": 60}, json={"text": "/slow"}))
        await front.stored.wait()
        transport.app.state.closing.set()  # type: ignore[attr-defined]
        assert (await waiting).status_code == 202


async def test_the_same_key_is_the_same_message(ada: httpx.AsyncClient, front: FakeFront) -> None:
    sent = [await ada.post(M, json={"text": "/order 1"}, headers={"idempotency-key": "k1"}) for _ in range(3)]
    assert len({one.json()["id"] for one in sent}) == 1
    assert len(front.messages) == 1


async def test_a_key_belongs_to_its_caller(web: httpx.AsyncClient) -> None:
    ids = set()
    for name in ("ada", "ben"):
        headers = {"idempotency-key": "k1", "authorization": f"Bearer token-{name}"}
        ids.add((await web.post(M, json={"text": "/order 1"}, headers=headers)).json()["id"])
    assert len(ids) == 2


async def test_a_message_is_its_senders_unless_one_audits(web: httpx.AsyncClient) -> None:
    said = await web.post(M, json={"text": "/order 1"}, headers={"authorization": "Bearer token-ada"})
    path = f"{M}/{said.json()['id']}"
    seen = {
        name: (await web.get(path, headers={"authorization": f"Bearer token-{name}"})).status_code
        for name in ("ada", "ben", "cleo")
    }
    assert seen == {"ada": 200, "ben": 404, "cleo": 200}


async def test_a_file_comes_as_an_attachment(ada: httpx.AsyncClient) -> None:
    said = (await ada.post(M, params={"wait": 5}, json={"text": "/order 1024"})).json()
    url = said["replies"][0]["files"][0]["url"]
    answer = await ada.get(url)
    assert answer.content.startswith(b"place,when")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''logistics-1024.csv"
    assert answer.headers["content-type"] == "text/csv"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert (await ada.get(url[:-1] + "7")).status_code == 404


async def test_files_are_taken(ada: httpx.AsyncClient, front: FakeFront) -> None:
    content = base64.b64encode(b"\x00\xff").decode()
    files = [{"name": "图.bin", "content": content}]
    said = await ada.post(M, json={"text": "", "files": files})
    assert front.messages[said.json()["id"]].files[0].content == b"\x00\xff"


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "..", "a\nb", ""])
async def test_a_file_has_a_bare_name(ada: httpx.AsyncClient, name: str) -> None:
    answer = await ada.post(M, json={"text": "x", "files": [{"name": name, "content": ""}]})
    assert answer.status_code == 422


async def test_a_button_is_pressed(ada: httpx.AsyncClient) -> None:
    for _ in range(2):
        headers = {"idempotency-key": "p1"}
        answer = await ada.post("/api/v1/actions", json={"value": "yes"}, headers=headers, params={"wait": 5})
    assert answer.json()["replies"][0]["text"] == "You pressed `yes`."
    assert len(answer.json()["replies"]) == 1


async def test_only_who_may_speaks_for_another(web: httpx.AsyncClient) -> None:
    body = {"text": "/order 1", "acting_as": "cleo"}
    codes = [
        (await web.post(M, json=body, headers={"authorization": f"Bearer token-{name}"})).status_code
        for name in ("ada", "ben")
    ]
    assert codes == [200, 403]


async def test_an_automation_runs_with_typed_values(ada: httpx.AsyncClient) -> None:
    answer = await ada.post("/api/v1/automations/order/runs", params={"wait": 5}, json={"order_id": 1024})
    assert (answer.status_code, answer.json()["state"]) == (200, "done")


@pytest.mark.parametrize(
    ("name", "values", "status", "kind"),
    [
        ("order", {"order_id": "x"}, 400, "bad-arguments"),
        ("order", {}, 400, "bad-arguments"),
        ("order", {"order_id": 1, "more": 2}, 400, "bad-arguments"),
        ("order", {"order_id": 1, "note": {"a": [{"__prefect_kind": "jinja"}]}}, 400, "bad-arguments"),
        ("order", {"order_id": 1, "note": {"a": {"$ref": "x"}}}, 400, "bad-arguments"),
        ("order", {"$ref": {}}, 400, "bad-arguments"),
        ("order", [1], 422, "invalid"),
        ("nope", {}, 404, "unknown-command"),
    ],
)
async def test_what_does_not_fit_an_automation_does_not_start(
    ada: httpx.AsyncClient, front: FakeFront, name: str, values: Any, status: int, kind: str
) -> None:
    answer = await ada.post(f"/api/v1/automations/{name}/runs", json=values)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:parley:problem:{kind}")
    assert not front.messages


async def test_a_right_that_is_missing_is_403(web: httpx.AsyncClient) -> None:
    headers = {"authorization": "Bearer token-ben"}
    answer = await web.post("/api/v1/automations/restart/runs", headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:parley:problem:denied")


async def test_lists_come_in_pages(ada: httpx.AsyncClient) -> None:
    for number in range(5):
        await ada.post(M, json={"text": f"/order {number}"})
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = (await ada.get("/api/v1/runs", params=params)).json()
        seen += [run["id"] for run in page["items"]]
        if page["next"] is None:
            break
        params["cursor"] = page["next"]
    assert seen == ["m0004", "m0003", "m0002", "m0001", "m0000"]
    first = (await ada.get("/api/v1/automations", params={"limit": 1})).json()
    rest = (await ada.get("/api/v1/automations", params={"cursor": first["next"]})).json()
    assert [one["command"] for one in first["items"] + rest["items"]] == ["order", "restart"]


@pytest.mark.parametrize("cursor", ["%", "ÿ", "a", "AAAA", "_w"])
async def test_a_cursor_is_one_of_ours(ada: httpx.AsyncClient, cursor: str) -> None:
    answer = await ada.get("/api/v1/runs", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:parley:problem:bad-cursor")


async def test_a_run_is_cancelled_once(ada: httpx.AsyncClient) -> None:
    message_id = (await ada.post(M, json={"text": "/slow"})).json()["id"]
    codes = [(await ada.post(f"/api/v1/runs/{message_id}/cancel")).status_code for _ in range(2)]
    assert codes == [202, 404]


async def test_who_one_is_and_how_things_are(web: httpx.AsyncClient) -> None:
    me = (await web.get("/api/v1/me", headers={"authorization": "Bearer token-ben"})).json()
    assert (me["name"], me["role"]) == ("ben", "user")
    codes = [
        (await web.get("/api/v1/status", headers={"authorization": f"Bearer token-{name}"})).status_code
        for name in ("ada", "cleo", "ben")
    ]
    assert codes == [200, 200, 403]


async def test_health_needs_no_login_and_names_what_is_missing(
    web: httpx.AsyncClient, front: FakeFront
) -> None:
    assert (await web.get("/healthz")).status_code == 200
    assert (await web.get("/readyz")).status_code == 200
    front.parts["worker"] = False
    answer = await web.get("/readyz", headers={"host": "10.0.0.7:8080"})
    assert (answer.status_code, answer.json()["detail"]) == (503, "Not ready: worker.")


async def test_a_full_disk_is_503_with_a_time_to_come_back(ada: httpx.AsyncClient, front: FakeFront) -> None:
    front.unavailable = True
    answer = await ada.post(M, json={"text": "/order 1"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "disk is full" in answer.json()["detail"]


async def test_an_unexpected_error_says_nothing_of_its_insides(
    ada: httpx.AsyncClient, front: FakeFront
) -> None:
    front.broken = RuntimeError("secret of the house in /srv/parley")
    answer = await ada.post(M, json={"text": "/order 1"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


async def test_too_many_requests_are_429(front: FakeFront, configured: Settings, origin: str) -> None:
    moment = 0.0
    rate = Rate(10, 3, clock=lambda: moment)
    async with httpx.AsyncClient(
        transport=transport_of(front, configured, rate),
        base_url=origin,
        headers={"authorization": "Bearer token-ada"},
    ) as client:
        codes = [(await client.get("/api/v1/me")).status_code for _ in range(4)]
        last = await client.get("/api/v1/me")
        assert (codes, last.headers["retry-after"]) == ([200, 200, 200, 429], "1")
        other = await client.get("/api/v1/me", headers={"authorization": "Bearer token-ben"})
        assert other.status_code == 200
        moment = 0.1
        assert (await client.get("/api/v1/me")).status_code == 200


async def test_the_openapi_document_holds_together(web: httpx.AsyncClient) -> None:
    """Every reference leads somewhere, every schema is one, every operation has a title and its problems."""
    document = (await web.get("/api/v1/openapi.json")).json()
    for reference in references(document):
        at: Any = document
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations) == 21
    for operation in operations:
        assert operation["summary"]
        assert "application/problem+json" in operation["responses"]["401"]["content"]
    assert set(document["components"]["securitySchemes"]) == {"token", "session"}
    body = document["paths"][M]["post"]["requestBody"]["content"]["application/json"]
    assert body["examples"]["command"]["value"] == {"text": "/order 1024"}


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for one in node for found in references(one)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [found for one in node.values() for found in references(one)]
