"""The commands. Each one parses, calls, prints; nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from parley.cli import FAILED, UNABLE, audit, certs, dead_letters, keys, people, tokens
from parley.cli.terminal import complain, print_json, print_table, say, size

app = typer.Typer(
    help="Parley: a message becomes a Prefect flow run, its result the answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(people.app, name="people")
app.add_typer(people.app, name="person", hidden=True)
app.add_typer(tokens.app, name="tokens")
app.add_typer(dead_letters.app, name="dlq")
app.add_typer(keys.app, name="keys")
app.add_typer(certs.app, name="certs")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def up() -> None:
    """Run everything on this machine, until Ctrl-C or SIGTERM."""
    from parley.processes.supervisor import main

    sys.exit(main())


@app.command()
def down(
    seconds: Annotated[float, typer.Option("--wait", help="Seconds to wait for the end.")] = 60,
) -> None:
    """End what `parley up` started, and wait until it has ended."""
    from parley.cli.installation import Installation, wait_for_end

    installation = Installation()
    pid = installation.supervisor()
    if pid is None:
        say(f"nothing is running in {installation.settings.home}.")
        return
    os.kill(pid, signal.SIGTERM)
    if not wait_for_end(pid, seconds):
        complain(f"it has not ended within {seconds:g} s (pid {pid}); it goes on ending.")
        sys.exit(FAILED)
    say("ended.")


@app.command()
def status(as_json: Json = False) -> None:
    """Show processes, accounts, how long answers take at each station, and what waits."""
    data = _admin("status")
    if as_json:
        print_json(data)
        return
    from parley.cli.status import print_status

    print_status(data)


@app.command("say")
def say_(
    text: Annotated[str, typer.Argument(help="What you say; - reads standard input.")],
    as_name: Annotated[str | None, typer.Option("--as", help="Speak for this person (recorded).")] = None,
    thread: Annotated[str | None, typer.Option(help="Go on in this thread.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the answer.")] = 60,
    file: Annotated[list[Path] | None, typer.Option(help="Send this file too; may be repeated.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the answer's files into this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Say something and print the answer: /help, /order 1024, or in your own words."""
    from parley.cli.installation import Installation
    from parley.cli.saying import read_text, say_and_print

    code = say_and_print(
        Installation(),
        read_text(text),
        acting_as=as_name,
        thread=thread,
        wait=wait,
        paths=file or [],
        save=save,
        as_json=as_json,
    )
    sys.exit(code)


