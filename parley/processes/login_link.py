"""`python -m parley.processes.login_link`: prints a link that logs the owner in at the console, once.

A process of its own, so that the supervisor loads neither asyncio nor the link.
"""

from __future__ import annotations

import asyncio
import sys

from parley.errors import ParleyError
from parley.link.calls import AdminCall, Role
from parley.link.client import HubClient, default_address, role_token
from parley.settings import load


async def login_link() -> str:
    """Ask the hub for a link. Raises `LinkError`."""
    settings = load()
    token = role_token(settings, Role.COMMAND_LINE)
    async with HubClient(default_address(settings), Role.COMMAND_LINE, token, name="supervisor") as hub:
        answer = await hub.call("admin", AdminCall(verb="login_link"), timeout=10)
    return str(answer["url"])


def main() -> int:
    """Print it."""
    try:
        sys.stdout.write(asyncio.run(login_link()) + "\n")
    except ParleyError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
