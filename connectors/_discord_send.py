"""Our replies, sent: into threads, as answers to slash commands, to one person alone.

An answer to a slash command or a press goes through the interaction while its token is good: the first fills in the
message that says an answer is being made, the others follow it. Afterwards it is an ordinary message of the channel.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from connectors._discord_known import Attempt, Known
from connectors._discord_read import id_of, token_of
from connectors._discord_rest import (
    MISSING_ACCESS,
    MISSING_PERMISSIONS,
    THREAD_ARCHIVED,
    THREAD_EXISTS,
    UNKNOWN_CHANNEL,
    UNKNOWN_MESSAGE,
    WRONG_CHANNEL_TYPE,
    Answer,
    Rest,
    file_name,
)
from connectors._discord_write import (
    EPHEMERAL,
    MAX_REQUEST,
    long_values,
    nonce,
    reference,
    render,
    thread_name,
)
from connectors._json import object_of
from parley.errors import Rejected, Unknown, Unreachable
from parley.messages import ConversationKind, File, Receipt, Reply, Route

MOST_ACTIVE_THREADS = 160006
LOOK_BACK = 24 * 3600.0
CLOCKS_APART = 60.0
PAGES = 10
PAGE = 100
# Why no thread can be begun with a message: the answer is then a reply to it.
_NO_THREAD = {MISSING_ACCESS, MISSING_PERMISSIONS, WRONG_CHANNEL_TYPE, UNKNOWN_MESSAGE, MOST_ACTIVE_THREADS}

ORIGINAL = "/webhooks/{}/{}/messages/@original"
_NOT_OF_WEBHOOKS = {"nonce", "enforce_nonce", "message_reference"}

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Interaction:
    """The way of an answer to a slash command or a press."""

    application: str
    token: str
    user: str = ""


class Sender:
    """One account's way out."""

    def __init__(self, account: str, rest: Rest, known: Known) -> None:
        self._account, self._rest, self._known = account, rest, known

    async def send(self, reply: Reply, route: Route, token: str) -> Receipt:
        """One reply, in as few messages as its files allow; a part that another attempt sent is not sent again."""
        person = self._only_reader(reply, route)
        body = render(reply, route)
        self._known.values.update(long_values(reply.buttons))
        parts = _parts(body, reply.files)
        attempt = (self._known.attempts.recall(token) if token else None) or Attempt(len(parts))
        if token:
            self._known.attempts[token] = attempt
        for number, (part, files) in enumerate(parts):
            if number < len(attempt.sent):
                continue
            named = {"nonce": nonce(token, number), "enforce_nonce": True} if token else {}
            said = {**part, **named}
            attempt.part, attempt.began = number, time.time()
            attempt.content, attempt.files = said["content"], tuple(file_name(file.name) for file in files)
            attempt.sent = (*attempt.sent, await self._post(said, files, route, person, attempt))
        return Receipt(native_ids=attempt.sent)

    async def edit(self, native_id: str, reply: Reply, route: Route) -> Receipt:
        """Replace what a message of ours says, and its files where the reply has some."""
        person = self._only_reader(reply, route)
        if not id_of(native_id):
            raise Rejected("This is no message of Discord's.")
        body = {key: value for key, value in render(reply, route).items() if key != "message_reference"}
        self._known.values.update(long_values(reply.buttons))
        (await self._edit(native_id, body, reply.files, route, person)).taken()
        return Receipt(native_ids=(native_id,))

    async def type(self, route: Route) -> None:
        """Show that an answer is being made; a slash command shows it by itself."""
        interaction = self._interaction(route)
        if interaction is not None and interaction.token in self._known.waiting:
            return
        channel = channel_of(route)
        if route.thread and route.kind is ConversationKind.CHANNEL and route.thread in self._known.places:
            channel = route.thread
        await self._rest.ask("POST", "/channels/{}/typing", channel)

    # -- who and where

    def _only_reader(self, reply: Reply, route: Route) -> str | None:
        """The person who alone may see it, None where all in the conversation may. Raises rather than shows it."""
        if route.account != self._account:
            raise Rejected("This answer belongs to another account.")
        if route.kind is ConversationKind.DIRECT:
            return None
        if reply.private and not route.private_to:
            raise Rejected("A private answer in a channel needs the person it is for.")
        if route.private_to is not None and not id_of(route.private_to):
            raise Rejected("This person has no id of Discord's.")
        return route.private_to

    def _interaction(self, route: Route, person: str | None = None) -> Interaction | None:
        """The interaction that this may be answered through, if there is one and its token is still good."""
        context = route.context
        application, token = id_of(context.get("application")), token_of(context.get("interaction"))
        until, user = context.get("until", ""), id_of(context.get("user"))
        if not (application and token and until.isdecimal() and int(until) > time.time()):
            return None
        if context.get("channel") != (route.thread or route.conversation) or token in self._known.spent:
            return None
        if person is not None and person != user:
            return None
        return Interaction(application, token, user)

    async def _place(self, body: Body, route: Route, person: str | None) -> tuple[str, Body]:
        """The channel to post in, and the body as it is posted there."""
        if person is not None:
            return await self._direct(person), {k: v for k, v in body.items() if k != "message_reference"}
        channel = channel_of(route)
        if not route.thread:
            return channel, body
        if not id_of(route.thread):
            raise Rejected("This thread has no id of Discord's.")
        if route.kind is ConversationKind.CHANNEL and (
            thread := await self._thread(channel, route.thread, body)
        ):
            return thread, body
        return channel, {**body, "message_reference": reference(route.thread)}

    async def _direct(self, person: str) -> str:
        known = self._known.people.recall(person)
        if known is None:
            opened = await self._prepare("POST", "/users/@me/channels", body={"recipient_id": person})
            known = id_of(object_of(opened.taken()).get("id"))
            if not known:
                raise Unreachable("Discord opened no conversation with this person.")
            self._known.people[person] = known
        return known

    async def _thread(self, channel: str, head: str, body: Body) -> str | None:
        """The thread of this message, begun if there is none; None where there can be none."""
        try:
            me = await self._known.who(self._rest)
            place = await self._known.find(self._rest, me, head)
        except Unknown as error:
            raise Unreachable(str(error)) from error
        if place is not None:
            return place.id if place.is_thread else None
        name = self._known.titles.recall(head) or thread_name(body["content"])
        begun = await self._prepare(
            "POST", "/channels/{}/messages/{}/threads", channel, head, body={"name": name}
        )
        if begun.code in _NO_THREAD or begun.code == UNKNOWN_CHANNEL:
            return None
        if begun.code != THREAD_EXISTS:
            self._known.note_place(begun.taken(), me)
        return head

    async def _prepare(self, method: str, path: str, *ids: str, **request: Any) -> Answer:
        """A request before the message itself: whatever became of it, the message was not sent."""
        try:
            return await self._rest.ask(method, path, *ids, **request)
        except Unknown as error:
            raise Unreachable(str(error)) from error

    # -- posting

    async def _post(
        self, body: Body, files: tuple[File, ...], route: Route, person: str | None, attempt: Attempt
    ) -> str:
        interaction = self._interaction(route, person)
        if interaction is not None:
            attempt.channel, attempt.hidden = route.context["channel"], person is not None
            lock = self._known.locks.setdefault(interaction.token, asyncio.Lock())
            async with lock:
                answer = await self._follow_up(interaction, body, files, attempt)
            if answer is not None:
                return self._receipt(answer)
        attempt.channel, said = await self._place(body, route, person)
        attempt.hidden, attempt.original = False, None
        answer = await self._rest.ask(
            "POST", "/channels/{}/messages", attempt.channel, body=said, files=files
        )
        if answer.code == THREAD_ARCHIVED:
            await self._reopen(attempt.channel)
            answer = await self._rest.ask(
                "POST", "/channels/{}/messages", attempt.channel, body=said, files=files
            )
        if answer.code == UNKNOWN_CHANNEL:
            self._known.places.pop(attempt.channel, None)
        id_ = self._receipt(answer)
        if attempt.channel == route.thread:
            self._known.note_ours(attempt.channel)
        else:
            self._known.titles[id_] = thread_name(body["content"])
        return id_

    async def _follow_up(
        self, interaction: Interaction, body: Body, files: tuple[File, ...], attempt: Attempt
    ) -> Answer | None:
        """An answer through the interaction; None where its token is not good any more."""
        ids = (interaction.application, interaction.token)
        hidden, attempt.original = attempt.hidden, None
        said = {key: value for key, value in body.items() if key not in _NOT_OF_WEBHOOKS}
        waiting = self._known.waiting.recall(interaction.token)
        if waiting or (waiting is not None and not hidden):
            attempt.original = ids
            answer = await self._rest.ask("PATCH", ORIGINAL, *ids, body=said, files=files, by_token=True)
            if answer.code != UNKNOWN_MESSAGE:
                return self._unless_spent(answer, interaction)
            attempt.original = None  # somebody has deleted it
        elif waiting is not None:
            # Everybody sees that an answer is being made, and this one is not for everybody.
            await self._prepare("DELETE", ORIGINAL, *ids, by_token=True)
        self._known.waiting.pop(interaction.token, None)
        if hidden:
            said = {**said, "flags": said["flags"] | EPHEMERAL}
        answer = await self._rest.ask(
            "POST", "/webhooks/{}/{}", *ids, body=said, files=files, params={"wait": "true"}, by_token=True
        )
        return self._unless_spent(answer, interaction)

    def _unless_spent(self, answer: Answer, interaction: Interaction) -> Answer | None:
        if answer.status in {401, 404}:
            self._known.spent[interaction.token] = True
            return None
        if answer.ok:
            self._known.waiting.pop(interaction.token, None)
        return answer

    def _receipt(self, answer: Answer) -> str:
        id_ = id_of(object_of(answer.taken()).get("id"))
        if not id_:
            raise Unknown("Discord took a message and did not say which it is.")
        self._known.own[id_] = True
        return id_

    async def _reopen(self, thread: str) -> None:
        (await self._prepare("PATCH", "/channels/{}", thread, body={"archived": False})).taken()

    # -- editing

    async def _edit(
        self, native_id: str, body: Body, files: tuple[File, ...], route: Route, person: str | None
    ) -> Answer:
        interaction = self._interaction(route, person)
        if person is not None and interaction is not None:
            ids = (interaction.application, interaction.token, native_id)
            answer = await self._rest.ask(
                "PATCH", "/webhooks/{}/{}/messages/{}", *ids, body=body, files=files, by_token=True
            )
            if answer.ok:
                return answer
        if person is not None:
            return await self._patch(await self._direct(person), native_id, body, files)
        channel = channel_of(route)
        in_thread = bool(route.thread) and route.kind is ConversationKind.CHANNEL
        # What begins a thread stands in the channel, all else in the thread.
        first = route.thread if in_thread and route.thread != native_id else channel
        answer = await self._patch(first or channel, native_id, body, files)
        if in_thread and answer.code in {UNKNOWN_MESSAGE, UNKNOWN_CHANNEL, WRONG_CHANNEL_TYPE}:
            second = channel if first != channel else route.thread
            answer = await self._patch(second or channel, native_id, body, files)
        return answer

    async def _patch(self, channel: str, native_id: str, body: Body, files: tuple[File, ...]) -> Answer:
        path, ids = "/channels/{}/messages/{}", (channel, native_id)
        answer = await self._rest.ask("PATCH", path, *ids, body=body, files=files)
        if answer.code == THREAD_ARCHIVED:
            await self._reopen(channel)
            answer = await self._rest.ask("PATCH", path, *ids, body=body, files=files)
        return answer


def channel_of(route: Route) -> str:
    channel = id_of(route.conversation)
    if not channel:
        raise Rejected("This conversation has no id of Discord's.")
    return channel


def _parts(body: Body, files: tuple[File, ...]) -> list[tuple[Body, tuple[File, ...]]]:
    """The messages that a reply becomes: more than one only where its files are too large for one request."""
    batches: list[list[File]] = [[]]
    for file in files:
        if batches[-1] and sum(len(one.content) for one in (*batches[-1], file)) > MAX_REQUEST:
            batches.append([])
        batches[-1].append(file)
    bare = {**body, "content": "", "components": []}
    made = [(body if number == 0 else bare, tuple(batch)) for number, batch in enumerate(batches)]
    if len(made) > 1:
        made[0] = ({**body, "components": []}, made[0][1])
        made[-1] = ({**bare, "components": body["components"]}, made[-1][1])
    return made
