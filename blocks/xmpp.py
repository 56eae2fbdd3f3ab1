"""The credentials of an XMPP account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, HttpUrl, SecretStr, field_validator

from blocks._base import ConnectorBlock

if TYPE_CHECKING:
    from parley.messages import Connector


class XMPPAccount(ConnectorBlock):
    """An account on an XMPP (Jabber) server: people write to it and meet it in rooms, automations answer.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.xmpp import XMPPAccount

        account = XMPPAccount.load("BLOCK_NAME")
        xmpp = account.connector("office-chat")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley XMPP account"
    _block_type_slug: ClassVar[Any] = "parley-xmpp-account"
    _description: ClassVar[str | None] = (
        "An account on an XMPP (Jabber) server: people write to it and meet it in rooms, automations answer."
    )
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl("https://xmpp.org/rfcs/rfc6120.html")

    jid: Annotated[str, Field(title="Address", description="Of the assistant, as in parley@example.org.")]
    password: Annotated[SecretStr, Field(description="Password of this account.")]
    host: Annotated[
        str,
        Field(
            description="Server to connect to; empty: as the address's domain says (SRV records need aiodns)."
        ),
    ] = ""
    port: Annotated[
        int, Field(ge=0, lt=65536, description="Its port; 0: 5222 for starttls, 5223 for tls.")
    ] = 0
    security: Annotated[
        Literal["starttls", "tls"],
        Field(
            description="How it is encrypted: starttls (required, never skipped), or tls from the first byte."
        ),
    ] = "starttls"
    ca_file: Annotated[
        str,
        Field(
            title="CA file",
            description="File with the certificates (PEM) of a private authority, trusted in place of the usual ones.",
        ),
    ] = ""
    plain_login: Annotated[
        bool,
        Field(
            description="Allow sending the password itself, inside TLS, to servers that know no SCRAM (as with LDAP)."
        ),
    ] = False
    allow_plain_on_loopback: Annotated[
        bool, Field(description="No encryption, towards a server on this machine only: for tests.")
    ] = False
    rooms: Annotated[
        tuple[str, ...], Field(description="Rooms to be in, as in ops@rooms.example.org. They must exist.")
    ] = ()
    nick: Annotated[
        str, Field(description="Our name in rooms; empty: what stands before the @ of the address.")
    ] = ""
    hear: Annotated[
        Literal["mentions", "along", "all"],
        Field(
            title="What counts in rooms",
            description="What begins with our nick, names or answers us (mentions); the rest is also handed on, "
            "not answered (along); or everything counts as said to us (all).",
        ),
    ] = "mentions"
    trusted_domains: Annotated[
        tuple[str, ...],
        Field(
            description="Domains whose servers are believed who their people are, and who may add us as a contact; "
            "empty: our own. Others' people may only read."
        ),
    ] = ()
    catch_up_minutes: Annotated[
        float,
        Field(ge=0, le=7 * 24 * 60, description="How far the archives are read back at a start, in minutes."),
    ] = 15

    @field_validator("rooms", "trusted_domains", mode="before")
    @classmethod
    def _are_listed(cls, value: Any) -> Any:
        """A list, or one line with commas, as on a command line."""
        listed = value.split(",") if isinstance(value, str) else value
        return tuple(one.strip() for one in listed if one.strip())

    def connector(self, account: str) -> Connector:
        """The connector of this account. Opens no connection. Raises `ConfigurationError`."""
        from connectors.xmpp import XMPP, XMPPSettings

        self._in_clear("password")  # raises while it is sealed
        values = {name: getattr(self, name) for name in XMPPSettings.model_fields if hasattr(self, name)}
        return XMPP(account, XMPPSettings.model_validate(values))
