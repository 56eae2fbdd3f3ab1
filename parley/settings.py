"""Settings: the environment and parley.toml. Read here, once, into one typed value; nothing else reads either.

People, links and grants are not settings: they live in the store and are changed by audited commands.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from ipaddress import ip_network
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from parley.errors import ConfigurationError
from parley.messages.topics import Pattern, word
from parley.people.directory_settings import Directory
from parley.people.group_lines import GroupLines, check_roles
from parley.people.lifetime import Lifetime
from parley.people.roles import Roles, check_clocks
from parley.runs.catalogue import Effect
from parley.tls.addresses import is_loopback

logger = logging.getLogger(__name__)

RUNNING: Final = "PARLEY_RUNNING"
"""Set for what belongs to a running stack: a file that is broken meanwhile does not keep it from starting again."""

BUS: Final = "bus"
"""Whose rights an event has that came from no account: what a run or a program published, what became of a run."""

OWN_TOPICS: Final = frozenset({"run", "alert", "message"})
"""First words of topics that only the engine publishes."""

MOST_TOLD: Final = 30
"""Mistakes of a file that are told at once."""

KEPT: Final = "parley.toml"
"""In the run folder: the file as it is in force."""


PortName = Literal["web", "hooks", "metrics", "prefect"]

PORTS: Final[tuple[PortName, ...]] = ("web", "hooks", "metrics", "prefect")


class Pair(NamedTuple):
    """PEM files: a certificate with its chain, and its key."""

    certificate: Path
    key: Path


class _Section(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class _Certified(_Section):
    """A port, or all of them, may have a certificate (PEM, with its chain) and its key."""

    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _belong_together(self) -> _Certified:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: set both, or neither.")
        return self

    @property
    def pair(self) -> Pair | None:
        """Both, or None."""
        if self.certificate is None or self.key is None:
            return None
        return Pair(self.certificate.absolute(), self.key.absolute())


class Owner(_Section):
    """The person of the first start."""

    name: str = "owner"
    language: Literal["en", "zh"] = "en"
    time_zone: str = "UTC"


class Account(_Section):
    """One account on one platform: `block` is the saved Prefect Block, `<type slug>/<name>`."""

    platform: str
    block: str
    enabled: bool = True


class ExternalAutomation(_Section):
    """An existing Prefect deployment that becomes a command without being edited."""

    deployment: Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")]
    effect: Effect = Effect.WRITE
    summary: str = ""
    examples: tuple[str, ...] = ()
    alert_after: int | None = None
    idempotent: bool = False


class Automations(_Section):
    """Where automations are found; every other table here is an existing deployment made a command."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow")

    modules: tuple[str, ...] = ("flows",)
    entry_points: bool = True

    @cached_property
    def external(self) -> Mapping[str, ExternalAutomation]:
        """Existing deployments by command."""
        return {
            name: ExternalAutomation.model_validate(value) for name, value in (self.model_extra or {}).items()
        }

    @model_validator(mode="after")
    def _external_is_valid(self) -> Automations:
        _ = self.external
        return self


class Duty(_Section):
    """Who is told when things fail: conversations as `account:native id`, tried in this order."""

    conversations: tuple[str, ...] = ("console:owner",)
    alert_after: Annotated[int, Field(ge=1)] = 3


class Worker(_Section):
    """Warm children: `warm` are kept ready, `children` is the most at once, `runs` the most that one child takes."""

    children: Annotated[int, Field(ge=1, le=256)] = 8
    warm: Annotated[int, Field(ge=1, le=256)] = 2
    runs: Annotated[int, Field(ge=1)] = 500
    time_limit: Annotated[float, Field(gt=0)] = 3600


class Tls(_Certified):
    """One certificate for all ports that have none of their own; PARLEY_TLS_CERTIFICATE and the like come before it.

    `authority` is what our own processes verify Prefect's port with: who signed the certificate (PEM). Without it that
    is the certificate itself, which then has signed itself.
    """

    authority: Path | None = None


class MetricsPort(_Certified):
    """Where figures are read; beyond loopback only with TLS. Without a token and an authority whoever reaches it reads.

    `token_file` holds what a reader has to bring as a bearer token; `client_authority` (PEM) who must have signed the
    certificate that a reader has to show.
    """

    host: str = "127.0.0.1"
    token_file: Path | None = None
    client_authority: Path | None = None