@app.command()
def token(
    as_name: Annotated[str | None, typer.Option("--as", help="Whose; the owner's by default.")] = None,
    label: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    days: Annotated[
        float | None, typer.Option(min=0.001, help="How long it is good; always, by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a new token for the REST API."""
    arguments = _given(as_name=as_name, label=label, days=days)
    data = _admin("token", **arguments)
    if as_json:
        print_json(data)
    else:
        say(str(data["token"]))


@app.command()
def connect(
    platform: Annotated[str, typer.Argument(help="slack, mail ...; see `parley connectors`.")],
    name: Annotated[str, typer.Argument(help="What you call this account.")],
    field: Annotated[
        list[str] | None, typer.Option(help="name=value, or name=@file; may be repeated.")
    ] = None,
    from_env: Annotated[
        bool, typer.Option("--from-env", help="Fields from PARLEY_<PLATFORM>_<FIELD>.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Connect an account: its credentials are sealed, saved as a Prefect Block, and listened with."""
    from parley.cli.connecting import connect as connect_account
    from parley.cli.connecting import from_environment, parse_fields
    from parley.cli.installation import Installation

    given = (from_environment(platform) if from_env else {}) | parse_fields(field or [])
    block = connect_account(
        Installation(), platform, name, given, prompt=_prompt if sys.stdin.isatty() else None
    )
    if as_json:
        print_json({"account": name, "platform": platform, "block": block})
    else:
        say(f"{name} is connected, with the Block {block}. `parley accounts` shows how it is doing.")


@app.command()
def accounts(as_json: Json = False) -> None:
    """List the connected accounts, and how they are doing."""
    _show(_admin("accounts"), ("name", "platform", "state", "reason"), "no accounts.", as_json)


@app.command()
def connectors(as_json: Json = False) -> None:
    """List the platforms that can be connected: what comes from each, what can be said there, and how it is shown.

    With `hooks` the platform calls us: the hooks' port has to be reached from there.
    """
    from parley.messages import registry

    rows = [{"name": name, **registry.capabilities(name).model_dump()} for name in registry.platforms()]
    if not as_json:
        rows = [{**row, "files": size(row["max_file"]) if row["max_file"] else False} for row in rows]
    columns = ("name", "receives", "sends", "hooks", "threads", "edits", "private", "max_buttons", "files")
    _show(rows, columns, "no connectors.", as_json)


@app.command()
def automations(as_json: Json = False) -> None:
    """List all automations, and what is broken."""
    data = _admin("catalogue")
    if as_json:
        print_json(data)
        return
    print_table(
        sorted(data["automations"], key=lambda one: str(one["command"])),
        ("command", "effect", "summary", "deployment"),
        nothing="no automations yet: name their modules in parley.toml under [automations].",
    )
    for broken in data["broken"]:
        complain(f"{broken['source']}: {broken['reason']}")


@app.command()
def runs(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20, as_json: Json = False
) -> None:
    """List the latest requests and their runs, newest first."""
    from parley.cli.installation import Installation
    from parley.web.client import AsyncClient

    async def ask(client: AsyncClient) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async for run in client.runs():
            found.append(run.model_dump(mode="json"))
            if len(found) == limit:
                break
        return found

    rows = Installation().ask(ask)
    columns = ("id", "automation", "state", "origin", "actor", "created_at", "reason")
    _show(rows, columns, "no runs yet.", as_json)


@app.command()
def grant(
    automation: str,
    as_name: Annotated[str | None, typer.Option("--as", help="The service it runs as.")] = None,
    to: Annotated[str | None, typer.Option(help="Where its answer goes: account:conversation.")] = None,
    days: Annotated[
        float | None, typer.Option(min=0.001, help="How long; until revoked, by default.")
    ] = None,
) -> None:
    """Let an automation run without anybody asking: by a schedule, or from Prefect."""
    _admin("grant", automation=automation, **_given(as_name=as_name, to=to, days=days))
    say(f"granted: {automation}.")


@app.command()
def ungrant(automation: str) -> None:
    """Take back what `grant` gave."""
    count = _admin("ungrant", automation=automation)
    if not count:
        complain(f"there was no grant for {automation}.")
        sys.exit(FAILED)
    say(f"taken back: {automation}.")


@app.command()
def grants(as_json: Json = False) -> None:
    """List the grants."""
    _show(_admin("grants"), ("automation", "as", "to"), "no grants.", as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check the installation; say how to mend what is wrong."""
    from parley.cli.checking import check

    rows = check()
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            say(f"{'ok   ' if row['ok'] else 'WRONG'} {row['check']}: {row['says']}")
            if not row["ok"]:
                say(f"      mend: {row['mend']}")
    sys.exit(0 if all(row["ok"] for row in rows) else FAILED)


app.add_typer(audit.app, name="audit")


def _admin(verb: str, **arguments: Any) -> Any:
    from parley.cli.installation import Installation

    return Installation().admin(verb, **arguments)


def _show(rows: list[dict[str, Any]], columns: tuple[str, ...], nothing: str, as_json: bool) -> None:
    if as_json:
        print_json(rows)
    else:
        print_table(rows, columns, nothing=nothing)


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _prompt(field: str, description: str) -> str:
    value: str = typer.prompt(f"{field} ({description})" if description else field, hide_input=True, err=True)
    return value


__all__ = ["UNABLE", "app"]
