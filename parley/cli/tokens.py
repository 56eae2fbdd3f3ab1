"""`parley tokens`: which tokens are good, and their end. `parley token` makes them."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from parley.cli import FAILED
from parley.cli.terminal import complain, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="Which tokens are good, and their end.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command("list")
def list_tokens(
    of: Annotated[str | None, typer.Option("--of", help="Only this person's.")] = None, as_json: Json = False
) -> None:
    """List tokens and log-in links that are good, the oldest first; never their secrets."""
    rows = _admin("tokens", **({"name": of} if of else {}))
    if as_json:
        print_json(rows)
        return
    print_table(rows, ("code", "person", "kind", "label", "since", "until"), nothing="no token is good.")


@app.command()
def revoke(
    code: Annotated[
        list[str] | None, typer.Argument(help="Codes as `list` shows them: the last eight characters of ids.")
    ] = None,
    all_of: Annotated[str | None, typer.Option("--all-of", help="All of this person's.")] = None,
) -> None:
    """End tokens, and the console's sessions that began with them, at once."""
    if bool(code) == bool(all_of):
        complain("say which: codes of `parley tokens list`, or --all-of NAME.")
        sys.exit(FAILED)
    if all_of:
        done = _admin("tokens_revoke_all", name=all_of)
        say(f"{done['tokens']} token(s) of {all_of} are revoked; {done['sessions']} session(s) ended.")
        return
    for one in code or []:
        ended = _admin("token_revoke", code=one)
        say(f"{one} is revoked; {ended} session(s) ended.")


def _admin(verb: str, **arguments: Any) -> Any:
    from parley.cli.installation import Installation

    return Installation().admin(verb, **arguments)
