"""The command grammar: `/name a b key=value`.

- The slash may be `/`, `／`, or the `、` that a Chinese keyboard gives; mentions and spaces may stand before it.
- `/name@bot` is `/name`; `/run name ...` is `/name ...`. Names ignore case, `_` is `-`.
- A value with spaces stands in quotes: '..', "..", “..”, ‘..’, 「..」, 『..』. Quoted text is kept as it is; only
  inside "..", a backslash before `"` or another backslash is dropped. A quote inside a word (don't) is a letter.
- Names, keys and unquoted values take full-width letters, digits and symbols as their ASCII ones.
- A parameter is given by place, or by name as `key=value` or `--key=value`.

Reading takes time in proportion to the length of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from parley.errors import BadArguments
from parley.language.characters import Language, language_of, narrow, narrow_words, visible
from parley.language.phrases import phrase

_SPACE = r"[\s\u200b\u2060\ufeff]"
_CLOSING = {'"': '"', "'": "'", "“": "”", "”": "”", "‘": "’", "「": "」", "『": "』", "＂": "＂"}
_LEAD = re.compile(rf"(?:{_SPACE}++|(?:<@[^>\s]{{1,200}}+>|[@＠][^\s/／]{{1,200}}+)(?={_SPACE}))*+")
_NAME = re.compile(
    r"""(?:[/／]|、(?=[A-Za-zＡ-Ｚａ-ｚ]))([^\s\u200b/／@＠,，、:：;；!！?？。"“”'‘’「」『』]++)"""
)
_AFTER_NAME = re.compile(r"(?:[@＠][\w.-]*+)?+[,，、:：;；!！?？。]*+")
_GAP = re.compile(rf"{_SPACE}*+")
_KEY = re.compile(r"(?:[-－]{2}|[—–])?([^\W\d][\w－-]*+)[=＝]")
_BARE = re.compile(r"[^\s\u200b\u2060\ufeff]++")
_ESCAPED = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_ESCAPE = re.compile(r'\\(["\\])')
_SWITCH = re.compile(r"(?:--|[—–])([^\W\d][\w-]*+)$")
_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Command:
    """A command as typed; values are still text. `raw` is the whole message."""

    name: str
    positional: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)
    raw: str = ""


def canonical_name(name: str) -> str:
    """The one spelling of a command's name."""
    return narrow(name).lower().replace("_", "-")


def canonical_key(key: str) -> str:
    """The one spelling of a parameter's name."""
    return narrow(key).lower().replace("-", "_")


def command_name(text: str) -> str | None:
    """The name of the command that this message seems to be, without a look at the rest of it."""
    lead = _LEAD.match(text)
    head = _NAME.match(text, lead.end() if lead else 0)
    return canonical_name(head[1]) if head else None


def parse_command(text: str) -> Command | None:
    """The command in this message, or None when it is not one (plain language, a path, a lone slash).

    Raises nothing but `BadArguments`, with the position of what cannot be read.
    """
    lead = _LEAD.match(text)
    head = _NAME.match(text, lead.end() if lead else 0)
    if head is None or text[head.end() : head.end() + 1] in ("/", "／") or not any(map(str.isalnum, head[1])):
        return None
    language = language_of(text)
    refuse_unusable(text, language)
    after = _AFTER_NAME.match(text, head.end())
    words = _Words(text, after.end() if after else head.end(), language)
    words.read()
    name = canonical_name(head[1])
    positional = tuple(words.positional)
    if name == "run":
        name, positional = _named_run(positional, language)
    return Command(name, positional, words.named, text)


def _named_run(positional: tuple[str, ...], language: Language) -> tuple[str, tuple[str, ...]]:
    name = canonical_name(positional[0].lstrip("/")) if positional else ""
    if not name:
        raise BadArguments(phrase("run-what", language))
    return name, positional[1:]


def refuse_unusable(text: str, language: Language = "en") -> None:
    """Raises `BadArguments` at the first control or broken character."""
    found = _UNUSABLE.search(text)
    if found:
        code = f"U+{ord(found[0]):04X}"
        raise BadArguments(phrase("unusable-character", language, code=code, position=found.start() + 1))


class _Words:
    """Reads the words after the name, left to right, each character once."""

    def __init__(self, text: str, position: int, language: Language) -> None:
        self.text = text
        self.position = position
        self.language = language
        self.positional: list[str] = []
        self.named: dict[str, str] = {}

    def read(self) -> None:
        self._skip_gap()
        while self.position < len(self.text):
            key = _KEY.match(self.text, self.position)
            if key:
                self.position = key.end()
                self._add_named(canonical_key(key[1]), key.start())
            else:
                self.positional.append(self._value(by_place=True))
            self._skip_gap()

    def _skip_gap(self) -> None:
        gap = _GAP.match(self.text, self.position)
        self.position = gap.end() if gap else self.position

    def _add_named(self, key: str, start: int) -> None:
        if key in self.named:
            raise BadArguments(phrase("twice", self.language, name=visible(key), position=start + 1))
        self.named[key] = self._value(by_place=False)

    def _value(self, *, by_place: bool) -> str:
        if self.text[self.position : self.position + 1] in _CLOSING:
            return self._quoted()
        bare = _BARE.match(self.text, self.position)
        if bare is None:  # `key=` at the end or before a space
            return ""
        self.position = bare.end()
        word = narrow_words(bare[0])
        switch = _SWITCH.match(word) if by_place else None
        if switch:
            name = visible(switch[1])
            raise BadArguments(phrase("switch", self.language, name=name, position=bare.start() + 1))
        return word

    def _quoted(self) -> str:
        start, mark = self.position, self.text[self.position]
        value = self._escaped() if mark == '"' else self._plain(_CLOSING[mark])
        after = self.text[self.position : self.position + 1]
        if after and not _GAP.fullmatch(after):
            raise BadArguments(phrase("after-quote", self.language, position=self.position + 1))
        if value is None:
            raise BadArguments(phrase("open-quote", self.language, mark=_CLOSING[mark], position=start + 1))
        return value

    def _escaped(self) -> str | None:
        found = _ESCAPED.match(self.text, self.position)
        if found is None:
            self.position = len(self.text)
            return None
        self.position = found.end()
        return _ESCAPE.sub(r"\1", found[1])

    def _plain(self, closing: str) -> str | None:
        end = self.text.find(closing, self.position + 1)
        if end < 0:
            self.position = len(self.text)
            return None
        value = self.text[self.position + 1 : end]
        self.position = end + 1
        return value
