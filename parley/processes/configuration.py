"""parley.toml while the stack runs: a change is taken up and audited; of a bad file nothing is, the old one stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from parley.errors import ConfigurationError, ParleyError
from parley.settings import File, Settings, keep, read_file

logger = logging.getLogger(__name__)

EVERY = 2.0

Changed = Callable[[File, File], Awaitable[None]]
Refused = Callable[[str], Awaitable[None]]


class Configuration:
    """The file as it was last read whole."""

    def __init__(self, settings: Settings) -> None:
        self._path: Path = settings.config
        self._stamp = _stamp(self._path)
        self._settings = settings
        self.file: File = settings.file
        self.refused: str | None = self._wrong()

    async def watch(self, changed: Changed, refused: Refused) -> None:
        """Look every two seconds until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            stamp = await asyncio.to_thread(_stamp, self._path)
            if stamp != self._stamp:
                try:
                    await self._read(changed, refused)
                except ParleyError as error:
                    # Not audited, so not in force: the next look finds the file changed once more.
                    logger.warning("%s is not taken up yet: %s", self._path, error)
                else:
                    self._stamp = stamp

    def _wrong(self) -> str | None:
        # A hub that starts anew beside a broken file goes on with the settings of before: see `settings.load`.
        try:
            read_file(self._path)
        except ConfigurationError as error:
            return str(error)
        return None

    async def _read(self, changed: Changed, refused: Refused) -> None:
        try:
            new = await asyncio.to_thread(read_file, self._path)
        except ConfigurationError as error:
            self.refused = str(error)
            logger.error("%s The settings of before stay in force.", error)  # noqa: TRY400  its text says it all
            await refused(str(error))
            return
        old, self.file, self.refused = self.file, new, None
        await asyncio.to_thread(keep, self._settings)
        if new == old:
            return
        try:
            await changed(old, new)
        except ParleyError:
            self.file = old
            raise


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
