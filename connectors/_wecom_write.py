"""A reply as the requests that WeCom takes. Everything here is pure.

To people and to what the company's address book names (`party:<id>`, `tag:<id>`) goes `message/send`; to a group that
the application made (`chat:<chatid>`) `appchat/send`, which knows no cards (the vendor's page
developer.work.weixin.qq.com/document/path/90248 lists all it knows): there choices become reply codes. An application
hears nothing in a group, so whoever takes a choice writes its code to the application itself. Into any other group of
the company a robot that was added there writes (`robot:<name>`, `webhook/send`, .../91770): as `appchat/send`, but that
it takes pictures as files alone.

WeCom shows a text, a card and each file as messages of their own: one reply becomes several requests, in order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from connectors._wecom_read import button_key, pressed
from connectors._wecom_text import MAX_TEXT, plain, shown
from parley.errors import Rejected, Unsupported
from parley.messages import Button, Capabilities, ConversationKind, File, Reply, Route
from parley.messages.rendering import render_down, split_text

# developer.work.weixin.qq.com/document/path/90236 and 90253 (files have more than 5 bytes).
MAX_BUTTONS = 6
MAX_FILE = 20 * 1024 * 1024
MIN_FILE = 6
MAX_IMAGE = 10 * 1024 * 1024
_TITLE, _BODY = 36, 160  # characters that WeCom advises for a card; what is longer it may cut

_TEXT = Capabilities(max_text=MAX_TEXT, text_unit="bytes", markup="own")
_GROUP = _TEXT.model_copy(update={"max_file": MAX_FILE})

# User ids have up to 64 bytes of these characters; chat ids up to 32 letters and digits (90245), but old ones differ.
_PERSON = re.compile(r"[0-9A-Za-z_\-@.]{1,64}")
_PLACES = {
    "chat": ("chatid", re.compile(r"[0-9A-Za-z_\-]{1,64}")),
    "party": ("toparty", re.compile(r"[0-9]{1,18}")),
    "tag": ("totag", re.compile(r"[0-9]{1,18}")),
    "robot": ("robot", re.compile(r"[0-9A-Za-z_\-]{1,64}")),
}
_Content = tuple[dict[str, Any], File | None]
_STYLES = {"primary": 1, "danger": 2, "default": 1}
"""Of the four styles there are; the vendor's page says no colours. 1 is what WeCom takes where none is said."""


@dataclass(frozen=True, slots=True)
class Request:
    """One message: `method` takes `body`; with `file`, that is uploaded first and its media id put in.

    `place` is whom it goes to, of one kind: `touser`, `toparty`, `totag`, `chatid` or `robot`.
    """

    method: str
    place: dict[str, str]
    body: dict[str, Any]
    file: File | None = None


def render(reply: Reply, route: Route, agent_id: int, token: str = "") -> tuple[Request, ...]:
    """The requests that show this reply, in order. Raises `Rejected` or `Unsupported`."""
    if reply.table is not None or len(reply.buttons) > MAX_BUTTONS:
        raise Unsupported("WeCom shows no tables, and at most 6 buttons: render the reply down first.")
    place = address(route.conversation)
    base: dict[str, Any]
    alone = route.kind is ConversationKind.DIRECT and "touser" in place
    if (reply.private or route.private_to) and not alone:
        raise Unsupported("WeCom has no answer that one alone sees where several read.")
    if route.private_to not in {None, route.conversation}:
        raise Rejected("This answer is private to somebody else than whom it would go to.")
    if any(len(file.content) > MAX_FILE for file in reply.files):
        raise Unsupported("WeCom takes files of at most 20 MB: render the reply down first.")
    if "robot" in place:
        base, method = {}, "webhook/send"
        contents = _group_contents(reply, token, pictures=False)
    elif "chatid" in place:
        base, method = {**place, "safe": 0}, "appchat/send"
        contents = _group_contents(reply, token, pictures=True)
    else:
        base, method = {**place, "agentid": agent_id}, "message/send"
        contents = list(_contents(reply, token, pictures=True))
    if not contents:
        raise Rejected("There is nothing to send.")
    return tuple(Request(method, place, {**base, **body}, file) for body, file in contents)


