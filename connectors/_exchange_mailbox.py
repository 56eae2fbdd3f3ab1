"""One mailbox over EWS, blocking: what is asked of it, and nothing of what it means. Imported only when it is used.

Two named properties are ours, invisible to people: `ParleyTaken` on a mail that is in the inbox of the store, which is
the read position and lives on the server; and `ParleyDelivery`, a delivery's token, on each mail that we sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from exchangelib import EWSDateTime, ExtendedProperty, Message, Q
from exchangelib.errors import (
    ErrorCorruptData,
    ErrorItemCorrupt,
    ErrorItemNotFound,
    ErrorMimeContentConversionFailed,
)
from exchangelib.items import ALWAYS_OVERWRITE, SAVE_ONLY, SEND_TO_NONE
from exchangelib.properties import StatusEvent
from exchangelib.services import GetStreamingEvents, SubscribeToStreaming

from connectors._exchange_calls import current
from connectors._exchange_protocol import account
from connectors._memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors._exchange_settings import ExchangeSettings

MOST_MAIL = 40_000_000
"""Bytes of a mail that is fetched: `MAX_FILE` as base64, and some text."""

MOST_FOUND = 500
"""Mails that one look finds; the next look finds the next ones."""

OUR_PROPERTIES = "2f6d7ad0-6d0c-4e0e-9a43-5b1f3a0c7e92"
"""The set that our properties are named in: any fixed GUID, so that nobody else's can be meant."""

_CLASSES = ("IPM.Note", "REPORT.")
"""Mails and reports about mails. Appointments, contacts and tasks are nobody's message to us."""


class _Taken(ExtendedProperty):  # type: ignore[misc]
    property_set_id = OUR_PROPERTIES
    property_name = "ParleyTaken"
    property_type = "String"


class _Delivery(ExtendedProperty):  # type: ignore[misc]
    property_set_id = OUR_PROPERTIES
    property_name = "ParleyDelivery"
    property_type = "String"


_FIELDS = {"parley_taken": _Taken, "parley_delivery": _Delivery}
_BROKEN = (ErrorCorruptData, ErrorItemCorrupt, ErrorMimeContentConversionFailed)
_registering = Lock()


@dataclass(frozen=True)
class Found:
    """A mail that is not taken yet."""

    id: str
    item: Any
    received: datetime
    size: int


@dataclass(frozen=True)
class Fetched:
    """A mail as Exchange has it; `raw` is empty where it is larger than `MOST_MAIL` or cannot be written as MIME."""

    id: str
    raw: bytes
    received: datetime
    size: int
    item_class: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    author: str = ""
    sender: str = ""


class Mailbox:
    """Methods block; several threads may be in them at once."""

    def __init__(self, settings: ExchangeSettings, endpoint: str) -> None:
        with _registering:
            for name, kind in _FIELDS.items():
                if not any(field.name == name for field in Message.FIELDS):
                    Message.register(name, kind)
        self._settings = settings
        self._account = account(settings, endpoint)
        self._folder: Any = None
        self._done: Memory[str, None] = Memory()

    def probe(self) -> None:
        """Log in and open the folder."""
        self._folder = None
        self._open()

    def pending(self) -> list[Found]:
        """Mails that are not taken yet, oldest first; at most `MOST_FOUND`."""
        moment = datetime.now(UTC)
        not_before = self._settings.not_before(moment)
        since = self._settings.since
        # Exchange keeps what it found for the latest restrictions: so it stays the same one, for an hour at least. The
        # exact moment is looked at below.
        steady = since is not None and not_before == since.replace(microsecond=0)
        bound = not_before if steady else not_before.replace(minute=0, second=0)
        classes = Q(item_class__startswith=_CLASSES[0]) | Q(item_class__startswith=_CLASSES[1])
        wanted = Q(datetime_received__gte=_ews(bound)) & ~Q(parley_taken__exists=True) & classes
        if since is None:
            wanted &= Q(is_read=False)
        found = self._open().filter(wanted).only("datetime_received", "size").order_by("datetime_received")
        listed: list[Found] = []
        for item in found:
            if isinstance(item, Exception):
                raise item
            if isinstance(item, Message) and item.id not in self._done:
                received = item.datetime_received or moment
                if received >= not_before:
                    listed.append(Found(item.id, item, received, item.size or 0))
            if len(listed) == MOST_FOUND:
                break
        return listed

    def fetch(self, found: Found) -> Fetched | None:
        """One mail, unchanged on the server; None when it is gone."""
        about = ["item_class", "headers", "author", "sender"]
        whole = found.size <= MOST_MAIL
        item = self._get(found, [*about, "mime_content"] if whole else about)
        if isinstance(item, _BROKEN):
            item, whole = self._get(found, about), False
        if isinstance(item, _BROKEN):
            # It can be neither read nor, probably, marked: it must not hold up all that follow.
            self._finished(found)
        if item is None or isinstance(item, Exception):
            return None
        return Fetched(
            id=found.id,
            raw=(item.mime_content or b"") if whole else b"",
            received=found.received,
            size=found.size,
            item_class=item.item_class or "",
            headers=tuple((header.name or "", header.value or "") for header in item.headers or ()),
            author=_address(item.author),
            sender=_address(item.sender),
        )

    def take(self, found: Found) -> None:
        """Mark a mail as taken, on the server."""
        item = found.item
        item.parley_taken = datetime.now(UTC).isoformat()
        results = self._account.bulk_update(
            items=[(item, ("parley_taken",))],
            conflict_resolution=ALWAYS_OVERWRITE,
            message_disposition=SAVE_ONLY,
            send_meeting_invitations_or_cancellations=SEND_TO_NONE,
            suppress_read_receipts=True,
        )
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ErrorItemNotFound):
                raise result
        self._finished(found)

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

    def _finished(self, found: Found) -> None:
        # The mark is what counts. This is for a server that takes the mark and does not show it: no mail in a circle.
        self._done[found.id] = None

    def _get(self, found: Found, fields: list[str]) -> Any:
        for item in self._account.fetch(ids=[(found.id, None)], only_fields=fields):
            if isinstance(item, ErrorItemNotFound):
                return None
            if isinstance(item, Exception) and not isinstance(item, _BROKEN):
                raise item
            return item
        return None


class _Stream(GetStreamingEvents):  # type: ignore[misc]
    """Connects as fast as any call; only its answer may take minutes."""

    def call(self, subscription_ids: list[str], connection_timeout: int) -> Any:
        notes = super().call(subscription_ids, connection_timeout)
        # Read when the first note is asked for. The minute more is for the last one, which says that it is over.
        self.timeout = (self.protocol.TIMEOUT[0], connection_timeout * 60 + 60)
        return notes


def _ews(moment: datetime) -> Any:
    return EWSDateTime.from_datetime(moment.astimezone(UTC))


def _address(mailbox: Any) -> str:
    """An address that Exchange resolved to SMTP; nothing for any other form."""
    if mailbox is None or (mailbox.routing_type or "SMTP") != "SMTP":
        return ""
    return str(mailbox.email_address or "").lower()
