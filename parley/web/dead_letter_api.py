"""Dead letters over REST: what ended without having been carried out or delivered. For the owner and operators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from parley.runs.dead_letters import Kind
from parley.web.auth import Caller
from parley.web.bodies import json_of, shown
from parley.web.cursors import cursor, read_cursor
from parley.web.front import DeadLetterView, Front
from parley.web.problems import Problem
from parley.web.wire import DeadLetterOut, NewReplay, Page

router = APIRouter(prefix="/dead-letters", tags=["dead letters"])

Id = Annotated[str, Path(max_length=100, description="Its id, or the last eight characters of that.")]


@router.get("", summary="What was not carried out or delivered")
async def get_dead_letters(
    request: Request,
    caller: Caller,
    kind: Annotated[Kind | None, Query(description="Only these.")] = None,
    settled: Annotated[bool, Query(description="Also those that were decided.")] = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(alias="cursor", max_length=400)] = None,
) -> Page[DeadLetterOut]:
    """Newest first. For the owner, operators and auditors."""
    found = await _front(request).dead_letters(
        caller, limit=limit + 1, kind=kind, settled=settled, before=read_cursor(after)
    )
    more = cursor(found[limit - 1].id) if len(found) > limit else None
    return Page(items=[_out(view) for view in found[:limit]], next=more)


@router.get("/{letter_id}", summary="One of them, with what is known of it")
async def get_dead_letter(request: Request, caller: Caller, letter_id: Id) -> DeadLetterOut:
    """Never what people wrote, nor what is sealed."""
    return _out(_there(await _front(request).dead_letter(caller, letter_id)))


@router.post("/{letter_id}/replay", summary="Do it again, once", openapi_extra=shown(NewReplay))
async def post_replay(
    request: Request,
    caller: Caller,
    letter_id: Id,
    new: Annotated[NewReplay, Depends(json_of(NewReplay))],
) -> DeadLetterOut:
    """A new run of the same request, a new delivery, or the same message once more.

    409 where it may have had effects, or may have arrived, and `confirm` is not true; 400 when it was decided before.
    """
    return _out(_there(await _front(request).replay(caller, letter_id, confirmed=new.confirm)))


@router.post("/{letter_id}/discard", summary="Let it be")
async def post_discard(request: Request, caller: Caller, letter_id: Id) -> DeadLetterOut:
    """The record stays until retention takes it."""
    return _out(_there(await _front(request).discard(caller, letter_id)))


def _there(view: DeadLetterView | None) -> DeadLetterView:
    if view is None:
        raise Problem(404, "There is no such dead letter.")
    return view


def _out(view: DeadLetterView) -> DeadLetterOut:
    return DeadLetterOut.model_validate(view.model_dump())


def _front(request: Request) -> Front:
    front: Front = request.app.state.front
    return front
