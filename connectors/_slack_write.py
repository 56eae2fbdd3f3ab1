"""What we say, in Slack's own form: markup to mrkdwn, replies to requests of the Web API. Pure."""

from __future__ import annotations

import re
from typing import Any

from connectors._markup import CODE, SPANS, without_language
from parley.errors import Rejected, Unsupported
from parley.messages import Button, Reply, Route

# Slack's documented figures.
MAX_SENT = 40_000  # characters of `text`; Slack cuts off the rest
MAX_SECTION = 3000  # characters of one section block
MAX_BUTTONS = 25
BUTTONS_A_ROW = 5

_SPAN = re.compile(SPANS + r"|^(?P<indent>[ \t]*)[-*+][ \t]+", re.MULTILINE)


def render(reply: Reply, route: Route) -> dict[str, Any]:
    """What `chat.postMessage` is given for this reply, files apart. Raises `Rejected` or `Unsupported`."""
    if reply.table is not None or len(reply.buttons) > MAX_BUTTONS:
        raise Unsupported("Slack shows no tables, and at most 25 buttons: render the reply down first.")
    text = mrkdwn(reply.text)
    if len(text) > MAX_SENT:
        raise Rejected(f"The text has {len(text)} characters; Slack takes {MAX_SENT}.")
    # Slack fetches the pages of links that it unfolds: an answer's links are nobody's business but the reader's.
    request: dict[str, Any] = {
        "channel": route.conversation,
        "text": text,
        "unfurl_links": False,
        "unfurl_media": False,
    }
    if route.thread:
        request["thread_ts"] = route.thread
    if reply.buttons:
        request["blocks"] = [*_sections(text), *_rows(reply.buttons)]
        request["text"] = text or " / ".join(mrkdwn(button.label) for button in reply.buttons)
    return request


def mrkdwn(text: str) -> str:
    """Our markup in Slack's. All else is escaped, so that no text can ping a channel."""
    pieces = CODE.split(text)
    return "".join(_code(piece) if odd % 2 else _spans(piece) for odd, piece in enumerate(pieces))


def _code(piece: str) -> str:
    return _escape(without_language(piece))


def _spans(piece: str) -> str:
    done, out = 0, []
    for found in _SPAN.finditer(piece):
        out += [_escape(piece[done : found.start()]), _span(found)]
        done = found.end()
    return "".join(out) + _escape(piece[done:])


def _span(found: re.Match[str]) -> str:
    if found["url"]:
        return f"<{_escape(found['url'].replace('|', '%7C'))}|{_escape(found['label'].replace('|', '¦'))}>"
    if found["bold"]:
        return f"*{_spans(found['bold'])}*"
    if found["italic"]:
        return f"_{_spans(found['italic'])}_"
    return f"{found['indent']}• "


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _sections(text: str) -> list[dict[str, Any]]:
    return [
        {"type": "section", "text": {"type": "mrkdwn", "text": part}} for part in _parts(text, MAX_SECTION)
    ]


def _parts(text: str, size: int) -> list[str]:
    """The text in parts of at most `size`: cut at lines where there are any, never inside an escape or a link."""
    parts = []
    while len(text) > size:
        end = text.rfind("\n", 1, size - 4) + 1 or _outside_escape(text, size - 4)
        part, text = text[:end], text[end:]
        if part.count("```") % 2:  # a block of code goes on in the next part
            part, text = part.rstrip("\n") + "\n```", "```\n" + text
        parts.append(part)
    return [*parts, text] if text.strip() else parts


def _outside_escape(text: str, end: int) -> int:
    for opening, closing, longest in (("<", ">", end), ("&", ";", 5)):
        start = text.rfind(opening, max(0, end - longest), end)
        if start > 0 and closing not in text[start:end]:
            return start
    return end


def _rows(buttons: tuple[Button, ...]) -> list[dict[str, Any]]:
    elements = [_button(number, button) for number, button in enumerate(buttons)]
    rows = (elements[at : at + BUTTONS_A_ROW] for at in range(0, len(elements), BUTTONS_A_ROW))
    return [{"type": "actions", "elements": row} for row in rows]


def _button(number: int, button: Button) -> dict[str, Any]:
    label = {"type": "plain_text", "text": button.label}
    element = {"type": "button", "action_id": f"parley:{number}", "text": label, "value": button.value}
    return element if button.style == "default" else {**element, "style": button.style}