class Prefect(_Certified):
    """`worker`: "parley" runs our own warm worker; "stock" leaves runs to the workers the user already has."""

    worker: Literal["parley", "stock"] = "parley"
    pool: str = "parley"


def _syslog(text: str) -> str:
    _, colon, port = text.rpartition(":")
    if colon and not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} has no port: give a number from 1 to 65535, as in logs.example.com:514.")
    return text


class AuditLog(_Section):
    """`syslog`: where the audit's anchors are sent as well: a socket's path (`/dev/log`), or `host:port` for UDP."""

    syslog: Annotated[
        str,
        Field(pattern=r"^(/[^:]*|[A-Za-z0-9_.:\[\]-]{1,255}:[0-9]{1,5})?$"),
        AfterValidator(_syslog),
    ] = ""


class Retention(_Section):
    """Days that bodies and keys are kept; a key outlives its body so that a late redelivery is recognised."""

    bodies_days: Annotated[int, Field(ge=1)] = 30
    keys_days: Annotated[int, Field(ge=90)] = 180


_SPANS: Mapping[str, float] = {"s": 1, "min": 60, "h": 3600, "day": 86_400}
_PACE = re.compile(r"([1-9][0-9]{0,6})/(s|min|h|day)")


class Pace(_Section):
    """So many times in so many seconds, in the long run; as many at once. Written `60/min`."""

    times: int
    seconds: float

    @model_validator(mode="before")
    @classmethod
    def _written(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        found = _PACE.fullmatch(given.strip())
        if found is None:
            raise ValueError(f"{given!r} is no pace: write 5/s, 60/min, 100/h or 1000/day.")
        return {"times": int(found[1]), "seconds": _SPANS[found[2]]}

    @property
    def per_second(self) -> float:
        """The same, each second."""
        return self.times / self.seconds


class Limits(_Section):
    """`message_age` in seconds: an older message gets "too late" instead of a run. `ask_age`: open questions.

    `per_person`, `per_conversation`: what is said to us on a platform. `per_automation`: requests, by command; `*` are
    those that are not named.
    """

    message_age: Annotated[float, Field(gt=0)] = 6 * 3600
    ask_age: Annotated[float, Field(gt=0)] = 24 * 3600
    per_person: Pace = Pace(times=300, seconds=60)
    per_conversation: Pace = Pace(times=1200, seconds=60)
    per_automation: Annotated[Mapping[str, Pace], Field(max_length=1000)] = Field(default_factory=dict)


class Hooks(_Certified):
    """Where the hooks' port listens; beyond loopback only with TLS, there also with `[web]`'s certificate."""

    host: str = "127.0.0.1"


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


def _texts(value: Any) -> Any:
    # TOML has numbers and truth values; they are compared as JSON writes them.
    written = {True: "true", False: "false"}
    return tuple(
        written[one] if isinstance(one, bool) else str(one) if isinstance(one, int | float) else one
        for one in _listed(value)
    )


def _place(text: str) -> str:
    account, _, conversation = text.partition(":")
    if not account or not conversation:
        raise ValueError(f"{text!r} is no conversation: write account:conversation, as in slack:C0123.")
    return text


def _pattern(text: str) -> str:
    Pattern(text)
    return text


Place = Annotated[str, AfterValidator(_place)]
"""A conversation, as `account:native id`."""

Globs = Annotated[
    tuple[Annotated[str, Field(max_length=1000)], ...],
    BeforeValidator(_texts),
    Field(min_length=1, max_length=100),
]


class Mends(_Section):
    """Alerts that a script is for: it is offered with them, and runs by itself under a standing approval.

    `from` are patterns of topics, `where` conditions on the alert's fields, `with` parameters made of these. `label` is
    what the button shows with which it is offered; the command line without one.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    patterns: Annotated[
        tuple[Annotated[str, AfterValidator(_pattern)], ...],
        BeforeValidator(_listed),
        Field(alias="from", min_length=1, max_length=100),
    ] = ("*.alert.firing",)
    where: Annotated[Mapping[str, Globs], Field(max_length=50)] = Field(default_factory=dict)
    parameters: Annotated[Mapping[str, str], Field(alias="with", max_length=100)] = Field(
        default_factory=dict
    )
    label: Annotated[str, Field(max_length=200)] = ""


class Script(_Section):
    """A registered script: `argv` is a list, never a shell line; `{name}` is one parameter, one argument.

    `fallback` names the script that is run once, with the same parameters, when this one failed.
    """

    argv: Annotated[tuple[str, ...], Field(min_length=1)]
    summary: str = ""
    parameters: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    cwd: Path | None = None
    timeout: Annotated[float, Field(gt=0, le=86_400)] = 60
    cpu_seconds: Annotated[int, Field(gt=0)] = 30
    memory_mb: Annotated[int, Field(gt=0)] = 512
    output_kb: Annotated[int, Field(gt=0)] = 256
    environment: Mapping[str, str] = Field(default_factory=dict)
    mends: Annotated[tuple[Mends, ...], Field(max_length=50)] = ()
    fallback: str = ""


class EventRoute(_Section):
    """Where events go: to conversations, and to an automation with parameters made of the event.

    `from` are patterns of topics, `where` conditions on fields (a glob, or a list of which one must match). The
    automation runs with the rights of the service that the event came from; what these do not allow is offered, with a
    button that shows `label`. `bots`: messages of other bots, too.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: Annotated[str, Field(max_length=100)] = ""
    patterns: Annotated[
        tuple[Annotated[str, AfterValidator(_pattern)], ...],
        BeforeValidator(_listed),
        Field(alias="from", min_length=1, max_length=100),
    ]
    where: Annotated[Mapping[str, Globs], Field(max_length=50)] = Field(default_factory=dict)
    to: Annotated[tuple[Place, ...], BeforeValidator(_listed), Field(max_length=100)] = ()
    run: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9_-]{0,63})?$")] = ""
    parameters: Annotated[Mapping[str, str], Field(alias="with", max_length=100)] = Field(
        default_factory=dict
    )
    label: Annotated[str, Field(max_length=200)] = ""
    bots: bool = False

    @model_validator(mode="after")
    def _leads_somewhere(self) -> EventRoute:
        if not self.to and not self.run:
            raise ValueError(
                'it leads nowhere: say `to = ["account:conversation"]`, or `run = "automation"`.'
            )
        if (self.parameters or self.label) and not self.run:
            raise ValueError("`with` and `label` are for the automation that `run` names, and there is none.")
        return self


