"""The credentials of a program that calls us and may be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock

if TYPE_CHECKING:
    from parley.messages import Connector


class WebhookAccount(ConnectorBlock):
    """Any program that signs its calls: what it reports comes in as notices, answers go to its address.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.webhook import WebhookAccount

        account = WebhookAccount.load("BLOCK_NAME")
        webhook = account.connector("my-webhook")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley Webhook account"
    _block_type_slug: ClassVar[Any] = "parley-webhook-account"
    _description: ClassVar[str | None] = (
        "Any program that signs its calls: what it reports comes in as notices, answers go to its address."
    )
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl("https://www.standardwebhooks.com/")

    secret: Annotated[
        SecretStr,
        Field(
            title="Secret",
            description="whsec_ and the base64 of at least 16 random bytes: signs the calls of both directions.",
        ),
    ]
    old_secret: Annotated[
        SecretStr,
        Field(
            title="Old secret",
            description="The one before, still taken, and signed with as well, while the secret is being changed.",
        ),
    ] = SecretStr("")
    service: Annotated[
        str,
        Field(title="Service", description="Name of the program, as people are shown it."),
    ] = "webhook"
    speaks: Annotated[
        bool,
        Field(
            title="May ask",
            description="Whether a call with text and no type is a message, asked as the service principal.",
        ),
    ] = False
    url: Annotated[
        str,
        Field(
            title="Address",
            description="Where messages to this account are posted, https://...; empty: nothing is sent.",
        ),
    ] = ""
    reach: Annotated[
        Literal["public", "private"],
        Field(
            title="Where the address may lead",
            description="The Internet only (public), or one's own networks and this machine too (private).",
        ),
    ] = "public"

    def connector(self, account: str) -> Connector:
        """The connector of this account. Opens no connection. Raises `ConfigurationError`."""
        from connectors.webhook import Webhook

        return Webhook(
            account,
            secret=self._stripped("secret"),
            old_secret=self._stripped("old_secret"),
            service=self.service,
            speaks=self.speaks,
            url=self.url,
            reach=self.reach,
        )
