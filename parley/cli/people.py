"""`parley people`: who may use this installation, and as whom they are known on the platforms."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from parley.cli import FAILED
from parley.cli.terminal import complain, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="Who may use this installation, and as whom.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--automation", help="Only these (globs); all that the role may, by default."),
]


@app.command("list")
def list_people(as_json: Json = False) -> None:
    """List people and services, with their roles and links."""
    rows = _admin("people")
    if as_json:
        print_json(rows)
        return
    columns = ("name", "kind", "role", "roles", "automations", "enabled", "identities")
    print_table(rows, columns, nothing="nobody yet.")


@app.command()
def add(
    name: str,
    role: Annotated[str, typer.Option(help="owner, operator, user, auditor or none.")] = "user",
    automation: Only = None,
    service: Annotated[bool, typer.Option("--service", help="A machine, such as an alert source.")] = False,
    language: Annotated[
        str | None, typer.Option(help="en or zh; as parley.toml says under [owner], by default.")
    ] = None,
) -> None:
    """Add a person or a service."""
    kind = "service" if service else "person"
    given = {"language": language} if language else {}
    _admin("person_add", name=name, role=role, automations=automation or [], kind=kind, **given)
    say(f"{name} is added as {role}. `parley people link` says who they are on a platform.")


@app.command("role")
def set_role(name: str, role: str, automation: Only = None) -> None:
    """Change what somebody may do."""
    arguments: dict[str, Any] = {} if automation is None else {"automations": automation}
    _admin("person_role", name=name, role=role, **arguments)
    say(f"{name} is now {role}.")


@app.command()
def link(
    name: str,
    account: str,
    user_id: Annotated[
        str, typer.Argument(help="Their id on the platform, as it is: U02AB34CD, ada@example.org.")
    ],
    verified: Annotated[
        bool, typer.Option("--verified", help="This sender's claims are checked otherwise (DKIM, SASL).")
    ] = False,
) -> None:
    """Say who somebody is on a platform."""
    _admin("person_link", name=name, account=account, user_id=user_id, verified=verified)
    say(f"{user_id} of {account} is {name}.")


@app.command()
def unlink(account: str, user_id: str) -> None:
    """Let a platform's user be nobody again."""
    if not _admin("person_unlink", account=account, user_id=user_id):
        complain(f"{user_id} of {account} was nobody.")
        sys.exit(FAILED)
    say(f"{user_id} of {account} is nobody now.")


@app.command()
def disable(name: str) -> None:
    """Take every right, token and session away."""
    _admin("person_disable", name=name)
    say(f"{name} is disabled.")


@app.command()
def grant(name: str, role: str) -> None:
    """Give somebody a role of parley.toml besides what they are."""
    given = _admin("person_grant", name=name, role=role)
    say(f"{name} has the role {role} now." if given else f"{name} has the role {role} already.")


@app.command()
def revoke(name: str, role: str) -> None:
    """Take a role of parley.toml away."""
    if not _admin("person_revoke", name=name, role=role):
        complain(f"{name} does not have the role {role}.")
        sys.exit(FAILED)
    say(f"{name} has the role {role} no more.")


@app.command()
def invite(name: str, as_json: Json = False) -> None:
    """Print a code with which somebody who was added lets us know who they are on a platform."""
    made = _admin("person_invite", name=name)
    if as_json:
        print_json(made)
        return
    say(
        f"Give this to {name} yourself. They send it to the assistant in a direct conversation, within three days:"
    )
    say(f"/link {made['code']}")


@app.command()
def password(name: str) -> None:
    """Set somebody's password for the console; it is asked for here, or read from a pipe. Their sessions end."""
    if sys.stdin.isatty():
        text: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        text = sys.stdin.readline(2000).rstrip("\r\n")
    _admin("person_password", name=name, password=text)
    say(f"{name} signs in at the console with this name and password.")


@app.command()
def sessions(
    name: str,
    end: Annotated[bool, typer.Option("--end", help="End all of them, at once.")] = False,
    as_json: Json = False,
) -> None:
    """Show where somebody is signed in at the console."""
    if end:
        say(f"{_admin('person_sessions_end', name=name)} session(s) of {name} ended.")
        return
    rows = _admin("person_sessions", name=name)
    if as_json:
        print_json(rows)
        return
    print_table(rows, ("by", "with", "since", "used"), nothing="signed in nowhere.")


@app.command()
def sync(
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Although so many are missing that it looks like a mistake.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask the directory now, and let in and remove whom it says."""
    done = _admin("people_sync", anyway=anyway)
    if as_json:
        print_json(done)
    else:
        say(
            f"The directory has {done['people']} people: {done['joined']} joined, {done['left']} left, "
            f"{done['changed']} changed."
        )
        for problem in done["problems"]:
            complain(problem)
    if done["held"]:
        complain(
            f"{done['held']['missing']} of {done['held']['of']} people are missing at once, or lose roles or "
            "accounts: nobody was removed. If it is right: `parley people sync --anyway`."
        )
        sys.exit(FAILED)


@app.command("in-directory")
def in_directory(
    name: str, entry: Annotated[str, typer.Argument(help="The id that never changes, such as the entryUUID.")]
) -> None:
    """Say that somebody who is known here already is this entry of the directory."""
    _admin("person_in_directory", name=name, entry=entry)
    say(f"{name} is this entry of the directory from now on. `parley people sync` asks it.")


@app.command()
def remove(name: str) -> None:
    """Take accounts, roles, tokens, sessions, and what waits or runs by their word from somebody who leaves."""
    _admin("person_remove", name=name)
    say(f"{name} is removed.")


def _admin(verb: str, **arguments: Any) -> Any:
    from parley.cli.installation import Installation

    return Installation().admin(verb, **arguments)
