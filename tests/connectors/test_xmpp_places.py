"""Places that parley.toml names, on which nobody has spoken yet: a person or a room, as the account's settings tell."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from parley.errors import Rejected
from parley.messages import ConversationKind, Reply, Route
from tests.fakes.xmpp import ROOM, XMPPDriver
from tests.servers.prosody import DOMAIN

pytestmark = pytest.mark.servers


@pytest.fixture
async def driver() -> AsyncIterator[XMPPDriver]:
    async with XMPPDriver() as started:
        yield started


def place(conversation: str, kind: ConversationKind = ConversationKind.CHANNEL) -> Route:
    return Route(account="jabber", conversation=conversation, kind=kind)


async def test_a_person_and_a_room(driver: XMPPDriver) -> None:
    connector = driver.connector("jabber")
    try:
        await connector.send_message(Reply(text="to alice"), place(f"alice@{DOMAIN}"))
        await connector.send_message(Reply(text="to all"), place(ROOM))
        with pytest.raises(Rejected):
            await connector.send_message(Reply(text="x"), place("a@b", ConversationKind.MAIL))
    finally:
        await connector.aclose()
    seen = {one.text: one.conversation for one in await driver.sent(2)}
    assert seen == {"to alice": f"alice@{DOMAIN}", "to all": ROOM}
