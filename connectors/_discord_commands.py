"""Slash commands: our catalogue as Discord's menu, and what was chosen there as the text of a command. Pure.

Names, numbers and lengths by Discord's documentation (Interactions, Application Commands).
"""

from __future__ import annotations

import json
import logging
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from parley.messages import CommandEntry, CommandParameter

log = logging.getLogger(__name__)

Json = Mapping[str, Any]
Choices = Mapping[str, Mapping[str, CommandParameter]]
"""By command and option: the parameter whose choices are offered while somebody types."""

INTERACTION_COMMAND, INTERACTION_COMPONENT, INTERACTION_AUTOCOMPLETE = 2, 3, 4
MOST_COMMANDS = 100
MOST_OPTIONS = 25
MOST_CHOICES = 25
LONGEST_CHOICE = 100
LONGEST_DESCRIPTION = 100
MOST_CHARACTERS = 8000  # of one command's names, descriptions and values together
LARGEST_INTEGER = 2**53

PRIVATE = "private"
"""The option that each command has in the menu: only who asks sees the answer."""

_TYPES = {"string": 3, "integer": 4, "boolean": 5, "number": 10}
_BOOLEAN = 5
_NAME = re.compile(r"[\w'-]{1,32}")
_BARE = re.compile(r"[A-Za-z0-9._:/+@%#-]+")


@dataclass(frozen=True, slots=True)
class Typed:
    """A chosen command as it would have been typed."""

    text: str
    private: bool = False


def menu(commands: Iterable[CommandEntry]) -> list[dict[str, Any]]:
    """What Discord is given for these commands; those that it cannot show are left out, with a warning."""
    made: dict[str, dict[str, Any]] = {}
    for entry in commands:
        command = _command(entry)
        if command is None or len(made) >= MOST_COMMANDS or command["name"] in made:
            log.warning(
                "The command %r is not in Discord's menu; it can be written all the same.", entry.name
            )
            continue
        made[command["name"]] = command
    return list(made.values())


def offered(commands: Iterable[CommandEntry]) -> Choices:
    """What is offered while somebody types, for parameters with more choices than a menu can list."""
    return {
        entry.name.lower(): {
            option_name(parameter.name): parameter for parameter in entry.parameters if parameter.choices
        }
        for entry in commands
    }


def suggestions(data: Json, choices: Choices) -> list[dict[str, Any]]:
    """The choices for what is being typed: those that begin so, then those that contain it."""
    focused = next((o for o in _options(data) if o.get("focused") is True), {})
    parameter = choices.get(str(data.get("name")), {}).get(str(focused.get("name")))
    if parameter is None:
        return []
    begun = str(focused.get("value", "")).strip().casefold()
    fitting = [choice for choice in parameter.choices if begun in choice.casefold()]
    fitting.sort(key=lambda choice: not choice.casefold().startswith(begun))
    values = (_choice(parameter, choice) for choice in fitting)
    return [choice for choice in values if choice is not None][:MOST_CHOICES]


def typed(data: Json) -> Typed | None:
    """The command chosen in the menu, as text that the command grammar reads back to the same; None for none."""
    name = data.get("name")
    if data.get("type", 1) != 1 or not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    words, private = [f"/{name}"], False
    for option in _options(data):
        key, value = option.get("name"), option.get("value")
        if not isinstance(key, str) or not _NAME.fullmatch(key) or not isinstance(value, str | int | float):
            continue
        if key == PRIVATE and option.get("type") == _BOOLEAN:
            private = value is True
        else:
            words.append(f"{key}={written(value)}")
    return Typed(" ".join(words), private)


