"""Writing a command line that reads back as the same values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from parley.language.characters import narrow_words
from parley.language.grammar import refuse_unusable
from parley.language.reading import NOTHING, Unreadable, parse_json
from parley.language.schemas import kind_of, kinds, single, written
from parley.runs.catalogue import AutomationSpec, Parameter

_BARE = re.compile(r"[^\W_][\w.:/@%+,-]*+|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_BARE_ITEM = re.compile(r"[\w.:/@%+-]++")
_PLAIN_ITEMS = frozenset({"string", "integer", "choice"})


def command_line(spec: AutomationSpec, values: Mapping[str, Any]) -> str:
    """The command that a person would type for these values; `bind(parse_command(line), spec)` gives them again.

    Two things cannot be typed: the text "null" where nothing is allowed too, and control characters, for which
    `BadArguments` is raised.
    """
    words, by_place = [f"/{spec.command}"], True
    for parameter in spec.parameters:
        if parameter.name not in values:
            by_place = False  # what comes after a gap is given by name
            continue
        word = quoted(_text_of(values[parameter.name], parameter))
        words.append(word if by_place else f"{parameter.name}={word}")
    line = " ".join(words)
    refuse_unusable(line)
    return line


def quoted(text: str) -> str:
    """The text as one word of the grammar."""
    if _BARE.fullmatch(text) and narrow_words(text) == text:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _text_of(value: Any, parameter: Parameter) -> str:
    root = parameter.json_schema
    if isinstance(value, str):
        return (
            json.dumps(value, ensure_ascii=False) if "any" in kinds(root, root) and _is_json(value) else value
        )
    if (
        isinstance(value, list)
        and value
        and all(_is_bare_item(item) for item in value)
        and _plain_items(parameter)
    ):
        return ",".join(written(item) for item in value)
    return written(value)


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except Unreadable:
        return False
    return True


def _is_bare_item(item: Any) -> bool:
    if not isinstance(item, str | int) or written(item).lower() in NOTHING:
        return False
    return _BARE_ITEM.fullmatch(written(item)) is not None


def _plain_items(parameter: Parameter) -> bool:
    only = single(parameter.json_schema, parameter.json_schema) or {}
    item = single(only.get("items", {}), parameter.json_schema)
    plain = item is not None and kind_of(item) in _PLAIN_ITEMS and "format" not in item
    return plain and "prefixItems" not in only
