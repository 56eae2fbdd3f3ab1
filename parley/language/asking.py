"""Questions back: for a missing value, for a confirmation, for what was meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parley.errors import BadArguments
from parley.language.characters import Language, visible
from parley.language.command_line import command_line
from parley.language.names import joined
from parley.language.phrases import phrase
from parley.language.schemas import choices_of, describe, kind_of, single, written
from parley.language.understanding import Proposal
from parley.messages.model import Button, Reply
from parley.runs.catalogue import AutomationSpec, Parameter

SEALED = "•••"
"""What is shown in the place of a sealed value."""

_MOST_BUTTONS = 10
_LONGEST_LABEL = 75
_LONGEST_BUTTON_VALUE = 255
_SHOWN = 200


def ask_parameter(parameter: Parameter, spec: AutomationSpec, language: Language = "en") -> Reply:
    """The question for one missing value; a button's value is an answer that `read_value` takes.

    The question for a sealed value is private where the platform can do that.
    """
    allowed = describe(parameter.json_schema, parameter.json_schema, language)
    parts = [phrase("ask", language, command=spec.command, name=parameter.name), parameter.description]
    parts.append(phrase("ask-answer", language, allowed=allowed))
    text = joined([part for part in parts if part], language)
    return Reply(text=text, buttons=_answers(parameter, language), private=parameter.sealed)


def _answers(parameter: Parameter, language: Language) -> tuple[Button, ...]:
    only = single(parameter.json_schema, parameter.json_schema) or {}
    if kind_of(only) == "boolean":
        return tuple(Button(label=phrase(answer, language), value=answer) for answer in ("yes", "no"))
    texts = [written(choice) for choice in choices_of(only)]
    usable = 1 < len(texts) <= _MOST_BUTTONS and all(0 < len(text) <= _LONGEST_BUTTON_VALUE for text in texts)
    return tuple(Button(label=visible(text, _LONGEST_LABEL), value=text) for text in texts) if usable else ()


def confirm_text(spec: AutomationSpec, values: Mapping[str, Any], language: Language = "en") -> str:
    """What is about to run, value by value, for the person who confirms or approves; nothing in it can hide."""
    lines = [phrase("confirm", language, command=spec.command, summary=spec.summary)]
    for parameter in spec.parameters:
        if parameter.name in values:
            shown = SEALED if parameter.sealed else visible(written(values[parameter.name]), _SHOWN)
            lines.append(phrase("confirm-value", language, name=parameter.name, value=shown))
    lines.append(phrase(f"effect-{spec.effect}", language))
    return "\n".join(lines)


def offer_text(nearest: Sequence[Proposal], language: Language = "en") -> Reply:
    """The proposals as commands to choose from; each button's value is a complete command line."""
    if not nearest:
        return Reply(text=phrase("offer-none", language))
    lines = [_offered(proposal) for proposal in nearest]
    told = [
        f"- `{visible(line, _SHOWN)}`: {one.spec.summary}" for line, one in zip(lines, nearest, strict=True)
    ]
    buttons = [Button(label=_label(line), value=line) for line in lines if len(line) <= _LONGEST_BUTTON_VALUE]
    return Reply(text="\n".join([phrase("offer", language), *told]), buttons=tuple(buttons))


def _label(line: str) -> str:
    return visible(line, _LONGEST_LABEL)[:_LONGEST_LABEL]


def _offered(proposal: Proposal) -> str:
    open_values = {
        name: value for name, value in proposal.values.items() if name not in proposal.spec.sealed_names
    }
    try:
        return command_line(proposal.spec, open_values)
    except BadArguments:
        return f"/{proposal.command}"