def address(conversation: str) -> dict[str, str]:
    """Whom a conversation's name means. Raises `Rejected` for what would reach others, or nobody."""
    place, _, id_ = conversation.rpartition(":")
    if place in _PLACES and _PLACES[place][1].fullmatch(id_):
        return {_PLACES[place][0]: id_}
    # `@all` is everybody, and `a|b` are two: neither is where an answer goes.
    if _PERSON.fullmatch(conversation) and conversation != "@all":
        return {"touser": conversation}
    raise Rejected("This is not the id of a person, chat, party, tag or robot in WeCom.")


def _group_contents(reply: Reply, token: str, *, pictures: bool) -> list[_Content]:
    return [
        found for part in render_down(reply, _GROUP) for found in _contents(part, token, pictures=pictures)
    ]


def _contents(reply: Reply, token: str, *, pictures: bool) -> Iterator[_Content]:
    files = [file for file in reply.files if len(file.content) >= MIN_FILE]
    tiny = [file for file in reply.files if len(file.content) < MIN_FILE]
    text = "\n\n".join(part for part in (reply.text, *map(_note, tiny)) if part.strip())
    card = _card(text, reply.buttons, token) if reply.buttons else None
    if text.strip() and (card is None or not _holds(card, text)):
        yield from ((body, None) for body in _texts(text))
    if card is not None:
        yield {"msgtype": "template_card", "template_card": card}, None
    for file in files:
        kind = "image" if pictures and _is_image(file) else "file"
        yield {"msgtype": kind, kind: {}}, file


def _note(file: File) -> str:
    return f"[{file.name}: {len(file.content)} bytes, WeCom takes no file that small]"


def _texts(text: str) -> Iterator[dict[str, Any]]:
    kind, content = shown(text)
    for part in split_text(content, _TEXT) if kind == "text" else (content,):
        yield {"msgtype": kind, kind: {"content": part}}


def _card(text: str, buttons: tuple[Button, ...], token: str) -> dict[str, Any]:
    words = plain(text).strip()
    first, _, rest = words.partition("\n")
    if len(first) > _TITLE:
        first, rest = first[: _TITLE - 1].rstrip() + "…", words
    card: dict[str, Any] = {
        "card_type": "button_interaction",
        "main_title": {"title": first or " / ".join(button.label for button in buttons)[:_TITLE]},
        "button_list": [_button(button) for button in buttons],
        "task_id": _task_id(token),
    }
    if rest.strip() and len(rest) <= _BODY:
        card["sub_title_text"] = rest.strip()
    return card


def _holds(card: dict[str, Any], text: str) -> bool:
    """Whether the card says all of it, and no message before it is needed."""
    words = plain(text).strip()
    title, body = card["main_title"]["title"], card.get("sub_title_text", "")
    return words in {title, body} or words.split() == f"{title}\n{body}".split()


def _button(button: Button) -> dict[str, Any]:
    key = button_key(button.label, button.value)
    if pressed(key)[0] != button.value:
        raise Unsupported("What this button would send back is longer than WeCom takes.")
    return {"type": 0, "text": button.label, "style": _STYLES[button.style], "key": key}


def _task_id(token: str) -> str:
    # Ours alone and the same at each attempt; WeCom takes letters, digits and `_-@`, each id once.
    return "parley-" + (hashlib.sha256(token.encode()).hexdigest()[:40] if token else uuid4().hex)


def _is_image(file: File) -> bool:
    # What WeCom takes as a picture are JPEG and PNG; by its content, as a name may lie. Others go as files.
    return len(file.content) <= MAX_IMAGE and file.content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))
