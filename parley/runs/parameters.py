"""The parameters of an automation, read from its type hints: the grammar, the help text and the validation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from parley.errors import BadArguments, ConfigurationError
from parley.runs import catalogue
from parley.runs.sealed import hides_seal, is_placeholder, is_sealed, unsealed

_MISSING = inspect.Parameter.empty


@dataclass(frozen=True)
class Declared:
    """One parameter as its author declared it. `default` is `inspect.Parameter.empty` when there is none."""

    name: str
    annotation: Any
    default: Any = _MISSING
    factory: Callable[[], Any] | None = None

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is _MISSING and self.factory is None

    @property
    def sealed(self) -> bool:
        """Whether its value travels sealed."""
        return is_sealed(self.annotation)

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Validates values of it; for a sealed one, the opened value."""
        return _adapter(unsealed(self.annotation) if self.sealed else self.annotation)

    def initial(self) -> Any:
        """The value when none is given."""
        return self.factory() if self.factory else self.default

    def published(self, description: str = "") -> catalogue.Parameter:
        """As plain data for the hub. Raises `ConfigurationError` when people could not type such a value."""
        schema = _adapter(self.annotation).json_schema() if self.sealed else self._json_schema()
        return catalogue.Parameter(
            name=self.name,
            json_schema=schema,
            required=self.required,
            default=self._published_default(),
            description=str(schema.get("description", "")) or description,
            examples=tuple(schema.get("examples", ())),
            sealed=self.sealed,
        )

    def _json_schema(self) -> dict[str, Any]:
        try:
            return self.adapter.json_schema()
        except PydanticInvalidForJsonSchema:
            raise ConfigurationError(
                f"parameter {self.name!r} has a type that cannot be written in a message: use text, numbers, dates, "
                "choices (Literal or Enum), lists or pydantic models."
            ) from None

    def _published_default(self) -> Any:
        if self.required or self.sealed or self.factory:
            return None
        try:
            return self.adapter.dump_python(self.default, mode="json")
        except (ValueError, TypeError):
            return None


class Parameters:
    """All parameters of one function, in order. Raises `ConfigurationError` for what a message cannot fill."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._declared = {
            name: _declared(parameter, Any if parameter.annotation is _MISSING else parameter.annotation)
            for name, parameter in _signature(function).parameters.items()
        }

    def __iter__(self) -> Iterator[Declared]:
        return iter(self._declared.values())

    def validated(self, given: Mapping[str, Any], opened: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Every parameter with its validated value; sealed ones are taken from `opened`.

        Raises `BadArguments` with a sentence a parameter, which never repeats a value.
        """
        wrong = [f"{name}: there is no such parameter" for name in given if name not in self._declared]
        values: dict[str, Any] = {}
        for declared in self:
            try:
                values[declared.name] = _value(declared, given, opened or {})
            except ValidationError as error:
                wrong += [_sentence(declared.name, item) for item in error.errors(include_url=False)]
            except BadArguments as error:
                wrong.append(str(error))
        if wrong:
            raise BadArguments("; ".join(wrong) + ".")
        return values


def _value(declared: Declared, given: Mapping[str, Any], opened: Mapping[str, Any]) -> Any:
    if declared.sealed and declared.name in opened:
        return declared.adapter.validate_python(opened[declared.name])
    if declared.name not in given:
        if declared.required:
            raise BadArguments(f"{declared.name}: a value is missing")
        return declared.initial()
    value = given[declared.name]
    if declared.sealed and is_placeholder(value):
        raise BadArguments(
            f"{declared.name}: the sealed value can be opened only in a run that the hub granted"
        )
    if value is declared.default:
        return value
    return declared.adapter.validate_python(value)


def _sentence(name: str, item: Any) -> str:
    where = ".".join([name, *(str(part) for part in item["loc"])])
    return f"{where}: {item['msg'].removeprefix('Value error, ')}"


def _declared(parameter: inspect.Parameter, annotation: Any) -> Declared:
    name, default = parameter.name, parameter.default
    if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
        raise ConfigurationError(
            f"parameter {name!r} cannot be given by name in a message: declare it as `{name}: type`."
        )
    if hides_seal(annotation):
        raise ConfigurationError(
            f"parameter {name!r}: Sealed[...] has to be the whole type, as in Sealed[str | None]."
        )
    if isinstance(default, FieldInfo):
        factory = default.default_factory
        plain = _MISSING if default.default is PydanticUndefined else default.default
        return Declared(name, Annotated[annotation, default], plain, factory)  # type: ignore[arg-type]
    return Declared(name, annotation, default)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except NameError as error:
        raise ConfigurationError(
            f"a type hint of {function.__name__}() cannot be read ({error}): import the type for real."
        ) from None


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:
        # Models and dataclasses bring their own configuration and refuse another.
        return TypeAdapter(annotation)
