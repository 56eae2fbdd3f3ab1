"""The credentials of Alertmanager's calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock

if TYPE_CHECKING:
    from parley.messages import Connector


class AlertmanagerAccount(ConnectorBlock):
    """A webhook receiver of Prometheus Alertmanager: its alerts come in as notices.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.alertmanager import AlertmanagerAccount

        account = AlertmanagerAccount.load("BLOCK_NAME")
        alertmanager = account.connector("my-alertmanager")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley Alertmanager account"
    _block_type_slug: ClassVar[Any] = "parley-alertmanager-account"
    _description: ClassVar[str | None] = (
        "A webhook receiver of Prometheus Alertmanager: its alerts come in as notices."
    )
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl(
        "https://prometheus.io/docs/alerting/latest/configuration/"
    )

    token: Annotated[
        SecretStr,
        Field(
            title="Bearer token",
            description="What Alertmanager sends as credentials in http_config.authorization.",
        ),
    ] = SecretStr("")
    old_token: Annotated[
        SecretStr,
        Field(
            title="Old bearer token",
            description="The one before, still taken while the token is being changed.",
        ),
    ] = SecretStr("")
    username: Annotated[
        str,
        Field(
            title="User name", description="User name in http_config.basic_auth, instead of a bearer token."
        ),
    ] = ""
    password: Annotated[
        SecretStr,
        Field(title="Password", description="Password in http_config.basic_auth."),
    ] = SecretStr("")

    language: Annotated[
        Literal["en", "zh"],
        Field(title="Language", description="Of the words around an alert: en or zh."),
    ] = "en"

    def connector(self, account: str) -> Connector:
        """The connector of this account. Opens no connection. Raises `ConfigurationError`."""
        from connectors.alertmanager import Alertmanager

        return Alertmanager(
            account,
            token=self._stripped("token"),
            old_token=self._stripped("old_token"),
            password=self._stripped("password"),
            username=self.username,
            language=self.language,
        )
