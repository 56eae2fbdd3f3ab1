"""JSON Schemas of parameters: what a schema says, in one flat form and in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from parley.language.characters import Language, visible
from parley.language.phrases import phrase

Schema = Mapping[str, Any]

_HOPS = 16
_SHOWN_CHOICES = 12
_NUMBER_RULES = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")
_TEXT_RULES = ("minLength", "maxLength", "pattern")
_LIST_RULES = ("minItems", "maxItems")
_RULES = {"integer": _NUMBER_RULES, "number": _NUMBER_RULES, "string": _TEXT_RULES, "array": _LIST_RULES}


def resolved(schema: Any, root: Schema) -> Schema:
    """The schema with its local `$ref` and `allOf` of one followed; what stands beside them wins."""
    for _ in range(_HOPS):
        if not isinstance(schema, Mapping):  # `true` and `false` are schemas too
            return {}
        inner = _inner(schema, root)
        if inner is None:
            return schema
        schema = {**inner, **{key: value for key, value in schema.items() if key not in ("$ref", "allOf")}}
    return {}


def _inner(schema: Schema, root: Schema) -> Schema | None:
    target: Any = None
    if isinstance(schema.get("$ref"), str):
        target = _pointed(schema["$ref"], root)
    elif len(schema.get("allOf", ())) == 1:
        target = schema["allOf"][0]
    return target if isinstance(target, Mapping) else None


def _pointed(reference: str, root: Schema) -> Any:
    place: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            key = part.replace("~1", "/").replace("~0", "~")
            place = place.get(key) if isinstance(place, Mapping) else None
    return place


def branches(schema: Any, root: Schema) -> tuple[Schema, ...]:
    """The alternatives of a schema (anyOf, oneOf, a list of types), each resolved; one when there is no choice."""
    flat = resolved(schema, root)
    for keyword in ("anyOf", "oneOf"):
        if flat.get(keyword):
            return tuple(resolved(option, root) for option in flat[keyword])
    if isinstance(flat.get("type"), list):
        return tuple({**flat, "type": one} for one in flat["type"])
    return (flat,)


def kind_of(schema: Schema) -> str:
    """choice, any, or the type's name; of a schema without alternatives."""
    if "enum" in schema or "const" in schema:
        return "choice"
    if isinstance(schema.get("type"), str):
        return str(schema["type"])
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "any"


def choices_of(schema: Schema) -> tuple[Any, ...]:
    """The values that are listed as allowed."""
    return (schema["const"],) if "const" in schema else tuple(schema.get("enum", ()))


def kinds(schema: Any, root: Schema) -> frozenset[str]:
    """The kinds of all alternatives, `null` left out."""
    return frozenset(kind_of(branch) for branch in branches(schema, root)) - {"null"}


def single(schema: Any, root: Schema) -> Schema | None:
    """The only alternative beside `null`, or None when there are several."""
    others = [branch for branch in branches(schema, root) if kind_of(branch) != "null"]
    return others[0] if len(others) == 1 else None


def written(value: Any) -> str:
    """A JSON value as people write it: text bare, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def describe(schema: Any, root: Schema, language: Language, depth: int = 0) -> str:
    """What the schema allows, in words: "a whole number greater than 0"."""
    options = branches(schema, root)
    # That an optional value may be `null` helps nobody who types one.
    told = [branch for branch in options if kind_of(branch) != "null"] or options
    words = [_describe_one(branch, root, language, depth) for branch in told]
    return phrase("or", language).join(dict.fromkeys(words))


def _describe_one(schema: Schema, root: Schema, language: Language, depth: int) -> str:
    kind = kind_of(schema)
    if kind == "choice":
        return _describe_choices(choices_of(schema), language)
    words = _describe_type(kind, schema, root, language, depth)
    rules = [
        phrase(rule, language, value=visible(written(schema[rule])))
        for rule in _RULES.get(kind, ())
        if rule in schema and not (rule in ("minLength", "minItems") and schema[rule] == 0)
    ]
    if kind == "array" and schema.get("uniqueItems"):
        rules.append(phrase("uniqueItems", language))
    return (
        phrase("list", language).join([words, *rules])
        if len(rules) > 1
        else _with_rule(words, rules, language)
    )


def _with_rule(words: str, rules: list[str], language: Language) -> str:
    if not rules:
        return words
    return f"{words}，{rules[0]}" if language == "zh" else f"{words} {rules[0]}"


def _describe_type(kind: str, schema: Schema, root: Schema, language: Language, depth: int) -> str:
    if kind == "string" and f"format-{schema.get('format')}" in FORMAT_PHRASES:
        return phrase(f"format-{schema['format']}", language)
    if kind == "array" and schema.get("items") and depth < 2:
        return phrase("type-array-of", language, items=describe(schema["items"], root, language, depth + 1))
    return phrase(f"type-{kind}" if kind in _KNOWN_TYPES else "type-any", language)


def _describe_choices(choices: tuple[Any, ...], language: Language) -> str:
    shown = [f"`{visible(written(choice), 40)}`" for choice in choices[:_SHOWN_CHOICES]]
    if len(choices) > _SHOWN_CHOICES:
        shown.append(phrase("more", language, count=len(choices) - _SHOWN_CHOICES))
    listed = phrase("list", language).join(shown)
    return listed if len(choices) == 1 else phrase("choice", language, choices=listed)


_KNOWN_TYPES = frozenset({"integer", "number", "boolean", "string", "null", "object", "array"})
FORMAT_PHRASES = frozenset(
    f"format-{name}"
    for name in (
        "date",
        "date-time",
        "time",
        "duration",
        "uuid",
        "email",
        "uri",
        "ipv4",
        "ipv6",
        "ipvanyaddress",
    )
)
