"""`parley keys`: the keys that seal what is stored, by their ids; no command shows a key."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from parley.cli import FAILED
from parley.cli.terminal import complain, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="The keys that seal what is stored.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

_KINDS = {"data": "seals values", "root": "proves the audit", "former": "opens what it sealed once"}


@app.command()
def show(as_json: Json = False) -> None:
    """Show the ids of the keys and where they are, never a key."""
    data = _admin("keys")
    if as_json:
        print_json(data)
        return
    say(f"wrapped by: {data['newest']} ({data['source']})")
    others = [one["id"] for one in data["keys"] if not one["wraps"]]
    if others:
        say(f"also there: {', '.join(others)}; `parley keys retire ID` takes one away.")
    rows = [{**one, "kind": _KINDS.get(one["kind"], one["kind"])} for one in data["data_keys"]]
    print_table(rows, ("id", "kind", "seals", "wrapped_by", "created_at", "retired_at"), nothing="no keys.")
    if data["resealing"]:
        say("what older keys sealed is being sealed anew.")


@app.command()
def rotate(
    data: Annotated[
        bool, typer.Option("--data", help="A new data key; everything stored is sealed anew with it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a new key that wraps the data keys, or with --data a new data key. Everything goes on meanwhile."""
    done = _admin("keys_rotate", data=data)
    if as_json:
        print_json(done)
    elif data:
        say(
            f"{done['data_key']} seals from now on; what is stored is sealed anew with it, `parley keys show` tells."
        )
    else:
        say(
            f"{done['key']} wraps the data keys ({done['rewrapped']}). Copy the key file to where you keep its copy."
        )


@app.command()
def retire(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="See `parley keys show`.")],
    as_json: Json = False,
) -> None:
    """Take a key away that nothing needs any more: out of the key file, or a data key for good."""
    done = _admin("keys_retire", key_id=key_id)
    if as_json:
        print_json(done)
    elif done["kept"]:
        say(
            f"{key_id} is out of the key file; what it sealed and proved before opens with a copy {done['kept']}."
        )
    else:
        say(f"{key_id} is gone.")


@app.command()
def check(as_json: Json = False) -> None:
    """Open every sealed value and every key; exit 1 when one does not open, with its place."""
    result = _checked()
    if as_json:
        print_json(result)
    else:
        for place in result["broken"]:
            complain(f"does not open: {place}")
        say(f"{result['opened']} values open, {len(result['broken'])} do not.")
    sys.exit(FAILED if result["broken"] else 0)


def _checked() -> dict[str, Any]:
    from parley.cli.installation import Installation

    installation, opened = Installation(), 0
    broken: list[str] = []
    step: dict[str, Any] | None = {}
    while step is not None:  # many short calls: the hub does other things in between
        found = installation.admin("keys_check", **step)
        opened += found["opened"]
        broken += found["broken"]
        step = found["next"]
    return {"opened": opened, "broken": broken}


def _admin(verb: str, **arguments: Any) -> Any:
    from parley.cli.installation import Installation

    return Installation().admin(verb, **arguments)
