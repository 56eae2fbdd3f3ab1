"""What goes over the REST API, in and out, as its OpenAPI shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from parley.messages.model import MAX_TEXT, Button, File, Reply, Table
from parley.messages.rendering import table_text
from parley.people.principals import Principal
from parley.runs.catalogue import AutomationSpec, Effect
from parley.web.front import MessageView, ReplyView, RunView
from parley.web.problems import Problem
from parley.web.site import run_page

API = "/api/v1"

Item = TypeVar("Item")


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


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

    def check(self) -> None:
        """Raises `Problem` when there is nothing in it, or too much."""
        if len(self.text) > MAX_TEXT:
            raise Problem(
                413,
                f"The text has {len(self.text):,} characters; {MAX_TEXT:,} is the most. Send it as a file.",
                kind="text-too-long",
            )
        if not self.text.strip() and not self.files:
            raise Problem(422, "The message is empty: write something, or add a file.", kind="empty")


class NewPress(_In):
    """A button of a reply was pressed."""

    value: str = Field(min_length=1, max_length=2000, examples=["yes 4f2a"])
    thread: str | None = Field(None, max_length=256)


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


def me_out(principal: Principal) -> Me:
    """A principal, to themselves."""
    return Me(
        id=principal.id,
        name=principal.name,
        kind=principal.kind,
        role=principal.role,
        language=principal.language,
        time_zone=principal.time_zone,
    )


def message_out(view: MessageView, prefect: str) -> MessageOut:
    """A message with the addresses of its files and of its run's page."""
    replies = tuple(
        reply_out(reply, f"{API}/messages/{quote(view.id, safe='')}/replies") for reply in view.replies
    )
    plain = view.model_dump(exclude={"replies"})
    return MessageOut(**plain, flow_run_url=run_page(prefect, view.flow_run_id), replies=replies)


def reply_out(view: ReplyView, base: str) -> ReplyOut:
    """A reply whose files are found under `base`."""
    return ReplyOut(
        id=view.id,
        text=spoken(view.reply),
        table=view.reply.table,
        buttons=view.reply.buttons,
        files=files_out(view.reply.files, f"{base}/{quote(view.id, safe='')}"),
        state=view.state,
        created_at=view.created_at,
    )


def files_out(files: Sequence[File], base: str) -> tuple[FileOut, ...]:
    """Files by the address of the reply they belong to."""
    return tuple(
        FileOut(name=file.name, url=f"{base}/files/{n}", size=len(file.content), media_type=file.media_type)
        for n, file in enumerate(files)
    )


def spoken(reply: Reply) -> str:
    """All of a reply that can be said in text."""
    parts = (reply.text, table_text(reply.table) if reply.table else "")
    return "\n\n".join(part for part in parts if part)


def automation_out(spec: AutomationSpec) -> AutomationOut:
    """An automation as the API tells of it."""
    parameters = tuple(
        ParameterOut(
            name=one.name,
            required=one.required,
            description=one.description,
            json_schema=one.json_schema,
            sealed=one.sealed,
        )
        for one in spec.parameters
    )
    return AutomationOut(
        name=spec.name,
        command=spec.command,
        summary=spec.summary,
        examples=spec.examples,
        effect=spec.effect,
        parameters=parameters,
    )


def run_out(view: RunView, prefect: str) -> RunOut:
    """A request with the address of its run's page."""
    return RunOut(**view.model_dump(), flow_run_url=run_page(prefect, view.flow_run_id))
