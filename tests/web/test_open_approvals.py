"""What waits for approval, over the REST API and its Python client, over a fake hub."""

from __future__ import annotations

import httpx

from parley.web.wire import ApprovalOut


async def test_what_waits_is_listed_for_who_is_logged_in(ada: httpx.AsyncClient) -> None:
    answer = await ada.get("/api/v1/approvals")
    assert answer.status_code == 200
    (one,) = (ApprovalOut.model_validate(row) for row in answer.json())
    assert (one.code, one.automation, one.actor, one.needed) == ("K7QX", "restart", "ann", 2)
    assert (one.approved_by, one.mine, one.may) == (("bob",), False, True)


async def test_nobody_in_particular_sees_nothing(web: httpx.AsyncClient) -> None:
    assert (await web.get("/api/v1/approvals")).status_code == 401