def written(value: str | float | bool) -> str:
    """A value as the grammar reads it: bare where that is plain, else in quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value if isinstance(value, str) else json.dumps(value)
    text = re.sub("[\x00\ud800-\udfff]", "\ufffd", text)
    if _BARE.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def same(one: Iterable[Json], other: Iterable[Json]) -> bool:
    """Whether two menus are the same to people, whatever Discord has added to its copy."""
    return sorted(map(_essence, one)) == sorted(map(_essence, other))


def option_name(name: str) -> str:
    return name.lower()


def _command(entry: CommandEntry) -> dict[str, Any] | None:
    name = unicodedata.normalize("NFC", entry.name.lower())
    required = [parameter for parameter in entry.parameters if parameter.required]
    others = [parameter for parameter in entry.parameters if not parameter.required]
    if not _NAME.fullmatch(name) or len(required) > MOST_OPTIONS:
        return None
    # Discord wants what must be given first.
    made = [_option(parameter) for parameter in [*required, *others]]
    if None in made[: len(required)]:
        return None  # what must be given could not be
    options = [option for option in made if option is not None][:MOST_OPTIONS]
    if len(options) < MOST_OPTIONS and not any(option["name"] == PRIVATE for option in options):
        options.append({"type": _BOOLEAN, "name": PRIVATE, "description": "Only you see the answer."})
    command = {
        "name": name,
        "type": 1,
        "description": _described(entry.summary, name),
        "options": options,
        # In servers and in the direct conversation with the bot; not where the bot is not.
        "contexts": [0, 1],
        "integration_types": [0],
    }
    return command if _length(command) <= MOST_CHARACTERS else _shortened(command)


def _option(parameter: CommandParameter) -> dict[str, Any] | None:
    name = option_name(parameter.name)
    if not _NAME.fullmatch(name):
        return None
    option: dict[str, Any] = {
        "type": _TYPES[parameter.type],
        "name": name,
        "description": _described(parameter.description, name),
    }
    if parameter.required:
        option["required"] = True
    choices = [_choice(parameter, choice) for choice in parameter.choices]
    if choices and parameter.type != "boolean":
        if len(choices) <= MOST_CHOICES and None not in choices:
            option["choices"] = choices
        else:
            option["autocomplete"] = True
    if "choices" not in option:
        option.update(_bounds(parameter))
    return option


def _bounds(parameter: CommandParameter) -> dict[str, float]:
    if parameter.type not in {"integer", "number"}:
        return {}
    bounds: dict[str, float] = {}
    for key, value, whole in (
        ("min_value", parameter.minimum, math.ceil),
        ("max_value", parameter.maximum, math.floor),
    ):
        if value is not None and abs(value) <= LARGEST_INTEGER:
            bounds[key] = whole(value) if parameter.type == "integer" else value
    return bounds


def _choice(parameter: CommandParameter, choice: str) -> dict[str, Any] | None:
    if not 0 < len(choice) <= LONGEST_CHOICE:
        return None
    try:
        value: str | float = (
            int(choice)
            if parameter.type == "integer"
            else float(choice)
            if parameter.type == "number"
            else choice
        )
    except ValueError:
        return None
    return {"name": choice, "value": value}


def _described(text: str, name: str) -> str:
    line = " ".join(text.split())
    if len(line) > LONGEST_DESCRIPTION:
        line = line[: LONGEST_DESCRIPTION - 1].rstrip() + "…"
    return line or name


def _length(command: Json) -> int:
    choices = [choice for option in command["options"] for choice in option.get("choices", ())]
    named = [command, *command["options"]]
    return sum(len(one["name"]) + len(one["description"]) for one in named) + sum(
        len(choice["name"]) + len(str(choice["value"])) for choice in choices
    )


def _shortened(command: dict[str, Any]) -> dict[str, Any]:
    """The command with its listed choices offered while typing instead: a list counts towards the length."""
    options = []
    for option in command["options"]:
        kept = {key: value for key, value in option.items() if key != "choices"}
        options.append({**kept, "autocomplete": True} if "choices" in option else kept)
    return {**command, "options": options}


def _options(data: Json) -> list[Json]:
    options = data.get("options")
    return [option for option in options if isinstance(option, dict)] if isinstance(options, list) else []


def _essence(command: Json) -> str:
    kept = ("name", "description", "type", "options", "contexts", "integration_types")
    return json.dumps(_bare({key: command.get(key) for key in kept}), sort_keys=True)


def _bare(value: Any) -> Any:
    """Without what is absent, false or empty: Discord leaves that out, or fills it in, as it likes."""
    if isinstance(value, Mapping):
        kept = {key: _bare(one) for key, one in value.items() if not key.endswith("_localizations")}
        kept = {key: one for key, one in kept.items() if key in {"value", "min_value", "max_value"} or one}
        return {key: one for key, one in kept.items() if one is not None}
    if isinstance(value, list):
        return [_bare(one) for one in value]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
