"""The switchboard: which calls each kind of process may make to the hub, and who in the hub answers them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from parley.link.calls import (
    AcceptCall,
    AccountState,
    AdminCall,
    AskCall,
    BeatCall,
    FinishCall,
    Holding,
    LogActionCall,
    OpenRunSecret,
    OpenSecret,
    ProveCall,
    PublishCall,
    RegisterRun,
    Role,
    RunEnded,
    SayCall,
    SealSecret,
    StartCall,
)
from parley.link.connection import Handler
from parley.link.server import Peer
from parley.messages.model import Accepted
from parley.runs.catalogue import Catalogue

if TYPE_CHECKING:
    from parley.processes.hub import Hub


class Switchboard:
    """Gives each peer its calls, by role: a run's, a worker's, a listener's, or the command line's."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def handlers(self, peer: Peer) -> Mapping[str, Handler]:
        """The calls that this peer may make."""
        run = {
            "prove": lambda args: self._hub.ledger.prove(ProveCall.model_validate(args)),
            "start": lambda args: self._hub.ledger.start(StartCall.model_validate(args)),
            "beat": lambda args: self._hub.ledger.beat(BeatCall.model_validate(args)),
            "say": lambda args: self._hub.ledger.say(SayCall.model_validate(args)),
            "ask": lambda args: self._hub.questions.ask(AskCall.model_validate(args)),
            "finish": lambda args: self._hub.ledger.finish(FinishCall.model_validate(args)),
            "log_action": lambda args: self._hub.ledger.log_action(LogActionCall.model_validate(args)),
            "publish": lambda args: self._hub.ledger.publish(PublishCall.model_validate(args)),
            "open_run_secret": lambda args: self._hub.ledger.open_secret(OpenRunSecret.model_validate(args)),
        }
        if peer.role is Role.RUN:
            return run
        if peer.role is Role.WORKER:
            return run | self._worker_handlers()
        if peer.role is Role.CONTAINERS:
            worker = self._worker_handlers()
            return {name: worker[name] for name in ("register", "run_ended")}
        if peer.role is Role.LISTENERS:
            return self._listener_handlers(peer)
        return {"admin": self._run_admin}

    def _worker_handlers(self) -> dict[str, Handler]:
        async def publish(args: dict[str, Any]) -> None:
            self._hub.publish(Catalogue.model_validate(args))

        async def ended(args: dict[str, Any]) -> None:
            await self._hub.ends.run_ended(RunEnded.model_validate(args))

        async def holding(args: dict[str, Any]) -> None:
            held = set(Holding.model_validate(args).flow_run_ids)
            for run_id, flight in list(self._hub.dispatcher.in_flight.items()):
                if (
                    flight.worker is not None
                    and flight.worker.gone.is_set()
                    and flight.flow_run_id not in held
                ):
                    await self._hub.ends.ordered_in_vain(run_id)

        return {
            "start": lambda args: self._hub.ledger.start(StartCall.model_validate(args), trusted=True),
            "publish_catalogue": publish,
            "run_ended": ended,
            "holding": holding,
            "register": lambda args: self._hub.registration.register(RegisterRun.model_validate(args)),
        }

    def _listener_handlers(self, peer: Peer) -> Mapping[str, Handler]:
        async def accept(args: dict[str, Any]) -> Accepted:
            return await self._hub.inbox.accept(AcceptCall.model_validate(args).event)

        async def held(_args: dict[str, Any]) -> Any:
            return self._hub.accounts.all()

        async def open_secret(args: dict[str, Any]) -> str:
            call = OpenSecret.model_validate(args)
            return self._hub.keyring.open_text(call.block_type, call.block_name, call.field, call.sealed)

        async def seal_secret(args: dict[str, Any]) -> str:
            call = SealSecret.model_validate(args)
            return self._hub.keyring.seal_text(call.block_type, call.block_name, call.field, call.clear)

        return {
            "accept": accept,
            "held_accounts": held,
            "open_secret": open_secret,
            "seal_secret": seal_secret,
            "account_state": lambda args: self._hub.accounts.state(peer, AccountState.model_validate(args)),
        }

    async def _run_admin(self, args: dict[str, Any]) -> Any:
        call = AdminCall.model_validate(args)
        return await self._hub.admin.run(call.verb, call.arguments)
