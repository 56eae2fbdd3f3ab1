"""Help: what may be run, and how one automation is used."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Final

from parley.language.characters import Language, visible
from parley.language.command_line import quoted
from parley.language.names import joined
from parley.language.phrases import phrase
from parley.language.schemas import describe, written
from parley.language.templates import sentence_of
from parley.messages.model import Reply
from parley.runs.catalogue import AutomationSpec, Parameter

MOST_LISTED: Final = 40
"""Automations that are listed at once; of more a part, and how to find the others."""

_SLOT = re.compile(r"\{\s*(\w+)\s*\}")


def help_overview(
    specs: Iterable[AutomationSpec],
    language: Language = "en",
    builtins: Mapping[str, str] | None = None,
    *,
    most: int | None = None,
) -> Reply:
    """One line for each automation, by command. `builtins`: summaries of the commands that are always there.

    With `most` the automations come sorted already, and of more only the first are listed, with how to find the others.
    """
    shown: Iterable[AutomationSpec] = (
        sorted(specs, key=lambda spec: spec.command) if most is None else islice(specs, most)
    )
    lines = [_overview_line(spec, language) for spec in shown]
    text = [phrase("help-intro", language), *lines] if lines else [phrase("help-nothing", language)]
    left = len(specs) - len(lines) if isinstance(specs, Collection) else 0
    if left:
        text.append(phrase("help-left", language, count=left))
    if builtins:
        text += ["", phrase("help-builtins", language)]
        text += [f"- `/{name}`{_dash(language)}{summary}" for name, summary in sorted(builtins.items())]
    if lines:
        text += ["", phrase("help-more", language)]
    return Reply(text="\n".join(text))


def about(words: str, specs: Iterable[AutomationSpec], *, most: int) -> list[AutomationSpec]:
    """The first of these in whose command or summary all of the words stand."""
    wanted = words.casefold().split()
    found = (spec for spec in specs if _says(f"{spec.command} {spec.summary}".casefold(), wanted))
    return list(islice(found, most))


def _says(text: str, words: Iterable[str]) -> bool:
    return all(word in text for word in words)


def _overview_line(spec: AutomationSpec, language: Language) -> str:
    mark = phrase(f"mark-{spec.effect}", language)
    return f"- `{usage(spec)}`{_dash(language)}{spec.summary}{mark}"


def _dash(language: Language) -> str:
    return "：" if language == "zh" else ": "


def usage(spec: AutomationSpec) -> str:
    """The command with its parameters: `<required>`, `[optional]`."""
    words = [f"<{one.name}>" if one.required else f"[{one.name}]" for one in spec.parameters]
    return " ".join([f"/{spec.command}", *words])


def help_one(spec: AutomationSpec, language: Language = "en") -> Reply:
    """All that a person needs to know to use this automation."""
    text = [
        f"**/{spec.command}**{_dash(language)}{spec.summary}",
        phrase("help-usage", language, usage=usage(spec)),
    ]
    text.append(phrase(f"effect-{spec.effect}", language))
    if spec.parameters:
        text += ["", phrase("help-parameters", language)]
        text += [_parameter_line(parameter, language) for parameter in spec.parameters]
    examples = examples_of(spec)
    if examples:
        text += ["", phrase("help-examples", language), *(f"- {example}" for example in examples)]
    return Reply(text="\n".join(text))


def _parameter_line(parameter: Parameter, language: Language) -> str:
    return f"- `{parameter.name}`{_dash(language)}{joined(_facts(parameter, language), language)}"


def _facts(parameter: Parameter, language: Language) -> Iterable[str]:
    if parameter.description:
        yield parameter.description
    allowed = describe(parameter.json_schema, parameter.json_schema, language)
    yield phrase("help-must-be", language, allowed=allowed)
    if not parameter.required:
        yield phrase("help-optional", language)
        if parameter.default is not None and not parameter.sealed:
            yield phrase("help-default", language, value=visible(written(parameter.default)))
    if parameter.sealed:
        yield phrase("help-sealed", language)
    elif parameter.examples:
        yield phrase("help-example", language, value=visible(written(parameter.examples[0])))


def examples_of(spec: AutomationSpec) -> tuple[str, ...]:
    """The author's examples with example values in their slots, after a command line where all values are known."""
    known = {one.name: written(one.examples[0]) for one in spec.parameters if one.examples and not one.sealed}
    required = [one.name for one in spec.parameters if one.required]
    said = tuple(
        _SLOT.sub(lambda slot: known.get(slot[1], f"<{slot[1]}>"), sentence_of(example))
        for example in spec.examples
    )
    if not required or not set(required) <= known.keys():
        return said
    words = [f"/{spec.command}", *(f"{name}={quoted(known[name])}" for name in required)]
    return (f"`{' '.join(words)}`", *said)
