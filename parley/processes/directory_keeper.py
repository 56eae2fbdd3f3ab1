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

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError, ParleyError, PolicyError
from parley.messages.model import now
from parley.messages.outbox import Delivery, Outbox
from parley.people import directory_people, directory_sync, principals
from parley.people.audit import Audit
from parley.people.directory_search import DirectoryError
from parley.people.directory_settings import Directory
from parley.people.directory_sync import Done, Leave, Plan, Syncing
from parley.runs import failures
from parley.runs.failures import Notice
from parley.settings import File
from parley.store.engine import Store
from parley.store.ids import new_id
from parley.store.insert_new import insert_new
from parley.store.schema import directory_person, lease

logger = logging.getLogger(__name__)

FIRST: Final = 5.0
"""Seconds after the hub's start: who left while it was away is not let in for long."""

LOOK_EVERY: Final = 60.0
"""Seconds between two looks whether a directory is configured by now, while none is."""

AT_ONCE: Final = 20
"""People of one write: others who write wait no longer than for these."""

AWAY: Final = "the directory"
HELD: Final = "the directory's people"
"""Rows of `alert_state`; no command has such a name."""

LEASE: Final = "directory"
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
        self._holder = new_id()
        self._working = asyncio.Lock()
        self._wake = asyncio.Event()
        self._began: datetime = now()
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

    def file_changed(self) -> None:
        """Ask soon: what groups give, or whom the directory has, may be another thing now."""
        self._wake.set()

    async def run(self, first: float = FIRST) -> None:
        """Ask now and then. What fails is told, and tried again."""
        await self._pause(first)
        while True:
            directory = self._file().directory
            if directory is None:
                await self._pause(LOOK_EVERY)
                continue
            try:
                await self._sync_if_ours(directory)
            except ParleyError as error:
                logger.warning("directory: %s", error)
            except Exception:
                logger.exception("directory")
            await self._pause(directory.every.total_seconds())

    async def _sync_if_ours(self, directory: Directory) -> None:
        if await self._store.write(lambda conn: _claim(conn, self._holder, directory)):
            await self.sync()

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
        async with self._working:
            file = self._file()
            if file.directory is None:
                raise ConfigurationError("parley.toml has no [directory].")
            try:
                answer = await directory_people.ask(file.directory)
            except (DirectoryError, ConfigurationError) as error:
                await self._not_answered(file.directory, str(error))
                raise
            self._answered = now()
            here = await self._store.read(directory_sync.known)
            plan = await asyncio.to_thread(
                directory_sync.plan, file.directory, file.groups, answer, here, anyway=anyway
            )
            done = Done(problems=list(answer.problems))
            syncing = Syncing(self._audit, file.directory, file.groups, answer, leave=self._leave)
            await self._carry_out(syncing, plan, done)
            await self._told(plan, done)
            return plan, done

    async def recognise(self, name: str, entry: str) -> None:
        """Somebody who is known here already is this entry of the directory. Raises `PolicyError`."""

        async def write(conn: AsyncConnection) -> None:
            who = await principals.get_by_name(conn, name)
            table = directory_person
            taken = sa.or_(table.c.entry == entry, table.c.principal_id == who.id)
            if (await conn.execute(sa.select(table.c.id).where(taken))).first() is not None:
                raise PolicyError(f"{who.name} or this entry is known as somebody of the directory already.")
            if not who.enabled or who.kind is not principals.PrincipalKind.PERSON:
                raise PolicyError(f"{who.name} is disabled, or no person.")
            row = {"id": new_id(), "entry": entry, "principal_id": who.id, "created_at": now()}
            await conn.execute(sa.insert(table).values(row))
            await self._audit.record(
                conn, action="person-in-directory", actor="command line", subject=f"person:{who.name}"
            )

        if not 0 < len(entry) <= directory_people.MOST_ID or not entry.isprintable():
            raise PolicyError(
                "An entry is called by the id that the directory gives it, as `parley people sync` does."
            )
        await self._store.write(write)

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

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    # -- the people on duty

    async def _not_answered(self, directory: Directory, reason: str) -> None:
        self.trouble = reason
        logger.warning("directory: %s", reason)
        stale = now() - (self._answered or self._began)
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
            f"{missing} of {of} people are missing, or lose their roles, at once: nobody was removed"
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


async def _claim(conn: AsyncConnection, holder: str, directory: Directory) -> bool:
    """Whether this hub is the one that asks: for two rounds from now, unless another one said so before."""
    at = now()
    until = at + 2 * directory.every + timedelta(seconds=2 * directory.timeout)
    fresh = {"name": LEASE, "holder": holder, "epoch": 0, "until": until}
    if (await conn.execute(insert_new(lease, ("name",)), fresh)).rowcount == 1:
        return True
    free = sa.and_(lease.c.name == LEASE, sa.or_(lease.c.holder == holder, lease.c.until < at))
    return bool(
        (await conn.execute(sa.update(lease).where(free).values(holder=holder, until=until))).rowcount
    )


__all__ = ["DirectoryKeeper"]
