"""Open approvals over REST: what waits for the caller, and what the caller's own requests wait for."""

from __future__ import annotations

from fastapi import APIRouter, Request

from parley.web.auth import Caller
from parley.web.front import Front
from parley.web.wire import ApprovalOut

router = APIRouter(prefix="/approvals", tags=["approvals"])


@router.get("", summary="What waits for approval")
async def get_approvals(request: Request, caller: Caller) -> list[ApprovalOut]:
    """The first to end first. To decide one, send `/approve CODE` or `/refuse CODE why` as a message."""
    front: Front = request.app.state.front
    return [ApprovalOut.model_validate(view.model_dump()) for view in await front.approvals(caller)]
