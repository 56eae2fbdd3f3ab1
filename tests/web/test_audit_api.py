"""The audit over the REST API: pages, conditions and who may not, over a fake hub."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from parley.errors import Denied
from parley.people.audit import AuditRow
from parley.people.audit_reading import Wanted
from parley.people.principals import Principal
from tests.web.fake_front import FakeFront

A = "/api/v1/audit"
BEGAN = datetime(2026, 11, 1, tzinfo=UTC)


def row(number: int) -> AuditRow:
    return AuditRow(
        sequence=number,
        at=BEGAN + timedelta(hours=number),
        action="run:repair",
        phase="outcome",
        actor="ann",
        subject=f"request:{number}",
        details={"state": "done"},
        chain=f"00000001:{number}",
    )


@pytest.fixture
def asked(front: FakeFront) -> list[Wanted]:
    """What the hub was asked for; it has seven rows."""
    asked: list[Wanted] = []

    async def audit(
        principal: Principal, wanted: Wanted, *, limit: int, before: int | None
    ) -> list[AuditRow]:
        asked.append(wanted)
        return [row(number) for number in range(7, 0, -1) if before is None or number < before][:limit]

    front.audit = audit  # type: ignore[method-assign]
    return asked


async def test_it_is_read_in_pages_newest_first(ada: httpx.AsyncClient, asked: list[Wanted]) -> None:
    page = (await ada.get(A, params={"limit": 4})).json()
    assert [one["sequence"] for one in page["items"]] == [7, 6, 5, 4]
    rest = (await ada.get(A, params={"limit": 4, "cursor": page["next"]})).json()
    assert [one["sequence"] for one in rest["items"]] == [3, 2, 1]
    assert rest["next"] is None
    first = page["items"][0]
    assert first["at"] == "2026-11-01T07:00:00Z"
    assert (first["action"], first["actor"], first["chain"]) == ("run:repair", "ann", "00000001:7")
    assert len(asked) == 2


async def test_conditions_are_handed_on(ada: httpx.AsyncClient, asked: list[Wanted]) -> None:
    await ada.get(A, params={"action": "run:*", "actor": "ann", "since": "2026-11-02T00:00:00"})
    assert asked == [Wanted(action="run:*", actor="ann", since=datetime(2026, 11, 2, tzinfo=UTC))]


async def test_times_are_read_in_their_zone(ada: httpx.AsyncClient, asked: list[Wanted]) -> None:
    await ada.get(A, params={"since": "2026-11-02T01:00:00+01:00", "until": "9999-12-31T23:59:59Z"})
    assert asked == [
        Wanted(since=datetime(2026, 11, 2, tzinfo=UTC), until=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    ]


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": 501},
        {"since": "yesterday"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"until": "9999-12-31T23:59:59-14:00"},
        {"action": "x" * 201},
        {"cursor": "eA"},
    ],
)
async def test_what_is_not_understood_is_refused(
    ada: httpx.AsyncClient, asked: list[Wanted], params: dict[str, str]
) -> None:
    answer = await ada.get(A, params=params)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert asked == []


async def test_who_may_not_read_it_is_told(ada: httpx.AsyncClient, front: FakeFront) -> None:
    async def audit(*_: object, **__: object) -> list[AuditRow]:
        raise Denied("Only the owner and auditors may read the audit.")

    front.audit = audit  # type: ignore[method-assign]
    answer = await ada.get(A)
    assert (answer.status_code, answer.json()["detail"]) == (
        403,
        "Only the owner and auditors may read the audit.",
    )


async def test_strangers_are_asked_who_they_are(web: httpx.AsyncClient, asked: list[Wanted]) -> None:
    assert (await web.get(A)).status_code == 401
    assert asked == []
