"""One mailbox over EWS, blocking: what is asked of it, and nothing of what it means. Imported only when it is used.

Two named properties are ours, invisible to people: `ParleyTaken` on a mail that is in the inbox of the store, which
names the accounts that took it; and `ParleyDelivery`, a delivery's token, on each mail that we sent.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

from exchangelib import ExtendedProperty, Message, Q
from exchangelib.properties import StatusEvent
from exchangelib.services import GetStreamingEvents, SubscribeToStreaming

from connectors._exchange_arrivals import Arrivals
from connectors._exchange_calls import current
from connectors._exchange_protocol import account
from connectors._exchange_services import OUR_PROPERTIES, TAKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectors._exchange_arrivals import Fetched, Found, Page
    from connectors._exchange_settings import ExchangeSettings


class _Taken(ExtendedProperty):  # type: ignore[misc]
    property_set_id = OUR_PROPERTIES
    property_name = TAKEN
    property_type = "String"


class _Delivery(ExtendedProperty):  # type: ignore[misc]
    property_set_id = OUR_PROPERTIES
    property_name = "ParleyDelivery"
    property_type = "String"


_FIELDS = {"parley_taken": _Taken, "parley_delivery": _Delivery}
_registering = Lock()


class Mailbox:
    """Methods block; several threads may be in them at once, but only one takes what is new."""

    def __init__(self, name: str, settings: ExchangeSettings, endpoint: str) -> None:
        with _registering:
            for field, kind in _FIELDS.items():
                if not any(each.name == field for each in Message.FIELDS):
                    Message.register(field, kind)
        self._settings = settings
        self._account = account(settings, endpoint)
        self._arrivals = Arrivals(name, settings, self._account)
        self._folder: Any = None

    def probe(self) -> None:
        """Log in and open the folder."""
        self._folder = None
        self._open()

    def changes(self) -> Page:
        """The next changes of the folder. The same ones again, until `advance` was called."""
        return self._arrivals.changes(self._open())

    def advance(self, page: Page) -> None:
        """Go on after this page: all mail in it is in the inbox of the store."""
        self._arrivals.advance(page)

    def fetch(self, batch: Sequence[Found]) -> list[tuple[Found, Fetched | None]]:
        """These mails, unchanged on the server; None for one that is gone or cannot be read at all."""
        return self._arrivals.fetch(batch)

    def mark(self, taken: Sequence[Found]) -> None:
        """Mark these mails as taken by this account, on the server."""
        self._arrivals.mark(taken)

    def prepare(self) -> None:
        """Log in and open the folder for what is sent, so that `send` is one request."""
        _ = self._account.sent

    def send(self, raw: bytes, token: str) -> None:
        """Send one mail, and keep the copy that `sent` looks for."""
        mail = Message(
            account=self._account, folder=self._account.sent, mime_content=raw, parley_delivery=token
        )
        current().begun = False
        mail.send_and_save()

    def sent(self, token: str, message_id: str) -> bool:
        """Whether the mail of this delivery is among those that were sent, or are about to be."""
        ours = Q(parley_delivery=token) | Q(message_id=message_id)
        folders = (self._account.sent, self._account.outbox, self._account.drafts)
        return any(list(folder.filter(ours).only("message_id")[:1]) for folder in folders)

    def subject(self, message_id: str) -> str:
        """The subject of a mail that we sent, or nothing when it is not there any more."""
        kept = self._account.sent.filter(message_id=message_id).only("subject")
        return next((item.subject or "" for item in kept[:1]), "")

    def subscribe(self) -> str:
        """A subscription to what comes into the folder; Exchange keeps the events until they are streamed."""
        wanted = ("NewMailEvent", "CreatedEvent", "MovedEvent")
        service = SubscribeToStreaming(account=self._account)
        subscription: str = service.get(folders=[self._open()], event_types=wanted)
        return subscription

    def stream(self, subscription: str, told: Callable[[], None]) -> None:
        """Call `told` at each event, until the stream's time is over."""
        service = _Stream(account=self._account)
        minutes = self._settings.stream_minutes
        for note in service.call(subscription_ids=[subscription], connection_timeout=minutes):
            if any(not isinstance(event, StatusEvent) for event in note.events or ()):
                told()

    def unsubscribe(self, subscription: str) -> None:
        """Give the subscription back: an account may have few."""
        self._open().unsubscribe(subscription)

    def close(self) -> None:
        """Close all connections that no call is in."""
        self._account.protocol.close()

    def _open(self) -> Any:
        folder = self._folder
        if folder is None:
            first, *rest = self._settings.folder_path()
            folder = (
                self._account.inbox if first.lower() == "inbox" else self._account.msg_folder_root // first
            )
            for name in rest:
                folder = folder // name
            self._folder = folder
        return folder


class _Stream(GetStreamingEvents):  # type: ignore[misc]
    """Connects as fast as any call; only its answer may take minutes."""

    def call(self, subscription_ids: list[str], connection_timeout: int) -> Any:
        notes = super().call(subscription_ids, connection_timeout)
        # Read when the first note is asked for. The minute more is for the last one, which says that it is over.
        self.timeout = (self.protocol.TIMEOUT[0], connection_timeout * 60 + 60)
        return notes
