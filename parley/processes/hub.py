"""The hub: the only process that opens our store and holds the sealing key. `python -m parley.processes.hub`.

It is put together here from the stations of a message's way; nothing is decided in this file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Container
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvloop
from sqlalchemy.ext.asyncio import AsyncConnection

from parley import log_lines
from parley.errors import ConfigurationError, ParleyError
from parley.language.approval_commands import ApprovalCommands
from parley.language.builtin import Builtins, Verb
from parley.language.builtin_menu import builtin_menu
from parley.language.dead_letter_commands import DeadLetterCommands
from parley.language.dialogue import Dialogue
from parley.language.following import FollowCommands
from parley.language.freeze_commands import FreezeCommands
from parley.language.linking_commands import LinkingCommands
from parley.language.people_commands import PeopleCommands
from parley.language.reception import Reception
from parley.language.session_commands import SessionCommands
from parley.language.understanding import Understander
from parley.link.calls import (
    CommandMenu,
    Role,
)
from parley.link.server import LinkServer, Peer, make_tokens
from parley.messages import registry
from parley.messages.backlog import Backlog
from parley.messages.bridges import STOPPED_FOR, Bridges
from parley.messages.bus import Bus
from parley.messages.connector import Connector
from parley.messages.event_log import EventLog
from parley.messages.follows import Follows
from parley.messages.inbox import Inbox, Received
from parley.messages.intake import Intake
from parley.messages.model import Accepted, Event, Message, now
from parley.messages.outbox import Delivery, Outbox
from parley.messages.published import message_topic, of_message, place_of
from parley.messages.routes import Routes
from parley.messages.watch import Watch
from parley.metrics import Metrics
from parley.people import audit_reading
from parley.people.anchors import AnchorFile, Anchors, check_place
from parley.people.approval_rules import terms_for
from parley.people.audit import Audit
from parley.people.data_keys import DataKeys
from parley.people.free_names import names_in
from parley.people.policy import Policy
from parley.people.principals import ensure_owner
from parley.people.rights import Rights
from parley.people.sealing import Keyring
from parley.people.sign_in import SignIn
from parley.processes import kept_catalogue
from parley.processes.accounts import CONSOLE, Accounts
from parley.processes.admin import Admin
from parley.processes.audit_desk import AuditDesk
from parley.processes.configuration import Configuration
from parley.processes.damaged import Damaged
from parley.processes.directory_keeper import DirectoryKeeper
from parley.processes.event_desk import EventDesk
from parley.processes.front import Desk, HubFront
from parley.processes.housekeeping import Housekeeping
from parley.processes.keys import KeyKeeper, open_keys
from parley.processes.measuring import Measuring
from parley.processes.open_actions import OpenActions
from parley.processes.people_desk import PeopleDesk
from parley.processes.places import Places
from parley.processes.provider_calls import ProviderCalls
from parley.processes.registration import Registration
from parley.processes.settings_record import SettingsRecord
from parley.processes.sign_in_desk import SignInDesk
from parley.processes.switchboard import Switchboard
from parley.processes.undelivered import Undelivered
from parley.processes.vitals import Vitals
from parley.runs import lanes
from parley.runs.adopt import Adopter
from parley.runs.approval_cards import Cards
from parley.runs.approving import ApprovalDesk
from parley.runs.batches import Batches
from parley.runs.cancel import Canceller
from parley.runs.catalogue import Catalogue
from parley.runs.closing import Closing
from parley.runs.dispatch import Dispatcher
from parley.runs.ends import EXPIRED, Ends
from parley.runs.failures import Notice
from parley.runs.ledger import Ledger
from parley.runs.on_event import EventStarts
from parley.runs.open_approvals import OpenApprovals
from parley.runs.outage import Outage
from parley.runs.prefect_api import PrefectApi
from parley.runs.questions import Questions
from parley.runs.reconcile import Reconciler
from parley.runs.replay import ReplayDesk
from parley.runs.requests import QueuedRun
from parley.settings import File, Settings, load
from parley.store import newest
from parley.store.engine import Store
from parley.web.serve import serve

logger = logging.getLogger(__name__)

PAGE = 1000
"""Ids of waiting messages that are read from the store at once."""


class Hub:
    """Everything that the hub is made of, put together."""

    def __init__(self, settings: Settings, store: Store, keys: DataKeys, owner_id: str) -> None:
        self.settings: Settings = settings
        self.store: Store = store
        self.keyring: Keyring = keys.keyring
        keyring = keys.keyring
        self.owner_id: str = owner_id
        self.configuration: Configuration = Configuration(settings)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.catalogue: Catalogue = kept_catalogue.read(settings)
        self.understander: Understander = Understander(self.catalogue)
        self.watch: Watch = Watch()
        self.metrics: Metrics = Metrics()
        self.vitals: Vitals = Vitals(self)
        self.audit: Audit = Audit(keyring)
        self.settings_record: SettingsRecord = SettingsRecord(store, keyring, self.audit, settings.config)
        self.policy: Policy = _policy_of(self.file)
        self.rights: Rights = Rights(lambda: self.policy)
        self.people: PeopleDesk = PeopleDesk(
            store, keyring, self.audit, policy=lambda: self.policy, approvals=lambda: self.desk
        )
        self.provider_calls: ProviderCalls = ProviderCalls()
        self.sign_in: SignIn = SignIn(
            store,
            keyring,
            self.audit,
            rules=lambda: self.file.sign_in,
            lines=lambda: self.file.groups,
            send=self.provider_calls.send,
            reserved=lambda: names_in(self.file),
        )
        self.anchors: Anchors = Anchors(
            AnchorFile(settings.anchors_file, keyring),
            lambda: store.read(audit_reading.head),
            lambda sequence: store.read(lambda conn: audit_reading.chain_of(conn, sequence)),
            syslog=self.file.audit.syslog,
        )
        self.audit_desk: AuditDesk = AuditDesk(store, self.audit, self.anchors.file)
        self.open_actions: OpenActions = OpenActions(store, self.audit)
        self.measuring: Measuring = Measuring(self)
        self.housekeeping: Housekeeping = Housekeeping(store, self.metrics, lambda: self.file.retention)
        self.prefect: PrefectApi = PrefectApi(
            settings.api_url,
            os.environ.get("PREFECT_API_AUTH_STRING", ""),
            measure=self.metrics.machinery.prefect_called,
        )
        self.console: Connector = registry.connector_class(CONSOLE)(CONSOLE)
        self.accounts: Accounts = Accounts(
            store, lambda: self.file, self.console, came_back=self._account_is_back
        )
        self.places: Places = Places(self.accounts, file=lambda: self.file)
        self.inbox: Inbox = Inbox(
            store, keyring, self.file.limits, self.file.retention, self._arrived, wanted=self._is_wanted
        )
        self.outbox: Outbox = Outbox(
            store,
            keyring,
            self.file.retention,
            holder_of=self.accounts.holder,
            capabilities_of=self.accounts.capabilities,
            changed=self._delivery_changed,
            undelivered=Undelivered(
                lambda: self.outbox, lambda: self.closing, self.accounts, language=self._language
            ),
        )
        self.routes: Routes = Routes(self.file, self.catalogue)
        self.bridges: Bridges = Bridges(self.file.bridges)
        self.events: EventLog = EventLog(store, keyring)
        self.follows: Follows = Follows(keyring)
        self.bus: Bus = Bus(
            self.outbox,
            self.events,
            routes=lambda: self.routes,
            route_to=self.places.route_to,
            followers=self.follows.followers,
            capabilities_of=self.accounts.capabilities,
            start=EventStarts(
                keyring,
                self.rights,
                catalogue=lambda: self.catalogue,
                limits=lambda: self.file.limits,
                is_approved_first=lambda spec, values: (
                    terms_for(self.file.approvals, spec, values) is not None
                ),
            ),
        )
        batches = Batches(store)
        self.dispatcher: Dispatcher = Dispatcher(
            self.prefect,
            keyring,
            catalogue=lambda: self.catalogue,
            workers=lambda: self.link.by_role(Role.WORKER),
            refused=self._run_refused,
            unstarted=self._is_unstarted,
            handed=self._handed,
            room=self.file.worker.children if self.own_worker else 50,
            stock_environment=None if self.own_worker else _stock_environment(settings),
            waiting=lanes.reader(store, keyring),
            batches=batches,
            denied=self._is_denied,
        )
        self.desk: ApprovalDesk = ApprovalDesk(
            keyring,
            self.outbox,
            self.watch,
            self.audit,
            self.rights,
            Cards(
                self.outbox,
                capabilities_of=self.accounts.capabilities,
                route_to=self.places.route_to,
                vouched=self.places.is_vouched,
                language=self._language,
                time_zone=lambda: self.file.owner.time_zone,
            ),
            file=lambda: self.file,
            catalogue=lambda: self.catalogue,
        )
        self.open_approvals: OpenApprovals = OpenApprovals(
            keyring, self.desk, catalogue=lambda: self.catalogue
        )
        self.adopter: Adopter = Adopter(
            store,
            keyring,
            self.prefect,
            self.rights,
            catalogue=lambda: self.catalogue,
            route_to=self.places.route_to,
        )
        self.registration: Registration = Registration(
            store, keyring, self.dispatcher, self.adopter, catalogue=lambda: self.catalogue
        )
        self.closing: Closing = Closing(
            store,
            keyring,
            self.outbox,
            self.dispatcher,
            self.watch,
            self.bus,
            catalogue=lambda: self.catalogue,
            duty=self.places.duty,
            default_threshold=self.file.duty.alert_after,
            metrics=self.metrics,
            platform_of=self.accounts.platform_of,
            language=self._language,
        )
        self.ends: Ends = Ends(
            store,
            keyring,
            self.dispatcher,
            self.closing,
            catalogue=lambda: self.catalogue,
            language=self._language,
        )
        self.ledger: Ledger = Ledger(
            store,
            keyring,
            self.outbox,
            self.dispatcher,
            self.bus,
            self.closing,
            self.ends,
            self.rights,
            self.desk,
            catalogue=lambda: self.catalogue,
            account_topics=self.places.topics,
            unknown_run=self.adopter.adopt,
            assurance=self.places.assurance,
            metrics=self.metrics,
        )
        self.directory: DirectoryKeeper = DirectoryKeeper(
            store,
            self.audit,
            self.outbox,
            file=lambda: self.file,
            leave=self.people.leave,
            tell_duty=self.closing.tell_duty,
        )
        self.questions: Questions = Questions(
            store, keyring, self.outbox, self.ledger, self.watch, self.file.limits
        )
        dialogue = Dialogue(
            store,
            keyring,
            self.rights,
            self.desk,
            catalogue=lambda: self.catalogue,
            answered=self.questions.answered,
        )
        self.canceller: Canceller = Canceller(
            store, self.audit, self.ends, self.dispatcher, batches, self.desk
        )
        self.replays: ReplayDesk = ReplayDesk(
            store,
            keyring,
            self.outbox,
            self.dispatcher,
            self.audit,
            self.rights,
            catalogue=lambda: self.catalogue,
            limits=lambda: self.file.limits,
            take_up=lambda: self._later(self._take_up_messages()),
            desk=self.desk,
        )
        linking = LinkingCommands(store, keyring, self.audit)
        builtins = Builtins(
            store,
            dialogue,
            self.audit,
            FollowCommands(store, self.audit, self.follows, self.places.forges),
            DeadLetterCommands(self.replays),
            self.rights,
            linking,
            catalogue=lambda: self.catalogue,
            status=self.vitals.status,
            ask_for_end=self.canceller.ask,
            bring_to_end=self.canceller.carry_out,
            more=self._deciding(),
        )
        self.reception: Reception = Reception(
            store,
            keyring,
            self.outbox,
            self.dispatcher,
            self.watch,
            builtins,
            dialogue,
            self.bus,
            self.rights,
            self.desk,
            from_stranger=linking.from_stranger,
            bridges=lambda: self.bridges,
            bridge_stopped=self._bridge_stopped,
            catalogue=lambda: self.catalogue,
            understander=lambda: self.understander,
            limits=lambda: self.file.limits,
            language=self._language,
            metrics=self.metrics,
        )
        self.intake: Intake = Intake(self.reception.handle, urgent=self.reception.urgent)
        self.backlog: Backlog = Backlog(self.intake, self._unhandled, self.inbox.unhandled_before)
        self.reconciler: Reconciler = Reconciler(
            store,
            self.prefect,
            self.dispatcher,
            self.ledger,
            self.ends,
            self.canceller,
            self.outbox,
            self.audit,
            catalogue=lambda: self.catalogue,
            take_up_messages=self._take_up_messages,
            batches=batches,
            desk=self.desk,
        )
        self.outage: Outage = Outage(
            store,
            keyring,
            self.outbox,
            self.prefect,
            self.dispatcher,
            tell_duty=self.closing.tell_duty,
            language=self._language,
        )
        damaged = Damaged(store, keyring, self.inbox, self.outbox, language=self._language)
        self.keys: KeyKeeper = KeyKeeper(
            store, keys, self.audit, self.prefect, days=lambda: self.file.keys.days, settle=damaged.settle
        )
        self.front: HubFront = HubFront(
            store,
            keyring,
            _desk_of(self.console),
            self.accounts,
            self.watch,
            EventDesk(
                store,
                self.events,
                self.bus,
                self.outbox,
                self.dispatcher,
                account_topics=self.places.topics,
            ),
            self.replays,
            self.rights,
            self.audit_desk,
            self.open_approvals,
            self.sign_in,
            catalogue=lambda: self.catalogue,
            cancel=self.cancel,
            status=self.vitals.status,
            ready=self.vitals.ready,
        )
        self.admin: Admin = Admin(
            store,
            keyring,
            self.accounts,
            console_url=settings.console,
            catalogue=lambda: self.catalogue,
            replays=self.replays,
            audit_desk=self.audit_desk,
            accounts_changed=self._accounts_changed,
            status=lambda: self.vitals.status(anew=True),
            doctor=self.vitals.doctor,
            more={
                **self.keys.verbs,
                **self.people.verbs,
                **self.directory.verbs,
                **SignInDesk(store, self.sign_in).verbs,
            },
        )
        self.link: LinkServer = LinkServer(
            make_tokens(settings.run_folder), Switchboard(self).handlers, joined=self._joined
        )

    @property
    def file(self) -> File:
        """parley.toml as it is in force."""
        return self.configuration.file

    @property
    def own_worker(self) -> bool:
        """Whether runs go to our own worker, not to the ones the user has."""
        return self.settings.file.prefect.worker == "parley"

    def _deciding(self) -> dict[str, Verb]:
        """The commands by which people approve and lock."""
        approving = ApprovalCommands(self.store, self.audit, self.desk, self.open_approvals)
        freezing = FreezeCommands(
            self.store,
            self.keyring,
            self.audit,
            self.rights,
            catalogue=lambda: self.catalogue,
            time_zone=self.desk.time_zone,
        )
        return {
            "approve": approving.approve,
            "refuse": approving.refuse,
            "approvals": approving.approvals,
            "delegate": approving.delegate,
            "lock": freezing.lock,
            "unlock": freezing.unlock,
            "sessions": SessionCommands(self.sign_in.sessions).sessions,
            "people": PeopleCommands(self.directory.sync_by_hand).people,
        }

    # -- messages

    def _arrived(self, received: Received) -> None:
        self.metrics.message(self.accounts.platform_of(received.event.account), received.event.type)
        self.metrics.way.reached("received", (received.stored_at - received.received_at).total_seconds())
        self.backlog.add(received)

    def _language(self) -> str:
        """The language of whoever has none of their own, services and the people on duty among them."""
        return self.file.owner.language

    def _is_wanted(self, message: Message) -> bool:
        # Said to others in a room, by far the most of what is said: looked at without a single read.
        if place_of(message.route) in self.bridges:
            return True
        return self.bus.may_take(message_topic(message.account)) and self.bus.takes(of_message("", message))

    async def _bridge_stopped(self, conn: AsyncConnection, name: str) -> list[Delivery]:
        minutes = int(STOPPED_FOR.total_seconds()) // 60
        source = f"bridge:{name}:{now():%Y-%m-%dT%H}"  # one an hour says enough
        notice = Notice(source=source, key="bridge-stopped", values={"name": name, "minutes": minutes})
        return await self.closing.tell_duty(conn, notice)

    async def accept_at_desk(self, event: Event) -> Accepted:
        """Accept what a person who is logged in said: the sender's id is the principal's own."""
        acting_for = event.route.context.get("acting_as")
        return await self.inbox.accept(event, principal_id=event.sender.id, acting_for_id=acting_for)

    async def intake_is_empty(self) -> None:
        """Return once every message so far is handled."""
        await self.intake.empty()

    def _unhandled(self, known: Container[str]) -> AsyncIterator[Received]:
        return self.inbox.unhandled(PAGE + len(self.intake), known)

    async def _take_up_messages(self) -> None:
        await self.backlog.take_up()

    async def _account_is_back(self, account: str) -> None:
        await self.outbox.account_is_back(account)

    async def _delivery_changed(self, one: Delivery, state: str) -> None:
        at = now()
        waited = (at - one.created_at).total_seconds()
        sent = state == "sent"
        self.metrics.delivery(self.accounts.platform_of(one.route.account), state, waited if sent else None)
        if sent and (one.ordinal == 0 or one.source.startswith("request:")):
            self.metrics.way.delivered(one.source, waited, at)
        self.watch.notify(one.message_id)

    async def _is_unstarted(self, run_id: str) -> bool:
        return await self.ends.is_unstarted(run_id)

    async def _is_denied(self, queued: QueuedRun) -> bool:
        reason = await self.ledger.denied(queued.run_id)
        if reason == EXPIRED:
            await self.ends.expire(queued.run_id)
        elif reason is not None:
            await self.ends.refuse(queued.run_id, reason)
        return reason is not None

    async def _run_refused(self, queued: QueuedRun, reason: str) -> None:
        await self.ends.fail(queued.run_id, reason)

    def _handed(self, queued: QueuedRun, seconds: float) -> None:
        self.metrics.way.reached("handed", seconds, queued.automation)

    # -- runs

    async def cancel(self, request_id: str, by: str) -> None:
        """Ask for the end of a request: at once when nothing has started, else by ending its process."""
        await self.store.write(lambda conn: self.canceller.ask(conn, request_id, by))
        await self.canceller.carry_out(request_id, by)

    def publish(self, catalogue: Catalogue) -> None:
        """Take a new catalogue; what was known before stays until then."""
        if catalogue == self.catalogue:
            return
        self.catalogue = catalogue
        self.understander = Understander(catalogue)
        self.routes = Routes(self.file, catalogue)
        try:
            kept_catalogue.keep(self.settings, catalogue)
        except OSError as error:
            logger.warning("the catalogue is not kept for the next start: %s", error)
        for one in catalogue.broken:
            logger.warning("automation %s is not offered: %s", one.source, one.reason)
        self._later(self._send_menus())

    async def _send_menus(self) -> None:
        own = builtin_menu(self.file.owner.language)
        offered = (spec.menu_entry() for spec in self.catalogue)
        await self._tell(Role.LISTENERS, "command_menu", CommandMenu(commands=(*own, *offered)))

    # -- the link

    def _joined(self, peer: Peer) -> None:
        logger.info("%r is connected", peer)
        if peer.role is Role.WORKER:
            self.dispatcher.worker_changed()
        if peer.role is Role.LISTENERS:
            self._later(self._send_menus())
        if peer.role is Role.CONTAINERS and self.catalogue.broken:
            # It comes once its engine answers: what was not offered for want of that is looked at again.
            self._later(self._tell(Role.WORKER, "reload"))

    async def _tell(self, role: Role, name: str, args: Any = None) -> None:
        for peer in self.link.by_role(role):
            try:
                await peer.call(name, args, timeout=10)
            except (ParleyError, TimeoutError) as error:
                logger.warning("%r did not take %s: %s", peer, name, error)

    async def _accounts_changed(self) -> None:
        await self._tell(Role.LISTENERS, "accounts_changed")

    # -- living

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """Everything runs; at the end it stops taking, settles what it can, and closes."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.prefect.aclose)
            stack.push_async_callback(self.provider_calls.aclose)
            stack.push_async_callback(self.outbox.aclose)
            stack.push_async_callback(self.intake.aclose)
            await newest.go_on_from(self.store)
            await self.accounts.load()
            await self.events.load()
            await self.settings_record.read_at_start()
            self.places.warn_of_lost_routes()
            await self._take_up()
            await stack.enter_async_context(self.link.listen(self.settings.socket))
            await stack.enter_async_context(
                serve(self.front, self.settings, metrics=self.metrics, refresh=self.measuring.refresh)
            )
            for work in (
                self.dispatcher.run(),
                self.reconciler.run(),
                self.outage.run(),
                self.backlog.run(),
                self.console.listen(self.accept_at_desk),
                self.configuration.watch(self._file_changed, self.settings_record.refused),
                self.housekeeping.run(),
                self.directory.run(),
                self.keys.run(),
                self.anchors.run(),
                self.open_actions.run(),
                self.measuring.run(),
                asyncio.to_thread(self.policy.prepare),
            ):
                self._later(work)
            stack.push_async_callback(self._stop_tasks)
            yield

    async def _take_up(self) -> None:
        # What an earlier hub left: queued runs, unsent answers, unhandled messages.
        self.dispatcher.take_up()
        await self.outbox.resume()
        await self._take_up_messages()

    async def _stop_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _file_changed(self, old: File, new: File) -> None:
        changed = [name for name in File.model_fields if getattr(old, name) != getattr(new, name)]
        logger.info("parley.toml changed: %s", ", ".join(changed))
        await self.settings_record.changed(changed)
        self.inbox.limits, self.inbox.retention = new.limits, new.retention
        self.outbox.retention, self.questions.limits = new.retention, new.limits
        self.closing.default_threshold = new.duty.alert_after
        self.routes = Routes(new, self.catalogue)
        if {"roles", "owner"} & set(changed):
            self.policy = _policy_of(new)
        if new.bridges != old.bridges:
            self.bridges = Bridges(new.bridges)
        if {"routes", "bridges", "accounts"} & set(changed):
            self.places.warn_of_lost_routes()
        if {"directory", "groups"} & set(changed):
            self.directory.file_changed()
        if "accounts" in changed:
            await self._accounts_changed()
        if {"automations", "scripts", "worker", "containers"} & set(changed):
            await self._tell(Role.WORKER, "reload")


