"""parley.toml as a container gets it: the registered scripts, and nothing else of the installation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from parley.settings import File


def reduced(file: File) -> str:
    """The part of the file that an automation in a container needs, as TOML."""
    lines = []
    for name, script in file.scripts.items():
        values = script.model_dump(mode="json", exclude_defaults=True)
        lines += [
            f"[scripts.{_text(name)}]",
            *(f"{_text(key)} = {_value(one)}" for key, one in values.items()),
        ]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(
            f"{_text(str(key))} = {_value(one)}" for key, one in value.items() if one is not None
        )
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else _text(value)


def _text(text: str) -> str:
    # A JSON string is a basic string of TOML as long as nothing is written as a surrogate pair; TOML escapes DEL too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
