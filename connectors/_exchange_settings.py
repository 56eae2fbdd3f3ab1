"""Where an Exchange mailbox is and who reads it: over verified TLS; in clear only on this machine."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr

from connectors._mail_headers import is_address
from connectors._mail_settings import UNREAD_FOR
from connectors._tls import is_loopback, verified
from parley.errors import ConfigurationError

Auth = Literal["oauth2", "ntlm", "basic"]
Access = Literal["automatic", "delegate", "impersonation"]

CLOUD = "outlook.office365.com"
"""Exchange Online, where nothing else is said for OAuth 2."""


class ExchangeSettings(BaseModel):
    """One mailbox. Times are in seconds."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    address: str
    server: str = ""
    endpoint: str = ""
    autodiscover: bool = False
    auth: Auth = "oauth2"
    username: str = ""
    password: SecretStr = SecretStr("")
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    tenant_id: str = ""
    authority: str = "https://login.microsoftonline.com"
    access: Access = "automatic"
    ca_certificates: str = ""
    display_name: str = ""
    folder: str = "inbox"
    since: AwareDatetime | None = None
    max_age: Annotated[float, Field(gt=0)] = 7 * 86400
    trust_internal: bool = False
    # Exchange takes 1 to 30 minutes (learn.microsoft.com, ConnectionTimeout). The end of each is also a look for mail.
    stream_minutes: Annotated[int, Field(ge=1, le=29)] = 5
    poll: Annotated[float, Field(gt=0)] = 30
    """Between two looks where Exchange grants no notifications."""
    connect_timeout: Annotated[float, Field(gt=0)] = 10
    timeout: Annotated[float, Field(gt=0)] = 60
    settle: Annotated[float, Field(ge=0)] = 10
    """How long a mail whose answer was lost is looked for before it counts as not sent."""

    def checked(self) -> ExchangeSettings:
        """The same settings. Raises `ConfigurationError`, which names the wrong one and says how to mend it."""
        if not is_address(self.address):
            raise ConfigurationError(
                f"address: {self.address!r} is no mail address; write it as name@example.com."
            )
        if not self.autodiscover:
            _checked_url("endpoint", self.ews_url())
        if self.server and not _is_host(self.server):
            raise ConfigurationError(f"server: {self.server!r} is no host name, as in mail.example.com.")
        if not all(part.strip() for part in self.folder_path()):
            raise ConfigurationError("folder: write it as inbox, or as a path such as inbox/Assistant.")
        self._check_credentials()
        self.tls()
        return self

    def ews_url(self) -> str:
        """Where EWS answers, as far as it is known without asking."""
        if self.endpoint:
            return self.endpoint
        host = self.server or (CLOUD if self.auth == "oauth2" else "")
        return f"https://{host}/EWS/Exchange.asmx" if host else ""

    def discovery_urls(self) -> tuple[str, ...]:
        """Where Autodiscover may answer, most likely first."""
        domain = self.address.rpartition("@")[2]
        hosts = (self.server,) if self.server else (f"autodiscover.{domain}", domain)
        return tuple(f"https://{host}/autodiscover/autodiscover.json" for host in hosts)

    def impersonates(self) -> bool:
        """Whether we act as the mailbox's owner: an app without a user of its own can do nothing else."""
        if self.access == "automatic":
            return self.is_app()
        return self.access == "impersonation"

    def is_app(self) -> bool:
        """Whether an app logs in by itself, without a user."""
        return self.auth == "oauth2" and not self.username

    def folder_path(self) -> tuple[str, ...]:
        """The folder as the names on the way to it."""
        return tuple(self.folder.split("/"))

    def tls(self) -> ssl.SSLContext:
        """Verified TLS, 1.2 at least: an Exchange on old Windows has no 1.3."""
        return verified("ca_certificates", data=self.ca_certificates)

    def not_before(self, moment: datetime) -> datetime:
        """Mail received before this is left alone: from before the account was connected, or too old."""
        since = self.since or moment - timedelta(seconds=UNREAD_FOR)
        # Some servers tell whole seconds: the second in which the account was connected counts as after it.
        return max(moment - timedelta(seconds=self.max_age), since).replace(microsecond=0)

    def _check_credentials(self) -> None:
        password, secret = self.password.get_secret_value(), self.client_secret.get_secret_value()
        if self.auth != "oauth2":
            if not (self.username and password):
                raise ConfigurationError(f"username and password are needed for {self.auth}.")
            return
        _checked_url("authority", self.authority)
        if not (self.client_id and secret and self.tenant_id):
            raise ConfigurationError("client_id, client_secret and tenant_id are needed for oauth2.")
        if bool(self.username) != bool(password):
            raise ConfigurationError("username and password: give both for a user, or neither for an app.")
        if self.is_app() and not self.impersonates():
            raise ConfigurationError("access: an app without a user can only use 'impersonation'.")


def _checked_url(name: str, url: str) -> str:
    """This URL, if credentials may be sent there. Raises `ConfigurationError`."""
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and not parts.username and not parts.password and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigurationError(f"{name}: write it as https://..., or name the server.")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(str(parts.hostname))):
        raise ConfigurationError(f"{name}: only https is used; http is for a server on this machine.")
    return url


def _is_host(value: str) -> bool:
    try:
        parts = urlsplit(f"https://{value}")
        return parts.netloc == value and bool(parts.hostname) and "@" not in value and parts.port != 0
    except ValueError:
        return False
