"""The credentials of a Discord bot."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock
from parley.errors import ConfigurationError

if TYPE_CHECKING:
    from parley.messages import Connector

_MEND = "Reset it in the Discord Developer Portal, under Bot, and copy it: it is shown once."


class DiscordAccount(ConnectorBlock):
    """A Discord bot: people write to it, automations answer.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.discord import DiscordAccount

        account = DiscordAccount.load("BLOCK_NAME")
        discord = account.connector("my-discord")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley Discord account"
    _block_type_slug: ClassVar[Any] = "parley-discord-account"
    _description: ClassVar[str | None] = "A Discord bot: people write to it, automations answer."
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl(
        "https://discord.com/developers/docs/quick-start/getting-started"
    )

    bot_token: Annotated[
        SecretStr,
        Field(title="Bot token", description="The bot's token, found in the Developer Portal under Bot."),
    ]
    hear: Annotated[
        Literal["mentions", "along", "all"],
        Field(
            title="What counts in servers",
            description="Messages that mention or answer the bot or are in its threads (mentions); the others too, to"
            " be routed elsewhere but not answered (along); or every message (all).",
        ),
    ] = "mentions"
    guild_ids: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9]{1,20}$")], ...],
        Field(
            title="Servers",
            description="Ids of the servers whose menus show the slash commands; none for all servers and direct"
            " messages.",
            max_length=100,
        ),
    ] = ()
    catch_up_minutes: Annotated[
        int,
        Field(
            title="Catch up",
            description="How many minutes back channels are read when listening begins. Direct messages cannot be.",
            ge=0,
            le=1440,
        ),
    ] = 15
    base_url: Annotated[
        str,
        Field(
            title="API address",
            description="Address of Discord's REST interface; another one than Discord's is for tests.",
        ),
    ] = "https://discord.com/api/v10"

    def connector(self, account: str) -> Connector:
        """The connector of this bot. Opens no connection. Raises `ConfigurationError`."""
        from connectors.discord import Discord

        return Discord(
            account,
            bot_token=self._token(),
            hear=self.hear,
            guild_ids=self.guild_ids,
            catch_up=timedelta(minutes=self.catch_up_minutes),
            base_url=self.base_url,
        )

    def _token(self) -> str:
        token = self._stripped("bot_token").removeprefix("Bot ")
        # Three parts of base64 with dots between them; a client secret or a public key has none.
        if token.count(".") != 2 or not token.isascii() or any(c.isspace() for c in token):
            raise ConfigurationError(f"bot_token of this Discord account is no bot's token. {_MEND}")
        return token
