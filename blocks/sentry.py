"""The credentials of Sentry's calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock

if TYPE_CHECKING:
    from parley.messages import Connector


class SentryAccount(ConnectorBlock):
    """An integration of Sentry: its issues and alerts come in as notices.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.sentry import SentryAccount

        account = SentryAccount.load("BLOCK_NAME")
        sentry = account.connector("my-sentry")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley Sentry account"
    _block_type_slug: ClassVar[Any] = "parley-sentry-account"
    _description: ClassVar[str | None] = "An integration of Sentry: its issues and alerts come in as notices."
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl(
        "https://docs.sentry.io/organization/integrations/integration-platform/webhooks/"
    )

    client_secret: Annotated[
        SecretStr,
        Field(
            title="Client secret",
            description="Client secret of the integration; every call is signed with it.",
        ),
    ]
    old_client_secret: Annotated[
        SecretStr,
        Field(
            title="Old client secret",
            description="The one before, still taken while the secret is being changed.",
        ),
    ] = SecretStr("")

    def connector(self, account: str) -> Connector:
        """The connector of this account. Opens no connection. Raises `ConfigurationError`."""
        from connectors.sentry import Sentry

        return Sentry(
            account,
            client_secret=self._stripped("client_secret"),
            old_client_secret=self._stripped("old_client_secret"),
        )