class Bridge(_Section):
    """Rooms on several platforms that are one: what people write in one appears in the others.

    `per_minute`: more messages than these from one room within a minute stop the bridge for a while, in case two
    bridges feed each other. `bots`: messages of other bots are carried, too.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    rooms: Annotated[tuple[Place, ...], Field(min_length=2, max_length=20)]
    bots: bool = False
    per_minute: Annotated[int, Field(ge=1, le=10_000)] = 60

    @field_validator("rooms")
    @classmethod
    def _differ(cls, rooms: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(rooms)) < len(rooms):
            raise ValueError("a room is named twice.")
        return rooms


_SPAN: Final = re.compile(r"([1-9][0-9]{0,4})\s*(m|min|h|d)", re.ASCII)
_UNITS: Final = {
    "m": timedelta(minutes=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def _span(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _SPAN.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{value!r} is no time: write 15m, 2h or 1d.")
    return _UNITS[found[2]] * int(found[1])


class ApprovalRule(_Section):
    """What has to be approved before it runs, by `needed` of whom. The first rule that fits counts.

    `automations` and the values of `parameters` are globs. `roles` and `people` say who may approve; without either,
    owners and those whose role `approves` the automation. `within` is how long it waits, `to` are conversations that
    are told. `needed = 0` is an exception: what surely fits it needs no approval.
    """

    automations: Globs = ("*",)
    effects: Annotated[tuple[Effect, ...], BeforeValidator(_listed), Field(min_length=1)] = (
        Effect.WRITE,
        Effect.DANGEROUS,
    )
    parameters: Annotated[Mapping[str, Globs], Field(max_length=50)] = Field(default_factory=dict)
    needed: Annotated[int, Field(ge=0, le=20)] = 1
    roles: Annotated[tuple[str, ...], BeforeValidator(_listed), Field(max_length=50)] = ()
    people: Annotated[tuple[str, ...], BeforeValidator(_listed), Field(max_length=200)] = ()
    within: Annotated[
        timedelta, BeforeValidator(_span), Field(ge=timedelta(minutes=1), le=timedelta(days=7))
    ] = timedelta(minutes=15)
    to: Annotated[tuple[Place, ...], BeforeValidator(_listed), Field(max_length=20)] = ()


class Keys(_Section):
    """What seals. `command` is a program of a KMS that wraps the data keys (docs/keys.md); a change needs a start.

    `timeout` is how many seconds it may take; after `days` a new data key seals what is stored from then on.
    """

    command: Annotated[tuple[str, ...], Field(max_length=100)] = ()
    timeout: Annotated[float, Field(gt=0, le=120)] = 10
    days: Annotated[int, Field(ge=1, le=3650)] = 30


def _issuer(text: str) -> str:
    parts = urlsplit(text)
    inside = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if (parts.scheme != "https" and not inside) or not parts.netloc or "@" in parts.netloc:
        raise ValueError(f"{text!r} is no issuer: write https://name, exactly as the provider calls itself.")
    if parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no issuer: it has neither a query nor a fragment.")
    return text


class OidcProvider(_Section):
    """An OpenID provider. Without `join` only those sign in who are known by it already.

    Where `mail_account` is set nobody joins without an address that the provider verified.

    `groups_claim` is looked at for `[[groups]]`; `mail_account` is the account by whose addresses people are known when
    the provider says that it verified one. `client_secret_file` holds the secret; without one there is none.
    """

    issuer: Annotated[str, Field(max_length=500), AfterValidator(_issuer)]
    client_id: Annotated[str, Field(min_length=1, max_length=500)]
    client_secret_file: Path | None = None
    scopes: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[!#-\[\]-~]{1,100}$")], ...], Field(max_length=30)
    ] = (
        "openid",
        "profile",
        "email",
    )
    label: Annotated[str, Field(max_length=60)] = ""
    groups_claim: Annotated[str, Field(max_length=200)] = ""
    join: bool = False
    mail_account: Annotated[str, Field(max_length=100)] = ""

    @field_validator("scopes")
    @classmethod
    def _asks_who(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in scopes:
            raise ValueError("`openid` is missing: without it a provider does not say who signed in.")
        return scopes


class SignIn(_Section):
    """How people sign in at the console. A session ends after `idle` without use, and after `longest` in any case."""

    idle: Annotated[
        timedelta, BeforeValidator(_span), Field(ge=timedelta(minutes=5), le=timedelta(days=30))
    ] = timedelta(hours=12)
    longest: Annotated[
        timedelta, BeforeValidator(_span), Field(ge=timedelta(minutes=5), le=timedelta(days=90))
    ] = timedelta(days=7)
    oidc: Annotated[
        Mapping[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")], OidcProvider],
        Field(max_length=20),
    ] = Field(default_factory=dict)

    @field_validator("oidc")
    @classmethod
    def _one_says_groups(cls, oidc: Mapping[str, OidcProvider]) -> Mapping[str, OidcProvider]:
        if sum(bool(one.groups_claim) for one in oidc.values()) > 1:
            raise ValueError("only one provider may have a `groups_claim`: they would take from each other.")
        if len({one.issuer for one in oidc.values()}) < len(oidc):
            raise ValueError("two providers have the same issuer.")
        return oidc

    @property
    def lifetime(self) -> Lifetime:
        """Of a session."""
        return Lifetime(self.idle, self.longest)


class Web(_Certified):
    """Addresses the console may be reached at besides loopback; `origins` are exact."""

    host: str = "127.0.0.1"
    origins: tuple[str, ...] = ()


Target = Annotated[str, Field(pattern=r"^[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?:[0-9]{1,5}$")]
"""One address that a container may reach besides Prefect and the hub, as `host:port`."""


class ContainerLimits(_Section):
    """What the container of one automation may have; what is left out here is as `[containers]` says."""

    image: str | None = None
    memory_mb: Annotated[int | None, Field(ge=128, le=1_048_576)] = None
    cpus: Annotated[float | None, Field(gt=0, le=1024)] = None
    network: tuple[Target, ...] | None = None

    @field_validator("network")
    @classmethod
    def _named(cls, targets: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for target in targets or ():
            _checked_target(target)
        return targets


class Containers(_Section):
    """Where automations with `isolation="container"` run; without this table there are none.

    `automations` are the commands that run in a container whatever their source says, each with its own limits.
    `memory_mb` (swap included), `cpus` and `processes` bound one container, `most` how many there are at once. `mounts`
    are `/folder/here:/folder/there`, always read-only. `user` is the container's, as numbers.
    """

    image: str = "prefect-parley"
    memory_mb: Annotated[int, Field(ge=128, le=1_048_576)] = 512
    cpus: Annotated[float, Field(gt=0, le=1024)] = 1.0
    processes: Annotated[int, Field(ge=16, le=32_768)] = 128
    scratch_mb: Annotated[int, Field(ge=1, le=65_536)] = 64
    most: Annotated[int, Field(ge=1, le=256)] = 4
    user: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,9}:[1-9][0-9]{0,9}$")] = "10001:10001"
    mounts: tuple[Annotated[str, Field(pattern=r"^/[^:]*:/[^:]*$")], ...] = ()
    environment: Mapping[str, str] = Field(default_factory=dict)
    automations: Mapping[str, ContainerLimits] = Field(default_factory=dict)


def check_account(name: str) -> None:
    """Raises `ValueError` for what no account can be called."""
    if ":" in name:
        raise ValueError(
            f"no account can be called {name!r}: the colon ends its name in account:conversation."
        )
    if word(name) in {BUS, *OWN_TOPICS}:
        raise ValueError(f"no account can be called {name!r}: events of our own have that name.")


def _checked_target(target: str) -> None:
    host, _, port = target.rpartition(":")
    if not 0 < int(port) < 65536:
        raise ValueError(f"{target!r}: the port is from 1 to 65535.")
    if host.replace(".", "").isdigit() or host.lower() == "localhost":
        raise ValueError(
            f"{target!r}: give a name that this machine resolves. Inside the container it leads to a forwarder; "
            "an address or localhost cannot be made to."
        )


class File(_Section):
    """parley.toml."""

    owner: Owner = Owner()
    accounts: Mapping[str, Account] = Field(default_factory=dict)
    automations: Automations = Automations()
    scripts: Mapping[str, Script] = Field(default_factory=dict)
    duty: Duty = Duty()
    worker: Worker = Worker()
    prefect: Prefect = Prefect()
    retention: Retention = Retention()
    audit: AuditLog = AuditLog()
    limits: Limits = Limits()
    hooks: Hooks = Hooks()
    keys: Keys = Keys()
    web: Web = Web()
    sign_in: SignIn = SignIn()
    metrics: MetricsPort = MetricsPort()
    tls: Tls = Tls()
    containers: Containers | None = None
    approvals: Annotated[tuple[ApprovalRule, ...], Field(max_length=500)] = ()
    routes: Annotated[tuple[EventRoute, ...], Field(max_length=1000)] = ()
    bridges: Annotated[tuple[Bridge, ...], Field(max_length=200)] = ()
    roles: Roles = Field(default_factory=dict)
    groups: GroupLines = ()
    directory: Directory | None = None

    @model_validator(mode="after")
    def _roles_fit(self) -> File:
        check_clocks(self.roles, self.owner.time_zone)
        check_roles(self.groups, self.roles)
        return self

    @model_validator(mode="after")
    def _nobody_is_two(self) -> File:
        if self.directory is None:
            return self
        for name, one in self.sign_in.oidc.items():
            if one.join and one.mail_account not in self.directory.identities:
                raise ValueError(
                    f"sign_in.oidc.{name}: beside [directory], `join` needs a `mail_account` for which the directory's "
                    "`identities` has an attribute; otherwise somebody of the directory joins as a second person, who "
                    "could approve what the first one asks for."
                )
        return self

    @field_validator("accounts")
    @classmethod
    def _not_ours(cls, accounts: Mapping[str, Account]) -> Mapping[str, Account]:
        for name in accounts:
            check_account(name)
        return accounts

    @field_validator("routes")
    @classmethod
    def _named(cls, routes: tuple[EventRoute, ...]) -> tuple[EventRoute, ...]:
        # A derived name says where the events come from; a second one of that name counts on.
        names: set[str] = set()
        named = []
        for route in routes:
            if route.name and route.name in names:
                raise ValueError(f"two routes are called {route.name!r}: a name is there once.")
            base = route.name or ",".join(route.patterns)[:80]
            name = next(one for one in chain([base], (f"{base}-{n}" for n in count(2))) if one not in names)
            names.add(name)
            named.append(route.model_copy(update={"name": name}))
        return tuple(named)

    @field_validator("bridges")
    @classmethod
    def _named_once(cls, bridges: tuple[Bridge, ...]) -> tuple[Bridge, ...]:
        if len({bridge.name for bridge in bridges}) < len(bridges):
            raise ValueError("two bridges have the same name.")
        return bridges


class Settings(_Section):
    """Everything that is configured. Ports are TCP; paths are absolute."""

    home: Path
    config: Path
    key_file: Path
    key: str | None = Field(default=None, repr=False)
    key_previous: str | None = Field(default=None, repr=False)
    port: int = 8080
    hooks_port: int = 8081
    audit_anchors: Path | None = None
    metrics_port: int = 8000
    prefect_port: int = 4200
    database_url: str | None = None
    prefect_api_url: str | None = None
    publish: tuple[str, ...] = ()
    tls: Tls = Tls()
    plain_links: tuple[str, ...] = ()
    file: File = File()

    @property
    def anchors_file(self) -> Path:
        """Where the audit's anchors are kept: beside the key unless told otherwise, a file for each installation."""
        store = self.database_url.rpartition("@")[2] if self.database_url else str(self.home)
        name = f"audit-{hashlib.sha256(store.encode()).hexdigest()[:12]}.anchors"
        return self.audit_anchors or self.key_file.parent / name

    @property
    def own_prefect(self) -> bool:
        """Whether we launch Prefect's server ourselves."""
        return self.prefect_api_url is None

    @property
    def api_url(self) -> str:
        """Prefect's API as our processes reach it."""
        return self.prefect_api_url or f"{self.scheme('prefect')}://127.0.0.1:{self.prefect_port}/api"

    def pair(self, port: PortName) -> Pair | None:
        """The certificate and key of this port: its own, else those of the environment, else those for all."""
        file = self.file
        own: Mapping[PortName, _Certified] = {
            "web": file.web,
            "hooks": file.hooks,
            "metrics": file.metrics,
            "prefect": file.prefect,
        }
        pair = own[port].pair or self.tls.pair or file.tls.pair
        if pair is None and port == "hooks" and not is_loopback(file.hooks.host):
            return file.web.pair
        return pair

    def host(self, port: PortName) -> str:
        """Where this port listens; Prefect's is for this machine alone."""
        hosts: Mapping[PortName, str] = {
            "web": self.file.web.host,
            "hooks": self.file.hooks.host,
            "metrics": self.file.metrics.host,
            "prefect": "127.0.0.1",
        }
        return hosts[port]

    def scheme(self, port: PortName) -> Literal["http", "https"]:
        """How this port is spoken to."""
        return "http" if self.pair(port) is None else "https"

    @property
    def console(self) -> str:
        """The address of the console, as a browser is sent there: `[web]`'s first origin where the network has it."""
        host = self.host("web")
        if not is_loopback(host) and self.file.web.origins:
            return self.file.web.origins[0].rstrip("/")
        if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
            host = "127.0.0.1"
        return f"{self.scheme('web')}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def prefect_trust(self) -> Path | None:
        """With what our processes verify the server that we launch (PEM); None where it is plain, or not ours."""
        pair = self.pair("prefect")
        if pair is None or not self.own_prefect:
            return None
        authority = self.tls.authority or self.file.tls.authority
        return authority.absolute() if authority else pair.certificate

    @property
    def run_folder(self) -> Path:
        """Sockets, tokens and pids of the running stack."""
        return self.home / "run"

    @property
    def socket(self) -> Path:
        """The hub's Unix socket."""
        return self.run_folder / "hub.sock"


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the environment and parley.toml (which need not exist). Raises `ConfigurationError`."""
    env = os.environ if environment is None else environment
    home = Path(env.get("PARLEY_HOME", "data")).absolute()
    config = Path(env.get("PARLEY_CONFIG", "parley.toml")).absolute()
    return Settings(
        home=home,
        config=config,
        key_file=Path(env.get("PARLEY_KEY_FILE") or default_key_file(env)).absolute(),
        key=env.get("PARLEY_KEY") or None,
        key_previous=env.get("PARLEY_KEY_PREVIOUS") or None,
        audit_anchors=_path(env, "PARLEY_AUDIT_ANCHORS"),
        port=_port(env, "PARLEY_PORT", 8080),
        hooks_port=_port(env, "PARLEY_HOOKS_PORT", 8081),
        metrics_port=_port(env, "PARLEY_METRICS_PORT", 8000),
        prefect_port=_port(env, "PARLEY_PREFECT_PORT", 4200),
        database_url=_secret(env, "PARLEY_DATABASE_URL"),
        prefect_api_url=_existing_prefect(env),
        publish=_published(env),
        tls=_tls(env),
        plain_links=_listed_in(env, "PARLEY_PLAIN_LINKS"),
        file=_in_force(env, home, config),
    )


def keep(settings: Settings) -> None:
    """Keep parley.toml as it was read: what starts again while the file is broken goes on with this one."""
    kept = settings.run_folder / KEPT
    fresh = kept.with_suffix(".new")
    try:
        fresh.write_bytes(settings.config.read_bytes() if settings.config.exists() else b"")
        fresh.replace(kept)
    except OSError as error:
        logger.warning("%s is not kept (%s); the settings of before are", settings.config, error.strerror)


def _in_force(env: Mapping[str, str], home: Path, config: Path) -> File:
    required = "PARLEY_CONFIG" in env
    kept = home / "run" / KEPT
    if RUNNING not in env or not kept.exists():
        return read_file(config, required=required)
    try:
        return read_file(config, required=required)
    except ConfigurationError as error:
        logger.warning("%s The settings of before stay in force.", error)
        return read_file(kept)


def read_file(path: Path, *, required: bool = False) -> File:
    """Read parley.toml alone. A missing file is the defaults unless `required`. Raises `ConfigurationError`."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise ConfigurationError(f"{path} does not exist: create it, or unset PARLEY_CONFIG.") from None
        return File()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{path} is not valid TOML: {error}. Mend that line and start again."
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{path} is not valid TOML: it is nested too deeply.") from None
    try:
        return File.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(f"{path} is refused:\n{_sentences(error)}") from None


