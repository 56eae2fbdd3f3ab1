"""What goes over the REST API, in and out, as its OpenAPI shows it; server and Python client share it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from parley.messages.model import Button, File, Table
from parley.runs.catalogue import Effect

API = "/api/v1"

Item = TypeVar("Item")


class _In(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )


class NewMessage(_In):
    """A message, as one would type it."""

    text: str = Field("", description="What you say.", examples=["/order 1024"])
    files: Annotated[tuple[File, ...], Field(max_length=10, description="`content` is base64.")] = ()
    thread: str | None = Field(None, max_length=256, description="Continues this thread.")
    acting_as: str | None = Field(
        None, max_length=64, description="Speaks for somebody else: needs the right to, and is recorded."
    )

    @field_validator("files")
    @classmethod
    def _names_are_bare(cls, files: tuple[File, ...]) -> tuple[File, ...]:
        for file in files:
            if (
                not file.name.isprintable()
                or "/" in file.name
                or "\\" in file.name
                or file.name in (".", "..")
            ):
                raise ValueError("a file's name is one visible name, without a folder")
        return files


class NewPress(_In):
    """A button of a reply was pressed."""

    value: str = Field(min_length=1, max_length=2000, examples=["yes 4f2a"])
    thread: str | None = Field(None, max_length=256)


class NewReplay(_In):
    """Do a dead letter again."""

    confirm: bool = Field(False, description="You have looked: what may have happened did not, or may twice.")


class NewEvent(_In):
    """An event for the bus."""

    topic: str = Field(
        max_length=400, description="Lower-case words with dots.", examples=["shop.order.late"]
    )
    title: str = Field("", max_length=500, examples=["Order 1024 is late"])
    text: str = Field("", max_length=20_000, description="What happened.")
    url: str = Field("", max_length=2000, description="Where to look.")
    key: str = Field("", max_length=500, description="Events with the same key share a thread.")
    closes: bool = Field(False, description="Ends what the key began.")
    severity: Literal["info", "warning", "critical"] = "info"
    data: dict[str, Any] = Field({}, description="For conditions and parameters.", examples=[{"order": 1024}])


class EventOut(BaseModel):
    """An event, and its place in the log."""

    sequence: int = Field(examples=[4711])
    topic: str = Field(examples=["github.push"])
    account: str = Field(description="Where it came from; `bus` for our own.")
    title: str
    text: str
    url: str
    key: str
    closes: bool
    severity: str
    data: dict[str, Any]
    at: AwareDatetime


class EventsOut(BaseModel):
    """Events in their order; ask next with this `after`."""

    items: tuple[EventOut, ...]
    after: int
    lost: bool = Field(description="There were others behind your place, which are no longer kept.")


class FileOut(BaseModel):
    """A file of a reply."""

    name: str = Field(examples=["logistics-1024.csv"])
    url: str = Field(examples=["/api/v1/messages/0199.../replies/0199.../files/0"])
    size: int = Field(description="Bytes.", examples=[1234])
    media_type: str = Field(examples=["text/csv"])


class ReplyOut(BaseModel):
    """A reply. `text` says all of it, the table too; the rest is the same in parts."""

    id: str
    text: str = Field(examples=["Order 1024 is on its way."])
    table: Table | None = None
    buttons: tuple[Button, ...] = ()
    files: tuple[FileOut, ...] = ()
    state: str = Field(description="Of its delivery.", examples=["sent"])
    created_at: AwareDatetime


class MessageOut(BaseModel):
    """A message and what became of it; `final` when it will not change by itself."""

    id: str = Field(examples=["01995f0e-7c1d-7a33-b6ce-2f0f6f3d8a11"])
    state: str = Field(examples=["done"])
    final: bool
    run_id: str | None = None
    flow_run_id: str | None = None
    flow_run_url: str | None = Field(None, description="The run in Prefect's UI.")
    automation: str | None = Field(None, examples=["order_status"])
    reason: str | None = None
    replies: tuple[ReplyOut, ...] = ()
    received_at: AwareDatetime
    timings: dict[str, float] = Field(
        {}, description="Milliseconds after the receipt.", examples=[{"total_ms": 184.2}]
    )


class ParameterOut(BaseModel):
    """A parameter of an automation."""

    name: str
    required: bool
    description: str
    json_schema: dict[str, Any]
    sealed: bool


class AutomationOut(BaseModel):
    """An automation that you may run."""

    name: str = Field(examples=["order_status"])
    command: str = Field(examples=["order"])
    summary: str
    examples: tuple[str, ...]
    effect: Effect
    parameters: tuple[ParameterOut, ...]


class RunOut(BaseModel):
    """A request and its latest run."""

    id: str
    automation: str
    state: str
    origin: str
    actor: str
    reason: str | None = None
    flow_run_id: str | None = None
    flow_run_url: str | None = None
    created_at: AwareDatetime
    ended_at: AwareDatetime | None = None


class DeadLetterOut(BaseModel):
    """What ended without having been carried out or delivered.

    `kind`: message, run, delivery or expired. `doubtful`: it may have had effects, or may have arrived. `state`: open,
    replayed or discarded. `facts`: what is known of its subject; only where one was asked for.
    """

    id: str
    kind: str
    subject: str
    automation: str | None = None
    account: str | None = None
    actor: str | None = None
    reason: str
    doubtful: bool
    state: str
    created_at: AwareDatetime
    settled_at: AwareDatetime | None = None
    settled_by: str | None = None
    facts: dict[str, str] = Field(default_factory=dict)


class ApprovalOut(BaseModel):
    """What waits for an approval. `what` is the command; `mine`: the caller asked for it; `may`: may decide it."""

    code: str
    request_id: str
    automation: str
    what: str
    actor: str
    needed: int
    approved_by: tuple[str, ...]
    created_at: AwareDatetime
    expires_at: AwareDatetime
    mine: bool
    may: bool


class CancelOut(BaseModel):
    """Whether there was an open request to end; it ends a moment later."""

    id: str
    asked: bool


class Me(BaseModel):
    """Who you are here."""

    id: str
    name: str
    kind: str
    role: str
    language: str | None
    time_zone: str | None


class Page(BaseModel, Generic[Item]):
    """A part of a list. `next` is the `cursor` of the following part; null at the end."""

    items: list[Item]
    next: str | None = None
