"""`parley audit`: who did what, and whether it is still what was written."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from parley.cli import FAILED
from parley.cli.terminal import complain, print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="Who did what.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Since = Annotated[str | None, typer.Option(help="From this time on: 2026-11-23, or 2026-11-23T14:30+01:00.")]
Until = Annotated[str | None, typer.Option(help="Before this time.")]
Action = Annotated[str | None, typer.Option(help="Only this; * stands for any characters, as in run:*.")]
Actor = Annotated[str | None, typer.Option(help="Only what this principal did.")]

PAGE = 1000
MOST_SAID = 100
"""Problems that are printed; the others are counted."""


@app.command()
def show(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 50,
    request: Annotated[str | None, typer.Option(help="The whole story of one request, by its code.")] = None,
    since: Since = None,
    until: Until = None,
    action: Action = None,
    actor: Actor = None,
    as_json: Json = False,
) -> None:
    """Show the latest rows, or the story of one request."""
    if request:
        rows = _admin("audit_request", identifier=request)
        columns: tuple[str, ...] = ("at", "what", "who", "sequence")
    else:
        rows = _admin(
            "audit_show", limit=limit, **_given(since=since, until=until, action=action, actor=actor)
        )
        columns = ("sequence", "at", "actor", "action", "phase", "subject")
    if as_json:
        print_json(rows)
    else:
        print_table(rows, columns, nothing="nothing yet.")


@app.command()
def export(since: Since = None, until: Until = None, action: Action = None, actor: Actor = None) -> None:
    """Write all rows as JSON lines, oldest first."""
    wanted = _given(since=since, until=until, action=action, actor=actor)
    after = 0
    while rows := _admin("audit_page", after=after, limit=PAGE, **wanted):
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")  # no character of it means anything to a terminal
        after = rows[-1]["sequence"]


@app.command()
def verify(
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Read store and key here, without a running hub; nothing is changed."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that no row was changed, removed, moved or cut off; exit 1 when one was."""
    data = (
        asyncio.run(_offline()) if offline else _summed(_parts(lambda place: _admin("audit_verify", **place)))
    )
    if as_json:
        print_json(data)
    else:
        _print(data)
    sys.exit(FAILED if data["problems"] else 0)


def _parts(ask: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    place: dict[str, Any] = {}
    while True:
        found = ask(place)
        yield found
        if not found.get("next"):
            return
        place = {"place": found["next"]}


def _summed(parts: Iterator[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {"rows": 0, "anchors": 0, "problems": [], "more": 0, "notes": []}
    for part in parts:
        for name in ("rows", "anchors", "more"):
            total[name] += part.get(name, 0)
        for name in ("problems", "notes"):
            total[name] += part.get(name, [])
        total["more"] += max(0, len(total["problems"]) - MOST_SAID)
        del total["problems"][MOST_SAID:], total["notes"][MOST_SAID:]
    return total


def _print(data: dict[str, Any]) -> None:
    for problem in data["problems"]:
        complain(str(problem))
    for note in data["notes"]:
        say(f"Note: {note}")
    count = len(data["problems"]) + data["more"]
    anchors = f", {data['anchors']} anchors" if data["anchors"] else ""
    say(f"{data['rows']} rows{anchors}, {count} problems.")


async def _offline() -> dict[str, Any]:
    from parley.processes.audit_offline import verified

    return _summed(iter([part async for part in verified()]))


def _admin(verb: str, **arguments: Any) -> Any:
    from parley.cli.installation import Installation

    return Installation().admin(verb, **arguments)


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