async def open_hub(settings: Settings) -> Hub:
    """Open store and key, and make sure that there is an owner. Raises `ConfigurationError`."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_place(settings.anchors_file, home=settings.home)
    store = await Store.open(
        settings.database_url or settings.home / "parley.db", plain_links=settings.plain_links
    )
    try:
        keys = await open_keys(settings, store)
        owner_id = await store.write(lambda conn: ensure_owner(conn, settings.file.owner.name))
    except BaseException:
        await store.aclose()
        raise
    return Hub(settings, store, keys, owner_id)


async def run(settings: Settings) -> None:
    """Be the hub until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ended.set)
    hub = await open_hub(settings)
    try:
        async with hub.living():
            logger.info("the hub is ready")
            await ended.wait()
    finally:
        await hub.store.aclose()


def main() -> int:
    """Start the hub; 2 when it cannot start as it is configured."""
    log_lines.configure()
    try:
        # The faster loop, as Prefect's server has it.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(load()))
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _policy_of(file: File) -> Policy:
    return Policy(file.roles, file.owner.time_zone)


def _stock_environment(settings: Settings) -> dict[str, str]:
    return (
        {"PARLEY_HOME": str(settings.home), "PARLEY_CONFIG": str(settings.config)}
        if settings.config.exists()
        else {"PARLEY_HOME": str(settings.home)}
    )


def _desk_of(console: Connector) -> Desk:
    # The engine knows connectors by their contract only; that the console has a desk is a matter between the two.
    desk: Desk = vars(console)["desk"]
    return desk


if __name__ == "__main__":
    sys.exit(main())
