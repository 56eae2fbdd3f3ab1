"""A hub in this process beside a real Prefect server, and a worker that does what the test says."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parley.link.calls import FinishCall, Role, RunEnded, RunOrder, StartCall, Started
from parley.link.client import HubClient, role_token
from parley.messages.model import Assurance, Message, Reply, Route, Sender
from parley.people import principals
from parley.people.principals import Principal
from parley.people.principals import Role as PersonRole
from parley.processes.hub import Hub, open_hub
from parley.runs.catalogue import AutomationSpec, Catalogue, Effect, Parameter
from parley.settings import Account, Duty, File, Settings
from parley.web.front import MessageView
from tests import prepared, statements
from tests.prefect_fixture import PrefectServer, free_port

PATIENCE = 20.0

statements.share()

NUMBER = Parameter(name="n", json_schema={"type": "integer", "minimum": 1}, description="A number.")
HOST = Parameter(name="host", json_schema={"type": "string", "enum": ["web1", "web2"]}, description="A host.")

CATALOGUE = Catalogue(
    automations=(
        AutomationSpec(
            name="look",
            command="look",
            summary="Look something up.",
            deployment="look/parley",
            parameters=(NUMBER,),
            examples=("look up {n}", "查 {n}"),
            version="1",
        ),
        AutomationSpec(
            name="again",
            command="again",
            summary="Look, safely repeated.",
            deployment="again/parley",
            idempotent=True,
            version="1",
        ),
        AutomationSpec(
            name="change",
            command="change",
            summary="Change something.",
            deployment="change/parley",
            effect=Effect.WRITE,
            parameters=(HOST,),
            examples=("change {host}", "修改 {host}"),
            version="1",
            alert_after=2,
        ),
        AutomationSpec(
            name="harm",
            command="harm",
            summary="Do harm.",
            deployment="harm/parley",
            effect=Effect.DANGEROUS,
            version="1",
        ),
        AutomationSpec(
            name="secret",
            command="secret",
            summary="Take a secret.",
            deployment="secret/parley",
            version="1",
            parameters=(Parameter(name="word", json_schema={"type": "string"}, sealed=True),),
        ),
    )
)


@dataclass
class Worker:
    """Takes orders; `script` says what to do with each. By default it starts and finishes with "ok"."""

    client: HubClient
    orders: asyncio.Queue[RunOrder] = field(default_factory=asyncio.Queue)
    cancelled: list[str] = field(default_factory=list)
    manual: bool = False
    patience: float = PATIENCE
    answer: Callable[[RunOrder, Started], Awaitable[dict[str, Any]]] | None = None

    async def take(self, args: dict[str, Any]) -> None:
        """The hub's order."""
        order = RunOrder.model_validate(args)
        self.orders.put_nowait(order)
        if not self.manual:
            task = asyncio.create_task(self.carry_out(order))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def take_cancel(self, args: dict[str, Any]) -> bool:
        """The hub's cancel; the run is ended at once."""
        self.cancelled.append(args["flow_run_id"])
        await self.ended(args["flow_run_id"], "cancelled")
        return True

    async def carry_out(self, order: RunOrder) -> None:
        """Start and finish as the script says."""
        started = await self.start(order)
        said = (
            await self.answer(order, started)
            if self.answer
            else {"outcome": "done", "reply": Reply(text="ok")}
        )
        await self.finish(order, started, **said)

    async def start(self, order: RunOrder, holder: str = "") -> Started:
        """Ask for the start."""
        call = StartCall(
            token=order.token,
            flow_run_id=order.flow_run_id,
            holder=holder or uuid.uuid4().hex,
            automation=order.automation,
        )
        return Started.model_validate(await self.client.call("start", call, timeout=self.patience))

    async def finish(self, order: RunOrder, started: Started, **said: Any) -> None:
        """Tell the end, and that the process is free."""
        call = FinishCall(
            token=started.token,
            flow_run_id=order.flow_run_id,
            run_id=started.run_id,
            epoch=started.epoch,
            **said,
        )
        await self.client.call("finish", call, timeout=self.patience)
        await self.ended(order.flow_run_id, "finished")

    async def ended(self, flow_run_id: str, how: Any, reason: str = "") -> None:
        """The process that ran it is done, one way or another."""
        await self.client.call(
            "run_ended", RunEnded(flow_run_id=flow_run_id, how=how, reason=reason), timeout=self.patience
        )

    async def next_order(self) -> RunOrder:
        """The next order."""
        return await asyncio.wait_for(self.orders.get(), PATIENCE)


