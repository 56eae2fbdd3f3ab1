"""The credentials of GitHub's calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock

if TYPE_CHECKING:
    from parley.messages import Connector


class GitHubAccount(ConnectorBlock):
    """A webhook secret on GitHub: what happens in its repositories comes in as notices.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.github import GitHubAccount

        account = GitHubAccount.load("BLOCK_NAME")
        github = account.connector("my-github")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley GitHub account"
    _block_type_slug: ClassVar[Any] = "parley-github-account"
    _description: ClassVar[str | None] = (
        "A webhook secret on GitHub: what happens in its repositories comes in as notices."
    )
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl(
        "https://docs.github.com/en/webhooks/using-webhooks/creating-webhooks"
    )

    secret: Annotated[
        SecretStr,
        Field(
            title="Secret",
            description="Secret of the webhook, as it is set at GitHub; every call is signed with it.",
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
        from connectors.github import GitHub

        return GitHub(account, secret=self._stripped("secret"), old_secret=self._stripped("old_secret"))
