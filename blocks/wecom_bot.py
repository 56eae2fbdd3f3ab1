"""The credentials of an intelligent robot of WeCom (智能机器人)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock
from parley.errors import ConfigurationError

if TYPE_CHECKING:
    from parley.messages import Connector


class WecomBotAccount(ConnectorBlock):
    """An intelligent robot of WeCom over its long connection: no public address is needed.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.wecom_bot import WecomBotAccount

        account = WecomBotAccount.load("BLOCK_NAME")
        bot = account.connector("my-bot")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley WeCom bot account"
    _block_type_slug: ClassVar[Any] = "parley-wecom-bot-account"
    _description: ClassVar[str | None] = (
        "An intelligent robot of WeCom over its long connection: no public address is needed."
    )
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl(
        "https://developer.work.weixin.qq.com/document/path/101463"
    )

    bot_id: Annotated[
        str,
        Field(
            title="Bot ID",
            description="The robot's id (aib...), shown where its API mode is a long connection.",
        ),
    ]
    secret: Annotated[
        SecretStr,
        Field(title="Secret", description="The secret of the long connection, from the same page."),
    ]
    bot_name: Annotated[
        str,
        Field(
            title="Name",
            description="The robot's name as people mention it in groups; needed if it has a space in it.",
        ),
    ] = ""
    welcome: Annotated[
        str,
        Field(
            title="Welcome",
            max_length=1000,
            description="Said to a person who opens the conversation for the first time on a day; empty for nothing.",
        ),
    ] = ""
    url: Annotated[
        str,
        Field(title="Address", description="The gateway's address; another one than WeCom's is for tests."),
    ] = "wss://openws.work.weixin.qq.com"

    def connector(self, account: str) -> Connector:
        """The connector of this robot. Opens no connection. Raises `ConfigurationError`."""
        from connectors.wecom_bot import WecomBot

        bot_id, secret = self.bot_id.strip(), self._stripped("secret")
        if not bot_id:
            raise ConfigurationError(
                "bot_id of this WeCom bot account is empty: copy it from the robot's page."
            )
        if not secret:
            raise ConfigurationError(
                "secret of this WeCom bot account is empty: copy it from the robot's page."
            )
        if urlsplit(self.url).scheme != "wss":
            raise ConfigurationError("url of this WeCom bot account does not begin with wss://.")
        return WecomBot(
            account,
            bot_id=bot_id,
            secret=secret,
            bot_name=self.bot_name.strip().removeprefix("@"),
            welcome=self.welcome,
            url=self.url,
        )
