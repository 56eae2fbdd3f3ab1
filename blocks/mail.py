"""The credentials of a mail account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock

if TYPE_CHECKING:
    from parley.messages import Connector

Security = Literal["tls", "starttls", "none"]
_SECURITY = (
    "How it is encrypted: tls from the first byte, starttls, or none for a server on this machine only."
)


class MailAccount(ConnectorBlock):
    """A mailbox that people write to: IMAP to receive, SMTP to answer.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.mail import MailAccount

        account = MailAccount.load("BLOCK_NAME")
        mail = account.connector("office-mail")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley mail account"
    _block_type_slug: ClassVar[Any] = "parley-mail-account"
    _description: ClassVar[str | None] = "A mailbox that people write to: IMAP to receive, SMTP to answer."
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl("https://datatracker.ietf.org/doc/html/rfc9051")

    address: Annotated[str, Field(description="Mail address of the assistant, as in assistant@example.com.")]
    imap_host: Annotated[str, Field(title="IMAP host", description="Server that mail is received from.")]
    smtp_host: Annotated[str, Field(title="SMTP host", description="Server that answers are sent through.")]
    username: Annotated[
        str, Field(description="Name to log in with at both servers; empty: the mail address.")
    ] = ""
    password: Annotated[
        SecretStr, Field(description="Password, or app password where the provider asks for one.")
    ] = SecretStr("")
    access_token: Annotated[
        SecretStr,
        Field(description="OAuth 2 access token; where it is given, XOAUTH2 is used and not the password."),
    ] = SecretStr("")
    imap_port: Annotated[
        int, Field(title="IMAP port", gt=0, lt=65536, description="993 for tls, 143 for starttls.")
    ] = 993
    smtp_port: Annotated[
        int, Field(title="SMTP port", gt=0, lt=65536, description="465 for tls, 587 for starttls.")
    ] = 465
    imap_security: Annotated[Security, Field(title="IMAP security", description=_SECURITY)] = "tls"
    smtp_security: Annotated[Security, Field(title="SMTP security", description=_SECURITY)] = "tls"
    ca_certificates: Annotated[
        str,
        Field(
            title="CA certificates",
            description="Certificates (PEM) to trust in place of the usual ones, for servers with a private authority.",
        ),
    ] = ""
    display_name: Annotated[str, Field(description="Name that people see beside the mail address.")] = ""
    folder: Annotated[str, Field(description="Folder that is read.")] = "INBOX"
    envelope_sender: Annotated[
        Literal["address", "empty"],
        Field(
            description="Sender in SMTP: the mail address, or empty as RFC 3834 prefers; many providers refuse empty."
        ),
    ] = "address"
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
    look_every: Annotated[
        float,
        Field(
            ge=0.1,
            lt=29 * 60,
            description="Seconds after which new mail is looked for even if the server tells of none. On a server of "
            "your own 0.2 answers sooner: Dovecot tells of new mail half a second late.",
        ),
    ] = 300

    def connector(self, account: str) -> Connector:
        """The connector of this mailbox. Opens no connection. Raises `ConfigurationError`."""
        from connectors.mail import Mail, MailSettings

        values = {name: getattr(self, name) for name in MailSettings.model_fields if hasattr(self, name)}
        values |= {
            "username": self.username.strip() or self.address,
            "password": self._in_clear("password"),
            "access_token": self._stripped("access_token"),
            "max_age": self.max_age_hours * 3600,
            "idle": self.look_every,
        }
        return Mail(account, MailSettings.model_validate(values))
