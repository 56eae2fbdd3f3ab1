"""What trust costs a message: the time inside rights, audit and sealing on its whole way, from the event to the answer.

A hub in this process, without Prefect: somebody with a role of parley.toml asks for what changes something, the run is
started and ended as a worker does it, and the answer goes to a platform that takes it at once. So a message is sealed
and opened again at every station, rights are asked when it is understood and when it starts, and the audit has its
intent and its outcome. What is measured is the very hub that people run: its keys and its policy are handed to it in a
form that looks at the clock, and the database says how long each statement about people, rights and audit took. What
an audit row adds to a commit that there is anyway is not in it.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.sql import visitors

from benchmarks.machine import watched
from benchmarks.rows import Row, percentile, scaled
from parley.link.calls import AccountState, DeliverCall, FinishCall, Role, StartCall
from parley.link.client import HubClient, role_token
from parley.messages.model import ConversationKind, Message, Receipt, Reply, Route, Sender
from parley.people import principals
from parley.people.data_keys import DataKeys
from parley.people.policy import Asked, Policy, Verdict
from parley.people.principals import ensure_owner
from parley.people.roles import RoleTable
from parley.people.sealing import Keyring, Ring
from parley.processes.hub import Hub
from parley.processes.keys import open_keys
from parley.runs.catalogue import AutomationSpec, Catalogue, Effect, Parameter
from parley.runs.requests import run_token
from parley.settings import Account, File, Settings
from parley.store import schema
from parley.store.engine import Store
from tests.prefect_fixture import free_port

MESSAGES, WARM_UP = 400, 20
GOAL_MS: Final = 5.0

ACCOUNT: Final = "team"
ROLE: Final = "web-shift"
ANSWER: Final = "web1 was restarted; it answered again after 3 s."

TABLES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("audit", "audit_open"), "audit"),
    **dict.fromkeys(
        ("principal", "identity", "role_grant", "grant", "freeze", "approval", "vote", "delegation",
         "standing_approval"),
        "rights",
    ),
}  # fmt: skip
"""What a statement about one of these is counted as."""

T = TypeVar("T")


def measure(effort: float = 1.0) -> list[Row]:
    """`trust.cost_p50_ms` and `trust.cost_p95_ms`."""
    with watched() as conditions, tempfile.TemporaryDirectory(prefix="trust-") as folder:
        count = scaled(MESSAGES, effort, least=3)
        costs = asyncio.run(_measure(Path(folder), scaled(WARM_UP, effort), count))
        conditions |= {
            "goal": GOAL_MS,
            "parts_p50_ms": {name: _median(cost.parts[name] for cost in costs) for name in _PARTS},
            "processor_p50_ms": _median(cost.processor for cost in costs),
            "message_p50_ms": _median(cost.whole for cost in costs),
            "message_processor_p50_ms": _median(cost.whole_processor for cost in costs),
            "calls_each": {name: costs[-1].calls[name] for name in _PARTS},
        }
    total = [cost.wall for cost in costs]
    return [
        Row(
            name=f"trust.cost_p{round(share * 100)}_ms",
            unit="ms",
            ours=percentile(total, share),
            n=len(total),
            conditions=conditions,
        )
        for share in (0.5, 0.95)
    ]


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


# -- the clock


_PARTS: Final = ("rights", "audit", "sealing")


@dataclass(slots=True)
class _Cost:
    """Of one message, in milliseconds: `wall` and `processor` inside the parts, `whole` from the event to the end."""

    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_PARTS, 0.0))
    calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_PARTS, 0))
    processor: float = 0.0
    whole: float = 0.0
    whole_processor: float = 0.0

    @property
    def wall(self) -> float:
        return sum(self.parts.values())


class _Clock:
    """Adds up the time inside the parts; what one of them does within another is counted once."""

    def __init__(self) -> None:
        self.cost = _Cost()
        self._inside = False

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """The time in here is this part's."""
        if self._inside:
            yield
            return
        self._inside = True
        began, processor = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self._inside = False
            self.add(part, time.perf_counter() - began, time.process_time() - processor)

    def add(self, part: str, seconds: float, processor: float) -> None:
        """So much was spent."""
        self.cost.parts[part] += seconds * 1e3
        self.cost.calls[part] += 1
        self.cost.processor += processor * 1e3


