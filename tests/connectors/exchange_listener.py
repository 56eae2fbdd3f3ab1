"""A process that listens to one Exchange mailbox into a file, until it is killed: one native id a line, on disk."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from connectors.exchange import Exchange, ExchangeSettings
from parley.messages import Accepted, Event


async def main(settings: str, inbox: Path) -> None:
    """Settings as JSON. What is accepted is on the disk."""
    with inbox.open("a") as file:

        async def accept(event: Event) -> Accepted:
            file.write(f"{event.native_id}\n")
            file.flush()
            os.fsync(file.fileno())
            return Accepted(id=event.native_id, new=True)

        async with Exchange("office", ExchangeSettings.model_validate_json(settings)) as exchange:
            await exchange.listen(accept)


if __name__ == "__main__":
    asyncio.run(main(os.environ["EXCHANGE_SETTINGS"], Path(sys.argv[1])))
