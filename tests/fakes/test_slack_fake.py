"""The fake is faithful as far as Slack's own SDK can tell: these tests drive it with nothing of ours in between."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import pytest_asyncio
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.signature import SignatureVerifier
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

from parley.messages import File
from tests.fakes._driver import eventually
from tests.fakes.slack import (
    APP_TOKEN,
    BOT_ID,
    BOT_TOKEN,
    BOT_USER,
    CHANNEL,
    GROUP_DM,
    SIGNING_SECRET,
    SlackFake,
    direct,
)


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[SlackFake]:
    async with SlackFake(host="127.0.0.1") as running:
        yield running


@pytest_asyncio.fixture
async def web(fake: SlackFake) -> AsyncWebClient:
    return client(fake)


def client(fake: SlackFake, token: str = BOT_TOKEN) -> AsyncWebClient:
    made = AsyncWebClient(token=token, base_url=fake.base_url)
    made.proxy = None
    return made


async def refused(call: object) -> str:
    """The error code with which Slack refuses this call."""
    assert hasattr(call, "__await__")
    with pytest.raises(SlackApiError) as caught:
        await call
    return str(caught.value.response["error"])


class Listener:
    """The SDK's Socket Mode client; acknowledges what it is told to."""

    def __init__(self, fake: SlackFake) -> None:
        self.client = SocketModeClient(
            app_token=APP_TOKEN, web_client=client(fake), ping_interval=0.5, logger=logging.getLogger("quiet")
        )
        self.client.proxy = None
        self.requests: list[SocketModeRequest] = []
        self.acknowledges = True
        self.client.socket_mode_request_listeners.append(self.take)

    async def take(self, _: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        self.requests.append(request)
        if self.acknowledges:
            await self.client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))


@asynccontextmanager
async def listening(fake: SlackFake) -> AsyncIterator[Listener]:
    listener = Listener(fake)
    await listener.client.connect()  # type: ignore[no-untyped-call]
    try:
        yield listener
    finally:
        own = [
            listener.client.message_processor,
            listener.client.current_session_monitor,
            listener.client.message_receiver,
        ]
        await listener.client.close()  # type: ignore[no-untyped-call]
        await asyncio.gather(*(task for task in own if task is not None), return_exceptions=True)


async def test_auth_test_names_the_bot(web: AsyncWebClient) -> None:
    answer = await web.auth_test()
    assert (answer["user_id"], answer["bot_id"]) == (BOT_USER, BOT_ID)


@pytest.mark.parametrize(
    ("token", "error"),
    [("xoxb-wrong", "invalid_auth"), ("", "not_authed"), (APP_TOKEN, "not_allowed_token_type")],
)
async def test_tokens_are_checked(fake: SlackFake, token: str, error: str) -> None:
    assert await refused(client(fake, token).auth_test()) == error


async def test_a_revoked_token_is_refused(fake: SlackFake, web: AsyncWebClient) -> None:
    fake.revoked.add(BOT_TOKEN)
    assert await refused(web.auth_test()) == "token_revoked"


async def test_a_connection_is_opened_with_the_app_token_only(web: AsyncWebClient) -> None:
    assert (await web.apps_connections_open(app_token=APP_TOKEN))["url"].startswith("ws://")
    assert await refused(web.apps_connections_open(app_token=BOT_TOKEN)) == "not_allowed_token_type"


async def test_a_posted_message_is_in_the_history(fake: SlackFake, web: AsyncWebClient) -> None:
    posted = await web.chat_postMessage(channel=CHANNEL, text="hello")
    history = await web.conversations_history(channel=CHANNEL)
    assert [(said["ts"], said["text"]) for said in history["messages"]] == [(posted["ts"], "hello")]
    assert fake.posts[0]["text"] == "hello"


async def test_metadata_is_shown_only_when_asked_for(web: AsyncWebClient) -> None:
    metadata = {"event_type": "x", "event_payload": {"token": "t"}}
    await web.chat_postMessage(channel=CHANNEL, text="hello", metadata=metadata)
    assert "metadata" not in (await web.conversations_history(channel=CHANNEL))["messages"][0]
    shown = await web.conversations_history(channel=CHANNEL, include_all_metadata=True)
    assert shown["messages"][0]["metadata"] == metadata


async def test_replies_hold_the_thread_in_order_and_the_history_does_not(
    fake: SlackFake, web: AsyncWebClient
) -> None:
    root = await fake.say("root", channel=CHANNEL)
    await web.chat_postMessage(channel=CHANNEL, text="answer", thread_ts=root)
    replies = await web.conversations_replies(channel=CHANNEL, ts=root)
    assert [said["text"] for said in replies["messages"]] == ["root", "answer"]
    assert [said["text"] for said in (await web.conversations_history(channel=CHANNEL))["messages"]] == [
        "root"
    ]


async def test_the_sdk_pages_through_a_history(web: AsyncWebClient) -> None:
    for number in range(5):
        await web.chat_postMessage(channel=CHANNEL, text=str(number))
    pages = [page["messages"] async for page in await web.conversations_history(channel=CHANNEL, limit=2)]
    assert [said["text"] for page in pages for said in page] == ["4", "3", "2", "1", "0"]


