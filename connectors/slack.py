"""Slack: Socket Mode or signed hooks in, the Web API out.

One message is one event: its native id is `<channel>:<ts>`, Slack's own identity of a message. Slack reports a
mention twice, as `message` and as `app_mention`, with two different `event_id`s and in no fixed order; both carry the
same channel and ts, as does every redelivery, so that the inbox's unique key merges them all. What has no ts of its
own keeps the id that Slack made for it: `event_id` for edits, the trigger id for slash commands, the press itself
(message, button, person, moment) for buttons. The envelope's id is never a key: a redelivery has a new one.

In channels and group conversations a message counts when it mentions us, or when it is in a thread that we started,
answered in or were mentioned in; `hear="along"` hands the rest on as said to others, `hear="all"` as said to us. Which
threads those are is kept in a bounded memory; a thread that is not in it, as after a restart, is read once from Slack.
In a direct conversation every message counts.

Answers go into the thread of the message, which in channels begins with the message itself; a direct conversation has
a thread only where the person began one. Slash commands have no thread: their answer is posted in the conversation.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn
from urllib.parse import urlsplit

from connectors._file_names import bare_name
from connectors._json import Json, loaded, object_of, objects_of, text_of
from connectors._memory import Memory
from connectors._slack_read import (
    SPOKEN,
    Me,
    hook_payload,
    id_of,
    is_own,
    mentions,
    moment_of,
    parse,
    ts_of,
    verify,
)
from connectors._slack_write import MAX_BUTTONS, render
from connectors._waiting import pause, retry_after
from connectors._workers import Workers
from parley.errors import (
    AuthError,
    ConfigurationError,
    ConnectorError,
    RateLimited,
    Rejected,
    StoreUnavailable,
    Unknown,
    Unreachable,
    Unsupported,
)
from parley.messages import (
    MAX_FILE,
    Accept,
    Capabilities,
    Connector,
    ConversationKind,
    Edit,
    Event,
    File,
    HookRequest,
    HookResponse,
    Message,
    Receipt,
    Reply,
    Route,
)

if TYPE_CHECKING:
    import aiohttp
    from slack_sdk.web.async_client import AsyncWebClient

__all__ = ["API", "CONNECTOR", "DELIVERY", "Slack", "parse", "render"]

API = "https://slack.com/api/"

# Slack's documented figures.
ANSWERS_WITHIN = 3.0  # seconds until an envelope that is not acknowledged is sent again
LAST_ATTEMPT = 3  # the third redelivery is the last
MAX_FILES = 10  # files of one message that are read
MOST_NAMED = 20  # files left out that are named

HELLO_WITHIN = 10.0
STEADY = 10.0  # seconds after which a connection counts as a good one
IN_FLIGHT = 200  # envelopes being stored at once
ROOM_WITHIN = 2.0  # of Slack's three seconds: one more waits so long, then it is left to Slack's redelivery
LOOK_BACK = timedelta(days=1)  # how far a look-up for a lost receipt reads
PAGES = 10

DELIVERY = "parley_delivery"
"""The metadata event type under which a delivery's token travels with its message."""

log = logging.getLogger(__name__)
# The SDK writes message texts and connection tickets to its log at DEBUG: it gets its own, which stays quiet.
_sdk_log = logging.getLogger(f"{__name__}.sdk")
_sdk_log.setLevel(logging.WARNING)


# --- errors ----------------------------------------------------------------------------------------------------------

_BAD_CREDENTIALS = {
    "invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "not_allowed_token_type",
    "access_denied", "ekm_access_denied", "org_login_required", "two_factor_setup_required", "team_access_not_granted",
    "app_uninstalled", "no_app_token",
}  # fmt: skip
_WAIT = {"ratelimited", "rate_limited", "message_limit_exceeded"}
_NOT_BEGUN = {"request_timeout", "team_added_to_org"}
_FROM_A_PROXY = {401, 403, 407, 408, 421, 425}
# By Slack's own words some of the work may have been done before these were raised.
_PERHAPS_DONE = {"internal_error", "fatal_error", "service_unavailable", "accesslimited"}


