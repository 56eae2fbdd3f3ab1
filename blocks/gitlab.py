"""The credentials of GitLab's calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock

if TYPE_CHECKING:
    from parley.messages import Connector


class GitLabAccount(ConnectorBlock):
    """A webhook token of GitLab: what happens in its projects comes in as notices.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.gitlab import GitLabAccount

        account = GitLabAccount.load("BLOCK_NAME")
        gitlab = account.connector("my-gitlab")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley GitLab account"
    _block_type_slug: ClassVar[Any] = "parley-gitlab-account"
    _description: ClassVar[str | None] = (
        "A webhook token of GitLab: what happens in its projects comes in as notices."
    )
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl(
        "https://docs.gitlab.com/user/project/integrations/webhooks/"
    )

    signing_token: Annotated[
        SecretStr,
        Field(
            title="Signing token",
            description="Signing token of the webhook (whsec_...): every call is signed with it.",
        ),
    ] = SecretStr("")
    old_signing_token: Annotated[
        SecretStr,
        Field(
            title="Old signing token",
            description="The one before, still taken while the token is being changed.",
        ),
    ] = SecretStr("")
    token: Annotated[
        SecretStr,
        Field(
            title="Secret token",
            description="Secret token of the webhook, for a GitLab that cannot sign; ignored with a signing token.",
        ),
    ] = SecretStr("")
    old_token: Annotated[
        SecretStr,
        Field(
            title="Old secret token",
            description="The one before, still taken while the token is being changed.",
        ),
    ] = SecretStr("")

    def connector(self, account: str) -> Connector:
        """The connector of this account. Opens no connection. Raises `ConfigurationError`."""
        from connectors.gitlab import GitLab

        return GitLab(
            account,
            signing_token=self._stripped("signing_token"),
            old_signing_token=self._stripped("old_signing_token"),
            token=self._stripped("token"),
            old_token=self._stripped("old_token"),
        )
