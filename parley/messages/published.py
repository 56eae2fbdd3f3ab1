"""What is published on the bus: one shape for what services report, what people say, and what becomes of runs."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, Field, field_validator
from pydantic_core import to_json

from parley.messages.model import ConversationKind, Edit, Message, Model, Notice, Route, now
from parley.messages.topics import MAX_TOPIC, topic

MAX_DATA: Final = 64 * 1024
"""Largest `data` that a run or a program may publish, in bytes of JSON."""


class Happening(Model):
    """What a run or a program publishes; the fields are those of `Notice`."""

    topic: Annotated[str, Field(max_length=MAX_TOPIC)]
    title: Annotated[str, Field(max_length=500)] = ""
    text: Annotated[str, Field(max_length=20_000)] = ""
    url: Annotated[str, Field(max_length=2000)] = ""
    key: Annotated[str, Field(max_length=500)] = ""
    closes: bool = False
    severity: Literal["info", "warning", "critical"] = "info"
    data: dict[str, Any] = Field(default_factory=dict)

    @field_validator("data")
    @classmethod
    def _small(cls, data: dict[str, Any]) -> dict[str, Any]:
        size = len(to_json(data))
        if size > MAX_DATA:
            raise ValueError(f"{size:,} bytes are too much: the data of an event has at most {MAX_DATA:,}.")
        return data


class Published(Model):
    """An event on the bus.

    `source` makes it happen once: a second one of the same source is dropped. `account`: where it came from, "bus" for
    our own. `trail`: the automations that led to it, as `run:<name>`; one of them is not started by it again. The other
    fields are those of `Notice`.
    """

    source: Annotated[str, Field(max_length=400)]
    topic: Annotated[str, Field(max_length=MAX_TOPIC)]
    account: str
    title: str = ""
    text: str = ""
    url: str = ""
    key: str = ""
    closes: bool = False
    severity: Literal["info", "warning", "critical"] = "info"
    data: dict[str, Any] = Field(default_factory=dict)
    at: AwareDatetime = Field(default_factory=now)
    trail: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """What conditions and templates may name: the event's own fields before those of its data."""
        own = {
            "topic": self.topic,
            "account": self.account,
            "title": self.title,
            "text": self.text,
            "url": self.url,
            "key": self.key,
            "severity": self.severity,
            "closes": self.closes,
        }
        return {**self.data, **own}


def place_of(route: Route) -> str:
    """A route's conversation as parley.toml names it."""
    return f"{route.account}:{route.conversation}"


def of_notice(message_id: str, notice: Notice) -> Published:
    """What a service reported: `<account>.<its topic>`."""
    return Published(
        source=f"message:{message_id}",
        topic=f"{topic(notice.account)}.{notice.topic}",
        account=notice.account,
        title=notice.title,
        text=notice.text,
        url=notice.url,
        key=notice.key,
        closes=notice.closes,
        severity=notice.severity,
        data=notice.data,
        at=notice.sent_at,
    )


def of_message(message_id: str, message: Message | Edit) -> Published:
    """What somebody said: `message.<account>`, with the fields `conversation`, `thread`, `kind`, `sender`, `name`.

    `private`: in a conversation with us alone, or where nobody else sees it.
    """
    route, sender = message.route, message.sender
    return Published(
        source=f"message:{message_id}",
        topic=message_topic(message.account),
        account=message.account,
        title=(sender.name or sender.id)[:500],
        text=message.text,
        data={
            "conversation": route.conversation,
            "thread": route.thread or "",
            "kind": route.kind.value,
            "private": route.kind is ConversationKind.DIRECT or route.private_to is not None,
            "sender": sender.id,
            "name": sender.name,
            "bot": sender.is_bot or (isinstance(message, Message) and message.automatic),
            "addressed": isinstance(message, Edit) or message.addressed,
        },
        at=message.sent_at,
    )


def message_topic(account: str) -> str:
    """The topic of what is said on an account."""
    return topic("message", account)
