"""What we say, in Discord's own form: markup, buttons, requests. Pure.

Discord's markdown takes our markup as it is; what else Discord would read as markup is escaped, so that no underscore
or bar of an answer gets lost. Nobody is ever pinged: `allowed_mentions` is empty, which Discord enforces.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from parley.errors import Rejected, Unsupported
from parley.messages import Button, Reply, Route

# Discord's documented figures; lengths count code points (discord-api-docs, issue 1315).
MAX_SENT = 2000
MAX_TEXT = 1900
"""What we say we take: the rest is room for escapes."""
MAX_BUTTONS = 25
BUTTONS_A_ROW = 5
MAX_CUSTOM_ID = 100
MAX_FILES = 10
MAX_FILE = 10 * 1024 * 1024
MAX_REQUEST = 24 * 1024 * 1024
"""Bytes of files in one request: Discord takes 25 MiB with all that stands around them."""
MAX_NONCE = 25
MAX_THREAD_NAME = 100

SUPPRESS_EMBEDS = 1 << 2
EPHEMERAL = 1 << 6

_STYLES = {"primary": 1, "default": 2, "danger": 4}
_LONG = "~"

# What keeps its characters: code, links, addresses.
_KEPT = re.compile(
    r"(?P<code>```.*?```|(?P<ticks>`+)[^`\n](?:[^\n]*?[^`\n])?(?P=ticks)(?!`))"
    r"|(?P<link>\[[^\[\]\n]+\]\((?:https?://|mailto:)[^\s()<>]+(?:\([^\s()<>]*\)[^\s()<>]*)*\))"
    r"|(?P<url>https?://[^\s<>]+)",
    re.DOTALL,
)
_EMPHASIS = re.compile(
    r"\*\*(?P<bold>[^\s*](?:[^*\n]*[^\s*])?)\*\*"
    r"|(?<![\w*])\*(?P<italic>[^\s*](?:[^*\n]*[^\s*])?)\*(?![\w*])"
)
_MARKS = re.compile(
    r"(?P<backslash>\\(?=[!-/:-@\[-`{-~]))"
    r"|(?P<begins>^[ \t]*(?:#{1,3}[ \t]|>|-#[ \t]))"
    r"|(?P<underscores>(?<![^\W_])_+|_+(?![^\W_]))"
    r"|(?P<pair>~~|\|\|)"
    r"|(?P<list>^[ \t]*\*(?=[ \t]))"
    r"|(?P<star>\*(?=\S)|(?<=\S)\*|`)"
    r"|(?P<mark><(?=@|#|:|/|a:|t:|id:))"
    r"|(?P<all>@(?=everyone|here))",
    re.MULTILINE,
)


def render(reply: Reply, route: Route) -> dict[str, Any]:
    """The body of a message for this reply, files apart. Raises `Rejected` or `Unsupported`."""
    if reply.table is not None or len(reply.buttons) > MAX_BUTTONS or len(reply.files) > MAX_FILES:
        raise Unsupported(
            "Discord shows no tables, at most 25 buttons and 10 files: render the reply down first."
        )
    if reply.is_empty():
        raise Rejected("There is nothing to send.")
    if any(len(file.content) > MAX_FILE for file in reply.files):
        raise Rejected(f"A file has more than the {MAX_FILE} bytes that Discord takes.")
    text = markdown(reply.text)
    if len(text) > MAX_SENT:
        text = reply.text  # shown with its marks read as markup, rather than cut
    if len(text) > MAX_SENT:
        raise Rejected(f"The text has {len(text)} characters; Discord takes {MAX_SENT}.")
    if not text and reply.buttons:
        text = " / ".join(markdown(button.label) for button in reply.buttons)[:MAX_SENT]
    body: dict[str, Any] = {
        "content": text,
        "allowed_mentions": {"parse": []},
        # Discord fetches the pages of links that it previews: an answer's links are nobody's business but the reader's.
        "flags": SUPPRESS_EMBEDS,
        "components": _rows(reply.buttons),
    }
    if route.reply_to:
        body["message_reference"] = reference(route.reply_to)
    return body


def reference(message: str) -> dict[str, Any]:
    """What makes a message Discord's reply to another; sent all the same where that one is gone."""
    return {"message_id": message, "fail_if_not_exists": False}


