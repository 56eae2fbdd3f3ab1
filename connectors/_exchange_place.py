"""Where the sync state of one account is kept: in the mailbox itself, as a user configuration of its root folder.

A user configuration is a small hidden item with a name: people see nothing of it, and it goes where the mailbox goes.
So the state outlives a restart, another machine and a restored store. The name is of the account and the folder: two
accounts in one mailbox each have their own. It holds one state, which replaces the one before. It is in the root and
not in the folder that is read, so that writing it is no news there. Imported only when an account is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from typing import Any

from exchangelib.errors import ErrorItemNotFound, ErrorItemSave, EWSError

from connectors._exchange_errors import named
from parley.errors import AuthError, Rejected

MOST_STATE = 1_000_000
"""Characters of a state that is kept. Usual are a few thousand; it grows with what the folder has been through."""

logger = logging.getLogger(__name__)


class Place:
    """Methods block. Where Exchange refuses to keep a state, that is logged once, and goes without it."""

    def __init__(self, account: str, folder: tuple[str, ...]) -> None:
        self._account = account
        said = "\0".join((account, *(name.casefold() for name in folder)))
        # Exchange takes letters, digits and points, 236 of them at most.
        self.name = f"Parley.{hashlib.sha256(said.encode()).hexdigest()[:32]}"
        self._there = False
        self._refused = False

    def state(self, root: Any, folder_id: str) -> str:
        """The state that was kept for this folder; empty where there is none that can be read."""
        try:
            kept = root.get_user_configuration(name=self.name, properties="BinaryData")
        except ErrorItemNotFound:
            self._there = False
            return ""
        except EWSError as error:
            self._without(error)
            return ""
        self._there = True
        return _unpacked(kept.binary_data or b"", folder_id)

    def keep(self, root: Any, folder_id: str, state: str) -> None:
        """Keep this state in place of the one before."""
        if len(state) > MOST_STATE:
            self._tell(f"a sync state has {len(state)} characters")
            return
        data = _packed(state, folder_id)
        try:
            if not self._there:
                try:
                    root.create_user_configuration(name=self.name, binary_data=data)
                except ErrorItemSave:  # there is one, made by another process of this account
                    root.update_user_configuration(name=self.name, binary_data=data)
            else:
                try:
                    root.update_user_configuration(name=self.name, binary_data=data)
                except ErrorItemNotFound:  # somebody took it away
                    root.create_user_configuration(name=self.name, binary_data=data)
            self._there = True
        except EWSError as error:
            self._without(error)

    def _without(self, error: EWSError) -> None:
        what = named(error)
        if not isinstance(what, AuthError | Rejected):
            raise error
        self._tell(str(what))

    def _tell(self, why: str) -> None:
        if not self._refused:
            self._refused = True
            text = "exchange account %s: the place in the folder is not kept, each start looks through it anew: %s"
            logger.warning(text, self._account, why)


def _packed(state: str, folder_id: str) -> bytes:
    return zlib.compress(json.dumps({"folder": folder_id, "state": state}).encode())


def _unpacked(data: bytes, folder_id: str) -> str:
    """The state of this folder; empty where this is none of it."""
    try:
        kept = json.loads(zlib.decompressobj().decompress(data, 2 * MOST_STATE))
    except (zlib.error, ValueError):
        return ""
    if not isinstance(kept, dict) or kept.get("folder") != folder_id:
        return ""
    state = kept.get("state")
    return state if isinstance(state, str) else ""
