"""The console needs no credentials: its Block is for programs that want a console in their own process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import HttpUrl

from blocks._base import ConnectorBlock

if TYPE_CHECKING:
    from parley.messages import Connector


class ConsoleAccount(ConnectorBlock):
    """A console in the process that loads it: people in that process write at its desk, automations answer.

    The console of an installation is the hub's and needs no Block.

    Example:
        Load the account and make its connector, whose desk is where people write:
        ```python
        from blocks.console import ConsoleAccount

        account = ConsoleAccount.load("BLOCK_NAME")
        console = account.connector("my-console")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley console account"
    _block_type_slug: ClassVar[Any] = "parley-console-account"
    _description: ClassVar[str | None] = (
        "A console in the process that loads it: people in that process write at its desk, automations answer."
    )
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl("https://docs.prefect.io/v3/concepts/blocks")

    def connector(self, account: str) -> Connector:
        """The connector, at a new desk of its own."""
        from connectors.console import Console

        return Console(account)