def markdown(text: str) -> str:
    """Our markup in Discord's: the same, with all else escaped that Discord would read as markup."""
    out, done = [], 0
    for kept in _KEPT.finditer(text):
        out += [_emphasised(text[done : kept.start()]), kept[0]]
        done = kept.end()
    return "".join(out) + _emphasised(text[done:])


def _emphasised(piece: str) -> str:
    out, done = [], 0
    for found in _EMPHASIS.finditer(piece):
        mark, inside = ("**", found["bold"]) if found["bold"] else ("*", found["italic"])
        out += [_escaped(piece[done : found.start()]), mark, _emphasised(inside), mark]
        done = found.end()
    return "".join(out) + _escaped(piece[done:])


def _escaped(piece: str) -> str:
    return _MARKS.sub(_escape, piece)


def _escape(found: re.Match[str]) -> str:
    text = found[0]
    if found["all"]:
        return "@\u200b"  # Discord shows the name, and reads no mention
    if found["begins"]:
        indent = len(text) - len(text.lstrip())
        return text[:indent] + "\\" + text[indent:]
    if found["list"]:
        return text[:-1] + "-"
    if found["backslash"]:
        return "\\\\"
    return "".join("\\" + character for character in text)


# --- buttons ---------------------------------------------------------------------------------------------------------


def _rows(buttons: tuple[Button, ...]) -> list[dict[str, Any]]:
    made = [
        {
            "type": 2,
            "style": _STYLES[button.style],
            "label": button.label,
            "custom_id": custom_id(number, button.value),
        }
        for number, button in enumerate(buttons)
    ]
    return [
        {"type": 1, "components": made[start : start + BUTTONS_A_ROW]}
        for start in range(0, len(made), BUTTONS_A_ROW)
    ]


def custom_id(number: int, value: str) -> str:
    """What comes back when the button is pressed: its number, since Discord wants each once, and its value.

    A value that is too long is named by its digest; whoever sends the button keeps `long_values`.
    """
    whole = f"{number}:{value}"
    return whole if len(whole) <= MAX_CUSTOM_ID else f"{number}{_LONG}{_digest(value)}"


def long_values(buttons: tuple[Button, ...]) -> dict[str, str]:
    """The values that Discord is not given in full, by their digests."""
    return {
        _digest(button.value): button.value
        for number, button in enumerate(buttons)
        if len(f"{number}:{button.value}") > MAX_CUSTOM_ID
    }


def value_of(pressed: str, values: Mapping[str, str]) -> str:
    """The value of the button with this custom id; nothing where it is not ours or not known any more."""
    found = re.match(r"\d{1,2}([:~])(.+)\Z", pressed, re.DOTALL)
    if found is None:
        return ""
    return values.get(found[2], "") if found[1] == _LONG else found[2]


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


# --- names -----------------------------------------------------------------------------------------------------------


def nonce(token: str, part: int) -> str:
    """A delivery's token in the 25 characters that Discord takes: the same at each attempt, another for each part."""
    return hashlib.sha256(f"{part}:{token}".encode()).hexdigest()[:MAX_NONCE]


def thread_name(text: str) -> str:
    """A thread's name: the first line with words in it, without markup."""
    for line in text.splitlines():
        bare = re.sub(r"\[([^\[\]]+)\]\([^()\s]+\)", r"\1", line)
        bare = " ".join(re.sub(r"[*`\x00-\x1f\u200b]", "", bare).split()).lstrip("#-> ")
        if bare:
            return bare if len(bare) <= MAX_THREAD_NAME else bare[: MAX_THREAD_NAME - 1].rstrip() + "…"
    return "…"