async def test_arguments_are_checked(web: AsyncWebClient) -> None:
    section = {"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}}
    button = {"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "x"}, "value": "v"}
    assert await refused(web.chat_postMessage(channel="CNOWHERE", text="x")) == "channel_not_found"
    assert await refused(web.api_call("chat.postMessage", json={"channel": CHANNEL})) == "no_text"
    assert await refused(web.chat_postMessage(channel=CHANNEL, text="x" * 40_001)) == "msg_too_long"
    assert (
        await refused(web.chat_postMessage(channel=CHANNEL, text="x", blocks=[section])) == "invalid_blocks"
    )
    twice = [{"type": "actions", "elements": [button, button]}]
    assert await refused(web.chat_postMessage(channel=CHANNEL, text="x", blocks=twice)) == "invalid_blocks"
    assert (
        await refused(web.chat_postMessage(channel=CHANNEL, text="x", metadata={"event_type": "x"}))
        == "invalid_metadata_format"
    )
    assert await refused(web.chat_postEphemeral(channel=CHANNEL, user="", text="x")) == "user_not_in_channel"
    assert await refused(web.chat_update(channel=CHANNEL, ts="1.1", text="x")) == "message_not_found"
    assert await refused(web.api_call("conversations.info", json={"channel": CHANNEL})) == "invalid_arguments"
    assert await refused(web.api_call("no.such", json={})) == "unknown_method"


async def test_a_channel_that_we_are_not_in_takes_nothing(fake: SlackFake, web: AsyncWebClient) -> None:
    fake.members.discard(CHANNEL)
    assert await refused(web.chat_postMessage(channel=CHANNEL, text="x")) == "not_in_channel"


async def test_only_own_messages_are_updated(fake: SlackFake, web: AsyncWebClient) -> None:
    theirs = await fake.say("mine", channel=CHANNEL)
    ours = await web.chat_postMessage(channel=CHANNEL, text="before")
    assert await refused(web.chat_update(channel=CHANNEL, ts=theirs, text="x")) == "cant_update_message"
    await web.chat_update(channel=CHANNEL, ts=ours["ts"], text="after")
    assert (await web.conversations_history(channel=CHANNEL))["messages"][0]["text"] == "after"


async def test_an_ephemeral_message_is_kept_nowhere(fake: SlackFake, web: AsyncWebClient) -> None:
    await web.chat_postEphemeral(channel=CHANNEL, user="UALICE", text="psst")
    assert fake.posts[0]["user_only"] == "UALICE"
    assert not (await web.conversations_history(channel=CHANNEL))["messages"]


async def test_the_sdk_uploads_a_file_into_a_thread(fake: SlackFake, web: AsyncWebClient) -> None:
    root = await fake.say("root", channel=CHANNEL)
    await web.files_upload_v2(
        filename="a.csv", content="x,y", channel=CHANNEL, thread_ts=root, initial_comment="see"
    )
    post = fake.posts[0]
    stored = fake.files[post["files"][0]["id"]]
    assert (post["thread_ts"], post["text"], stored.content) == (root, "see", b"x,y")
    assert CHANNEL in (await web.files_info(file=stored.id))["file"]["shares"]["public"]


async def test_a_file_that_was_not_uploaded_is_not_completed(web: AsyncWebClient) -> None:
    place = await web.files_getUploadURLExternal(filename="a.csv", length=3)
    assert (
        await refused(web.files_completeUploadExternal(files=[{"id": place["file_id"]}])) == "file_not_found"
    )


async def test_people_and_places_can_be_asked_about(web: AsyncWebClient) -> None:
    assert (await web.users_info(user="UALICE"))["user"]["profile"]["display_name"] == "ualice"
    assert (await web.conversations_info(channel=GROUP_DM))["channel"]["is_mpim"] is True
    assert (await web.conversations_open(users="UALICE"))["channel"]["id"] == direct("UALICE")


async def test_the_sdk_waits_as_long_as_a_429_says(fake: SlackFake) -> None:
    fake.fail_next("rate_limited", "auth.test", retry_after="0")
    patient = AsyncWebClient(
        token=BOT_TOKEN, base_url=fake.base_url, retry_handlers=[AsyncRateLimitErrorRetryHandler()]
    )
    patient.proxy = None
    assert (await patient.auth_test())["ok"] is True
    assert [method for method, _ in fake.calls] == ["auth.test", "auth.test"]


async def test_an_injected_failure_happens_once(fake: SlackFake, web: AsyncWebClient) -> None:
    fake.fail_next("server_error", "chat.postMessage")
    with pytest.raises(SlackApiError) as caught:
        await web.chat_postMessage(channel=CHANNEL, text="x")
    assert caught.value.response.status_code == 503
    await web.chat_postMessage(channel=CHANNEL, text="y")
    assert [post["text"] for post in fake.posts] == ["y"]


async def test_an_accepted_message_may_lose_its_answer(fake: SlackFake, web: AsyncWebClient) -> None:
    fake.fail_next("accepted_reset", "chat.postMessage")
    with pytest.raises(aiohttp.ClientError):
        await client_without_retries(fake).chat_postMessage(channel=CHANNEL, text="x")
    assert len((await web.conversations_history(channel=CHANNEL))["messages"]) == 1


def client_without_retries(fake: SlackFake) -> AsyncWebClient:
    made = AsyncWebClient(token=BOT_TOKEN, base_url=fake.base_url, retry_handlers=[])
    made.proxy = None
    return made


async def test_the_sdk_receives_and_acknowledges(fake: SlackFake) -> None:
    async with listening(fake) as listener:
        await fake.say("hello")
        await eventually(lambda: fake.acks, "an acknowledgement")
    request = listener.requests[0]
    assert (request.type, request.payload["event"]["text"], request.retry_attempt) == (
        "events_api",
        "hello",
        0,
    )
    assert fake.envelopes[0].acked
    assert fake.envelopes[0].ids == [request.envelope_id]


async def test_a_redelivery_is_the_same_event_in_a_new_envelope(fake: SlackFake) -> None:
    async with listening(fake) as listener:
        listener.acknowledges = False
        await fake.say("hello")
        await fake.redeliver(fake.envelopes[0])
        await eventually(lambda: len(listener.requests) == 2, "the redelivery")
    first, again = listener.requests
    assert first.payload["event_id"] == again.payload["event_id"]
    assert first.envelope_id != again.envelope_id
    assert (again.retry_attempt, again.retry_reason) == (1, "timeout")


async def test_slack_insists_until_it_is_acknowledged() -> None:
    async with SlackFake(host="127.0.0.1", ack_within=0.05) as fake, listening(fake) as listener:
        listener.acknowledges = False
        await fake.say("hello")
        await eventually(lambda: len(listener.requests) == 2, "the redelivery")
        listener.acknowledges = True
        await eventually(lambda: fake.envelopes[0].acked, "the acknowledgement")


async def test_a_mention_is_told_twice_with_two_event_ids(fake: SlackFake) -> None:
    async with listening(fake) as listener:
        await fake.say(f"<@{BOT_USER}> hi", channel=CHANNEL)
        await eventually(lambda: len(listener.requests) == 2, "both reports")
    events = [request.payload["event"] for request in listener.requests]
    assert {event["type"] for event in events} == {"message", "app_mention"}
    assert len({event["ts"] for event in events}) == 1
    assert len({request.payload["event_id"] for request in listener.requests}) == 2


async def test_the_sdk_reconnects_after_an_announced_end(fake: SlackFake) -> None:
    async with listening(fake) as listener:
        await fake.disconnect()
        await eventually(lambda: fake.connections == 2, "the second connection")
        await fake.say("after")
        await eventually(lambda: listener.requests, "the message")


async def test_what_was_not_acknowledged_comes_again_after_a_cut(fake: SlackFake) -> None:
    await fake.say("while nobody listened")
    async with listening(fake) as listener:
        await eventually(lambda: listener.requests, "the message")


async def test_buttons_and_slash_commands_come_through_the_socket(
    fake: SlackFake, web: AsyncWebClient
) -> None:
    button = {"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "x"}, "value": "v"}
    await web.chat_postMessage(channel=CHANNEL, text="x", blocks=[{"type": "actions", "elements": [button]}])
    async with listening(fake) as listener:
        await fake.press(fake.posts[0])
        await fake.slash("/order", "1024")
        await eventually(lambda: len(listener.requests) == 3, "the echo, the press and the command")
    kinds = {request.type: request for request in listener.requests}
    assert kinds["interactive"].payload["actions"][0]["value"] == "v"
    assert kinds["slash_commands"].payload["command"] == "/order"
    assert kinds["slash_commands"].accepts_response_payload is True


async def test_a_deaf_connection_is_found_dead_by_the_sdk(fake: SlackFake) -> None:
    fake.deaf = True
    async with listening(fake):
        await eventually(lambda: fake.connections >= 2, "a second connection")


async def test_a_file_is_given_to_the_bot_only(fake: SlackFake) -> None:
    await fake.say("see", files=(File(name="a.txt", media_type="text/plain", content=b"abc"),))
    url = fake.envelopes[0].payload["event"]["files"][0]["url_private"]
    async with aiohttp.ClientSession() as session:
        async with session.get(url, headers={"Authorization": f"Bearer {BOT_TOKEN}"}) as answer:
            assert await answer.read() == b"abc"
        async with session.get(url, allow_redirects=False) as answer:
            assert answer.status == 302


async def test_the_sdk_finds_hooks_signed(fake: SlackFake) -> None:
    request = fake.hook({"type": "event_callback", "text": "中文"})
    verifier = SignatureVerifier(SIGNING_SECRET)
    assert verifier.is_valid_request(request.body, request.headers)
    assert not verifier.is_valid_request(request.body + b" ", request.headers)
    assert not verifier.is_valid_request(
        request.body, fake.hook(json.loads(request.body), secret="other").headers
    )
    assert not verifier.is_valid_request(request.body, fake.hook(json.loads(request.body), at=1).headers)
