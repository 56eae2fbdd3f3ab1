"""The credentials of Grafana's calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock

if TYPE_CHECKING:
    from parley.messages import Connector


class GrafanaAccount(ConnectorBlock):
    """A webhook contact point of Grafana: its alerts come in as notices.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.grafana import GrafanaAccount

        account = GrafanaAccount.load("BLOCK_NAME")
        grafana = account.connector("my-grafana")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley Grafana account"
    _block_type_slug: ClassVar[Any] = "parley-grafana-account"
    _description: ClassVar[str | None] = "A webhook contact point of Grafana: its alerts come in as notices."
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl(
        "https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/"
    )

    secret: Annotated[
        SecretStr,
        Field(
            title="HMAC secret",
            description="Secret under HMAC Signature of the contact point; with it every call must be signed.",
        ),
    ] = SecretStr("")
    old_secret: Annotated[
        SecretStr,
        Field(
            title="Old HMAC secret",
            description="The one before, still taken while the secret is being changed.",
        ),
    ] = SecretStr("")
    signature_header: Annotated[
        str,
        Field(
            title="Signature header",
            description="Header under HMAC Signature of the contact point; the usual one need not be set there.",
        ),
    ] = "X-Grafana-Alerting-Signature"
    timestamp_header: Annotated[
        str,
        Field(
            title="Timestamp header",
            description="Timestamp Header under HMAC Signature of the contact point; with it old calls are refused.",
        ),
    ] = ""
    token: Annotated[
        SecretStr,
        Field(
            title="Bearer token",
            description="Credentials of the Authorization header, where calls are not signed.",
        ),
    ] = SecretStr("")
    username: Annotated[
        str,
        Field(
            title="User name",
            description="User name of HTTP basic authentication, where calls are not signed.",
        ),
    ] = ""
    password: Annotated[
        SecretStr,
        Field(
            title="Password", description="Password of HTTP basic authentication, where calls are not signed."
        ),
    ] = SecretStr("")

    language: Annotated[
        Literal["en", "zh"],
        Field(title="Language", description="Of the words around an alert: en or zh."),
    ] = "en"

    def connector(self, account: str) -> Connector:
        """The connector of this account. Opens no connection. Raises `ConfigurationError`."""
        from connectors.grafana import Grafana

        return Grafana(
            account,
            secret=self._stripped("secret"),
            old_secret=self._stripped("old_secret"),
            token=self._stripped("token"),
            password=self._stripped("password"),
            signature_header=self.signature_header,
            timestamp_header=self.timestamp_header,
            username=self.username,
            language=self.language,
        )
