"""Anchors: where the audit's newest row was at a time, kept outside of the database.

The chain shows every touch of a row that has one behind it. It cannot show that the newest rows were cut off, or that
the whole database was put back to an older copy: both are whole chains. So the head of the chain (number, chain, time)
is written now and then to a file that only grows, in a folder of its own beside the key, and if wanted to syslog, which
may be on another machine. Whoever can change this file and holds the key can forge both; whoever can change the
database alone cannot.

A line is JSON, `{"at", "sequence", "chain", "seal"}`. The seal is an HMAC over the line and the seal of the line
before, so that lines which were changed or taken out show. A line that a loss of power tore is passed over by both.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hmac
import json
import logging
import logging.handlers
import os
import stat
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from parley.errors import ConfigurationError, ParleyError, SealError
from parley.people.sealing import Keyring

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the audit's head."""

LEAST_GAP: Final = 5.0
"""Seconds between two anchors: what is done for hours without a pause must not fill the disk with anchors."""

_LONGEST: Final = 4096
"""Bytes of a line, the end of the file that is read to go on from."""

_PURPOSE: Final = "audit anchor"


@dataclass(frozen=True, slots=True)
class Head:
    """The newest row of the audit. Numbers have no gaps, so `sequence` is how many rows there are."""

    sequence: int
    chain: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head, and when it was one. `seal` is the line's own."""

    at: datetime
    sequence: int
    chain: str
    seal: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file: the place behind it, and what it holds. `problem`: why that is nothing to go by."""

    number: int
    end: int
    anchor: Anchor | None = None
    problem: str = ""


class AnchorFile:
    """The file, which is only ever added to. Two processes of one machine may share it."""

    def __init__(self, path: Path, keyring: Keyring) -> None:
        self.path: Path = path
        self._keyring = keyring

    def add(self, head: Head, *, seen: str | None = None) -> Anchor | None:
        """Write this head, and come back once it is on the disk. Raises `OSError`.

        `seen`: the seal of the last line ("" for none) before the head was looked at; nothing is written and None comes
        back when another process has written since. None: whatever was written.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = not self.path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            last, is_torn = self._last(descriptor)
            before = last.seal if last else ""
            if seen is not None and seen != before:
                return None
            anchor = self._sealed(head, before)
            _write(descriptor, (b"\n" if is_torn else b"") + _written(anchor))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            _sync(self.path.parent)
        return anchor

    def last(self) -> Anchor | None:
        """The newest line that is one. Raises `OSError`."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return self._last(descriptor)[0]
        finally:
            os.close(descriptor)

    def lines(self, *, offset: int = 0, number: int = 0, seal: str = "") -> Iterator[Line]:
        """The lines from a place on, each checked against the one before it, whose seal is `seal`."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(offset)
            while raw := file.readline(_LONGEST):
                number += 1
                anchor = _read(raw.removesuffix(b"\n") + b"\n")
                if anchor is None:
                    words = f"Line {number} of the anchors cannot be read."
                    # What a write leaves that did not end has no end of line, or what was written next behind it.
                    is_torn = _is_cut(raw) and not (raw.endswith(b"\n") and file.tell() == size)
                    yield Line(number, file.tell(), problem="" if is_torn else words)
                    continue
                whole = self._is_whole(anchor, seal)
                seal = anchor.seal
                words = f"Line {number} of the anchors was changed, or the one before it was."
                yield Line(number, file.tell(), anchor, "" if whole else words)

    def _last(self, descriptor: int) -> tuple[Anchor | None, bool]:
        size = os.fstat(descriptor).st_size
        end = os.pread(descriptor, _LONGEST, max(0, size - _LONGEST))
        found = (_read(raw + b"\n") for raw in reversed(end.split(b"\n")) if raw)
        return next((one for one in found if one is not None), None), bool(end) and not end.endswith(b"\n")

    def _sealed(self, head: Head, before: str) -> Anchor:
        at, key = datetime.now(UTC), self._keyring.newest
        seal = self._keyring.authenticate(key, _PURPOSE, _canonical(at, head.sequence, head.chain, before))
        return Anchor(at, head.sequence, head.chain, f"{key}:{seal}")

    def _is_whole(self, anchor: Anchor, before: str) -> bool:
        key, _, seal = anchor.seal.partition(":")
        content = _canonical(anchor.at, anchor.sequence, anchor.chain, before)
        try:
            return hmac.compare_digest(self._keyring.authenticate(key, _PURPOSE, content), seal)
        except (SealError, TypeError, ValueError):
            return False


