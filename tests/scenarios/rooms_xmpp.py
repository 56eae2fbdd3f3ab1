"""One person's XMPP client, as they read in it: slixmpp, at a real Prosody."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from tests.fakes._driver import Sent, eventually
from tests.fakes.xmpp import Person
from tests.scenarios.rooms_wecom import PATIENCE

_BODY = "{jabber:client}body"


class XmppRoom:
    """What somebody is written by our account, `jid`, in their own client."""

    def __init__(self, person: Person, jid: str) -> None:
        self._person = person
        self._jid = jid
        self._seen = 0

    async def says(self, who: str, text: str, *, in_thread: bool = False) -> None:
        """Somebody writes to us."""
        assert who == self._person.name, f"this is the client of {self._person.name}"
        await self._person.say(self._jid, text)

    async def presses(self, who: str, label: str) -> None:
        """XMPP has no buttons."""
        raise AssertionError("XMPP has no buttons")

    async def next(self) -> Sent:
        """The next message from us."""
        await eventually(lambda: len(self._messages()) > self._seen, "the next message over XMPP", PATIENCE)
        self._seen += 1
        return Sent(text=self._messages()[self._seen - 1].findtext(_BODY) or "")

    async def changed(self) -> Sent:
        """No page waits for one."""
        raise AssertionError("nothing is edited here")

    def _messages(self) -> list[Element]:
        ours = (one for one in self._person.heard if one.get("from", "").startswith(f"{self._jid}/"))
        return [one for one in ours if one.find(_BODY) is not None]
