"""What a WeCom bot says: replies to message bodies, cards and their updates, what a refusal means. Pure."""

from __future__ import annotations

import re
from typing import Any, NoReturn
from uuid import uuid4

from parley.errors import AuthError, RateLimited, Rejected, Unknown, Unreachable, Unsupported
from parley.messages import Button, ConversationKind, File, Reply, Route

# The vendor's figures, from the comments of its Node SDK (1.0.7, dist/types/api.d.ts) where no other source is named.
MAX_CONTENT = 20_480  # bytes of a stream's or a markdown message's content
MAX_BUTTONS = 6  # of a button_interaction card
MAX_TITLE, MAX_SUBTITLE = 26, 112  # characters that a card shows well
CHUNK, MAX_CHUNKS = 512 * 1024, 100
# developer.work.weixin.qq.com/document/path/90253: a file has more than 5 bytes, at most 20 MB, an image 10 MB.
MIN_FILE, MAX_FILE, MAX_IMAGE = 6, 20 * 1024 * 1024, 10 * 1024 * 1024
FREQUENCY_WAIT = 60.0
"""Seconds after which to try again: 30 messages a minute and conversation (1000 an hour), and no word of when."""

# Measured against the service by others, and named in issues of the vendor's own projects:
STALE = {846605, 846608}  # invalid req_id (also one of an earlier connection); stream message update expired
_NOT_SUBSCRIBED = 846609
_FREQUENCY = {45009, 45033, 45047}
_INVALID = 853000  # invalid bot_id or secret
_CREDENTIALS = {_INVALID, 40001, 93019}  # that; invalid credential; invalid bot_id
_PARAMETER = 40058
_BUSY = -1

_MENTION = re.compile(r"<(@[^<>\s]+>)")
_EMPHASIS = re.compile(r"[*`~]+|^[#>\s]+")
_MARKUP = re.compile(r"[*_`~#|\[\]<>\n]|https?:")
_STYLES = {"primary": 1, "danger": 2}


def render(reply: Reply, route: Route) -> tuple[dict[str, Any], ...]:
    """The messages that a reply becomes, files apart: a text, a card with buttons. Raises `Rejected`, `Unsupported`."""
    if reply.table is not None or len(reply.buttons) > MAX_BUTTONS:
        raise Unsupported("WeCom bots show no tables, and at most 6 buttons: render the reply down first.")
    if (reply.private or route.private_to) and route.kind is not ConversationKind.DIRECT:
        raise Unsupported("In a group everybody reads along.")
    text = harmless(reply.text)
    if len(text.encode()) > MAX_CONTENT:
        raise Rejected(f"The text has more than {MAX_CONTENT} bytes.")
    for file in reply.files:
        if not MIN_FILE <= len(file.content) <= MAX_FILE:
            raise Rejected(f"WeCom takes files of {MIN_FILE} bytes to 20 MB; {file.name} is not of them.")
    if not text.strip():
        if not (reply.buttons or reply.files):
            raise Rejected("There is nothing to send.")
        return (
            (card(" / ".join(button.label for button in reply.buttons), reply.buttons),)
            if reply.buttons
            else ()
        )
    markdown = {"msgtype": "markdown", "markdown": {"content": text}}
    if not reply.buttons:
        return (markdown,)
    # A card shows a short plain line well and no markup: all else comes before it, and the card repeats its beginning.
    if len(text) <= MAX_SUBTITLE and not _MARKUP.search(text):
        return (card(text, reply.buttons),)
    return (markdown, card(_beginning(text), reply.buttons))


def _beginning(text: str) -> str:
    """What a card repeats of the text above it: its first line without markup, as far as a title goes."""
    line = _EMPHASIS.sub("", text.strip().splitlines()[0]).strip() or "…"
    return line if len(line) <= MAX_TITLE else line[: MAX_TITLE - 1].rstrip() + "…"


def card(text: str, buttons: tuple[Button, ...]) -> dict[str, Any]:
    """A message with buttons. Its task id is new: the same one twice is refused."""
    shown: dict[str, Any] = {"card_type": "button_interaction", "task_id": f"parley-{uuid4().hex}"}
    if len(text) <= MAX_TITLE:
        shown["main_title"] = {"title": text}
    else:
        shown["sub_title_text"] = text[:MAX_SUBTITLE]
    shown["button_list"] = [_button(number, button) for number, button in enumerate(buttons)]
    return {"msgtype": "template_card", "template_card": shown}


def pressed(shown: dict[str, Any], key: str) -> dict[str, Any] | None:
    """The card as it looks to somebody who has pressed that button: this one alone, marked."""
    for button in shown["button_list"]:
        if button["key"] == key:
            return {**shown, "button_list": [{**button, "text": f"✓ {button['text']}"}]}
    return None


def as_response(body: dict[str, Any], stream_id: str) -> dict[str, Any]:
    """The same message as an answer to a callback, which takes text as a stream only."""
    if body["msgtype"] != "markdown":
        return body
    stream = {"id": stream_id, "finish": True, "content": body["markdown"]["content"]}
    return {"msgtype": "stream", "stream": stream}


def media_type(file: File) -> str:
    """How a file is shown: pictures that WeCom reads as pictures, all else as files."""
    picture = file.content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))
    return "image" if picture and len(file.content) <= MAX_IMAGE else "file"


def harmless(text: str) -> str:
    """A text that mentions nobody: `<@id>` would, wherever it came from."""
    return _MENTION.sub("<\u2060\\1", text)


def raise_for(code: object, what: str) -> NoReturn:
    """Raise what a refusal of WeCom means; `code` is its errcode."""
    number = code if isinstance(code, int) else 0
    asked = f"WeCom refuses {what} (errcode {number}: open.work.weixin.qq.com/devtool/query?e={number})."
    if number in _FREQUENCY:
        raise RateLimited(f"WeCom wants us to wait ({what}: errcode {number}).", FREQUENCY_WAIT)
    if number in _CREDENTIALS:
        raise AuthError(f"{asked} Copy the bot's id and the secret of its long connection again.")
    if number == _NOT_SUBSCRIBED:
        raise Unreachable("WeCom has forgotten our connection.")
    if number == _BUSY:
        raise Unknown(f"WeCom was busy; whether {what} was done is not known.")
    raise Rejected(asked)


def raise_for_subscription(code: object) -> NoReturn:
    """Raise what a refused subscription means: its only parameters are the credentials."""
    try:
        raise_for(_INVALID if code == _PARAMETER else code, "the subscription")
    except (Rejected, Unknown) as error:
        raise Unreachable(str(error)) from None


def _button(number: int, button: Button) -> dict[str, Any]:
    # Keys must differ within a card, values need not.
    shown: dict[str, Any] = {"text": button.label, "key": f"{number}:{button.value}"}
    style = _STYLES.get(button.style)
    return shown if style is None else {**shown, "style": style}
