"""The credentials of an Exchange mailbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock

if TYPE_CHECKING:
    from parley.messages import Connector


class ExchangeMailbox(ConnectorBlock):
    """A mailbox in Exchange, in the cloud or on premises, over Exchange Web Services.

    Example:
        Load the mailbox and make its connector:
        ```python
        from blocks.exchange import ExchangeMailbox

        mailbox = ExchangeMailbox.load("BLOCK_NAME")
        exchange = mailbox.connector("office")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley Exchange mailbox"
    _block_type_slug: ClassVar[Any] = "parley-exchange-mailbox"
    _description: ClassVar[str | None] = (
        "A mailbox in Exchange that people write to, over Exchange Web Services."
    )
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl(
        "https://learn.microsoft.com/exchange/client-developer/exchange-web-services/start-using-web-services-in-exchange"
    )

    address: Annotated[
        str, Field(description="Mail address of the mailbox that is read, as in assistant@example.com.")
    ]
    server: Annotated[
        str,
        Field(
            description="Host name of the server, as in mail.example.com; empty with oauth2: outlook.office365.com."
        ),
    ] = ""
    endpoint: Annotated[
        str, Field(description="Whole URL of EWS, where it is not https://<server>/EWS/Exchange.asmx.")
    ] = ""
    autodiscover: Annotated[
        bool,
        Field(
            description="Ask Autodiscover (v2) where the mailbox is: at the server, or by the address's domain."
        ),
    ] = False
    auth: Annotated[
        Literal["oauth2", "ntlm", "basic"],
        Field(
            title="Login", description="oauth2 for Exchange Online; ntlm or basic for a server on premises."
        ),
    ] = "oauth2"
    username: Annotated[
        str,
        Field(
            description=r"DOMAIN\user or user@domain; with oauth2 only where the app acts as a user, else empty."
        ),
    ] = ""
    password: Annotated[SecretStr, Field(description="Password of that user.")] = SecretStr("")
    client_id: Annotated[str, Field(title="Client ID", description="Application ID of the app (oauth2).")] = (
        ""
    )
    client_secret: Annotated[SecretStr, Field(description="Secret of the app (oauth2).")] = SecretStr("")
    tenant_id: Annotated[
        str, Field(title="Tenant ID", description="Directory ID of the tenant (oauth2).")
    ] = ""
    authority: Annotated[
        str,
        Field(description="Where access tokens come from; another one for national clouds (oauth2)."),
    ] = "https://login.microsoftonline.com"
    access: Annotated[
        Literal["automatic", "delegate", "impersonation"],
        Field(
            description="How a login that is not the mailbox's own reads it: delegate with full access to a shared "
            "mailbox, impersonation with that role. Automatic: impersonation for an app, delegate for a user."
        ),
    ] = "automatic"
    ca_certificates: Annotated[
        str,
        Field(
            title="CA certificates",
            description="Certificates (PEM) to trust in place of the usual ones, for servers with a private authority.",
        ),
    ] = ""
    display_name: Annotated[str, Field(description="Name that people see beside the mail address.")] = ""
    folder: Annotated[
        str, Field(description="Folder that is read: inbox, or a path such as inbox/Assistant.")
    ] = "inbox"
    since: Annotated[
        AwareDatetime | None,
        Field(
            description="Mail received before this moment is left alone; empty: unread mail of the last day is read."
        ),
    ] = None
    max_age_hours: Annotated[
        float,
        Field(
            gt=0, description="Mail that waited longer than this is left alone, whatever happened meanwhile."
        ),
    ] = 168
    trust_internal: Annotated[
        bool,
        Field(
            description="Take the sender as proven where Exchange says that a person of the organisation logged in to "
            "send it. Only where no connector lets mail from outside in as internal: see the documentation."
        ),
    ] = False

    def connector(self, account: str) -> Connector:
        """The connector of this mailbox. Opens no connection. Raises `ConfigurationError`."""
        from connectors.exchange import Exchange, ExchangeSettings

        values = {name: getattr(self, name) for name in ExchangeSettings.model_fields if hasattr(self, name)}
        values |= {
            "username": self.username.strip(),
            "server": self.server.strip(),
            "endpoint": self.endpoint.strip(),
            "password": self._in_clear("password"),
            "client_secret": self._stripped("client_secret"),
            "max_age": self.max_age_hours * 3600,
        }
        return Exchange(account, ExchangeSettings.model_validate(values))
