"""The readers of connectors, with input as their platforms send it, and worse."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from hypothesis import strategies as st

from connectors import (
    _discord_commands,
    _discord_read,
    _exchange_parse,
    _exchange_protocol,
    _mail_text,
    _slack_read,
    _wecom_bot_wire,
    _wecom_read,
    _xmpp_read,
    console,
)
from connectors import _websocket_frames as frames
from connectors import _wecom_bot_read as robot
from connectors._hook_json import Unreadable
from connectors._hook_source import HookSource
from connectors._mail_parse import parse as parse_mail
from connectors._xmpp_rooms import RoomState
from connectors.webhook import Webhook
from parley.errors import BadSignature, Superseded
from parley.messages import HookRequest, Message, Route, Sender
from tests.attacks import hostile
from tests.attacks.inventory import Reader, keepable
from tests.connectors import test_discord as discord
from tests.connectors import test_exchange as exchange
from tests.connectors import test_hooks as hooks
from tests.connectors import test_mail as mail
from tests.connectors import test_slack as slack
from tests.connectors import test_websocket as websocket
from tests.connectors import test_wecom as wecom
from tests.connectors import test_wecom_bot as wecom_bot
from tests.connectors import test_xmpp_read as xmpp
from tests.fakes._caller import NOW
from tests.fakes.discord import APPLICATION
from tests.fakes.slack import SIGNING_SECRET
from tests.fakes.webhook import SECRET, call


def platform_readers() -> tuple[Reader, ...]:
    """One or more of every connector."""
    return (
        *(_service(name) for name in hooks.NAMES),
        _webhook(),
        *_slack(),
        *_discord(),
        *_mail(),
        *_exchange(),
        *_xmpp(),
        *_websocket(),
        *_wecom(),
        *_wecom_bot(),
        _console(),
    )


# -- services that call


def _service(name: str) -> Reader:
    caller = import_module(f"tests.fakes.{name}").DRIVER()
    return _hook_source(name, caller.connector("a"), list(caller.calls().values()))


def _webhook() -> Reader:
    notice = {
        "type": "order.late", "timestamp": "2025-10-09T08:00:00Z", "title": "Late", "text": "By two days.",
        "key": "1024",
        "url": "https://shop.example/1024", "closes": True, "severity": "critical", "data": {"order": 1024,
        "a": {"b": [1]}},
    }  # fmt: skip
    said = {
        "text": "/order 1024",
        "conversation": "ann",
        "thread": "t",
        "files": [{"name": "a.txt", "content": "eA=="}],
    }
    genuine = [call(notice, at=NOW), call(said, at=NOW)]
    return _hook_source("webhook", Webhook("a", secret=SECRET, speaks=True, clock=lambda: NOW), genuine)


def _hook_source(name: str, connector: HookSource, genuine: list[HookRequest]) -> Reader:
    """First the proof, which may say no and nothing else; then what a proven call may hold."""
    bodies = [json.loads(request.body) for request in genuine if request.body.startswith(b"{")]
    names = sorted({header for request in genuine for header in request.headers})

    def read(given: tuple[HookRequest, bytes, dict[str, str]]) -> None:
        request, body, headers = given
        changed = request.model_copy(update={"body": body, "headers": {**request.headers, **headers}})
        with suppress(BadSignature):
            connector.prove(changed, NOW)
        # The only header that is part of what is proven.
        free = {header: value for header, value in headers.items() if header != "webhook-id"}
        held = request.model_copy(update={"body": body, "headers": {**request.headers, **free}})
        keepable(*connector.events(held))

    given = st.tuples(st.sampled_from(genuine), hostile.bodies(*bodies), hostile.headers(names))
    return Reader(f"{name}.hook", given, read, (Unreadable,))


# -- Slack


def _slack() -> tuple[Reader, ...]:
    edit = {
        **slack.event(subtype="message_changed", channel="C1"),
        "event": {
            "type": "message", "subtype": "message_changed", "channel": "C1", "channel_type": "channel", "ts": "2.1",
            "message": {"user": "U1", "text": "b", "ts": "1.1", "edited": {"ts": "2.1", "user": "U1"}},
            "previous_message": {"user": "U1", "text": "a", "ts": "1.1"},
        },
    }  # fmt: skip
    press = {
        "type": "block_actions", "user": {"id": "U1",
        "name": "ann"}, "channel": {"id": "C1"}, "message": {"ts": "1.1"},
        "container": {"message_ts": "1.1", "channel_id": "C1"}, "actions": [{"value": "yes 1", "action_ts": "3.3"}],
    }  # fmt: skip
    payloads = hostile.changed(slack.event(), slack.command(text="1024"), edit, press) | slack.LIKELY

    def socket(payload: Any) -> None:
        keepable(_slack_read.parse(payload, "a", slack.ME))

    def hook(given: tuple[bytes, dict[str, str], str]) -> None:
        body, headers, kind = given
        request = HookRequest(method="POST", path="/", headers={"content-type": kind, **headers}, body=body)
        keepable(_slack_read.parse(_slack_read.hook_payload(request), "a", slack.ME))
        _slack_read.verify(SIGNING_SECRET, request, NOW)
        raise AssertionError("nobody signed it")

    signature = hostile.headers(["x-slack-signature", "x-slack-request-timestamp"])
    kinds = st.sampled_from(["application/json", "application/x-www-form-urlencoded", ""])
    bodies = hostile.bodies(slack.event(), edit, press) | hostile.damaged(
        b"payload=%7B%22type%22%3A1%7D&a=b&command=%2Fx"
    )
    return (
        Reader("slack.socket", payloads, socket),
        Reader("slack.hook", st.tuples(bodies, signature, kinds), hook, (BadSignature,)),
    )


# -- Discord


def _discord() -> tuple[Reader, ...]:
    press = {
        "id": discord.ID, "type": 3, "token": "tok", "application_id": APPLICATION, "channel_id": "600",
        "user": discord.ALICE, "message": {"id": "5"}, "data": {"custom_id": "v:yes", "component_type": 2},
    }  # fmt: skip
    slash = {
        "id": discord.ID, "type": 2, "token": "tok", "application_id": APPLICATION, "locale": "zh-CN",
        "member": {"user": discord.ALICE, "nick": "Al"},
        "data": {"name": "order", "type": 1, "options": [{"name": "order_id", "type": 4, "value": 7,
        "focused": True}]},
    }  # fmt: skip
    forwarded = discord.said(
        content="", message_snapshots=[{"message": {"content": "look"}}], **discord.answering("5")
    )
    changed = hostile.changed(discord.said(), press, slash, forwarded)
    names = st.sampled_from(["MESSAGE_CREATE", "MESSAGE_UPDATE", "INTERACTION_CREATE"])

    def gateway(given: tuple[str, Any]) -> None:
        name, payload = given
        data = payload if isinstance(payload, dict) else {}
        place = _discord_read.place_of(data, discord.ME) or discord.CHANNEL
        keepable(_discord_read.parse(name, payload, "a", discord.ME, place))
        _discord_read.concerns_us(data, discord.ME, discord.CHANNEL)
        _discord_commands.suggestions(data, {})

    return (Reader("discord.gateway", st.tuples(names, changed), gateway),)


# -- mail and Exchange


HTML = hostile.repeated(
    "<div>", "</div>", "<!--", "<a href='x'>", "<style>", "<blockquote>", "&lt;", "&#x110000;", "<br>",
    "<table><tr><td>",
    "<![CDATA[", "<?xml version='1.0'?>", "<script>", "x ", "\n", "<p style='display:none'>", "<svg onload=x>",
    "<a ", "<",
)  # fmt: skip
QUOTES = hostile.repeated(
    "> ", "On Mon, a wrote:\n", "-----Original Message-----\n", "From: a\n", "发件人: a\n", "--\n", "_" * 32 + "\n",
    "写道：",
    "Sent from my ", "\n", " ", "*From:* ", "在 2026-11-23 08:30:00，", "@", "1\n", "\t",
)  # fmt: skip


def _letters() -> list[bytes]:
    plain = mail.letter(Subject="=?utf-8?q?R=C3=A9sum=C3=A9?=", References="<a@b> <c@d>")
    plain.set_content("where is order 1024?\n\nOn Mon, Bob <b@c> wrote:\n> old\n-- \nAlice")
    plain.add_alternative("<p>where <b>is</b> it?</p><blockquote>old</blockquote>", subtype="html")
    plain.add_attachment(b"a,b\n1,2\n", maintype="text", subtype="csv", filename="报告.csv")
    packed = mail.letter()
    packed.add_attachment(
        mail.winmail("季度.csv"), maintype="application", subtype="ms-tnef", filename="winmail.dat"
    )
    return [plain.as_bytes(), packed.as_bytes(), mail.HEAD + b"\r\nhello"]


def _mail() -> tuple[Reader, ...]:
    raw = st.one_of(
        hostile.damaged(*_letters()),
        st.lists(st.one_of(mail.WORDS, st.binary(max_size=30)), max_size=25)
        .map(b"\r\n".join)
        .map(mail.FROM.__add__),
        HTML.map(lambda html: mail.HEAD + b"Content-Type: text/html; charset=utf-8\r\n\r\n" + html.encode()),
        QUOTES.map(
            lambda text: mail.HEAD + b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + text.encode()
        ),
    )
    good = mail.winmail("name.csv")

    def message(given: bytes) -> None:
        keepable(parse_mail(given, mail.ARRIVAL))

    def text(given: str) -> None:
        _mail_text.html_to_text(given)
        _mail_text.new_text(given)

    return (
        Reader("mail.message", raw, message),
        Reader("mail.text", HTML | QUOTES | hostile.texts, text),
        Reader("mail.winmail", hostile.damaged(good, good[:40]), mail.with_winmail),
    )


def _exchange() -> tuple[Reader, ...]:
    letters = hostile.damaged(*_letters()) | st.just(b"")
    known = ["thread-index", _exchange_parse.AUTH_AS, "Subject", "From", "Message-ID", "Content-Type", "Date"]
    headers = st.lists(st.tuples(st.sampled_from(known) | hostile.texts, hostile.texts), max_size=5).map(
        tuple
    )
    fault = (
        b"<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'><s:Body><s:Fault><detail>"
        b"<e:ResponseCode xmlns:e='http://schemas.microsoft.com/exchange/services/2006/errors'>ErrorServerBusy"
        b"</e:ResponseCode><t:MessageXml xmlns:t='http://schemas.microsoft.com/exchange/services/2006/types'>"
        b"<t:Value Name='BackOffMilliseconds'>1000</t:Value></t:MessageXml></detail></s:Fault></s:Body></s:Envelope>"
    )

    def message(given: tuple[bytes, tuple[tuple[str, str], ...], str]) -> None:
        raw, headers, index = given
        arrived = _exchange_parse.Mail(
            account="a", own_address=mail.OWN, item_id=index, raw=raw, received=mail.RECEIVED, size=len(raw),
            headers=headers, item_class=index[:300], author="alice@example.org", sender="alice@example.org",
        )  # fmt: skip
        keepable(_exchange_parse.parse(arrived, trust_internal=True))
        _exchange_parse.child_index(index, exchange.NOW)

    item = st.text(alphabet="AQcBx=/+\x00é", max_size=60) | st.text(max_size=30)
    return (
        Reader("exchange.message", st.tuples(letters, headers, item), message),
        Reader("exchange.fault", hostile.damaged(fault), _exchange_protocol._busy),
    )


# -- XMPP and WebSocket


def _xmpp() -> tuple[Reader, ...]:
    stanzas = st.tuples(st.lists(xmpp.elements(), max_size=3), xmpp.attributes)

    def stanza(given: Any) -> None:
        inner, attributes = given
        xml = ET.Element("{jabber:client}message", attributes)
        xml.extend(inner)
        for room in (None, xmpp.HERE):
            keepable(xmpp.read(xml, room))
        _xmpp_read.stanza_error(xml)
        _xmpp_read.occupant_of(xml)
        if (found := _xmpp_read.forwarded(xml)) is not None:
            _xmpp_read.from_archive(found[2], found[0], found[1], found[3])
        RoomState(xmpp.ROOM, "Parley", datetime.now(UTC)).take(xml)

    def body(text: str) -> None:
        for attributes, room in (
            ({}, None),
            ({"type": "groupchat", "from": f"{xmpp.ROOM}/alice"}, xmpp.HERE),
        ):
            xml = xmpp.stanza("<body/>", **attributes)
            xml[0].text = text
            keepable(xmpp.read(xml, room))

    return Reader("xmpp.stanza", stanzas, stanza), Reader("xmpp.body", hostile.xml_texts, body)


def _websocket() -> tuple[Reader, ...]:
    login = {"type": "login", "ok": True, "error": {"code": 1}, "retry": 5}
    raw = hostile.bodies(websocket.FRAME, login) | hostile.bodies(websocket.FRAME).map(
        lambda found: found.decode("utf-8", "replace")
    )
    plain = frames.Protocol(frames="text")

    def frame(given: bytes | str) -> None:
        for protocol in (websocket.SAID, plain):
            found = frames.read(given, protocol)
            keepable(frames.parse(found, protocol, "a"))
            frames.ack_frame(protocol, found)
            frames.mentions(found, protocol)
            frames.answers_login(found, "type=login", protocol)

    return (Reader("websocket.frame", raw, frame),)


# -- WeCom


def _wecom() -> tuple[Reader, ...]:
    sealed, _ = wecom.CIPHER
    said = st.dictionaries(st.sampled_from(wecom.TAGS), wecom.KINDS | hostile.xml_texts)
    xml = hostile.damaged(
        b"<xml><ToUserName><![CDATA[c]]></ToUserName><Encrypt><![CDATA[AAAA]]></Encrypt><AgentID>1</AgentID></xml>",
        wecom.ENTITIES, wecom.OUTSIDE,
    )  # fmt: skip
    ciphers = hostile.damaged(sealed.encode()).map(lambda raw: raw.decode("latin-1")) | hostile.texts
    fields = st.tuples(ciphers, hostile.texts, hostile.texts, hostile.texts)

    def envelope(given: tuple[str, str, str, str]) -> None:
        cipher, signature, timestamp, nonce = given
        try:
            wecom.envelope().open(cipher, signature=signature, timestamp=timestamp, nonce=nonce, now=NOW)
            raise AssertionError("nobody signed it")
        except BadSignature:
            wecom.opened(cipher)  # by somebody who knows the token and not the key

    def event(given: dict[str, str]) -> None:
        keepable(_wecom_read.parse(given, "a"))

    return (
        Reader("wecom.xml", xml, _wecom_read.fields, (BadSignature,)),
        Reader("wecom.envelope", fields, envelope, (BadSignature,)),
        Reader("wecom.event", said, event),
    )


def _wecom_bot() -> tuple[Reader, ...]:
    voice = wecom_bot.frame(
        msgtype="mixed", mixed={"msg_item": [{"msgtype": "image", "image": {"url": "https://a/b"}}]}
    )
    card = wecom_bot.event(
        {"eventtype": "template_card_event", "template_card_event": {"event_key": "1:x", "task_id": "t"}}
    )
    file = wecom_bot.frame(
        msgtype="file", file={"url": "https://a/b", "aeskey": "A" * 43, "filename": "a.txt"}
    )

    def frame(raw: bytes) -> None:
        _, found = _wecom_bot_wire.sort(raw)
        if found:
            keepable(robot.parse(found, "a", bot_name="Parley"))
            for media in robot.media_of(found):
                robot.name_of(media.name, media, b"x")

    def media(given: tuple[bytes, str, str]) -> None:
        content, key, disposition = given
        name, _ = robot.name_of(
            disposition, robot.Media(kind="file", url="https://a/b", key=key, name=disposition), content
        )
        assert name
        robot.decrypt(content, key)

    keys = st.sampled_from(["", "A" * 43, "x", "=" * 43]) | hostile.texts
    names = hostile.texts | hostile.repeated(
        "attachment; filename*=utf-8''", "%ff", 'filename="', "\\", ";", " = "
    )
    return (
        Reader("wecom_bot.frame", hostile.bodies(wecom_bot.frame(), voice, card, file), frame, (Superseded,)),
        Reader("wecom_bot.media", st.tuples(st.binary(max_size=200), keys, names), media, (ValueError,)),
    )


# -- the console


def _console() -> Reader:
    route = Route(account="console", conversation="owner")
    said = Message(account="console", native_id="1", sender=Sender(id="owner"), route=route, text="hi")

    def event(raw: Any) -> None:
        keepable(console.parse(raw if isinstance(raw, dict) else {}, "a"))

    return Reader("console.event", hostile.changed(said.model_dump(mode="json")), event, (BadSignature,))
