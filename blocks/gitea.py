"""The credentials of Gitea's calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock

if TYPE_CHECKING:
    from parley.messages import Connector


class GiteaAccount(ConnectorBlock):
    """A webhook secret on Gitea, Forgejo or Gogs: what happens in its repositories comes in as notices.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.gitea import GiteaAccount

        account = GiteaAccount.load("BLOCK_NAME")
        gitea = account.connector("my-gitea")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley Gitea account"
    _block_type_slug: ClassVar[Any] = "parley-gitea-account"
    _description: ClassVar[str | None] = (
        "A webhook secret on Gitea, Forgejo or Gogs: what happens in its repositories comes in as notices."
    )
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl("https://docs.gitea.com/usage/webhooks")

    secret: Annotated[
        SecretStr,
        Field(
            title="Secret",
            description="Secret of the webhook, as it is set at the server; every call is signed with it.",
        ),
    ]
    old_secret: Annotated[
        SecretStr,
        Field(
            title="Old secret", description="The one before, still taken while the secret is being changed."
        ),
    ] = SecretStr("")

    def connector(self, account: str) -> Connector:
        """The connector of this account. Opens no connection. Raises `ConfigurationError`."""
        from connectors.gitea import Gitea

        return Gitea(account, secret=self._stripped("secret"), old_secret=self._stripped("old_secret"))
