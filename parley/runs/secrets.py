"""A run opens the sealed secrets of the Blocks that its automation names, and of no other."""

from __future__ import annotations

import asyncio

from parley.errors import ConfigurationError
from parley.runs import redaction
from parley.runs.context import current_run


async def open_secret(block_type: str, block_name: str, field: str, value: str) -> str:
    """A sealed field of a Block, in clear, for use in this run only.

    Raises `ConfigurationError` outside a run, and `LinkError` where the automation does not name this Block.
    """
    run = current_run()
    if run is None:
        raise ConfigurationError(
            f"{field} of the Block {block_type}/{block_name} is sealed: only a run that parley started can open it."
        )
    opened = run.open_secret(block_type, block_name, field, value)
    secret = await asyncio.wrap_future(opened)
    redaction.hide(secret, lasting=True)  # the client that is made with it outlives the run
    return secret
