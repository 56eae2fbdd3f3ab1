"""The directory of a living hub: asked every few minutes, and when an owner says so; of several hubs one asks.

What cannot be carried out safely is not: a directory that does not answer, or not in full, removes nobody, nor does one
in which suddenly very many are missing. The people on duty are told once, and once more when it is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError, ParleyError, PolicyError
from parley.messages.model import now
from parley.messages.outbox import Delivery, Outbox
from parley.people import directory_people, directory_plan, directory_sync
from parley.people.audit import Audit
from parley.people.directory_lease import RENEWED_EVERY, DirectoryLease
from parley.people.directory_people import Answer
from parley.people.directory_plan import Plan
from parley.people.directory_search import DirectoryError
from parley.people.directory_settings import Directory
from parley.people.directory_sync import Done, Leave, Syncing
from parley.runs import failures
from parley.runs.failures import Notice
from parley.settings import File
from parley.store.engine import Store

logger = logging.getLogger(__name__)

FIRST: Final = 5.0
"""Seconds after the hub's start: who left while it was away is not let in for long."""

GIVEN_BACK_WITHIN: Final = 5.0
"""Seconds for giving the lease back when the hub stops; else it runs out by itself."""

AT_ONCE: Final = 20
"""People of one write: others who write wait no longer than for these."""

AWAY: Final = "the directory"
HELD: Final = "the directory's people"
"""Rows of `alert_state`; no command has such a name."""

_MOST_TOLD: Final = 100


