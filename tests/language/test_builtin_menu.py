"""Built-in commands in menus: all are there, and what is chosen there is what would have been typed."""

from __future__ import annotations

import pytest

from connectors import _discord_commands
from parley.language.builtin_menu import builtin_menu, by_place
from parley.language.grammar import Command, parse_command


def typed(text: str) -> Command:
    command = parse_command(text)
    assert command is not None
    return command


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_built_in_commands_are_in_the_menu(language: str) -> None:
    entries = {entry.name: entry for entry in builtin_menu(language)}
    assert {"help", "status", "follow", "unfollow", "following", "standing", "silence"} <= set(entries)
    assert all(entry.summary for entry in entries.values())
    repository, events = entries["follow"].parameters
    assert (repository.name, repository.required, events.required) == ("repository", True, False)


def test_a_menu_with_typed_options_takes_them_all() -> None:
    shown = {command["name"] for command in _discord_commands.menu(builtin_menu("zh"))}
    assert shown == {entry.name for entry in builtin_menu("en")}


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ('/follow events="push  release" repository=octo/app', "/follow octo/app push release"),
        ("/unfollow repository=octo/app", "/unfollow octo/app"),
        ("/silence command=order time=2h", "/silence order 2h"),
        ("/silence time=2h command=order", "/silence order 2h"),
        ("/help command=order", "/help order"),
        ("/runs whose=all", "/runs all"),
        ("/following", "/following"),
    ],
)
def test_what_is_chosen_is_what_would_have_been_typed(chosen: str, text: str) -> None:
    placed, wanted = by_place(typed(chosen)), typed(text)
    assert (placed.name, placed.positional, placed.named) == (wanted.name, wanted.positional, wanted.named)


def test_other_values_by_name_stay() -> None:
    command = typed("/standing allow repair host=web* for=alerts")
    assert by_place(command) == command
