"""Whether a value holds a secret: what does is not kept in memory any longer than the run that uses it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from parley.runs.context import current_run


def is_confidential(*values: Any) -> bool:
    """Whether a secret of pydantic, or a text that was sealed for this run, is in these values or anywhere inside.

    Looks into collections, models and dataclasses. A text that was made of a sealed one is not recognised.
    """
    run = current_run()
    sealed = (
        {part for part in parts_of(run.started.sealed) if isinstance(part, str) and part} if run else set()
    )
    return any(
        isinstance(part, Secret | SecretStr | SecretBytes) or (isinstance(part, str) and part in sealed)
        for part in parts_of(values)
    )


def parts_of(value: Any) -> Iterator[Any]:
    """Everything inside of a value, each thing once."""
    seen: dict[int, Any] = {}  # holds what was made on the way, so that no other thing gets its id
    left = [value]
    while left:
        part = left.pop()
        inside = _inside(part)
        if inside is None:
            yield part
        elif id(part) not in seen:
            seen[id(part)] = part
            left.extend(inside)


def _inside(value: Any) -> Iterable[Any] | None:
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, BaseModel):
        return [*dict(value).values(), *(value.__pydantic_private__ or {}).values()]
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in fields(value)]
    return None


__all__ = ["is_confidential", "parts_of"]
