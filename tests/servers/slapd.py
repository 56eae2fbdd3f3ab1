"""An OpenLDAP server of our own: its own folder and ports, TLS by an authority of `parley certs`, people made by tests.

What its reader sees is limited as tests want (`limit`, `hidden`); the memberof overlay keeps `memberOf`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest

from parley.tls.authority import issue, make_authority
from tests.ports import free_ports

BASE = "dc=example,dc=org"
PEOPLE, GROUPS = f"ou=people,{BASE}", f"ou=groups,{BASE}"
READER, READERS_PASSWORD = f"cn=parley,{BASE}", "geheim und lang"
ADMIN, ADMINS_PASSWORD = f"cn=admin,{BASE}", "of the test"

CONFIG = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include {folder}/own.schema
pidfile {folder}/pid
modulepath {modules}
moduleload back_mdb
moduleload memberof
TLSCertificateFile {folder}/server.pem
TLSCertificateKeyFile {folder}/server.key
TLSProtocolMin 3.3
database mdb
suffix "{base}"
rootdn "{admin}"
rootpw "{password}"
directory {folder}/db
maxsize 1073741824
dbnosync
index objectClass,uid,member eq
limits dn.exact="{reader}" {limit}
overlay memberof
access to attrs=userPassword by anonymous auth by * none
{hidden}
access to * by users read
"""

SCHEMA = """\
attributetype ( 1.3.6.1.4.1.99999.1 NAME 'slackId' EQUALITY caseExactMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.99999.2 NAME 'nsAccountLock' EQUALITY caseIgnoreMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
objectclass ( 1.3.6.1.4.1.99999.3 NAME 'ourPerson' SUP top AUXILIARY MAY ( slackId $ nsAccountLock ) )
"""


def program(name: str) -> str | None:
    """One of OpenLDAP's programs."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def need_slapd() -> None:
    """Skip where it is not installed, visibly; in CI that is a failure."""
    lacks = [name for name in ("slapd", "ldapsearch", "ldapmodify") if program(name) is None]
    if not lacks:
        return
    message = f"not installed: {', '.join(lacks)} (`make test-servers` brings them)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def person(uid: str, *, ou: str = PEOPLE, **values: str | Iterable[str]) -> str:
    """LDIF of one person; `slackId` and the like as given."""
    lines = [f"dn: uid={uid},{ou}", "objectClass: inetOrgPerson", "objectClass: ourPerson", f"uid: {uid}"]
    lines += [f"cn: {uid}", "sn: x"]
    for name, value in values.items():
        lines += [f"{name}: {one}" for one in ([value] if isinstance(value, str) else value)]
    return "\n".join(lines) + "\n\n"


def group(name: str, members: Iterable[str]) -> str:
    """LDIF of one group; members are distinguished names."""
    lines = [f"dn: cn={name},{GROUPS}", "objectClass: groupOfNames", f"cn: {name}"]
    return "\n".join([*lines, *(f"member: {one}" for one in members)]) + "\n\n"


def dn(uid: str) -> str:
    """Of a person."""
    return f"uid={uid},{PEOPLE}"


_SEED = f"""\
dn: {BASE}
objectClass: domain
dc: example

dn: {PEOPLE}
objectClass: organizationalUnit
ou: people

dn: {GROUPS}
objectClass: organizationalUnit
ou: groups

dn: {READER}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: parley
userPassword: {READERS_PASSWORD}