class _TimedKeyring(Keyring):
    """A keyring that says how long it took; the keys are those of another one."""

    def __init__(self, keyring: Keyring, clock: _Clock) -> None:
        self._of = keyring
        self._clock = clock

    def _timed(self, part: str, do: Callable[..., T], *arguments: Any) -> T:
        with self._clock.within(part):
            return do(*arguments)

    def take(self, ring: Ring, keys: Mapping[str, bytes] | None = None) -> None:
        self._of.take(ring, keys)

    def seal(self, table: str, column: str, row: str, plaintext: bytes) -> bytes:
        return self._timed("sealing", self._of.seal, table, column, row, plaintext)

    def open(self, table: str, column: str, row: str, sealed: bytes) -> bytes:
        return self._timed("sealing", self._of.open, table, column, row, sealed)

    def seal_text(self, block_type: str, block_name: str, field: str, plaintext: str) -> str:
        return self._timed("sealing", self._of.seal_text, block_type, block_name, field, plaintext)

    def open_text(self, block_type: str, block_name: str, field: str, sealed: str) -> str:
        return self._timed("sealing", self._of.open_text, block_type, block_name, field, sealed)

    def keyed_hash(self, text: str) -> str:
        return self._timed("sealing", self._of.keyed_hash, text)

    def is_hash_of(self, keyed: str, text: str) -> bool:
        return self._timed("sealing", self._of.is_hash_of, keyed, text)

    def authenticate(self, key_id: str, purpose: str, data: bytes) -> str:
        part = "audit" if purpose == "audit" else "rights"
        return self._timed(part, self._of.authenticate, key_id, purpose, data)

    @property
    def newest(self) -> str:
        return self._of.newest

    @property
    def sealing(self) -> str:
        return self._of.sealing

    @property
    def sealed_values(self) -> int:
        return self._of.sealed_values

    def is_newest(self, sealed: bytes) -> bool:
        return self._of.is_newest(sealed)

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._of

    def __repr__(self) -> str:
        return repr(self._of)


class _TimedKeys(DataKeys):
    """The keys of the store, in a keyring that says how long it took."""

    clock: _Clock

    @cached_property
    def keyring(self) -> Keyring:  # read once, when all is loaded
        return _TimedKeyring(super().keyring, self.clock)


class _TimedPolicy(Policy):
    """A policy that says how long it took to decide."""

    def __init__(self, roles: Mapping[str, RoleTable], time_zone: str, clock: _Clock) -> None:
        super().__init__(roles, time_zone)
        self._clock = clock

    def decide(self, roles: Iterable[str], asked: Asked) -> Verdict:
        with self._clock.within("rights"):
            return super().decide(roles, asked)


@contextmanager
def _statements(clock: _Clock) -> Iterator[None]:
    """Have the time of each statement that people, rights or audit need counted, from its making to its rows."""
    began: list[tuple[str, float, float]] = []

    def before(_conn: Any, statement: Any, *_more: Any) -> None:
        part = _part_of(statement)
        began.append((part, time.perf_counter(), time.process_time()))

    def after(_conn: Any, _statement: Any, *_more: Any) -> None:
        part, wall, processor = began.pop()
        if part:
            clock.add(part, time.perf_counter() - wall, time.process_time() - processor)

    sa.event.listen(sa.Engine, "before_execute", before)
    sa.event.listen(sa.Engine, "after_execute", after)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_execute", before)
        sa.event.remove(sa.Engine, "after_execute", after)


def _part_of(statement: Any) -> str:
    changed = getattr(statement, "table", None) if getattr(statement, "is_dml", False) else None
    tables = (
        {changed.name}
        if isinstance(changed, sa.Table)
        else {one.name for one in visitors.iterate(statement) if isinstance(one, sa.Table)}
    )
    found = {TABLES[name] for name in tables if name in TABLES}
    return "audit" if "audit" in found else "rights" if found else ""


# -- messages


async def _measure(folder: Path, warm_up: int, count: int) -> list[_Cost]:
    clock = _Clock()
    async with _bench(folder, clock) as bench:
        for _ in range(warm_up):
            await bench.message()
        costs = []
        for _ in range(count):
            clock.cost = _Cost()
            wall, processor = time.perf_counter(), time.process_time()
            await bench.message()
            clock.cost.whole = (time.perf_counter() - wall) * 1e3
            clock.cost.whole_processor = (time.process_time() - processor) * 1e3
            costs.append(clock.cost)
        return costs


