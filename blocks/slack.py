"""The credentials of a Slack app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock
from parley.errors import ConfigurationError

if TYPE_CHECKING:
    from parley.messages import Connector

_PREFIXES = {"bot_token": "xoxb-", "app_token": "xapp-"}
_MEND = {
    "bot_token": "Copy it from your Slack app, under OAuth & Permissions.",
    "app_token": "Make one with the scope connections:write in your Slack app, under Basic Information.",
}


class SlackAccount(ConnectorBlock):
    """A Slack app in one workspace: people write to it, automations answer.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.slack import SlackAccount

        account = SlackAccount.load("BLOCK_NAME")
        slack = account.connector("my-slack")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley Slack account"
    _block_type_slug: ClassVar[Any] = "parley-slack-account"
    _description: ClassVar[str | None] = (
        "A Slack app in one workspace: people write to it, automations answer."
    )
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl(
        "https://docs.slack.dev/apis/events-api/using-socket-mode/"
    )

    bot_token: Annotated[
        SecretStr,
        Field(
            title="Bot token", description="Bot user OAuth token (xoxb-...), found under OAuth & Permissions."
        ),
    ]
    app_token: Annotated[
        SecretStr,
        Field(
            title="App token",
            description="App-level token (xapp-...) with connections:write: we connect to Slack, no address is needed.",
        ),
    ] = SecretStr("")
    signing_secret: Annotated[
        SecretStr,
        Field(
            title="Signing secret",
            description="Needed only where Slack calls our hook instead: it proves that a request is from Slack.",
        ),
    ] = SecretStr("")
    hear: Annotated[
        Literal["mentions", "along", "all"],
        Field(
            title="What counts in channels",
            description="Messages that mention the app or are in its threads (mentions); the rest is left out, handed "
            "on to other platforms where a bridge or route leads (along), or taken as said to the app, too (all).",
        ),
    ] = "mentions"
    base_url: Annotated[
        str,
        Field(
            title="API address",
            description="Address of the Slack Web API; another one than Slack's is for tests.",
        ),
    ] = "https://slack.com/api/"

    def connector(self, account: str) -> Connector:
        """The connector of this app. Opens no connection. Raises `ConfigurationError`."""
        from connectors.slack import Slack

        bot, app, secret = (
            self._token("bot_token"),
            self._token("app_token"),
            self._in_clear("signing_secret"),
        )
        if not bot:
            raise ConfigurationError(f"bot_token of this Slack account is empty. {_MEND['bot_token']}")
        if not (app or secret):
            raise ConfigurationError(
                f"This Slack account has neither app_token nor signing_secret. {_MEND['app_token']}"
            )
        return Slack(
            account,
            bot_token=bot,
            app_token=app,
            signing_secret=secret,
            base_url=self.base_url,
            hear=self.hear,
        )

    def _token(self, name: str) -> str:
        token = self._stripped(name)
        if token and not token.startswith(_PREFIXES[name]):
            raise ConfigurationError(
                f"{name} of this Slack account does not begin with {_PREFIXES[name]}. {_MEND[name]}"
            )
        return token
