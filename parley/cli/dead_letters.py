"""`parley dlq`: what ended without having been carried out or delivered."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from parley.cli import FAILED
from parley.cli.terminal import complain, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="What was not carried out or delivered (dead letters).")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Code = Annotated[str, typer.Argument(help="Its id, or the last eight characters of that.")]


@app.command("list")
def list_letters(
    kind: Annotated[str | None, typer.Option(help="Only message, run, delivery or expired.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were decided.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 50,
    as_json: Json = False,
) -> None:
    """List the newest."""
    rows = _admin("dead_letters", limit=limit, kind=kind, settled=everything)
    if as_json:
        print_json(rows)
        return
    columns = ("code", "kind", "automation", "account", "actor", "state", "created_at", "reason")
    print_table(rows, columns, nothing="no dead letters.")


@app.command()
def show(code: Code, as_json: Json = False) -> None:
    """Show one, with what is known of it; never what people wrote."""
    _print(_admin("dead_letter", identifier=code), as_json=as_json)


@app.command()
def replay(
    code: Code,
    yes: Annotated[
        bool, typer.Option("--yes", help="You have looked: run or send it although it may have had effects.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Do it again, once: a new run of the same request, a new delivery, or the message once more."""
    letter = _admin("dead_letter", identifier=code)
    if letter["state"] == "open" and letter["doubtful"] and not yes:
        what = "have arrived" if letter["kind"] == "delivery" else "have had effects"
        if not sys.stdin.isatty():
            complain(f"it may {what}: look first, then say --yes.")
            sys.exit(FAILED)
        yes = typer.confirm(f"It may {what}. Have you looked, and shall it be done again?", err=True)
        if not yes:
            sys.exit(FAILED)
    _print(_admin("dead_letter_replay", identifier=letter["id"], confirmed=yes), as_json=as_json)


@app.command()
def discard(code: Code, as_json: Json = False) -> None:
    """Let it be; the record stays until retention takes it."""
    _print(_admin("dead_letter_discard", identifier=code), as_json=as_json)


def _print(letter: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(letter)
        return
    facts = {name: value for name, value in letter.items() if name != "facts"} | letter["facts"]
    for name, value in facts.items():
        if value not in (None, ""):
            say(f"{name}: {value}")


def _admin(verb: str, **arguments: Any) -> Any:
    from parley.cli.installation import Installation

    return Installation().admin(verb, **arguments)