class _Bench:
    def __init__(self, hub: Hub, delivered: asyncio.Queue[DeliverCall]) -> None:
        self._hub = hub
        self._delivered = delivered
        self._said = 0

    async def message(self) -> None:
        """One message, from the event to the platform's having the answer."""
        self._said += 1
        message = Message(
            account=ACCOUNT,
            native_id=f"trust-{self._said}",
            sender=Sender(id="U1"),
            route=Route(account=ACCOUNT, conversation="D1", kind=ConversationKind.DIRECT),
            text="/restart web1",
        )
        accepted = await self._hub.inbox.accept(message)
        await self._hub.intake_is_empty()
        await self._run(await self._run_of(accepted.id))
        call = await asyncio.wait_for(self._delivered.get(), 20)
        assert call.reply.text == ANSWER, call.reply.text
        async with asyncio.timeout(20):
            while self._hub.outbox.waiting:  # noqa: ASYNC110  it tells nobody when it is empty
                await asyncio.sleep(0.001)

    async def _run_of(self, message_id: str) -> str:
        run, request = schema.run, schema.request
        query = (
            sa.select(run.c.id)
            .join(request, request.c.id == run.c.request_id)
            .where(request.c.message_id == message_id)
        )
        return await self._hub.store.read(_scalar(query))

    async def _run(self, run_id: str) -> None:
        flow_run = f"flow-{run_id}"
        start = StartCall(
            token=run_token(self._hub.keyring, run_id),
            flow_run_id=flow_run,
            run_id=run_id,
            holder="bench",
            automation="restart",
        )
        started = await self._hub.ledger.start(start)
        finish = FinishCall(
            token=started.token,
            flow_run_id=flow_run,
            run_id=run_id,
            epoch=started.epoch,
            outcome="done",
            reply=Reply(text=ANSWER),
        )
        await self._hub.ledger.finish(finish)


def _scalar(query: sa.Select[tuple[str]]) -> Callable[[Any], Any]:
    async def fetch(conn: Any) -> str:
        return str((await conn.execute(query)).scalar_one())

    return fetch


# -- the hub


CATALOGUE: Final = Catalogue(
    automations=(
        AutomationSpec(
            name="restart",
            command="restart",
            summary="Restart a service.",
            deployment="restart/parley",
            effect=Effect.WRITE,
            parameters=(Parameter(name="host", json_schema={"type": "string"}),),
            version="1",
        ),
    )
)


def _settings(home: Path) -> Settings:
    return Settings(
        home=home,
        config=home / "parley.toml",
        key_file=home.parent / "key" / "key",
        port=free_port(),
        hooks_port=free_port(),
        metrics_port=free_port(),
        prefect_api_url="http://127.0.0.1:9/api",
        file=File.model_validate(
            {
                "accounts": {ACCOUNT: Account(platform="slack", block="parley-slack-account/team")},
                "limits": {"per_person": "100000/s", "per_conversation": "100000/s"},
                "roles": {
                    ROLE: {
                        "may": ["read", "write"],
                        "automations": ["restart*", "show-*"],
                        "parameters": {"host": ["web*"]},
                        "deny": [{"parameters": {"host": ["web9"]}}],
                    }
                },
                "approvals": [{"automations": "restart", "parameters": {"host": ["db*"]}}],
            }
        ),
    )


@asynccontextmanager
async def _bench(folder: Path, clock: _Clock) -> AsyncIterator[_Bench]:
    home = folder / "home"
    home.mkdir(mode=0o700)
    settings = _settings(home)
    store = await Store.open(home / "parley.db")
    try:
        owner = await store.write(lambda conn: ensure_owner(conn, "owner"))
        plain = await open_keys(settings, store)
        keys = _TimedKeys(store, plain.source)
        keys.clock = clock
        await keys.load()
        hub = Hub(settings, store, keys, owner)
        hub.policy = _TimedPolicy(settings.file.roles, settings.file.owner.time_zone, clock)
        hub.publish(CATALOGUE)
        await store.write(_add_person)
        async with hub.living(), _platform(settings) as delivered:
            with _statements(clock):
                yield _Bench(hub, delivered)
    finally:
        await store.aclose()


async def _add_person(conn: Any) -> None:
    identity = await principals.add_principal(conn, "olga", role=principals.Role.USER)
    await principals.give_role(conn, identity, ROLE)
    await principals.link_identity(conn, identity, ACCOUNT, "U1", verified=True)


@asynccontextmanager
async def _platform(settings: Settings) -> AsyncIterator[asyncio.Queue[DeliverCall]]:
    delivered: asyncio.Queue[DeliverCall] = asyncio.Queue()

    async def deliver(args: dict[str, Any]) -> Receipt:
        call = DeliverCall.model_validate(args)
        delivered.put_nowait(call)
        return Receipt(native_ids=(call.token,))

    async def nothing(_args: dict[str, Any]) -> None:
        """What there is besides is not what is measured."""

    client = HubClient(
        f"unix:{settings.socket}",
        Role.LISTENERS,
        role_token(settings, Role.LISTENERS),
        handlers={"deliver": deliver, "command_menu": nothing, "accounts_changed": nothing},
    )
    async with client:
        await client.call("account_state", AccountState(account=ACCOUNT, state="listening"))
        yield delivered
