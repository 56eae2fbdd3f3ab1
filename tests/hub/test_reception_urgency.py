"""What the hub handles beside the queue of those who ask for runs."""

from __future__ import annotations

import pytest

from parley.messages.inbox import Received
from parley.messages.model import Action, Event, Message, Notice, Route, Sender, now
from tests.hub.house import House

pytestmark = pytest.mark.prefect

ABOUT = {
    "account": "team",
    "native_id": "1",
    "sender": Sender(id="U1"),
    "route": Route(account="team", conversation="C1"),
}


def text(said: str) -> Event:
    return Message.model_validate(ABOUT | {"text": said})


@pytest.mark.parametrize(
    ("event", "urgent"),
    [
        (text("/cancel 42"), True),
        (text("  @parley /Status"), True),
        (text("、status"), True),
        (text("/yes AB12"), True),
        (text("/nothing-of-the-kind"), False),
        (text("where is order 1024?"), False),
        (text("please /cancel"), False),
        (text("/" + "x" * 5000), False),
        (Action.model_validate(ABOUT | {"value": "yes AB12"}), True),
        (
            Notice.model_validate(ABOUT | {"topic": "alert.firing", "title": "disk", "severity": "critical"}),
            True,
        ),
        (Notice.model_validate(ABOUT | {"topic": "push", "title": "3 commits"}), False),
    ],
    ids=[
        "cancel", "a name and capitals", "a Chinese comma", "a code", "no command of ours", "a question",
        "in the middle", "an endless name", "a button", "an alert", "a push",
    ],
)  # fmt: skip
async def test_control_and_alerts_are_urgent_and_chatter_is_not(
    house: House, event: Event, urgent: bool
) -> None:
    received = Received(
        id="1",
        event=event,
        conversation_id="C1",
        principal_id=None,
        acting_for_id=None,
        received_at=now(),
        expires_at=now(),
    )
    assert house.hub.reception.urgent(received) is urgent