"""


@dataclass
class Slapd:
    """One server. `start` and `stop` it as often as you like: what it has stays."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="slapd-")))
    limit: str = "size=unlimited"
    hidden: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.port, self.tls_port = free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        at = datetime.now(UTC)
        authority = make_authority(["127.0.0.1", "localhost"], name="tests", at=at)
        server = issue(authority, ["127.0.0.1", "localhost"], at=at)
        self.authority.write_bytes(authority.certificate)
        (self.folder / "server.pem").write_bytes(server.certificate)
        (self.folder / "server.key").write_bytes(server.key)
        (self.folder / "own.schema").write_text(SCHEMA)
        (self.folder / "db").mkdir()
        self.password.write_text(READERS_PASSWORD + "\n")
        self.password.chmod(0o600)
        self._configure()
        self._run("slapadd", "-q", "-f", str(self._config), text=_SEED)

    @property
    def authority(self) -> Path:
        """Who signed its certificate."""
        return self.folder / "authority.pem"

    @property
    def password(self) -> Path:
        """The file with the reader's."""
        return self.folder / "password"

    @property
    def url(self) -> str:
        """Over TLS from the beginning."""
        return f"ldaps://127.0.0.1:{self.tls_port}"

    @property
    def plain_url(self) -> str:
        """Without TLS, or with StartTLS."""
        return f"ldap://127.0.0.1:{self.port}"

    def settings(self, **more: object) -> dict[str, object]:
        """`[directory]`."""
        return {
            "url": self.url,
            "authority": str(self.authority),
            "bind": READER,
            "password_file": str(self.password),
            "base": PEOPLE,
            "identities": {"slack": "slackId", "post": "mail"},
            **more,
        }

    def fill(self, ldif: str) -> None:
        """Put entries in while it does not run: fast, and without the overlay."""
        self._run("slapadd", "-q", "-f", str(self._config), text=ldif)

    def limit_to(self, limit: str) -> None:
        """How many entries its reader is given, from the next start on."""
        self.limit = limit
        self._configure()

    def hide(self, *attributes: str) -> None:
        """Attributes that its reader does not see; it is started anew."""
        self.hidden = attributes
        self._configure()
        self.stop()
        self.start()

    def start(self) -> Self:
        """Run, and return when it answers."""
        program_ = program("slapd")
        assert program_
        urls = f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.tls_port}"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program_, "-f", str(self._config), "-h", urls, "-d", "0"], stdout=log, stderr=log
            )
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.tls_port), timeout=1).close()
                return self
            except OSError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < until, "slapd does not answer"
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        """End it and remove its folder."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder)

    def add(self, ldif: str) -> None:
        """New entries, while it runs."""
        self._change("ldapadd", ldif)

    def change(self, name: str, changes: Mapping[str, str | None]) -> None:
        """Attributes of one entry; None takes it away."""
        lines = [f"dn: {name}", "changetype: modify"]
        for attribute, value in changes.items():
            lines += [f"replace: {attribute}", *([f"{attribute}: {value}"] if value is not None else []), "-"]
        self._change("ldapmodify", "\n".join(lines) + "\n")

    def members(self, name: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Of a group."""
        lines = [f"dn: cn={name},{GROUPS}", "changetype: modify"]
        for verb, people in (("add", add), ("delete", remove)):
            for one in people:
                lines += [f"{verb}: member", f"member: {one}", "-"]
        self._change("ldapmodify", "\n".join(lines) + "\n")

    def delete(self, *names: str) -> None:
        """Entries, by distinguished name."""
        self._run("ldapdelete", *self._bound(), *names)

    def _change(self, verb: str, ldif: str) -> None:
        self._run(verb, *self._bound(), text=ldif)

    def _bound(self) -> list[str]:
        return ["-H", self.plain_url, "-x", "-D", ADMIN, "-w", ADMINS_PASSWORD]

    def _configure(self) -> None:
        self._config.write_text(
            CONFIG.format(
                folder=self.folder,
                modules="/usr/lib/ldap",
                reader=READER,
                limit=self.limit,
                hidden=f"access to attrs={','.join(self.hidden)} by * none" if self.hidden else "",
                base=BASE,
                admin=ADMIN,
                password=ADMINS_PASSWORD,
            )
        )

    @property
    def _config(self) -> Path:
        return self.folder / "slapd.conf"

    def _run(self, name: str, *arguments: str, text: str = "") -> None:
        found = program(name)
        assert found, name
        done = subprocess.run([found, *arguments], input=text.encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
