"""What the hub tells -> what goes over the wire."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from parley.messages.model import File, Reply
from parley.messages.rendering import table_text
from parley.people.principals import Principal
from parley.runs.catalogue import AutomationSpec
from parley.web.front import MessageView, ReplyView, RunView
from parley.web.site import run_page
from parley.web.wire import API, AutomationOut, FileOut, Me, MessageOut, ParameterOut, ReplyOut, RunOut


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
