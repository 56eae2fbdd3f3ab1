"""`python -m blocks.save PLATFORM`: saves the Block of an account in Prefect, for `parley connect`.

A process of its own, because it imports Prefect and the command line does not. One JSON object a line: first it writes
which Block and which fields there are, then it reads `{"name", "fields"}`, secrets sealed already, and writes
`{"block": "<type>/<name>"}` or `{"error": ...}`. No secret in clear passes through here.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import httpx
from pydantic import SecretStr, ValidationError

from blocks._base import SEALED_PREFIX, ConnectorBlock, SecretBlock
from parley.errors import ConfigurationError

PATIENCE: Final = 60.0
"""Seconds for which a Prefect server that does not listen yet is waited for."""


def block_of(platform: str) -> type[SecretBlock]:
    """The Block that holds credentials for this platform or service. Raises `ConfigurationError` when there is none."""
    name = f"blocks.{platform}"
    if not platform.isidentifier() or platform.startswith("_") or find_spec(name) is None:
        raise ConfigurationError(
            f"there is no Block for {platform!r}: it needs no credentials, or is not known."
        )
    for found in vars(import_module(name)).values():
        if isinstance(found, type) and issubclass(found, SecretBlock) and found.__module__ == name:
            return found
    raise ConfigurationError(f"the module {name} defines no Block.")


def description(block: type[SecretBlock]) -> dict[str, Any]:
    """What the command line needs to know: the Block's type, and its fields with which of them are secret."""
    secret = block.secret_fields()
    fields = [
        {
            "name": name,
            "secret": name in secret,
            "required": field.is_required(),
            "description": field.description or field.title or "",
        }
        for name, field in block.model_fields.items()
        if not name.startswith("_")
    ]
    account = issubclass(block, ConnectorBlock)
    return {"block_type": block.get_block_type_slug(), "fields": fields, "account": account}


async def save(block: type[SecretBlock], name: str, fields: dict[str, Any]) -> str:
    """Save it; returns `<type>/<name>`. Raises `ConfigurationError` for fields that do not fit."""
    in_clear = [field for field in block.secret_fields() if not _is_safe(fields.get(field))]
    if in_clear:
        raise ConfigurationError(f"not sealed: {', '.join(in_clear)}.")
    try:
        made = block(**{field: _as_given(field, value, block) for field, value in fields.items()})
    except ValidationError as error:
        raise ConfigurationError("; ".join(_mistakes(error))) from None
    await once_prefect_answers(lambda: made.asave(name, overwrite=True))
    return f"{block.get_block_type_slug()}/{name}"


async def once_prefect_answers(save: Callable[[], Awaitable[Any]]) -> None:
    """Save as soon as somebody listens. Raises `httpx.ConnectError` after `PATIENCE`.

    Right after `parley up` the hub answers some seconds before Prefect does. Nothing arrived where nothing listens, so
    that it can be sent again.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            await save()
        except httpx.ConnectError:
            if time.monotonic() >= until:
                raise
            await asyncio.sleep(0.5)
        else:
            return


def main(platform: str) -> int:
    """Talk to the command line."""
    try:
        block = block_of(platform)
        _write(description(block))
        asked = json.loads(sys.stdin.readline() or "null")
        if asked is None:
            return 0
        _write({"block": asyncio.run(save(block, asked["name"], asked["fields"]))})
    except ConfigurationError as error:
        _write({"error": str(error)})
        return 1
    except Exception as error:  # noqa: BLE001 - whatever Prefect raises: its first line says enough, its rest is long
        first = (str(error).strip().splitlines() or [""])[0]
        _write({"error": f"Prefect did not save the Block ({type(error).__name__}: {first[:300]})."})
        return 1
    return 0


def _as_given(field: str, value: Any, block: type[SecretBlock]) -> Any:
    return SecretStr(value) if field in block.secret_fields() else value


def _is_safe(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, str) and value.startswith(SEALED_PREFIX))


def _mistakes(error: ValidationError) -> list[str]:
    # Never with the value: it may be a secret in the wrong field.
    found = error.errors(include_url=False, include_input=False)
    return [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in found]


def _write(data: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(data) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
