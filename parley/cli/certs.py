"""`parley certs`: an authority and certificates for an intranet."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parley.cli.terminal import print_json, print_table, say

if TYPE_CHECKING:
    from parley.tls.folder import Folder

app = typer.Typer(no_args_is_help=True, help="An authority and certificates (TLS) for an intranet.")

Where = Annotated[
    Path | None,
    typer.Option("--folder", help="Where they lie; by default `tls` beside the sealing key."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def create(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(help="Names and addresses; this machine itself is always among them."),
    ] = None,
    permit: Annotated[
        list[str] | None,
        typer.Option(
            "--permit",
            help="A domain or network that the authority may sign for, ever; the given hosts by default. Repeatable.",
        ),
    ] = None,
    folder: Where = None,
) -> None:
    """Make a certificate for these hosts, and first, where there is none, the authority that signs it."""
    place = _folder(folder)
    fresh = place.create(hosts or [], permit or [], at=datetime.now(UTC))
    if fresh:
        say(
            f"The authority {place.authority} is made. Its key {place.authority_key} signs for nothing but these:"
        )
        say("keep it where backups of the data do not go. `parley certs trust` says how clients trust it.")
        say()
    say("In parley.toml, and then start again:")
    say()
    say("[tls]")
    for name, path in (
        ("certificate", place.certificate),
        ("key", place.key),
        ("authority", place.authority),
    ):
        say(f'{name} = "{path}"')


@app.command()
def show(folder: Where = None, as_json: Json = False) -> None:
    """Show what there is: for whom, until when, and the fingerprint to compare when it is trusted."""
    from parley.tls.expiry import ending

    place, now = _folder(folder), datetime.now(UTC)
    rows = [
        {
            "certificate": name,
            "hosts": list(found.names),
            "ends": found.ends.isoformat(timespec="seconds"),
            "days": found.days(now),
            "soon": found.soon(now),
            "sha256": found.fingerprint,
            "file": str(path),
        }
        for name, path in (("authority", place.authority), ("parley", place.certificate))
        for found in [ending(path)]
    ]
    if as_json:
        print_json(rows)
        return
    print_table(rows, ("certificate", "hosts", "ends", "days"), nothing="nothing yet.")
    for row in rows:
        say(f"{row['certificate']}  {row['file']}")
        say(f"  SHA-256 {row['sha256']}")


@app.command()
def renew(
    folder: Where = None,
    force: Annotated[bool, typer.Option("--force", help="Even if it does not end soon.")] = False,
) -> None:
    """Make a new certificate and key for the same hosts once the old one ends soon; ports take it up by themselves."""
    place, now = _folder(folder), datetime.now(UTC)
    found = place.ending()
    if not force and not found.soon(now):
        say(f"{place.certificate} is good for {found.days(now)} days more: nothing to do.")
        return
    found = place.renew(at=now)
    say(
        f"{place.certificate} is renewed, until {found.ends:%Y-%m-%d}. It is served from now on, without a restart."
    )


@app.command()
def trust(folder: Where = None) -> None:
    """Say how this and other machines are told to trust the authority."""
    from parley.tls.expiry import ending

    place = _folder(folder)
    found = ending(place.authority)
    say(_TRUST.format(file=place.authority, sha256=found.fingerprint))


_TRUST = """\
Copy {file} (no secret) to each machine, and compare there
what `openssl x509 -noout -fingerprint -sha256 -in authority.pem` says with
  {sha256}

Debian, Ubuntu   cp authority.pem /usr/local/share/ca-certificates/parley.crt && update-ca-certificates
Fedora, RHEL     cp authority.pem /etc/pki/ca-trust/source/anchors/parley.pem && update-ca-trust
macOS            sudo security add-trusted-cert -d -r trustRoot \\
                   -k /Library/Keychains/System.keychain authority.pem
Windows          certutil -addstore -f Root authority.pem      (as administrator)
Firefox          Settings, Privacy & Security, Certificates, View Certificates, Authorities, Import
Chrome, Edge     take the system's; on Linux: chrome://settings/certificates, Authorities, Import
curl, Python     curl --cacert authority.pem ..., SSL_CERT_FILE=authority.pem
Prefect          PREFECT_API_SSL_CERT_FILE=authority.pem"""


def _folder(given: Path | None) -> Folder:
    from parley.settings import default_key_file
    from parley.tls.folder import Folder

    if given is not None:
        return Folder(given.absolute())
    key_file = os.environ.get("PARLEY_KEY_FILE") or default_key_file(os.environ)
    return Folder(Path(key_file).absolute().parent / "tls")