def _raise_for(method: str, status: int, error: str, header: str | None) -> NoReturn:
    """Raise what an answer of Slack that is not ok means."""
    if status == 429 or error in _WAIT:
        raise RateLimited(f"Slack wants us to wait ({method}).", retry_after(header, datetime.now(UTC)))
    if error in _BAD_CREDENTIALS:
        raise AuthError(
            f"Slack refuses our token ({method}: {error}). Install the app again, save its token."
        )
    # Slack says what is wrong with 200 and a code: a bare 4xx is from something on the way, and nothing was done.
    if error in _NOT_BEGUN or (not error and status in _FROM_A_PROXY):
        raise Unreachable(f"Slack did not take the request ({method}: {error or status}).")
    if status >= 500 or error in _PERHAPS_DONE or not (error or 400 <= status < 500):
        raise Unknown(
            f"Slack failed in the middle ({method}: {error or status}); whether it was done is not known."
        )
    raise Rejected(f"Slack refuses it ({method}: {error or status}).")


# --- the connector ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Upload:
    """Files of one delivery: on Slack already, and perhaps shown."""

    ids: tuple[str, ...]
    whole: bool
    """The reply's text goes with the files: once they are shown, all is sent."""
    tried: bool = False


class Slack(Connector):
    """One Slack app in one workspace."""

    name: ClassVar[str] = "slack"
    capabilities: ClassVar[Capabilities] = Capabilities(
        # Slack asks for at most 4,000 characters and may split longer texts by itself; it cuts off at 40,000.
        max_text=4000,
        markup="own",
        threads=True,
        edits=True,
        private=True,
        max_buttons=MAX_BUTTONS,
        max_file=MAX_FILE,
        slash_commands=True,
        hooks=True,
    )

    def __init__(
        self,
        account: str,
        *,
        bot_token: str,
        app_token: str = "",
        signing_secret: str = "",
        base_url: str = API,
        hear: Literal["mentions", "along", "all"] = "mentions",
        heartbeat: float = 10.0,
        session: Callable[[], aiohttp.ClientSession] | None = None,
    ) -> None:
        """Open nothing yet. With `app_token` we connect to Slack; with `signing_secret` Slack calls our hook.

        `session` makes the HTTP client; the connector closes it. Raises `ConfigurationError`.
        """
        super().__init__(account)
        _require_sdk()
        self._bot_token, self._app_token, self._signing_secret = bot_token, app_token, signing_secret
        self._base_url = base_url if base_url.endswith("/") else base_url + "/"
        self._hear, self._heartbeat = hear, heartbeat
        self._make_session = session or _session
        self._http: aiohttp.ClientSession | None = None
        self._me: Me | None = None
        self._threads: Memory[tuple[str, str], bool] = Memory()
        self._types: Memory[str, str] = Memory()
        self._uploads: Memory[str, _Upload] = Memory()
        self._texts: Memory[str, bool] = Memory()

    def __repr__(self) -> str:
        return f"Slack(account={self.account!r})"

    # -- receiving

    async def listen(self, accept: Accept) -> None:
        """Receive over Socket Mode; without an app token, keep the credentials proven and leave it to the hook."""
        receive = self._connection if self._app_token else self._hooks_alone
        failures = 0
        while True:
            wait, began = 0.0, time.monotonic()
            try:
                await receive(accept)
                failures = 0 if time.monotonic() - began > STEADY else failures + 1
            except AuthError:
                raise
            except ConnectorError as error:
                log.warning("slack %s: %s", self.account, error)
                wait, failures = getattr(error, "retry_after", 0.0), failures + 1
            await asyncio.sleep(max(wait, pause(failures)))

    async def _hooks_alone(self, _: Accept) -> None:
        await self.check()
        await asyncio.Event().wait()

    async def _connection(self, accept: Accept) -> None:
        """One connection, from its address to its end. Returns when it had worked, raises when it had not."""
        import aiohttp

        await self._who()
        url = await self._socket_url()
        try:
            async with self._client().ws_connect(
                url,
                # The probe from end to end: a silent `heartbeat` brings a ping, a missing pong ends the connection.
                heartbeat=self._heartbeat,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            ) as socket:
                await self._greeting(socket)
                await self._envelopes(socket, accept)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise Unreachable(f"The connection to Slack failed ({type(error).__name__}).") from None

    async def _greeting(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        frame = await socket.receive(timeout=HELLO_WITHIN)
        if not (isinstance(frame.data, str) and loaded(frame.data).get("type") == "hello"):
            raise Unreachable("Slack opened a connection and did not say hello.")

    async def _envelopes(self, socket: aiohttp.ClientWebSocketResponse, accept: Accept) -> None:
        storing = Workers[Json](lambda envelope: self._envelope(socket, envelope, accept), IN_FLIGHT)
        grace = ANSWERS_WITHIN
        try:
            async for frame in socket:
                envelope = loaded(frame.data) if isinstance(frame.data, str) else {}
                if envelope.get("type") == "disconnect":
                    return  # Slack is about to close it; whatever is being stored may still be acknowledged here
                if storing.full:
                    # The socket is not read meanwhile: what Slack has more of waits there.
                    await storing.room(ROOM_WITHIN)
                if isinstance(envelope.get("envelope_id"), str) and not storing.full:
                    storing.put(envelope)
        except asyncio.CancelledError:
            grace = 0.0
            raise
        finally:
            await storing.finish(grace)

    async def _envelope(
        self, socket: aiohttp.ClientWebSocketResponse, envelope: Json, accept: Accept
    ) -> None:
        try:
            await self._take(envelope.get("payload"), _attempt(envelope.get("retry_attempt")), accept)
        except Exception as error:  # noqa: BLE001 - whatever it was, an envelope not stored is not acknowledged
            log.warning(
                "slack %s: not acknowledged, Slack will send it again (%s)",
                self.account,
                type(error).__name__,
            )
            return
        with suppress(ConnectionError):  # then Slack sends it again, and the inbox knows it
            await socket.send_str(json.dumps({"envelope_id": envelope["envelope_id"]}))

    async def handle_hook(self, request: HookRequest, accept: Accept) -> HookResponse:
        """One signed request: an event, a button, a slash command, or the challenge that proves the address."""
        verify(self._signing_secret, request, time.time())
        payload = hook_payload(request)
        if payload.get("type") == "url_verification":
            challenge = text_of(payload.get("challenge"))
            return HookResponse(headers={"content-type": "text/plain"}, body=challenge.encode())
        try:
            await self._take(payload, _attempt(request.headers.get("x-slack-retry-num")), accept)
        except ConnectorError as error:
            raise StoreUnavailable(f"The message could not be read from Slack in full: {error}") from error
        return HookResponse()

    async def _take(self, payload: object, attempt: int, accept: Accept) -> None:
        """Store what concerns us; to return means that Slack may be told so."""
        me = await self._who()
        data = await self._with_type(object_of(payload))
        draft = parse(data, self.account, me)
        if draft is None:
            return
        if not await self._concerns_us(draft, data, me):
            if self._hear != "along":
                return
            if isinstance(draft, Message):
                draft = draft.model_copy(update={"addressed": False})
        if isinstance(draft, Message) and object_of(data.get("event")).get("files"):
            files, left_out = await self._files(data, final=attempt >= LAST_ATTEMPT)
            draft = draft.model_copy(update={"files": files, "left_out": left_out})
        await accept(draft)

    async def _concerns_us(self, event: Event, data: Json, me: Me) -> bool:
        inner = object_of(data.get("event"))
        said = object_of(inner.get("message")) if isinstance(event, Edit) else inner
        if event.route.kind is ConversationKind.DIRECT or not inner or self._hear == "all":
            return True
        thread = (event.route.conversation, event.route.thread or "")
        if mentions(text_of(said.get("text")), me) or said.get("parent_user_id") == me.user:
            self._threads[thread] = True
            return True
        return bool(ts_of(said.get("thread_ts"))) and await self._takes_part(thread, me)

    async def _takes_part(self, thread: tuple[str, str], me: Me) -> bool:
        known = self._threads.recall(thread)
        if known is None:
            known = self._threads[thread] = await self._took_part(*thread, me)
        return known

    async def _took_part(self, channel: str, ts: str, me: Me) -> bool:
        try:
            page = await self._call(
                "conversations.replies", http_verb="GET", params={"channel": channel, "ts": ts, "limit": 200}
            )
        except Rejected as error:
            log.warning(
                "slack %s: a thread cannot be read, its messages count only with a mention: %s",
                self.account,
                error,
            )
            return False
        return any(
            is_own(said, me) or mentions(text_of(said.get("text")), me)
            for said in objects_of(page.get("messages"))
        )

    async def _with_type(self, data: Json) -> Json:
        """The payload with its conversation's type, which `app_mention` lacks: both reports of a mention must agree."""
        event = object_of(data.get("event"))
        channel = id_of(event.get("channel"))
        if not channel or channel.startswith("D") or text_of(event.get("type")) not in SPOKEN:
            return data
        if stated := text_of(event.get("channel_type")):
            self._types[channel] = stated
            return data
        stated = self._types.recall(channel) or await self._channel_type(channel)
        return {**data, "event": {**event, "channel_type": stated}}

    async def _channel_type(self, channel: str) -> str:
        try:
            answer = await self._call("conversations.info", http_verb="GET", params={"channel": channel})
        except Rejected:  # the app may not read about this kind of conversation: the commonest one then
            return "channel"
        about = object_of(answer.get("channel"))
        kind = "im" if about.get("is_im") else "mpim" if about.get("is_mpim") else "channel"
        self._types[channel] = kind
        return kind

    async def _files(self, data: Json, *, final: bool) -> tuple[tuple[File, ...], tuple[str, ...]]:
        """The message's files, and which were left out for what reason."""
        files, left_out = [], []
        for number, about in enumerate(objects_of(object_of(data.get("event")).get("files"))):
            try:
                if number >= MAX_FILES:
                    raise Rejected(f"only {MAX_FILES} files of a message are read")
                files.append(await self._file(about))
            except ConnectorError as error:
                if not (final or isinstance(error, Rejected)):
                    raise  # not acknowledged: Slack brings the message again, and with it the file
                log.warning("slack %s: a file was left out: %s", self.account, error)
                left_out.append(f"{_name_of(about)}: {error}")
        return tuple(files), tuple(left_out[:MOST_NAMED])

    async def _file(self, about: Json) -> File:
        url = text_of(about.get("url_private_download")) or text_of(about.get("url_private"))
        size = about.get("size")
        if not self._may_have_token(url):
            raise Rejected("it is not kept by Slack itself")
        if isinstance(size, int) and size > MAX_FILE:
            raise Rejected(f"it has {size} bytes, the limit is {MAX_FILE}")
        content = await self._download(url, html=about.get("mimetype") == "text/html")
        return File(
            name=_name_of(about),
            media_type=text_of(about.get("mimetype")) or "application/octet-stream",
            content=content,
        )

    def _may_have_token(self, url: str) -> bool:
        """Whether our token may be shown to this address: Slack's own hosts, over TLS, or the host we call anyway."""
        try:
            there, base = urlsplit(url), urlsplit(self._base_url)
            host = there.hostname or ""
            if (there.scheme, there.netloc) == (base.scheme, base.netloc):
                return True
            return (
                there.scheme == "https"
                and there.port in {None, 443}
                and (host == "slack.com" or host.endswith(".slack.com"))
            )
        except ValueError:
            return False

    async def _download(self, url: str, *, html: bool) -> bytes:
        import aiohttp

        headers = {"Authorization": f"Bearer {self._bot_token}"}
        try:
            # Slack redirects to its login page where the token may not read files: never follow, never keep the page.
            async with self._client().get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status >= 500 or answer.status == 429:
                    raise Unreachable(f"Slack does not give it now ({answer.status})")
                if answer.status != 200 or (answer.content_type == "text/html" and not html):
                    raise Rejected("Slack does not give it: the app needs the scope files:read")
                return await _read(answer)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"reading it failed ({type(error).__name__})") from None

    # -- sending

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        """Post one reply: text and buttons as a message, files with the text as their comment.

        A private reply is shown to `route.private_to` alone: its text in place, its files in their direct conversation.
        A reply with files and buttons (or a private one with files) is two visible messages, the files first; when the
        second fails, another call with the same token does not show the files again.
        """
        person = self._only_reader(reply, route)
        request = render(reply, route)
        if person and route.thread and not await self._has_begun(route.conversation, route.thread):
            del request["thread_ts"]
        sent: list[str] = []
        if token and not reply.files:
            self._texts[token] = True
        if reply.files:
            whole = not (reply.buttons or person) or not (reply.text or reply.buttons)
            sent += await self._send_files(reply.files, request, person, whole=whole, token=token)
            if whole:
                return Receipt(native_ids=tuple(sent))
        answer = await self._post(request, person, token)
        return Receipt(native_ids=(*sent, answer))

    async def edit_message(self, native_id: str, reply: Reply, route: Route) -> Receipt:
        """Replace text and buttons of a message that we posted here; files cannot be replaced."""
        self._only_reader(reply, route)
        channel, _, ts = native_id.partition(":")
        if channel != route.conversation or not ts_of(ts):
            raise Rejected("This message is not in the conversation that the answer goes to.")
        if reply.files:
            raise Unsupported("Slack cannot replace files of a message.")
        request = render(reply, route)
        fields = {"channel": channel, "ts": ts, "text": request["text"], "blocks": request.get("blocks", [])}
        await self._call("chat.update", json=fields)
        return Receipt(native_ids=(native_id,))

    async def find_sent(self, token: str, route: Route) -> Receipt | None:
        """Look whether the delivery with this token arrived: its receipt, or None when it is not there.

        Reads one day back. Raises `Unknown` where that cannot be told: Slack keeps no private replies that could be
        read, and files carry no token, so that they are found by this connector's memory and not after a restart.
        """
        if route.private_to and route.kind is not ConversationKind.DIRECT:
            raise Unknown("Slack keeps no private replies to look among.")
        upload = self._uploads.recall(token)
        if upload and upload.whole:
            shown = upload.tried and await self._is_shown(upload, route.conversation)
            return Receipt(native_ids=_file_ids(route.conversation, upload)) if shown else None
        no_files = upload is not None or self._texts.recall(token) is not None
        return await self._find_by_metadata(token, route, no_files=no_files)

    async def check(self) -> None:
        """Prove both tokens."""
        try:
            await self._who(afresh=True)
            if self._app_token:
                await self._socket_url()
        except (RateLimited, Unknown) as error:
            raise Unreachable(str(error)) from error

    async def aclose(self) -> None:
        """Close the HTTP client; it may be made anew."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    def _only_reader(self, reply: Reply, route: Route) -> str | None:
        """The person who alone may see it, None where all in the conversation may. Raises rather than shows it."""
        if route.account != self.account:
            raise Rejected("This answer belongs to another account.")
        if route.kind is ConversationKind.DIRECT:
            return None
        if reply.private and not route.private_to:
            raise Rejected("A private answer in a channel needs the person it is for.")
        return route.private_to

    async def _has_begun(self, channel: str, ts: str) -> bool:
        """Whether somebody has answered in this thread: elsewhere Slack shows nothing to one person alone.

        By https://docs.slack.dev/reference/methods/chat.postEphemeral.
        """
        params = {"channel": channel, "ts": ts, "limit": "2"}
        try:
            page = await self._call("conversations.replies", http_verb="GET", params=params)
        except Rejected:  # where threads cannot be read, it is shown below the last message
            return False
        except Unknown as error:  # nothing was sent yet
            raise Unreachable(str(error)) from error
        return any(ts_of(said.get("ts")) != ts for said in objects_of(page.get("messages")))

    async def _post(self, request: dict[str, Any], person: str | None, token: str) -> str:
        if not (request["text"] or request.get("blocks")):
            raise Rejected("There is nothing to send.")
        if person:
            shown = {key: value for key, value in request.items() if not key.startswith("unfurl_")}
            answer = await self._call("chat.postEphemeral", json={**shown, "user": person})
            return f"{request['channel']}:{text_of(answer.get('message_ts'))}"
        if token:
            request = {**request, "metadata": {"event_type": DELIVERY, "event_payload": {"token": token}}}
        answer = await self._call("chat.postMessage", json=request)
        self._remember(request)
        return f"{id_of(answer.get('channel')) or request['channel']}:{text_of(answer.get('ts'))}"

    async def _send_files(
        self, files: tuple[File, ...], request: Json, person: str | None, *, whole: bool, token: str
    ) -> tuple[str, ...]:
        upload = self._uploads.recall(token) or _Upload(await self._upload(files), whole)
        if token:
            self._uploads[token] = upload
        place: dict[str, str] = {"channel_id": request["channel"]}
        if person:
            place = {"channel_id": await self._direct(person)}
        elif "thread_ts" in request:
            place["thread_ts"] = request["thread_ts"]
        if not (upload.tried and await self._is_shown(upload, place["channel_id"])):
            upload.tried = True
            await self._share(upload, files, place, request["text"] if whole else "")
        self._remember(request)
        return _file_ids(place["channel_id"], upload)

    async def _upload(self, files: tuple[File, ...]) -> tuple[str, ...]:
        try:
            return tuple([await self._upload_one(file) for file in files])
        except Unknown as error:
            # Nobody sees a file before it is shared: whatever happened to the upload, it can be made again.
            raise Unreachable(str(error)) from error

    async def _upload_one(self, file: File) -> str:
        import aiohttp

        fields = {"filename": file.name, "length": str(len(file.content))}
        place = await self._call("files.getUploadURLExternal", data=fields)
        try:
            async with self._client().post(text_of(place.get("upload_url")), data=file.content) as answer:
                if answer.status != 200:
                    raise Unreachable(f"Slack did not take a file ({answer.status}).")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"Sending a file to Slack failed ({type(error).__name__}).") from None
        return id_of(place.get("file_id"))

    async def _share(self, upload: _Upload, files: tuple[File, ...], place: Json, comment: str) -> None:
        named = [{"id": id_, "title": file.name} for id_, file in zip(upload.ids, files, strict=True)]
        fields = {**place, "files": named, **({"initial_comment": comment} if comment else {})}
        await self._call("files.completeUploadExternal", json=fields)

    async def _is_shown(self, upload: _Upload, channel: str) -> bool:
        try:
            answer = await self._call("files.info", http_verb="GET", params={"file": upload.ids[0]})
        except Rejected:  # never completed, or the app may not read files: share it, rather than lose it
            return False
        shares = object_of(object_of(answer.get("file")).get("shares"))
        return any(channel in object_of(shares.get(kind)) for kind in ("public", "private"))

    async def _direct(self, person: str) -> str:
        answer = await self._call("conversations.open", json={"users": person})
        return id_of(object_of(answer.get("channel")).get("id"))

    async def _find_by_metadata(self, token: str, route: Route, *, no_files: bool) -> Receipt | None:
        oldest = f"{(datetime.now(UTC) - LOOK_BACK).timestamp():.6f}"
        params = {
            "channel": route.conversation,
            "include_all_metadata": "true",
            "limit": "200",
            "oldest": oldest,
        }
        method = "conversations.history"
        if route.thread:
            method, params["ts"] = "conversations.replies", route.thread
        me, perhaps = await self._who(), False
        for _ in range(PAGES):
            page = await self._call(method, http_verb="GET", params=params)
            for said in objects_of(page.get("messages")):
                if _token(said) == token and ts_of(said.get("ts")):
                    return Receipt(
                        native_ids=(f"{route.conversation}:{said['ts']}",), sent_at=moment_of(said["ts"])
                    )
                perhaps = perhaps or (is_own(said, me) and not _token(said) and bool(said.get("files")))
            params["cursor"] = text_of(object_of(page.get("response_metadata")).get("next_cursor"))
            if not params["cursor"]:
                break
        else:
            raise Unknown("The conversation is too long to look for one message in it.")
        if perhaps and not no_files:
            raise Unknown("We showed files here lately: whether they were this answer's cannot be told.")
        return None

    def _remember(self, request: Json) -> None:
        if "thread_ts" in request:
            self._threads[request["channel"], request["thread_ts"]] = True

    # -- the Web API

    async def _who(self, *, afresh: bool = False) -> Me:
        if self._me is None or afresh:
            answer = await self._credentials("auth.test", self._bot_token)
            self._me = Me(user=id_of(answer.get("user_id")), bot=id_of(answer.get("bot_id")))
        return self._me

    async def _socket_url(self) -> str:
        answer = await self._credentials("apps.connections.open", self._app_token)
        return text_of(answer.get("url"))

    async def _credentials(self, method: str, token: str) -> Json:
        try:
            return await self._call(method, token=token, data={})
        except Rejected as error:  # such as a missing scope: the token is what has to change
            raise AuthError(str(error)) from error

    async def _call(self, method: str, *, token: str = "", **arguments: Any) -> Json:
        """Call one method once. Raises what its failure means for sending again."""
        import aiohttp
        from slack_sdk.errors import SlackApiError, SlackClientError

        try:
            answer = await self._web(token or self._bot_token).api_call(method, **arguments)
        except SlackApiError as error:
            _raise_for(method, *_failure(error.response))
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.ClientHttpProxyError,
        ) as error:
            raise Unreachable(f"Slack cannot be reached ({method}: {type(error).__name__}).") from None
        except (aiohttp.ClientError, TimeoutError, OSError, SlackClientError) as error:
            raise Unknown(f"Slack's answer was lost ({method}: {type(error).__name__}).") from None
        return object_of(answer.data)

    def _web(self, token: str) -> AsyncWebClient:
        from slack_sdk.web.async_client import AsyncWebClient

        # No retry of the SDK's: the outbox is the one layer that sends again.
        web = AsyncWebClient(
            token=token, base_url=self._base_url, session=self._client(), logger=_sdk_log, retry_handlers=[]
        )
        web.proxy = None  # the SDK knows no NO_PROXY; our client does
        return web

    def _client(self) -> aiohttp.ClientSession:
        if self._http is None or self._http.closed:
            self._http = self._make_session()
        return self._http


def _failure(response: Any) -> tuple[int, str, str | None]:
    """Status, error code and Retry-After of what the SDK holds: its own response, or aiohttp's for a bad body."""
    data = object_of(getattr(response, "data", None))
    status: int = getattr(response, "status_code", None) or getattr(response, "status", None) or 0
    error = data.get("error")
    code = error if isinstance(error, str) and re.fullmatch(r"[\w.:\-]{1,80}", error) else ""
    return status, code, response.headers.get("Retry-After")


def _token(said: Json) -> str:
    metadata = object_of(said.get("metadata"))
    if metadata.get("event_type") != DELIVERY:
        return ""
    return text_of(object_of(metadata.get("event_payload")).get("token"))


def _file_ids(channel: str, upload: _Upload) -> tuple[str, ...]:
    return tuple(f"{channel}:{id_}" for id_ in upload.ids)


def _name_of(about: Json) -> str:
    """A file's bare name."""
    return bare_name(text_of(about.get("name")))


def _attempt(value: object) -> int:
    return int(value) if isinstance(value, int | str) and re.fullmatch(r"\d{1,3}", str(value)) else 0


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in answer.content.iter_chunked(65536):
        content += chunk
        if len(content) > MAX_FILE:
            raise Rejected(f"it has more than {MAX_FILE} bytes")
    return bytes(content)


def _session() -> aiohttp.ClientSession:
    import aiohttp

    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=60, sock_connect=5, sock_read=20), trust_env=True
    )


def _require_sdk() -> None:
    try:
        for module in ("aiohttp", "slack_sdk.web.async_client"):
            import_module(module)
    except ImportError as error:
        raise ConfigurationError('Slack needs its SDK: pip install "prefect-parley[slack]"') from error


CONNECTOR = Slack
