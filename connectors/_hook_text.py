"""Text of strangers in our markup: titles, commit messages and comments that must not become links or mentions. Pure.

The neutral markup has no escapes. So a mark that would work is replaced by one that looks like it, and what would make
a mention or a link is parted: the words stay as they were.
"""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_MENTION = re.compile(r"(?<![\w.+-])@(?=\w)")
_LOOK_ALIKES = str.maketrans({"`": "ˋ", "*": "∗"})

CUT = "…"


def line(text: str, limit: int = 200) -> str:
    """One line of at most `limit` characters, without any mark that works."""
    short = text[: limit * 8]
    # What is printable has no white space but blanks.
    single = short.isprintable() and "  " not in short
    flat = short.strip() if single else " ".join(_visible(short).split())
    return _plain(flat if len(flat) <= limit else shortened(flat, limit))


def is_plain(*texts: str) -> bool:
    """Whether `line` and `passage` would leave these as they are, if they are short enough; none may be empty."""
    whole = f" {' '.join(texts)} "
    return whole.isprintable() and "  " not in whole and not _has_marks(whole)


def passage(text: str, limit: int = 1000, lines: int = 12) -> str:
    """The beginning of a longer text, without any mark that works."""
    begun = text[: limit * 2]
    if begun.isprintable():  # one line
        return _plain(shortened(begun.strip(), limit))
    kept = [part.rstrip() for part in _visible(begun).strip().split("\n")]
    short = "\n".join(kept[:lines])
    return _plain(shortened(short if len(kept) <= lines else f"{short}\n{CUT}", limit))


def link(label: str, url: str) -> str:
    """A link that works, if there is an address; `label` is plain already."""
    if not url or not label:
        return label
    target = url.replace("(", "%28").replace(")", "%29")
    return f"[{label.replace('[', '(').replace(']', ')')}]({target})"


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters; what is cut off shows as an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + CUT


def _visible(text: str) -> str:
    if text.isprintable():  # nothing hidden, no tab and no end of a line
        return text
    return _HIDDEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " "))


def _plain(text: str) -> str:
    if not _has_marks(text):
        return text
    parted = text.translate(_LOOK_ALIKES).replace("](", "] (")
    return _MENTION.sub("@\u2060", parted)


def _has_marks(text: str) -> bool:
    # Four look-ups are four times as fast as one expression, and mostly there are none.
    return "@" in text or "*" in text or "`" in text or "](" in text