class DirectoryKeeper:
    """Asks the directory and carries out what it says; `run` until cancelled."""

    def __init__(
        self,
        store: Store,
        audit: Audit,
        outbox: Outbox,
        *,
        file: Callable[[], File],
        leave: Leave,
        tell_duty: Callable[[AsyncConnection, Notice], Awaitable[list[Delivery]]],
    ) -> None:
        self._store = store
        self._audit = audit
        self._outbox = outbox
        self._file = file
        self._leave = leave
        self._tell_duty = tell_duty
        self._working = asyncio.Lock()
        self._wake = asyncio.Event()
        self.clock: Callable[[], datetime] = now
        """What time it is, for how long the directory has not answered, and another hub not lived."""
        self._lease = DirectoryLease(store, lambda: self.clock())  # noqa: PLW0108 - whatever it is by then
        self._answered: datetime | None = None
        self.trouble: str = ""
        """Why the last sync did nothing, or not all; nothing when it did."""
        self.problems: Sequence[str] = ()
        """What was wrong with some people in the last one."""

    @property
    def verbs(self) -> Mapping[str, Callable[..., Awaitable[Any]]]:
        """By name, as the command line calls them."""
        return {"people_sync": self.sync_by_hand, "person_in_directory": self.recognise}

    @property
    def answered(self) -> datetime | None:
        """When the directory last answered in full, here."""
        return self._answered

    @property
    def is_asked_elsewhere(self) -> bool:
        """Whether another hub asks it."""
        return self._lease.elsewhere

    def file_changed(self) -> None:
        """Ask soon: what groups give, or whom the directory has, may be another thing now."""
        self._wake.set()

    async def run(self, first: float = FIRST) -> None:
        """Ask now and then, while no other hub does. What fails is told, and tried again."""
        loop = asyncio.get_running_loop()
        due, wait = 0.0, first
        try:
            while True:
                if await self._pause(wait):
                    due = 0.0
                wait = RENEWED_EVERY
                directory = self._file().directory
                if directory is None or not await self._is_ours():
                    due = 0.0  # whoever takes it over asks at once
                    continue
                if loop.time() >= due:
                    await self._sync_and_go_on()
                    due = loop.time() + directory.every.total_seconds()
                wait = max(0.0, min(wait, due - loop.time()))
        finally:
            with suppress(Exception):
                async with asyncio.timeout(GIVEN_BACK_WITHIN):
                    await self._lease.give_back()

    async def _is_ours(self) -> bool:
        try:
            return await self._lease.take()
        except Exception:
            logger.exception("directory")
            return False

    async def _sync_and_go_on(self) -> None:
        try:
            await self.sync()
        except ParleyError as error:
            logger.warning("directory: %s", error)
        except Exception:
            logger.exception("directory")

    async def sync_by_hand(self, anyway: bool = False, actor: str = "command line") -> dict[str, Any]:
        """Ask now, whichever hub does otherwise. Raises `DirectoryError`, `ConfigurationError`; held back: says so."""
        if anyway:
            await self._store.write(
                lambda conn: self._audit.record(
                    conn, action="directory-sync-anyway", actor=actor, subject="directory"
                )
            )
        plan, done = await self.sync(anyway=anyway)
        return {
            "people": plan.people,
            "joined": done.joined,
            "left": done.left,
            "changed": done.changed,
            "held": {"missing": plan.held[0], "of": plan.held[1]} if plan.held else None,
            "problems": done.problems[:_MOST_TOLD],
        }

    async def sync(self, *, anyway: bool = False) -> tuple[Plan, Done]:
        """Ask, and carry out what the answer says. Raises `DirectoryError` or `ConfigurationError`."""
        async with self._working, self._lease.kept():
            file = self._file()
            directory = _configured(file)
            answer = await self._ask(directory)
            here = await self._store.read(directory_plan.known)
            plan = await asyncio.to_thread(
                directory_plan.plan, directory, file.groups, answer, here, anyway=anyway
            )
            done = Done(problems=list(answer.problems))
            syncing = Syncing(self._audit, directory, file.groups, answer, leave=self._leave)
            await self._carry_out(syncing, plan, done)
            await self._told(plan, done)
            return plan, done

    async def recognise(self, name: str, entry: str) -> None:
        """Somebody who is known here already is this entry of the directory, which is asked whether it has it.

        Raises `PolicyError`; `DirectoryError` and `ConfigurationError` as `sync`.
        """
        if not 0 < len(entry) <= directory_people.LONGEST_ENTRY or not entry.isprintable():
            raise PolicyError(
                "An entry is called by the id that the directory gives it, as `parley people sync` does."
            )
        await self._store.read(lambda conn: directory_sync.unrecognised(conn, name, entry))
        found = (await self._ask(_configured(self._file()))).people.get(entry)
        if found is None:
            # Whoever is no entry would be missing in the next answer, and lose everything.
            raise PolicyError(
                "The directory has nobody with this id; capital and small letters make a difference. "
                "`parley people sync` says the ids of those whom it could not let in."
            )
        if found.disabled:
            raise PolicyError("The directory has disabled this entry: whoever is it would leave at once.")

        await self._store.write(lambda conn: directory_sync.recognise(conn, self._audit, name, entry))

    async def _ask(self, directory: Directory) -> Answer:
        try:
            answer = await directory_people.ask(directory)
        except (DirectoryError, ConfigurationError) as error:
            await self._not_answered(directory, str(error))
            raise
        self._answered = self.clock()
        return answer

    async def _carry_out(self, syncing: Syncing, plan: Plan, done: Done) -> None:
        # Whoever left goes first.
        for work, people in (
            (syncing.remove, plan.leave),
            (syncing.change, plan.change),
            (syncing.join, plan.join),
        ):
            left = iter(people)
            while some := list(islice(left, AT_ONCE)):
                done_by_these = await self._store.write(lambda conn, w=work, s=some: _counted(w, conn, s))  # type: ignore[misc]
                done.joined += done_by_these.joined
                done.left += done_by_these.left
                done.changed += done_by_these.changed
                done.problems += done_by_these.problems

    async def _pause(self, seconds: float) -> bool:
        """Whether it was woken."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        woken = self._wake.is_set()
        self._wake.clear()
        return woken

    # -- the people on duty

    async def _not_answered(self, directory: Directory, reason: str) -> None:
        self.trouble = reason
        logger.warning("directory: %s", reason)
        since = self._lease.since
        if since is None:
            return  # the hub that asks knows for how long
        stale = self.clock() - max(since, self._answered or since)
        if stale >= directory.stale_after:
            minutes = int(stale / timedelta(minutes=1))
            await self._say(AWAY, "directory-away", {"reason": reason, "minutes": minutes})

    async def _told(self, plan: Plan, done: Done) -> None:
        self.problems = tuple(done.problems)
        for problem in done.problems[:_MOST_TOLD]:
            logger.warning("directory: %s", problem)
        counts = (plan.people, done.joined, done.left, done.changed)
        logger.info("directory: %d people; %d joined, %d left, %d changed", *counts)
        await self._say_over(AWAY, "directory-back")
        if plan.held is None:
            self.trouble = ""
            await self._say_over(HELD, "directory-resumed")
            return
        missing, of = plan.held
        self.trouble = (
            f"{missing} of {of} people are missing, or lose roles or accounts, at once: nobody was removed"
        )
        logger.warning("directory: %s", self.trouble)
        await self._say(HELD, "directory-held", {"missing": missing, "of": of})

    async def _say(self, alarm: str, key: str, values: dict[str, Any]) -> None:
        async def tell(conn: AsyncConnection) -> list[Delivery]:
            number = await failures.set_raised(conn, alarm, True)
            if number is None:
                return []  # they were told
            return await self._tell_duty(conn, Notice(source=f"{key}:{number}", key=key, values=values))

        self._outbox.send(await self._store.write(tell))

    async def _say_over(self, alarm: str, key: str) -> None:
        if not await self._store.read(lambda conn: failures.is_raised(conn, alarm)):
            return

        async def tell(conn: AsyncConnection) -> list[Delivery]:
            number = await failures.set_raised(conn, alarm, False)
            if number is None:
                return []
            return await self._tell_duty(conn, Notice(source=f"{key}:{number}", key=key, values={}))

        self._outbox.send(await self._store.write(tell))


async def _counted(
    work: Callable[..., Awaitable[None]], conn: AsyncConnection, people: Sequence[Any]
) -> Done:
    # A write that is run again, because another hub wrote at the same time, counts anew.
    done = Done()
    await work(conn, people, done)
    return done


def _configured(file: File) -> Directory:
    if file.directory is None:
        raise ConfigurationError("parley.toml has no [directory].")
    return file.directory


__all__ = ["DirectoryKeeper"]
