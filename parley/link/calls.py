"""Every call that crosses the link, with its arguments and its answer.

All calls may be repeated: the link sends a call again when the connection broke before the answer, so each is keyed
by something of its own (native event id, run and epoch, ordinal) and a second one changes nothing. Calls of a run
carry the token that was made for that run; it is worth nothing for another.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from parley.messages.model import CommandEntry, Event, HookRequest, Message, Model, Reply, Route
from parley.messages.published import Happening


class Role(StrEnum):
    """Who is at the other end. Each role but `run` proves itself with the token in `run/<role>.token`."""

    LISTENERS = "listeners"
    WORKER = "worker"
    CONTAINERS = "containers"
    RUN = "run"
    COMMAND_LINE = "cli"


class Hello(Model):
    """The first call on every connection."""

    role: Role
    token: str = ""
    pid: int
    name: str = ""


class Welcome(Model):
    """The hub's answer: `hub` changes with each start of the hub."""

    hub: str


# -- listeners -> hub


class AcceptCall(Model):
    """`accept` -> Accepted."""

    event: Event


class HeldAccount(Model):
    """An account that this process should hold."""

    name: str
    platform: str
    block: str


class AccountState(Model):
    """`account_state` -> None: what the connector of this account is doing."""

    account: str
    state: Literal["connecting", "listening", "stopped", "failed"]
    reason: str = ""


class OpenSecret(Model):
    """`open_secret` -> str: a sealed field of a Block, in clear."""

    block_type: str
    block_name: str
    field: str
    sealed: str


class OpenRunSecret(OpenSecret):
    """`open_run_secret` -> str: the same for a run whose automation names the Block."""

    token: str
    flow_run_id: str
    run_id: str
    epoch: int


class SealSecret(Model):
    """`seal_secret` -> str: a field that was typed in clear into the Prefect UI, sealed."""

    block_type: str
    block_name: str
    field: str
    clear: str


# -- hub -> listeners


class DeliverCall(Model):
    """`deliver` -> Receipt, or the connector's error. `again`: an earlier attempt may have arrived.

    `edits`: the native id of the message of ours that this one replaces in place.
    """

    delivery_id: str
    account: str
    reply: Reply
    route: Route
    token: str
    again: bool = False
    edits: str | None = None


class HookCall(Model):
    """`hook` -> HookResponse."""

    account: str
    request: HookRequest


class CommandMenu(Model):
    """`command_menu` -> None: the commands there are."""

    commands: tuple[CommandEntry, ...]


# -- hub -> worker


class RunOrder(Model):
    """`run` -> None: taken by a child. `flow_run` is Prefect's own JSON of the created run.

    With `tokens`, by run id, the flow run answers several requests, and `run_id` is that of their batch.
    """

    run_id: str
    flow_run_id: str
    automation: str
    entrypoint: str
    flow_run: dict[str, Any]
    token: str
    tokens: dict[str, str] = Field(default_factory=dict)
    time_limit: float | None = None
    urgent: bool = False


class CancelOrder(Model):
    """`cancel` -> bool: whether this worker had the run. Ends its child, then sets Cancelled in Prefect."""

    flow_run_id: str


# -- worker -> hub


class RegisterRun(Model):
    """`register` -> RunOrder without flow_run: a flow run that Prefect handed out (schedule, UI, API)."""

    flow_run_id: str


class RunEnded(Model):
    """`run_ended` -> None: the child is done with this flow run.

    `crashed`: the process died or was ended; `finished`: the engine came to an end, whatever the state. `cancelled`:
    ended because it was asked for. `state` is Prefect's final state name, where known.
    """

    flow_run_id: str
    how: Literal["finished", "crashed", "cancelled", "timed-out", "refused"]
    state: str = ""
    reason: str = ""


# -- run -> hub (each with the run's token)


class _OfRun(Model):
    token: str
    flow_run_id: str


class StartCall(_OfRun):
    """`start` -> Started, or StartRefused.

    `holder` is made by the calling process for this attempt: the same holder may ask again, another may not while the
    first may live. Without a token (a run that Prefect started by itself, under a stock worker) the caller's role must
    be `worker`; `automation` and `parameters` then say what runs. `run_id` names the run where its flow run answers
    several; its token is always asked for.
    """

    run_id: str = ""
    holder: str
    automation: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class ProveCall(_OfRun):
    """`prove` -> None, or StartRefused: this is a process that was handed the run's token.

    Frames larger than `UNPROVEN_FRAME` are taken from a run once a call of it was answered; where such a one is the
    first, after a connection was lost for one, this call goes before it.
    """

    run_id: str = ""


class Started(Model):
    """The start is granted; `epoch` fences everything that follows. `sealed` holds opened `Sealed` parameters."""

    run_id: str
    epoch: int
    token: str
    command: str
    origin: str
    principal: str
    language: str = "en"
    message: Message | None = None
    sealed: dict[str, Any] = Field(default_factory=dict)
    lease: float = 30.0


class _OfEpoch(_OfRun):
    run_id: str
    epoch: int


class BeatCall(_OfEpoch):
    """`beat` -> bool: keeps the lease; false once cancellation was asked for."""


class SayCall(_OfEpoch):
    """`say` -> None: progress in the thread. `ordinal` counts from 1 within the run."""

    ordinal: int
    reply: Reply


class AskCall(_OfEpoch):
    """`ask` -> dict: a typed question in the thread; answers when the person did.

    `json_schema` is an object's schema; its properties are asked for one by one.
    """

    ordinal: int
    text: str
    json_schema: dict[str, Any]


class FinishCall(_OfEpoch):
    """`finish` -> None: closes the request and writes its answer, in one transaction.

    `reply` for done; `reason` (a sentence for people) for failed; `kind` tells bad arguments from a failure, so that
    a typo is not an incident. `suspended`: the run will come back under the same flow run id.
    """

    outcome: Literal["done", "failed", "suspended"]
    reply: Reply | None = None
    reason: str = ""
    kind: Literal["", "arguments", "error", "timeout"] = ""
    fell_back: bool = False


LONGEST_ACTION: Final = 200
LONGEST_DETAIL: Final = 900
MOST_DETAILS: Final = 50
"""What an author's audit row may hold, in characters and in details."""


class LogActionCall(_OfEpoch):
    """`log_action` -> None: an audit row of the author's own."""

    ordinal: int
    action: Annotated[str, Field(max_length=LONGEST_ACTION)]
    details: Annotated[
        dict[
            Annotated[str, Field(max_length=LONGEST_ACTION)], Annotated[str, Field(max_length=LONGEST_DETAIL)]
        ],
        Field(max_length=MOST_DETAILS),
    ] = Field(default_factory=dict)


class PublishCall(_OfEpoch, Happening):
    """`publish` -> None: an event on the bus; a repeated ordinal publishes nothing."""

    ordinal: int


# -- command line -> hub


class AdminCall(Model):
    """`admin` -> JSON: what only the person at the machine may do (mint a token, connect an account, stop).

    `verb` is one of the hub's administrative verbs; unknown ones raise `LinkError`.
    """

    verb: str
    arguments: dict[str, Any] = Field(default_factory=dict)


# -- worker -> hub, after each (re)connection


class Holding(Model):
    """`holding` -> None: the flow runs that are at this worker now, in a child or waiting for one.

    An order that went to this worker earlier and is not among them never reached it, or has ended (its `run_ended`
    follows, or came before), or runs on in a child whose worker was killed: the lease of a granted start tells which.
    """

    flow_run_ids: tuple[str, ...] = ()
