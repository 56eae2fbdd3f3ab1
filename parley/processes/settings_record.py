"""What became of parley.toml, in the audit: each change that was taken or refused, also one made while nothing ran."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people.audit import Audit
from parley.people.sealing import Keyring
from parley.store import schema
from parley.store.engine import Store

SUBJECT: Final = "parley.toml"
"""What changes of the settings are about, in the audit."""

_MOST_OF_A_REASON: Final = 500


class SettingsRecord:
    """Writes rows about one parley.toml, with a keyed hash of what it held."""

    def __init__(self, store: Store, keyring: Keyring, audit: Audit, path: Path) -> None:
        self._store = store
        self._keyring = keyring
        self._audit = audit
        self._path = path

    async def read_at_start(self) -> None:
        """Record the file unless it is the one that was recorded last."""
        table = schema.audit
        last = sa.select(table.c.details).where(table.c.subject == SUBJECT, table.c.phase == "outcome")

        async def fetch(conn: AsyncConnection) -> Any:
            rows = (await conn.execute(last.order_by(table.c.sequence.desc()).limit(20))).scalars()
            return next((row["digest"] for row in rows if "digest" in row), None)

        known = await self._store.read(fetch) or self._keyring.keyed_hash("")
        if known != await self._digest():
            await self._record("configuration-read", {})

    async def changed(self, sections: Sequence[str]) -> None:
        """These sections are in force as they stand in the file now."""
        await self._record("configuration-changed", {"sections": ", ".join(sections)})

    async def refused(self, reason: str) -> None:
        """The file stands there and is not in force."""
        await self._store.write(
            lambda conn: self._audit.append(
                conn,
                action="configuration-refused",
                phase="outcome",
                actor="file",
                subject=SUBJECT,
                details={"reason": reason[:_MOST_OF_A_REASON]},
            )
        )

    async def _record(self, action: str, details: dict[str, Any]) -> None:
        kept = {**details, "digest": await self._digest()}
        await self._store.write(
            lambda conn: self._audit.record(conn, action=action, actor="file", subject=SUBJECT, details=kept)
        )

    async def _digest(self) -> str:
        content = await asyncio.to_thread(lambda: self._path.read_bytes() if self._path.exists() else b"")
        return self._keyring.keyed_hash(hashlib.sha256(content).hexdigest() if content else "")


__all__ = ["SUBJECT", "SettingsRecord"]
