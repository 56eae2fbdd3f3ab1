"""The REST interface, version 10: what a bot may ask, with Discord's codes for what it may not."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import BodyPartReader, web

from parley.messages import File
from tests.fakes._discord_gateway import GatewayFake
from tests.fakes._discord_world import (
    APPLICATION,
    BOT,
    CHAT_INPUT,
    DM,
    EPHEMERAL,
    LOADING,
    Interaction,
    Refusal,
    World,
    check_commands,
    check_message,
    invalid,
    user,
)

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Fault:
    """What happens to the next request whose name is one of `names`."""

    how: Literal["rate_limited", "refused", "status", "reset", "done_reset", "headers"]
    names: tuple[str, ...]
    retry_after: float | str | None = 1
    status: int = 0
    code: int = 0
    message: str = "no"
    headers: dict[str, str] | None = None


class Api:
    """Routes of the REST interface over one world. `calls` are the names of requests in order, `faults` what fails."""

    def __init__(self, world: World, gateway: GatewayFake) -> None:
        self.world, self.gateway = world, gateway
        self.calls: list[tuple[str, str]] = []
        self.bodies: list[tuple[str, Json]] = []
        self.faults: deque[Fault] = deque()
        self.remaining = "49"
        self.reset_after = "1"

    def add_to(self, app: web.Application) -> None:
        for method, path, name, handler in (
            ("GET", "/users/@me", "me", self._me),
            ("GET", "/applications/@me", "application", self._application),
            ("GET", "/oauth2/applications/@me", "application", self._application),
            ("GET", "/gateway/bot", "gateway", self._gateway),
            ("POST", "/users/@me/channels", "direct", self._direct),
            ("GET", "/channels/{channel}", "channel", self._channel),
            ("PATCH", "/channels/{channel}", "change_channel", self._change_channel),
            ("POST", "/channels/{channel}/typing", "typing", self._typing),
            ("GET", "/channels/{channel}/messages", "history", self._history),
            ("POST", "/channels/{channel}/messages", "send", self._send),
            ("GET", "/channels/{channel}/messages/{message}", "message", self._message),
            ("PATCH", "/channels/{channel}/messages/{message}", "edit", self._edit),
            ("POST", "/channels/{channel}/messages/{message}/threads", "begin_thread", self._begin_thread),
            ("GET", "/applications/{application}/commands", "commands", self._commands),
            ("PUT", "/applications/{application}/commands", "set_commands", self._set_commands),
            ("GET", "/applications/{application}/guilds/{guild}/commands", "commands", self._commands),
            (
                "PUT",
                "/applications/{application}/guilds/{guild}/commands",
                "set_commands",
                self._set_commands,
            ),
        ):
            app.router.add_route(method, f"/api/v10{path}", self._guarded(name, handler, needs_token=True))
        webhook = "/webhooks/{application}/{token}"
        for method, path, name, handler in (
            ("POST", "/interactions/{interaction}/{token}/callback", "callback", self._callback),
            ("POST", webhook, "follow_up", self._follow_up),
            ("GET", webhook + "/messages/@original", "original", self._original),
            ("PATCH", webhook + "/messages/@original", "fill_in", self._fill_in),
            ("DELETE", webhook + "/messages/@original", "take_back", self._take_back),
            ("PATCH", webhook + "/messages/{message}", "edit_follow_up", self._edit_follow_up),
        ):
            app.router.add_route(method, f"/api/v10{path}", self._guarded(name, handler, needs_token=False))

    def _guarded(self, name: str, handler: Handler, *, needs_token: bool) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            self.calls.append((name, request.path))
            fault = next((one for one in self.faults if name in one.names), None)
            if fault is not None:
                self.faults.remove(fault)
                if fault.how not in {"done_reset", "headers"}:
                    return await self._fail(request, fault)
            try:
                self._admit(request, needs_token)
                answer = await handler(request)
            except Refusal as refusal:
                answer = said({"message": str(refusal), "code": refusal.code}, refusal.status)
            if fault is not None and fault.how == "done_reset":
                abort(request)
            answer.headers.update(self._limits())
            answer.headers.update((fault.headers if fault is not None else None) or {})
            return answer

        return guarded

    def _admit(self, request: web.Request, needs_token: bool) -> None:
        if needs_token and request.headers.get("Authorization") != f"Bot {self.gateway.token}":
            raise Refusal(401, 0, "401: Unauthorized")

    def _limits(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": "50",
            "X-RateLimit-Remaining": self.remaining,
            "X-RateLimit-Reset": "4102444800.0",
            "X-RateLimit-Reset-After": self.reset_after,
            "X-RateLimit-Bucket": "abcd1234",
            "Via": "1.1 google",
        }

    async def _fail(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.how == "rate_limited":
            body = {
                "message": "You are being rate limited.",
                "retry_after": fault.retry_after,
                "global": False,
            }
            headers = {
                "Retry-After": str(fault.retry_after),
                "Via": "1.1 google",
                "X-RateLimit-Scope": "user",
            }
            return said(body, 429, headers)
        if fault.how == "refused":
            return said({"message": fault.message, "code": fault.code}, fault.status)
        if fault.how == "status":
            return web.Response(status=fault.status, text="<html>error code</html>", content_type="text/html")
        abort(request)
        return web.Response()

    # -- who and where

    async def _me(self, _: web.Request) -> web.Response:
        return said({**user(BOT, "parley", bot=True), "verified": True, "mfa_enabled": False, "email": None})

    async def _application(self, _: web.Request) -> web.Response:
        owner = {**user("1", "owner"), "flags": 0}
        about = {
            "id": APPLICATION,
            "name": "parley",
            "flags": self.world.flags,
            "description": "",
            "icon": None,
        }
        rules = {"bot_public": True, "bot_require_code_grant": False, "verify_key": "0", "summary": ""}
        return said({**about, **rules, "owner": owner, "team": None, "rpc_origins": []})

    async def _gateway(self, _: web.Request) -> web.Response:
        limit = {"total": 1000, "remaining": self.gateway.remaining, "reset_after": 50, "max_concurrency": 1}
        return said({"url": self.gateway.url, "shards": 1, "session_start_limit": limit})

    async def _direct(self, request: web.Request) -> web.Response:
        person = (await request.json()).get("recipient_id")
        if str(person) not in self.world.people:
            raise invalid("recipient_id: Unknown User")
        return said(self.world.channels[self.world.direct(str(person))])

    async def _channel(self, request: web.Request) -> web.Response:
        return said(self.world.channel(request.match_info["channel"]))

    async def _change_channel(self, request: web.Request) -> web.Response:
        thread, wish = self.world.channel(request.match_info["channel"]), await request.json()
        state = thread["thread_metadata"]
        if state["locked"] and thread["owner_id"] != BOT:
            raise Refusal(403, 50013, "Missing Permissions")
        state["archived"] = wish.get("archived", state["archived"])
        self.world.tell("THREAD_UPDATE", {key: value for key, value in thread.items() if key != "member"})
        return said(thread)

    async def _typing(self, request: web.Request) -> web.Response:
        self.world.channel(request.match_info["channel"])
        return web.Response(status=204)

    # -- messages

    async def _history(self, request: web.Request) -> web.Response:
        channel = self.world.channel(request.match_info["channel"])
        limit = int(request.query.get("limit", "50"))
        if not 1 <= limit <= 100:
            raise invalid("limit")
        messages = sorted(self.world.messages.get(channel["id"], []), key=lambda one: int(one["id"]))
        if "after" in request.query:
            messages = [m for m in messages if int(m["id"]) > int(request.query["after"])][:limit]
        else:
            messages = messages[-limit:]
        return said([m for m in reversed(messages) if m["id"] not in self.world.hidden])

    async def _message(self, request: web.Request) -> web.Response:
        self.world.channel(request.match_info["channel"])
        return said(self.world.message(request.match_info["channel"], request.match_info["message"]))

    async def _send(self, request: web.Request) -> web.Response:
        channel = self.world.channel(request.match_info["channel"])
        body, files = await self._body(request, "send")
        check_message(body, files)
        if channel["type"] == 15:
            raise Refusal(400, 50008, "Cannot send messages in a non-text channel")
        if channel["type"] == DM and channel["recipients"][0]["id"] in self.world.closed_to_us:
            raise Refusal(403, 50007, "Cannot send messages to this user")
        nonce = body.get("nonce")
        if nonce and body.get("enforce_nonce") and nonce in self.world.nonces:
            return said({**self.world.nonces[nonce], "nonce": nonce})
        message = self.world.write(channel["id"], BOT, body, files)
        if nonce:
            self.world.nonces[nonce] = message
        self.world.posts.append(message)
        return said({**message, **({"nonce": nonce} if nonce else {})})

    async def _edit(self, request: web.Request) -> web.Response:
        channel = self.world.channel(request.match_info["channel"])
        message = self.world.message(channel["id"], request.match_info["message"])
        if message["author"]["id"] != BOT:
            raise Refusal(403, 50005, "Cannot edit a message authored by another user")
        body, files = await self._body(request, "edit")
        check_message(body, files, editing=True)
        return said(self.world.change(message, body, files))

    async def _begin_thread(self, request: web.Request) -> web.Response:
        body = await request.json()
        where = request.match_info
        return said(
            self.world.begin_thread(where["channel"], where["message"], body.get("name", ""), BOT), 201
        )

    async def _body(self, request: web.Request, name: str) -> tuple[Json, list[File]]:
        files: list[File] = []
        if request.content_type == "application/json":
            body = await request.json()
        elif request.content_type == "multipart/form-data":
            body, files = await _multipart(request)
        else:
            raise invalid("Content-Type")
        self.bodies.append((name, body))
        return body, files

    # -- commands

    async def _commands(self, request: web.Request) -> web.Response:
        return said(self.world.commands.get(request.match_info.get("guild", ""), []))

    async def _set_commands(self, request: web.Request) -> web.Response:
        if request.match_info["application"] != APPLICATION:
            raise Refusal(403, 20012, "You are not authorized to perform this action on this application")
        kept = check_commands(await request.json())
        self.world.commands[request.match_info.get("guild", "")] = kept
        return said(kept)

    # -- interactions

    def _known(self, request: web.Request) -> Interaction:
        found = self.world.interactions.get(request.match_info["token"])
        if found is None or found.expired or request.match_info["application"] != APPLICATION:
            raise Refusal(401, 50027, "Invalid Webhook Token")
        if found.answered is None:
            raise Refusal(404, 10015, "Unknown Webhook")
        return found

    async def _callback(self, request: web.Request) -> web.Response:
        found = self.world.interactions.get(request.match_info["token"])
        late = found is not None and asyncio.get_running_loop().time() - found.made > self.world.answer_within
        if found is None or found.id != request.match_info["interaction"] or late:
            raise Refusal(404, 10062, "Unknown interaction")
        if found.answered is not None:
            raise Refusal(400, 40060, "Interaction has already been acknowledged.")
        body = await request.json()
        if body["type"] not in {2: {4, 5}, 3: {4, 5, 6, 7}, 4: {8}}[found.type]:
            raise invalid("type")
        if body["type"] == 8 and len(body["data"]["choices"]) > 25:
            raise invalid("choices")
        data = body.get("data") or {}
        if body["type"] == 4:
            check_message(data, [])
        found.answered = body
        if body["type"] in {4, 5}:
            flags = data.get("flags", 0) | (LOADING if body["type"] == 5 else 0)
            found.original = self._say(found, {**data, "flags": flags})
            if body["type"] == 4:
                self.world.posts.append(found.original)
        return web.Response(status=204)

    def _say(self, interaction: Interaction, body: Json, files: list[File] | None = None) -> Json:
        extra = {
            "type": CHAT_INPUT, "webhook_id": APPLICATION, "application_id": APPLICATION,
            "interaction_metadata": {"id": interaction.id, "type": interaction.type, "user": {"id": interaction.user}},
        }  # fmt: skip
        if body.get("flags", 0) & EPHEMERAL:
            message = {
                "id": self.world.snowflake(), "channel_id": interaction.channel, "author": self.world.people[BOT],
                "attachments": [], "content": "", "components": [], **body, **extra, "seen_by": interaction.user,
            }  # fmt: skip
            message["attachments"] = [self.world._attach(interaction.channel, file) for file in files or []]
            self.world.hidden[message["id"]] = message
            return message
        return self.world.write(interaction.channel, BOT, body, files or [], extra=extra)

    async def _fill_in(self, request: web.Request) -> web.Response:
        found = self._known(request)
        body, files = await self._body(request, "fill_in")
        check_message(body, files, editing=True)
        return said(self._filled(found, body, files))

    def _filled(self, found: Interaction, body: Json, files: list[File]) -> Json:
        if found.original is None:
            raise Refusal(404, 10008, "Unknown Message")
        was_loading = found.original["flags"] & LOADING
        kept = found.original["flags"] & EPHEMERAL
        said_ = self.world.change(found.original, body, files, edited=not was_loading)
        said_["flags"] = (body.get("flags", 0) & ~EPHEMERAL) | kept
        if was_loading:
            self.world.posts.append(said_)
        return said_

    async def _original(self, request: web.Request) -> web.Response:
        found = self._known(request)
        if found.original is None:
            raise Refusal(404, 10008, "Unknown Message")
        return said(found.original)

    async def _take_back(self, request: web.Request) -> web.Response:
        found = self._known(request)
        if found.original is None:
            raise Refusal(404, 10008, "Unknown Message")
        gone, found.original = found.original, None
        messages = self.world.messages.get(gone["channel_id"], [])
        messages[:] = [message for message in messages if message is not gone]
        return web.Response(status=204)

    async def _follow_up(self, request: web.Request) -> web.Response:
        found = self._known(request)
        body, files = await self._body(request, "follow_up")
        check_message(body, files)
        if found.original is not None and found.original["flags"] & LOADING:
            return said(self._filled(found, body, files))  # deprecated, and still so
        message = self._say(found, body, files)
        self.world.posts.append(message)
        return said(message)

    async def _edit_follow_up(self, request: web.Request) -> web.Response:
        found, id_ = self._known(request), request.match_info["message"]
        body, files = await self._body(request, "edit_follow_up")
        check_message(body, files, editing=True)
        message = self.world.hidden.get(id_) or self.world.message(found.channel, id_)
        return said(self.world.change(message, body, files))


def said(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """JSON as Discord sends it: its content type has no charset, and discord.py compares all of it."""
    body = json.dumps(data).encode()
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


async def _multipart(request: web.Request) -> tuple[Json, list[File]]:
    body: Json = {}
    files: list[File] = []
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            raise invalid("multipart in multipart")
        name = part.name or ""
        content = bytes(await part.read(decode=True))
        if name == "payload_json":
            body = json.loads(content)
        elif name == f"files[{len(files)}]":
            kind = part.headers.get("Content-Type", "application/octet-stream")
            files.append(File(name=part.filename or "file", media_type=kind, content=content))
        else:
            raise invalid(f"unexpected part {name}")
    return body, files


def abort(request: web.Request) -> None:
    """Reset the connection: the peer gets no word of it but the reset."""
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        transport.abort()
