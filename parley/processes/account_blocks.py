"""The Block of an account: read from Prefect, sealed where it is not, opened for this process only."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import pkgutil
import threading
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import httpx
from pydantic import SecretStr

from parley.errors import ConfigurationError
from parley.link.calls import HeldAccount, OpenSecret, SealSecret
from parley.processes.holding import Calls, Loaded, PrefectAway

logger = logging.getLogger(__name__)

_IMPORTING = threading.Lock()


async def load(account: HeldAccount, hub: Calls) -> Loaded:
    """Read, seal, open. Raises `ConfigurationError`, `PrefectAway` or what the hub answers (`SealError`)."""
    block_type, _, name = account.block.partition("/")
    if not name:
        raise ConfigurationError(
            f"the account {account.name} names the Block {account.block!r}: it has to be `<type>/<name>`, as in "
            "`parley-slack-account/team`."
        )
    block = await _read(account)
    block = await _sealed(block, block_type, name, hub)

    async def opener(field: str, sealed: str) -> str:
        call = OpenSecret(block_type=block_type, block_name=name, field=field, sealed=sealed)
        return str(await hub.call("open_secret", call, timeout=20))

    return Loaded(await block.opened(opener), _digest(block))


def import_alone(name: str) -> ModuleType:
    """Import what imports Prefect: threads that do so at the same time wait for one another for ever."""
    with _IMPORTING:
        return import_module(name)


@cache
def know_blocks() -> None:
    """Import every Block of ours, so that Prefect finds its class; one that does not import is told and left out."""
    package = import_alone("blocks")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("_"):
            continue
        try:
            import_alone(f"blocks.{module.name}")
        except Exception:
            logger.exception("the Block module %s does not import", module.name)


async def _read(account: HeldAccount) -> Any:
    # Prefect takes seconds to import, and is not needed where there is no account: not in the event loop, not earlier.
    await asyncio.to_thread(know_blocks)
    core = await asyncio.to_thread(import_alone, "prefect.blocks.core")
    try:
        block = await core.Block.aload(account.block)
    except ValueError as error:
        raise ConfigurationError(
            f"Prefect has no usable Block {account.block!r}: save it in the Prefect UI, or with `parley connect` "
            f"({' '.join(str(error).split())[:200]})."
        ) from None
    except (httpx.TransportError, RuntimeError) as error:
        raise PrefectAway(f"the Block {account.block} waits for Prefect, which does not answer.") from error
    if not hasattr(block, "connector"):
        raise ConfigurationError(
            f"the Block {account.block} is not an account's: choose one whose type begins with Parley."
        )
    return block


async def _sealed(block: Any, block_type: str, name: str, hub: Calls) -> Any:
    """The same Block with its secrets sealed, saved so in Prefect if any was in clear."""
    clear = block.unsealed_fields()
    if not clear:
        return block
    update = {}
    for field in clear:
        value = getattr(block, field).get_secret_value()
        call = SealSecret(block_type=block_type, block_name=name, field=field, clear=value)
        update[field] = SecretStr(str(await hub.call("seal_secret", call, timeout=20)))
    safe = block.model_copy(update=update)
    try:
        await safe.asave(name, overwrite=True)
        logger.info("Block %s/%s: sealed %s", block_type, name, ", ".join(clear))
    except Exception as error:  # noqa: BLE001 - the account works all the same, and `parley doctor` names the Block
        logger.warning("Block %s/%s is not sealed: it could not be saved (%r)", block_type, name, error)
    return safe


def _digest(block: Any) -> str:
    text = block.model_dump_json(context={"include_secrets": True})
    return hashlib.sha256(text.encode()).hexdigest()