def _sentences(error: ValidationError) -> str:
    lines = [f"  {'.'.join(map(str, item['loc']))[:100]}: {item['msg'][:500]}" for item in error.errors()]
    rest = len(lines) - MOST_TOLD
    return "\n".join(lines[:MOST_TOLD] + ([f"  ... and {rest} more"] if rest > 0 else []))


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigurationError(f"{name}={text!r} is not a port: give a number from 1 to 65535.")
    return int(text)


def _path(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]).absolute() if env.get(name) else None


def _secret(env: Mapping[str, str], name: str) -> str | None:
    """The variable, or what the file that `<name>_FILE` names holds: how containers are given secrets."""
    path = env.get(f"{name}_FILE")
    if not path or env.get(name):
        return env.get(name) or None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name}_FILE={path} cannot be read: {error}.") from None


def _tls(env: Mapping[str, str]) -> Tls:
    names = ("certificate", "key", "authority")
    given = {name: Path(env[key]) for name in names if env.get(key := f"PARLEY_TLS_{name.upper()}")}
    try:
        return Tls.model_validate(given)
    except ValidationError:
        raise ConfigurationError(
            "PARLEY_TLS_CERTIFICATE and PARLEY_TLS_KEY belong together: set both, or neither."
        ) from None


def _listed_in(env: Mapping[str, str], variable: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in env.get(variable, "").split(",") if name.strip())


def _published(env: Mapping[str, str]) -> tuple[str, ...]:
    names = _listed_in(env, "PARLEY_PUBLISH")
    for name in names:
        try:
            _ = name == "gateway" or ip_network(name)
        except ValueError:
            raise ConfigurationError(
                f"PARLEY_PUBLISH={name!r} is neither `gateway` nor a network such as 172.30.0.0/24."
            ) from None
    return names


def default_key_file(env: Mapping[str, str]) -> Path:
    """The sealing key of this user, unless PARLEY_KEY_FILE names another."""
    folder = env.get("XDG_CONFIG_HOME") or str(Path(env.get("HOME") or Path.home()) / ".config")
    return Path(folder) / "parley" / "key"


def _existing_prefect(env: Mapping[str, str]) -> str | None:
    # Beside our own server the supervisor gives its processes PREFECT_API_URL too, and PARLEY_OWN_PREFECT with it.
    if env.get("PARLEY_OWN_PREFECT"):
        return None
    return env.get("PREFECT_API_URL") or None