class House:
    """A living hub and what tests do with it."""

    def __init__(self, hub: Hub, worker: Worker) -> None:
        self.hub = hub
        self.worker = worker

    async def owner(self) -> Principal:
        """The owner."""
        return await self.hub.store.read(lambda conn: principals.get(conn, self.hub.owner_id))

    async def person(self, name: str, role: str, **more: Any) -> Principal:
        """A person of this role, made when new."""

        async def add(conn: Any) -> Principal:
            identity = await principals.add_principal(conn, name, role=PersonRole(role), **more)
            return await principals.get(conn, identity)

        return await self.hub.store.write(add)

    async def say(self, text: str, who: Principal | None = None, **more: Any) -> MessageView:
        """Say it at the console and wait for what comes of it."""
        person = who or await self.owner()
        accepted = await self.hub.front.say(person, text, **more)
        return await self.outcome(accepted.id, person)

    async def approve(self, asked: MessageView, who: Principal | None = None) -> None:
        """The owner lets what waits for an approval run, or confirms it where nobody else could."""
        found = re.search(r"\b[A-HJ-NP-Z2-9]{4}\b", text_of(asked).rpartition("Code")[2])
        assert found is not None, text_of(asked)
        await self.hub.front.say(who or await self.owner(), f"/approve {found[0]}")
        await self.hub.intake_is_empty()

    async def outcome(self, message_id: str, who: Principal | None = None) -> MessageView:
        """What became of a message."""
        view = await self.hub.front.wait_for(who or await self.owner(), message_id, PATIENCE)
        assert view is not None
        assert view.final, f"still {view.state} after {PATIENCE} s"
        return view

    async def from_mail(self, text: str, sender: str = "bob@example.com", **more: Any) -> str:
        """A mail from outside arrives; its id."""
        native = more.pop("native_id", uuid.uuid4().hex)
        message = Message(
            account="post",
            native_id=native,
            text=text,
            sender=Sender(id=sender, assurance=Assurance.CLAIMED),
            route=Route(account="post", conversation=sender, kind="mail", thread=native),
            **more,
        )
        return (await self.hub.inbox.accept(message)).id

    async def answers_to(self, message_id: str) -> list[str]:
        """The texts written for a message that nobody is logged in for."""
        await self.hub.intake_is_empty()
        view = await self.hub.front.message(await self.owner(), message_id)
        assert view is not None
        return [one.reply.text for one in view.replies]


def text_of(view: MessageView) -> str:
    """All that was answered, as one text."""
    return "\n".join(one.reply.text for one in view.replies)


def settings_for(home: Path, server: PrefectServer, **file: Any) -> Settings:
    """Settings of a hub in this home, beside this server."""
    return Settings(
        home=home,
        config=home / "parley.toml",
        key_file=home.parent / f"{home.name}-key" / "key",
        port=free_port(),
        hooks_port=free_port(),
        metrics_port=free_port(),
        prefect_api_url=server.api,
        file=File(
            accounts={"post": Account(platform="mail", block="parley-mail-account/post")},
            duty=Duty(conversations=("console:duty",)),
            **file,
        ),
    )


@asynccontextmanager
async def house_in(home: Path, server: PrefectServer, **file: Any) -> AsyncIterator[House]:
    """A hub that lives for the length of the block; the same home may be opened again: it is then a restart."""
    settings = settings_for(home, server, **file)
    prepared.store(home / "parley.db")
    hub = await open_hub(settings)
    try:
        async with hub.living(), worker_at(settings) as worker:
            yield House(hub, worker)
    finally:
        await hub.store.aclose()


@asynccontextmanager
async def worker_at(settings: Settings) -> AsyncIterator[Worker]:
    """A scripted worker of the hub that lives there, or will; it comes back whenever the hub does."""
    worker: Worker

    async def take(args: dict[str, Any]) -> None:
        await worker.take(args)

    async def cancel(args: dict[str, Any]) -> bool:
        return await worker.take_cancel(args)

    async def connected(client: HubClient) -> None:
        await client.call("publish_catalogue", CATALOGUE)

    client = HubClient(
        f"unix:{settings.socket}",
        Role.WORKER,
        role_token(settings, Role.WORKER),
        handlers={"run": take, "cancel": cancel},
        on_connected=connected,
    )
    worker = Worker(client)
    async with client:
        await client.call("holding", {"flow_run_ids": []}, timeout=PATIENCE)
        yield worker


def deploy(server: PrefectServer) -> None:
    """A flow and a deployment for each automation of the tests' catalogue, in the pool `parley`."""
    with server.client() as client:
        for spec in CATALOGUE:
            flow = client.post("/flows/", json={"name": spec.name}).raise_for_status().json()
            body = {
                "name": "parley",
                "flow_id": flow["id"],
                "work_pool_name": "parley",
                "enforce_parameter_schema": False,
            }
            client.post("/deployments/", json=body).raise_for_status()
