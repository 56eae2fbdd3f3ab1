"""Binding: what was given -> the typed, validated values of an automation's parameters.

Values by place fill the parameters in order, those given by name left out. What is left over goes to the last
parameter if that is a list, or joined by single spaces if it is free text; else it is refused.
Every refusal is a `BadArguments` that names the parameter, what was given and what is allowed. A sealed value is never
repeated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema.exceptions import SchemaError, UnknownType, ValidationError
from referencing.exceptions import Unresolvable

from parley.errors import BadArguments
from parley.language.characters import Language, visible
from parley.language.grammar import Command, canonical_key
from parley.language.names import did_you_mean, joined, suggestion
from parley.language.phrases import phrase
from parley.language.reading import Unreadable, read
from parley.language.schemas import choices_of, describe, kind_of, kinds, resolved, single, written
from parley.language.validation import violations
from parley.runs.catalogue import AutomationSpec, Parameter

MAX_VALUE = 100_000
"""Longest value in characters where the schema sets no other limit."""

MAX_PATTERNED = 4_096
"""The same for text that is matched against a pattern, which may be slow on long text."""

MAX_NODES = 10_000
"""Most values, counted at every depth, in one structured value."""

MAX_DEPTH = 32
"""Deepest nesting of a structured value."""

_BROKEN_SCHEMA = (re.error, RecursionError, SchemaError, UnknownType, Unresolvable)
_MARKERS = ("__prefect_kind", "$ref")


@dataclass(frozen=True, slots=True)
class Bound:
    """Typed JSON values of the parameters that were given, and the required ones that were not.

    Defaults are not filled in: they are the automation's own.
    """

    values: dict[str, Any]
    missing: tuple[Parameter, ...] = ()


def bind(command: Command, spec: AutomationSpec, language: Language = "en") -> Bound:
    """The values that a typed command gives."""
    texts = _by_name(command.named, spec, language)
    open_ones = [parameter for parameter in spec.parameters if parameter.name not in texts]
    texts |= _by_place(command.positional, open_ones, spec, language)
    return bind_texts(texts, spec, language)


def bind_texts(texts: Mapping[str, str], spec: AutomationSpec, language: Language = "en") -> Bound:
    """The values of texts by exact parameter name."""
    given = [parameter for parameter in spec.parameters if parameter.name in texts]
    values = {parameter.name: read_value(texts[parameter.name], parameter, language) for parameter in given}
    return Bound(values, _missing(values, spec))


def bind_json(values: Mapping[str, Any], spec: AutomationSpec, language: Language = "en") -> Bound:
    """Already typed JSON values (REST, a form) under the same rules; unknown names are refused."""
    for name in values:
        if spec.parameter(name) is None:
            raise _unknown(name, spec, language)
    for parameter in spec.parameters:
        if parameter.name in values:
            check_value(values[parameter.name], parameter, language)
    return Bound(dict(values), _missing(values, spec))


def read_value(text: str, parameter: Parameter, language: Language = "en") -> Any:
    """The value that a person typed for this one parameter, typed and validated."""
    _refuse_long(text, parameter, language)
    try:
        value = read(text, parameter.json_schema, parameter.json_schema)
    except Unreadable as error:
        raise _wrong(text, parameter, language) from error
    except _BROKEN_SCHEMA as error:
        raise BadArguments(phrase("unchecked", language, name=parameter.name)) from error
    check_value(value, parameter, language)
    return value


def check_value(value: Any, parameter: Parameter, language: Language = "en") -> None:
    """Raises `BadArguments` unless this JSON value may be given from outside for this parameter."""
    refuse_prefect_markers(value, parameter.name, language)
    _refuse_unkeepable(value, parameter, language)
    try:
        error = next(violations(value, parameter.json_schema, parameter.json_schema), None)
    except _BROKEN_SCHEMA as broken:
        raise BadArguments(phrase("unchecked", language, name=parameter.name)) from broken
    if error is not None:
        raise _violated(error, parameter, language)


def refuse_prefect_markers(value: Any, name: str = "value", language: Language = "en") -> None:
    """Raises `BadArguments` where a key that Prefect gives a meaning (`__prefect_kind`, `$ref`) stands at any depth.

    Prefect would take such a value for an instruction: to parse, to render, to load a Block.
    """
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            for key in _MARKERS:
                if key in one:
                    raise BadArguments(phrase("marker", language, name=visible(name), key=key))
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            waiting.extend(one)


def is_free_text(parameter: Parameter) -> bool:
    """Whether any text will do in form: a string without choices or format."""
    only = single(parameter.json_schema, parameter.json_schema)
    return only is not None and kind_of(only) == "string" and "format" not in only


def _by_name(named: Mapping[str, str], spec: AutomationSpec, language: Language) -> dict[str, str]:
    known = {canonical_key(parameter.name): parameter.name for parameter in spec.parameters}
    for key in named:
        if canonical_key(key) not in known:
            raise _unknown(key, spec, language)
    return {known[canonical_key(key)]: text for key, text in named.items()}


def _by_place(
    positional: tuple[str, ...], open_ones: list[Parameter], spec: AutomationSpec, language: Language
) -> dict[str, str]:
    if len(positional) <= len(open_ones):
        return {parameter.name: text for parameter, text in zip(open_ones, positional, strict=False)}
    last = open_ones[-1] if open_ones and open_ones[-1] is spec.parameters[-1] else None
    glue = _glue(last) if last else None
    if last is None or glue is None:
        raise _too_many(positional[len(open_ones)], spec, language)
    first = {parameter.name: text for parameter, text in zip(open_ones[:-1], positional, strict=False)}
    return first | {last.name: glue.join(positional[len(first) :])}


def _glue(parameter: Parameter) -> str | None:
    if "array" in kinds(parameter.json_schema, parameter.json_schema):
        return ","
    return " " if is_free_text(parameter) else None


def _missing(given: Iterable[str], spec: AutomationSpec) -> tuple[Parameter, ...]:
    names = frozenset(given)
    return tuple(
        parameter for parameter in spec.parameters if parameter.required and parameter.name not in names
    )


def _too_many(value: str, spec: AutomationSpec, language: Language) -> BadArguments:
    count = len(spec.parameters)
    return BadArguments(phrase("too-many", language, command=spec.command, count=count, value=visible(value)))


def _unknown(key: str, spec: AutomationSpec, language: Language) -> BadArguments:
    names = [parameter.name for parameter in spec.parameters]
    parts = [phrase("unknown-parameter", language, command=spec.command, name=visible(key))]
    near = did_you_mean(key, names)
    if near:
        parts.append(suggestion(near, language))
    listed = phrase("list", language).join(f"`{name}`" for name in names)
    parts.append(phrase("has-parameters", language, names=listed) if names else phrase("has-none", language))
    return BadArguments(joined(parts, language))


def _refuse_long(text: str, parameter: Parameter, language: Language) -> None:
    only = single(parameter.json_schema, parameter.json_schema) or {}
    limit = MAX_PATTERNED if "pattern" in only else MAX_VALUE
    limit = only.get("maxLength", limit) if kind_of(only) == "string" else limit
    if len(text) > limit:
        sizes = {"length": len(text), "limit": limit}
        raise BadArguments(phrase("too-long", language, name=parameter.name, **sizes))


def _refuse_unkeepable(value: Any, parameter: Parameter, language: Language) -> None:
    """Walks without recursion: how deep it goes was decided by a stranger."""
    characters, nodes, waiting = 0, 0, [(value, 0)]
    only = single(parameter.json_schema, parameter.json_schema) or {}
    limit = max(MAX_VALUE, only.get("maxLength", 0))
    while waiting:
        one, depth = waiting.pop()
        nodes += 1
        if isinstance(one, Mapping):
            if not all(isinstance(key, str) for key in one):
                raise _unkeepable("what-key", parameter, language)
            inner = [*one, *one.values()]
        elif isinstance(one, list):
            inner = one
        else:
            inner = []
            characters += len(one) if isinstance(one, str) else 0
            what = _unkeepable_leaf(one)
            if what:
                raise _unkeepable(what, parameter, language)
        if depth > MAX_DEPTH or nodes + len(inner) > MAX_NODES or characters > limit:
            raise BadArguments(phrase("too-large", language, name=parameter.name))
        waiting.extend((each, depth + 1) for each in inner)


def _unkeepable_leaf(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return "what-text" if re.search("[\x00\ud800-\udfff]", value) else None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else "what-number"
    if isinstance(value, float):
        return None if math.isfinite(value) else "what-number"
    return "what-type"


def _unkeepable(what: str, parameter: Parameter, language: Language) -> BadArguments:
    return BadArguments(phrase("not-json", language, name=parameter.name, what=phrase(what, language)))


def _wrong(
    text: str, parameter: Parameter, language: Language, schema: Any = None, path: str = ""
) -> BadArguments:
    root = parameter.json_schema
    wanted = root if schema is None else schema
    parts = [
        phrase(
            "wrong-sealed" if parameter.sealed else "wrong",
            language,
            name=parameter.name + path,
            value=visible(text),
            allowed=describe(wanted, root, language),
        )
    ]
    choices = choices_of(single(wanted, root) or {})
    near = () if parameter.sealed else did_you_mean(text, [written(choice) for choice in choices])
    if near:
        parts.append(suggestion(near[:1], language))
    return BadArguments(joined(parts, language))


def _violated(error: ValidationError, parameter: Parameter, language: Language) -> BadArguments:
    error = _innermost(error, parameter)
    path = "".join(
        f"[{step}]" if isinstance(step, int) else f".{visible(step)}" for step in error.absolute_path
    )
    schema = resolved(error.schema, parameter.json_schema)
    if error.validator in ("required", "additionalProperties") and isinstance(error.instance, Mapping):
        field = _first_field(error, schema)
        key = "field-missing" if error.validator == "required" else "field-unknown"
        if field:
            return BadArguments(phrase(key, language, name=parameter.name + path, field=visible(field)))
    return _wrong(written(error.instance), parameter, language, schema, path)


def _innermost(error: ValidationError, parameter: Parameter) -> ValidationError:
    """The rule that is really broken, where the only alternative to the value is `null`."""
    while error.validator in ("anyOf", "oneOf"):
        listed: Any = error.validator_value
        options = [resolved(option, parameter.json_schema) for option in listed]
        others = [place for place, option in enumerate(options) if kind_of(option) != "null"]
        inner = [each for each in error.context or () if each.relative_schema_path[0] in others]
        if len(others) != 1 or not inner:
            break
        error = inner[0]
    return error


def _first_field(error: ValidationError, schema: Mapping[str, Any]) -> str:
    given: Any = error.instance
    if error.validator == "required":
        return next((name for name in schema.get("required", ()) if name not in given), "")
    return next((name for name in given if name not in schema.get("properties", {})), "")
