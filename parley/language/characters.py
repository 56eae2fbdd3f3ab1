"""Characters: width, script, and what may be shown to people."""

from __future__ import annotations

import re
from typing import Literal

Language = Literal["en", "zh"]

_FULL = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
# Sentence marks are text, not look-alikes: "注意：磁盘已满！" in a free-text value must stay as it was typed.
_SENTENCE_MARKS = {ord(mark) for mark in "，！？；（）："}
_WORDS = {code: narrow for code, narrow in _FULL.items() if code not in _SENTENCE_MARKS}
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_UNSHOWN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def narrow(text: str) -> str:
    """The text with every full-width form as its ASCII one; the length does not change."""
    return text if text.isascii() else text.translate(_FULL)


def narrow_words(text: str) -> str:
    """Like `narrow`, but full-width sentence marks stay."""
    return text if text.isascii() else text.translate(_WORDS)


def language_of(text: str) -> Language:
    """The language to answer in: Chinese as soon as there is one Chinese character, else English."""
    return "zh" if not text.isascii() and _HAN.search(text) else "en"


def language_for(tag: str | None, text: str = "") -> Language:
    """The language to answer somebody in: their own (`zh-CN`, `en_GB`) if we speak it, else that of the text."""
    primary = (tag or "").lower().replace("_", "-").partition("-")[0]
    if primary == "zh":
        return "zh"
    return "en" if primary == "en" else language_of(text)


def visible(text: str, limit: int = 60) -> str:
    """One line of at most `limit` characters in which nothing hides: invisible characters are written as U+XXXX.

    Backticks are replaced, so that the text can stand between backticks and no markup of a stranger gets out.
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    cut = cut.replace("`", "ˋ")
    return _UNSHOWN.sub(lambda found: f"<U+{ord(found[0]):04X}>", cut)
