"""SyncFolderItems as a server answers it: what came, changed and went in a folder since an opaque state."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.fakes import _ews_soap as soap
from tests.fakes._ews_soap import Item, M, T

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MOST_CHANGES = 512
"""What types.xsd allows in MaxSyncChangesReturnedType."""
PADDING = 1500
"""Bytes of a state that no compression makes smaller: a real one grows with what the folder has been through."""


@dataclass
class _Known:
    """One item in one folder, as it was when the server looked last. The numbers count changes of the mailbox."""

    item: Item
    told: str
    """Its ItemId: a moved item has another one, and it is under this one that it went."""
    created: int
    changed: int
    change: int
    is_read: bool
    only_read: bool = False
    gone: int = 0


class Changes:
    """The changes of all folders, in the order in which they happened."""

    def __init__(self) -> None:
        self.padding = PADDING
        self._key = os.urandom(16)
        self._number = 0
        self._known: dict[tuple[str, str], _Known] = {}

    def forget(self) -> None:
        """No state that was given is good any more."""
        self._key = os.urandom(16)

    def answer(self, asked: Element, items: Iterable[Item]) -> tuple[bytes, int]:
        """The answer, and its HTTP status."""
        shape, folders = asked.find(f"{M}ItemShape"), asked.find(f"{M}SyncFolderId")
        assert shape is not None
        assert folders is not None
        uris, named = soap.shape(shape)
        assert "item:MimeContent" not in uris, "what FindItem cannot tell, this cannot tell either"
        folder, most = soap.folder_of(folders[0]), int(asked.findtext(f"{M}MaxChangesReturned", "0"))
        if not 1 <= most <= MOST_CHANGES:
            invalid = "The request failed schema validation."
            return soap.fault("ErrorSchemaValidation", invalid, {"LineNumber": "2"}), 500
        position = self._position(asked.findtext(f"{M}SyncState", ""), folder)
        if position is None:
            text = "Synchronization state data is corrupt or otherwise invalid."
            more = "<m:SyncState/><m:IncludesLastItemInRange>true</m:IncludesLastItemInRange>"
            error = soap.error("SyncFolderItems", "ErrorInvalidSyncStateData", text, more)
            return soap.answer("SyncFolderItems", error), 200
        self._look(items)
        ignored = {each.get("Id") for each in asked.iterfind(f"{M}Ignore/{T}ItemId")}
        changes = sorted(self._since(position, folder), key=lambda change: change[0])
        changes = [change for change in changes if change[2].item.id not in ignored]
        page = changes[:most]
        last = len(page) == len(changes)
        inside = "".join(_told(kind, known, uris, named) for _, kind, known in page)
        state = self._state(folder, self._number if last else page[-1][0])
        told = (
            f"<m:SyncState>{state}</m:SyncState>"
            f"<m:IncludesLastItemInRange>{'true' if last else 'false'}</m:IncludesLastItemInRange>"
            f"<m:Changes>{inside}</m:Changes>"
        )
        return soap.answer("SyncFolderItems", soap.success("SyncFolderItems", told)), 200

    def _look(self, items: Iterable[Item]) -> None:
        """See what became of the mailbox since the last look."""
        there = {}
        for item in items:
            there[item.id, item.folder] = item
            known = self._known.get((item.id, item.folder))
            if known is None or known.gone:
                number = self._next()
                self._known[item.id, item.folder] = _Known(
                    item, item.item_id(), number, number, item.change, item.is_read
                )
            elif (known.change, known.is_read) != (item.change, item.is_read):
                known.only_read = known.change == item.change
                known.changed, known.change, known.is_read = self._next(), item.change, item.is_read
        for key, known in self._known.items():
            if not known.gone and key not in there:
                known.gone = self._next()

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _since(self, position: int, folder: str) -> Iterator[tuple[int, str, _Known]]:
        for (_, where), known in self._known.items():
            if where != folder:
                continue
            if known.gone:
                if known.gone > position >= known.created:
                    yield known.gone, "Delete", known
            elif known.created > position:
                yield known.created, "Create", known
            elif known.changed > position:
                yield known.changed, "ReadFlagChange" if known.only_read else "Update", known

    def _state(self, folder: str, position: int) -> str:
        said = {
            "folder": folder,
            "position": position,
            "padding": base64.b64encode(os.urandom(self.padding)).decode(),
        }
        raw = json.dumps(said).encode()
        return base64.b64encode(gzip.compress(self._seal(raw) + raw)).decode()

    def _position(self, state: str, folder: str) -> int | None:
        """What a state means; None where it is not one of ours for this folder."""
        if not state:
            return 0
        try:
            whole = gzip.decompress(base64.b64decode(state, validate=True))
        except (ValueError, OSError, EOFError):
            return None
        seal, raw = whole[:32], whole[32:]
        if not hmac.compare_digest(seal, self._seal(raw)):
            return None
        said = json.loads(raw)
        return int(said["position"]) if said["folder"] == folder else None

    def _seal(self, raw: bytes) -> bytes:
        return hmac.digest(self._key, raw, hashlib.sha256)


def _told(kind: str, known: _Known, uris: list[str], named: list[tuple[soap.Property, str]]) -> str:
    inside = known.told
    if kind in ("Create", "Update"):
        inside = soap.item_xml(known.item, uris, named)
    elif kind == "ReadFlagChange":
        inside += f"<t:IsRead>{'true' if known.is_read else 'false'}</t:IsRead>"
    return f"<t:{kind}>{inside}</t:{kind}>"