class Anchors:
    """Writes an anchor whenever the head has moved; `run` until cancelled."""

    def __init__(
        self,
        file: AnchorFile,
        head: Callable[[], Awaitable[Head | None]],
        chain_of: Callable[[int], Awaitable[str | None]],
        *,
        syslog: str = "",
        look_every: float = LOOK_EVERY,
        least_gap: float = LEAST_GAP,
    ) -> None:
        """`syslog`: a socket's path such as `/dev/log`, or `host:port` for UDP; nothing is sent without it."""
        self.file: AnchorFile = file
        self._head = head
        self._chain_of = chain_of
        self._syslog = syslog
        self._look_every = look_every
        self._least_gap = least_gap
        self._anchored: Head | None = None
        self.problem: str = ""
        """Why the last anchor could not be written; empty when it was."""
        self.behind: str = ""
        """What of the audit was anchored and was not there at the start; empty when all of it was."""

    async def run(self) -> None:
        """Look each second, write at most every five; at the end once more."""
        loop = asyncio.get_running_loop()
        due = 0.0
        try:
            await self._compare()
            while True:
                if loop.time() >= due and await self.add():
                    due = loop.time() + self._least_gap
                await asyncio.sleep(self._look_every)
        finally:
            await self.add()

    async def _compare(self) -> None:
        try:
            last = await asyncio.to_thread(self.file.last)
            if last is None:
                return
            if await self._chain_of(last.sequence) == last.chain:
                self._anchored = Head(last.sequence, last.chain)
                return
        except (OSError, ParleyError) as error:
            self._failed(error)
            return
        when = f"{last.at:%Y-%m-%d %H:%M:%S} UTC"
        self.behind = f"row {last.sequence} of the audit, which was there at {when}, is gone or another"
        logger.error("%s: an older copy of the store was put back, or rows were cut off", self.behind)

    async def add(self) -> bool:
        """Anchor the head where it has moved since; whether it had. What fails is logged, and done the next time."""
        try:
            if await self._head() in (None, self._anchored):
                return False
            anchor = await self._append()
        except (OSError, ParleyError) as error:
            self._failed(error)
            return False
        if anchor is None:
            return False
        self._anchored, self.problem = Head(anchor.sequence, anchor.chain), ""
        if self._syslog:
            await asyncio.to_thread(self._send, anchor)
        return True

    async def _append(self) -> Anchor | None:
        """The head as a new line; None when there is no row any more."""
        while True:
            # The file first: a head that is older than its last line was then put back, and not merely read earlier
            # than another hub, which shares the file, wrote a newer one.
            last = await asyncio.to_thread(self.file.last)
            head = await self._head()
            if head is None:
                return None
            anchor = await asyncio.to_thread(self.file.add, head, seen=last.seal if last else "")
            if anchor is not None:
                return anchor

    def _failed(self, error: Exception) -> None:
        words = getattr(error, "strerror", None) or str(error)
        if words != self.problem:  # once, not each second
            logger.error("the audit's anchors %s cannot be written: %s", self.file.path, words)
        self.problem = words

    def _send(self, anchor: Anchor) -> None:
        host, _, port = self._syslog.rpartition(":")
        address: Any = (host, int(port)) if host and not self._syslog.startswith("/") else self._syslog
        try:
            sent = logging.handlers.SysLogHandler(address, logging.handlers.SysLogHandler.LOG_AUTHPRIV)
        except (OSError, ValueError) as error:  # ValueError: a name that no name of a host can be
            logger.warning("the audit's anchor did not reach syslog: %s", getattr(error, "strerror", error))
            return
        with contextlib.closing(sent):
            sent.ident = "parley-audit: "
            text = _written(anchor).decode().strip()
            sent.handle(logging.LogRecord("parley.audit", logging.INFO, "", 0, "%s", (text,), None))


def check_place(path: Path, *, home: Path) -> None:
    """Raises `ConfigurationError` when this file of anchors lies with the data, or others could change it."""
    path = path.absolute()
    try:
        roots, spellings = {home.absolute(), home.resolve()}, (path, path.resolve())
        with contextlib.suppress(FileNotFoundError):
            mode = path.stat().st_mode
            if mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ConfigurationError(
                    f"The audit's anchors {path} can be changed by others. Run: chmod 0600 {path}"
                )
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        words = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"The audit's anchors {path} cannot be reached: {words}. Point PARLEY_AUDIT_ANCHORS to a file in a folder "
            "that belongs to us."
        ) from None
    if any(spelling.is_relative_to(root) for root in roots for spelling in spellings):
        raise ConfigurationError(
            f"The audit's anchors {path} lie in the data folder {home}: who puts back an older copy of the data "
            "would put them back too. Move the file to another folder and point PARLEY_AUDIT_ANCHORS to it there."
        )


def _canonical(at: datetime, sequence: int, chain: str, before: str) -> bytes:
    fields = [before, at.isoformat(timespec="microseconds"), sequence, chain]
    return json.dumps(fields, separators=(",", ":")).encode()


def _written(anchor: Anchor) -> bytes:
    line = {
        "at": anchor.at.isoformat(timespec="microseconds"),
        "sequence": anchor.sequence,
        "chain": anchor.chain,
        "seal": anchor.seal,
    }
    return json.dumps(line).encode() + b"\n"


def _read(raw: bytes) -> Anchor | None:
    try:
        found = json.loads(raw)
        anchor = Anchor(datetime.fromisoformat(found["at"]), found["sequence"], found["chain"], found["seal"])
        whole = raw.endswith(b"\n") and _written(anchor) == raw
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return anchor if whole and type(anchor.sequence) is int else None


def _is_cut(raw: bytes) -> bool:
    """Whether this is the beginning of a line of ours: what a write leaves that a loss of power ended."""
    return b'{"at": "'.startswith(raw[:8].rstrip(b"\n")) and b"}" not in raw


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["Anchor", "AnchorFile", "Anchors", "Head", "Line", "check_place"]
