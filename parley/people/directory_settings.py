"""`[directory]` of parley.toml: where the directory (LDAP) is, and what its entries say of people. Values only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from parley.people.distinguished_names import canonical
from parley.people.roles import listed
from parley.tls.addresses import is_loopback

_SPAN: Final = re.compile(r"([1-9][0-9]{0,4})\s*(s|m|min|h|d)", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def _url(text: str) -> str:
    parts = urlsplit(text)
    try:
        good = parts.scheme in ("ldap", "ldaps") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no address of a directory: write ldaps://ldap.example.com.")
    if not text.isascii() or any(char.isspace() for char in text):
        raise ValueError(f"{text!r} is no address of a directory: write one in ASCII.")
    return text.rstrip("/")


def _name(text: str) -> str:
    canonical(text)
    return text


def _filter(text: str) -> str:
    plain = re.sub(r"\\[0-9a-fA-F]{2}", "", text)
    depth = 0
    for place, char in enumerate(plain):
        depth += (char == "(") - (char == ")")
        if depth < 1 and place < len(plain) - 1:
            break
    else:
        if depth == 0 and plain.isprintable() and "\\" not in plain:
            return text
    raise ValueError(
        f"{text!r} is no filter: write one such as (objectClass=inetOrgPerson), as RFC 4515 says."
    )


def _span(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _SPAN.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{value!r} is no time: write 30s, 5m or 2h.")
    return timedelta(seconds=_UNITS[found[2]] * int(found[1]))


Attribute = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]
_Dn = Annotated[str, Field(max_length=1000), AfterValidator(_name)]
_Filter = Annotated[str, Field(min_length=3, max_length=2000), AfterValidator(_filter)]
_Span = Annotated[timedelta, BeforeValidator(_span)]


class Directory(BaseModel):
    """`[directory]`: asked for everybody at once, `every` so often; what it says is carried out (docs/directory.md).

    `url`: one server, or several of which the first that answers is asked: `ldaps://`, or `ldap://`, which is upgraded
    by StartTLS; without TLS only to this machine. `authority` (PEM) verifies it, the system's authorities without.
    `identities`: the attribute that holds somebody's user id, by account. `verified`: accounts whose senders are
    checked otherwise, as `parley people link --verified` says of one. `id` is the attribute that never changes and is
    never given twice. `groups` is the attribute with the groups; with `group_base` they are searched there instead.
    `most_missing`: a greater share of the people who were there and are not in an answer is taken for a mistake.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[
        tuple[Annotated[str, Field(max_length=300), AfterValidator(_url)], ...],
        BeforeValidator(listed),
        Field(min_length=1, max_length=5),
    ]
    start_tls: bool = True
    authority: Path | None = None
    bind: _Dn | None = None
    password_file: Path | None = None
    base: _Dn
    filter: _Filter = "(objectClass=inetOrgPerson)"
    id: Attribute = "entryUUID"
    name: Attribute = "uid"
    identities: Annotated[Mapping[str, Attribute], Field(max_length=50)] = Field(default_factory=dict)
    verified: Annotated[tuple[str, ...], BeforeValidator(listed), Field(max_length=50)] = ()
    groups: Attribute = "memberOf"
    group_base: _Dn | None = None
    group_filter: _Filter = "(objectClass=groupOfNames)"
    member: Attribute = "member"
    page: Annotated[int, Field(ge=1, le=5000)] = 500
    timeout: Annotated[float, Field(ge=1, le=600)] = 60
    every: Annotated[_Span, Field(ge=timedelta(seconds=10), le=timedelta(days=1))] = timedelta(minutes=5)
    stale_after: Annotated[_Span, Field(ge=timedelta(minutes=1), le=timedelta(days=30))] = timedelta(hours=1)
    most_missing: Annotated[float, Field(ge=0, le=1)] = 0.3

    @model_validator(mode="after")
    def _fits(self) -> Directory:
        if (self.bind is None) != (self.password_file is None):
            raise ValueError("bind and password_file belong together: set both, or neither.")
        if unknown := sorted(set(self.verified) - set(self.identities)):
            raise ValueError(f"verified names {unknown[0][:100]!r}, for which identities has no attribute.")
        for url in self.url:
            if not self.is_secure(url) and not is_loopback(urlsplit(url).hostname or ""):
                raise ValueError(
                    f"{url} would be spoken to without TLS: leave start_tls on, or write ldaps://."
                )
        if len({self.is_upgraded(url) for url in self.url}) > 1:
            raise ValueError("url mixes ldap:// and ldaps://: write all of them in one way.")
        return self

    def is_secure(self, url: str) -> bool:
        """Whether this server is spoken to over TLS."""
        return url.startswith("ldaps://") or self.start_tls

    def is_upgraded(self, url: str) -> bool:
        """Whether TLS begins by StartTLS there."""
        return self.start_tls and url.startswith("ldap://")

    @property
    def attributes(self) -> tuple[str, ...]:
        """What is read of an entry that names these; those that say that somebody is disabled come besides."""
        groups = () if self.group_base else (self.groups,)
        return tuple(dict.fromkeys((self.id, self.name, *self.identities.values(), *groups)))


__all__ = ["Directory"]
