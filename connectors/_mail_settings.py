"""Where a mail account is and how it is reached: over TLS; in clear only on this machine, and only if asked."""

from __future__ import annotations

import ssl
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr

from connectors._mail_headers import is_address
from connectors._tls import is_loopback, verified
from parley.errors import ConfigurationError

UNREAD_FOR = 86400.0
"""Where nobody said since when mail is for us: unread mail, this many seconds old at most."""

Security = Literal["tls", "starttls", "none"]
Port = Annotated[int, Field(gt=0, lt=65536)]


class MailSettings(BaseModel):
    """One mail account. Times are in seconds."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    address: str
    imap_host: str
    smtp_host: str
    username: str
    password: SecretStr = SecretStr("")
    access_token: SecretStr = SecretStr("")
    imap_port: Port = 993
    smtp_port: Port = 465
    imap_security: Security = "tls"
    smtp_security: Security = "tls"
    ca_certificates: str = ""
    display_name: str = ""
    folder: str = "INBOX"
    envelope_sender: Literal["address", "empty"] = "address"
    since: AwareDatetime | None = None
    max_age: float = 7 * 86400
    idle: Annotated[float, Field(gt=0, lt=29 * 60)] = 5 * 60
    poll: Annotated[float, Field(gt=0)] = 15
    timeout: Annotated[float, Field(gt=0)] = 20

    def checked(self) -> MailSettings:
        """The same settings. Raises `ConfigurationError`, which names the wrong one and says how to mend it."""
        if not is_address(self.address):
            raise ConfigurationError(
                f"address: {self.address!r} is no mail address; write it as name@example.com."
            )
        if not self.username or not (
            self.password.get_secret_value() or self.access_token.get_secret_value()
        ):
            raise ConfigurationError("username and either password or access_token are needed to log in.")
        for protocol, host, security in self._ends():
            if security == "none" and not is_loopback(host):
                raise ConfigurationError(
                    f"{protocol}_security: 'none' is for a server on this machine; for {host} use 'tls' or 'starttls'."
                )
        self.tls()
        return self

    def tls(self) -> ssl.SSLContext:
        """Verified TLS, 1.2 at least: some mail servers that people must use have no 1.3."""
        return verified("ca_certificates", data=self.ca_certificates)

    def not_before(self, moment: datetime) -> datetime:
        """Mail received before this is left alone: from before the account was connected, or too old."""
        oldest = moment.timestamp() - self.max_age
        since = self.since.timestamp() if self.since else moment.timestamp() - UNREAD_FOR
        # IMAP tells whole seconds: the second in which the account was connected counts as after it.
        return datetime.fromtimestamp(int(max(oldest, since)), tz=moment.tzinfo)

    def _ends(self) -> tuple[tuple[str, str, Security], ...]:
        return (("imap", self.imap_host, self.imap_security), ("smtp", self.smtp_host, self.smtp_security))
