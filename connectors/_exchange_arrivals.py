"""New mail in one folder, blocking: which there is since a sync state, its content, and the mark of what was taken.

Imported only when an account is used.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from exchangelib import Message
from exchangelib.errors import (
    ErrorCorruptData,
    ErrorInvalidSyncStateData,
    ErrorItemCorrupt,
    ErrorItemNotFound,
    ErrorMimeContentConversionFailed,
    EWSError,
)
from exchangelib.fields import FieldPath
from exchangelib.items import ALWAYS_OVERWRITE, ID_ONLY, SAVE_ONLY, SEND_TO_NONE

from connectors._exchange_errors import named
from connectors._exchange_place import Place
from connectors._exchange_services import Fetch, Listed, Mark, Read, Sync
from parley.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors._exchange_settings import ExchangeSettings

MOST_MAIL = 40_000_000
"""Bytes of a mail that is fetched: `MAX_FILE` as base64, and some text."""

MOST_CHANGES = 512
"""Changes in one page: as many as Exchange tells at once."""

MOST_MARKS = 8
"""Accounts that one mail's mark names, the latest ones."""

_CLASSES = ("ipm.note", "report.")
"""Mails and reports about mails. Appointments, contacts and tasks are nobody's message to us."""

_LISTED = ("item_class", "datetime_received", "size", "is_read", "parley_taken")
_ABOUT = ("item_class", "headers", "author", "sender")
_BROKEN = (ErrorCorruptData, ErrorItemCorrupt, ErrorMimeContentConversionFailed)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A mail that is not taken yet."""

    id: str
    listed: Listed
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


@dataclass(frozen=True)
class Page:
    """The next changes of the folder: the new mail among them, oldest first, and the state that comes after them."""

    found: tuple[Found, ...]
    folder_id: str
    state: str
    last: bool


class Arrivals:
    """What comes into the folder of one account. Used by one thread at a time."""

    def __init__(self, name: str, settings: ExchangeSettings, account: Any) -> None:
        self._name, self._settings, self._account = name, settings, account
        self._mark = hashlib.sha256(name.encode()).hexdigest()[:16]
        self._place = Place(name, settings.folder_path())
        self._state: tuple[str, str] | None = None
        """The folder's id and its sync state, once they are known."""
        self._behind = False
        """Whether mail was taken that the state which is kept does not know of."""

    def changes(self, folder: Any) -> Page:
        """The next changes, `MOST_CHANGES` of them at most. The same ones again, until `advance` was called."""
        if self._state is None or self._state[0] != folder.id:
            self._state = (folder.id, self._place.state(self._account.root, folder.id))
        try:
            return self._page(folder, self._state[1])
        except ErrorInvalidSyncStateData:
            if not self._state[1]:
                raise
            text = "exchange account %s: Exchange knows our place in the folder no more, it is looked through anew"
            logger.warning(text, self._name)
            self._state = (folder.id, "")
            return self._page(folder, "")

    def advance(self, page: Page) -> None:
        """Go on after this page: all mail in it is in the inbox of the store."""
        self._state = (page.folder_id, page.state)
        # What brought no mail is as quickly read again. A page that is not the last one is progress in a large folder.
        if self._behind or not page.last:
            self._behind = True
            self._place.keep(self._account.root, page.folder_id, page.state)
            self._behind = False

    def fetch(self, batch: Sequence[Found]) -> list[tuple[Found, Fetched | None]]:
        """These mails, unchanged on the server; None for one that is gone or cannot be read at all."""
        read = self._get([found for found in batch if found.size <= MOST_MAIL], whole=True)
        rest = [found for found in batch if found.id not in read or isinstance(read[found.id], _BROKEN)]
        read |= self._get(rest, whole=False)
        return [(found, self._fetched(found, read[found.id])) for found in batch]

    def mark(self, taken: Sequence[Found]) -> None:
        """Mark these mails as taken by this account, on the server."""
        self._behind = True
        service = Mark(account=self._account)
        said = [(found.listed, _marks(found.listed.taken, self._mark)) for found in taken]
        try:
            results = list(
                service.call(
                    items=said,
                    conflict_resolution=ALWAYS_OVERWRITE,
                    message_disposition=SAVE_ONLY,
                    send_meeting_invitations_or_cancellations=SEND_TO_NONE,
                    suppress_read_receipts=True,
                )
            )
        except EWSError as error:
            results = [error]
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ErrorItemNotFound):
                what = named(result)
                if not isinstance(what, Rejected):
                    raise result
                logger.warning("exchange account %s: a mail cannot be marked: %s", self._name, what)

    def _page(self, folder: Any, state: str) -> Page:
        service = Sync(account=self._account)
        told = list(
            service.call(
                folder=folder,
                shape=ID_ONLY,
                additional_fields=_paths(_LISTED),
                sync_state=state,
                ignore=None,
                max_changes_returned=MOST_CHANGES,
                sync_scope="NormalItems",
            )
        )
        for each in told:
            if isinstance(each, Exception):
                raise each
        moment = datetime.now(UTC)
        found = (self._found(each, moment) for each in told if each is not None)
        after = service.sync_state or ""
        return Page(
            found=tuple(sorted((each for each in found if each is not None), key=lambda each: each.received)),
            folder_id=folder.id,
            state=after,
            # Exchange may say that there is more, and stay where it is.
            last=bool(service.includes_last_item_in_range) or after == state,
        )

    def _found(self, listed: Listed, moment: datetime) -> Found | None:
        """The mail that this is, if it is one that is to be taken."""
        received = listed.received or moment
        if not listed.item_class.lower().startswith(_CLASSES) or self._mark in listed.taken.split():
            return None
        if received < self._settings.not_before(moment) or (self._settings.since is None and listed.is_read):
            return None
        return Found(listed.id, listed, received, listed.size)

    def _get(self, batch: Sequence[Found], *, whole: bool) -> dict[str, Any]:
        """What was read of each, or the error that says why not."""
        if not batch:
            return {}
        fields = _paths((*_ABOUT, "mime_content") if whole else _ABOUT)
        ids = [(found.id, None) for found in batch]
        results = list(Fetch(account=self._account).call(items=ids, additional_fields=fields, shape=ID_ONLY))
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, (ErrorItemNotFound, *_BROKEN)):
                raise result
        return {found.id: result for found, result in zip(batch, results, strict=True)}

    def _fetched(self, found: Found, read: Any) -> Fetched | None:
        if isinstance(read, _BROKEN):
            text = "exchange account %s: Exchange cannot read a mail of its own: %s: %s"
            logger.warning(text, self._name, type(read).__name__, found.id)
        if not isinstance(read, Read):
            return None
        return Fetched(
            id=found.id,
            raw=read.raw,
            received=found.received,
            size=found.size,
            item_class=read.item_class,
            headers=read.headers,
            author=read.author,
            sender=read.sender,
        )


def _paths(names: Sequence[str]) -> set[Any]:
    return {FieldPath(field=Message.get_field_by_fieldname(name)) for name in names}


def _marks(before: str, ours: str) -> str:
    return " ".join([*(mark for mark in before.split() if mark != ours), ours][-MOST_MARKS:])
