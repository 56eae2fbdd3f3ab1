"""`Sealed[T]`: a parameter that Prefect sees only as a placeholder and the function gets as a `T`."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema

PLACEHOLDER: Final = "sealed:"
"""How the text begins that stands in Prefect for a sealed value."""

T = TypeVar("T")


class Seal:
    """Marks an annotation as sealed: for Prefect, its pages and its database it is a string and nothing more."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler(source)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "format": "password", "writeOnly": True}

    def __repr__(self) -> str:
        return "Seal()"


Sealed = Annotated[T, Seal()]
"""`key: Sealed[str]`. The hub keeps the value sealed and opens it for the run that was granted its start."""


def is_sealed(annotation: Any) -> bool:
    """Whether this annotation itself is `Sealed[...]`."""
    return any(isinstance(mark, Seal) for mark in getattr(annotation, "__metadata__", ()))


def hides_seal(annotation: Any) -> bool:
    """Whether `Sealed` stands somewhere inside, where it would protect nothing."""
    inner = get_args(annotation)[:1] if hasattr(annotation, "__metadata__") else get_args(annotation)
    return any(is_sealed(part) or hides_seal(part) for part in inner)


def unsealed(annotation: Any) -> Any:
    """The annotation of the value behind the seal: `T` with everything else that stands beside the mark."""
    others = tuple(mark for mark in annotation.__metadata__ if not isinstance(mark, Seal))
    return Annotated[(annotation.__origin__, *others)] if others else annotation.__origin__


def is_placeholder(value: Any) -> bool:
    """Whether this stands for a sealed value and is not the value."""
    return isinstance(value, str) and value.startswith(PLACEHOLDER)
