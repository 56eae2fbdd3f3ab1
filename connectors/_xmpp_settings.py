"""Where an XMPP account is and how it is reached: over verified TLS; in clear only on this machine, if asked."""

from __future__ import annotations

import re
import ssl
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from connectors._tls import is_loopback, verified
from parley.errors import ConfigurationError

Hear = Literal["mentions", "along", "all"]
Security = Literal["starttls", "tls"]

_PART = r"[^\s\"&'/:<>@]+"
_BARE = re.compile(rf"{_PART}@[A-Za-z0-9\u0080-\uffff._-]+")
_DOMAIN = re.compile(r"[a-z0-9\u0080-\uffff._-]+")


class XMPPSettings(BaseModel):
    """One XMPP account. Times are in seconds unless the name says otherwise."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    jid: str
    password: SecretStr
    host: str = ""
    port: Annotated[int, Field(ge=0, lt=65536)] = 0
    security: Security = "starttls"
    ca_file: str = ""
    allow_plain_on_loopback: bool = False
    plain_login: bool = False
    rooms: tuple[str, ...] = ()
    nick: str = ""
    hear: Hear = "mentions"
    trusted_domains: tuple[str, ...] = ()
    catch_up_minutes: Annotated[float, Field(ge=0, le=7 * 24 * 60)] = 15
    open_within: Annotated[float, Field(gt=0)] = 20
    ack_within: Annotated[float, Field(gt=0)] = 15
    probe_every: Annotated[float, Field(gt=0)] = 60
    answer_within: Annotated[float, Field(gt=0)] = 20

    def checked(self) -> XMPPSettings:
        """The same, in the form that is compared. Raises `ConfigurationError`, which says how to mend it."""
        jid = self.jid.strip().lower()
        if not _BARE.fullmatch(jid):
            raise ConfigurationError(f"jid: {self.jid!r} is no address; write it as name@example.org.")
        if not self.password.get_secret_value():
            raise ConfigurationError("password: it is needed to log in.")
        rooms = tuple(dict.fromkeys(room.strip().lower() for room in self.rooms if room.strip()))
        for room in rooms:
            if not _BARE.fullmatch(room):
                raise ConfigurationError(f"rooms: {room!r} is no room; write it as room@rooms.example.org.")
        domains = tuple(domain.strip().lower() for domain in self.trusted_domains if domain.strip())
        for domain in domains:
            if not _DOMAIN.fullmatch(domain):
                raise ConfigurationError(f"trusted_domains: {domain!r} is no domain.")
        if self.allow_plain_on_loopback and not is_loopback(self.host):
            raise ConfigurationError(
                "allow_plain_on_loopback: only for a server on this machine; name it in host, as in 127.0.0.1."
            )
        nick = self.nick.strip() or jid.partition("@")[0]
        changed = self.model_copy(
            update={
                "jid": jid,
                "rooms": rooms,
                "nick": nick,
                "trusted_domains": domains or (jid.partition("@")[2],),
            }
        )
        changed.tls()
        return changed

    @property
    def domain(self) -> str:
        """Our own domain."""
        return self.jid.partition("@")[2]

    def trusts(self, jid: str) -> bool:
        """Whether our server's word is enough for who this is: the domain is trusted, exactly."""
        return _domain(jid) in self.trusted_domains

    def trusts_service(self, jid: str) -> bool:
        """Whether what a room says of its occupants counts: its service is of a trusted domain, or below one."""
        domain = _domain(jid)
        return any(domain == one or domain.endswith("." + one) for one in self.trusted_domains)

    def tls(self) -> ssl.SSLContext:
        """Verified TLS, 1.2 at least. Raises `ConfigurationError`."""
        return verified("ca_file", file=self.ca_file)


def _domain(jid: str) -> str:
    return jid.partition("/")[0].rpartition("@")[2].lower()
