"""Language: the command grammar and the understanding of plain language."""

from parley.language.asking import ask_parameter, confirm_text, offer_text
from parley.language.binding import Bound, bind, bind_json, bind_texts, read_value, refuse_prefect_markers
from parley.language.characters import Language, language_for, language_of
from parley.language.command_line import command_line
from parley.language.grammar import Command, parse_command
from parley.language.help import help_one, help_overview
from parley.language.names import did_you_mean, unknown_command
from parley.language.understanding import Proposal, Understander, Understanding

__all__ = [
    "Bound",
    "Command",
    "Language",
    "Proposal",
    "Understander",
    "Understanding",
    "ask_parameter",
    "bind",
    "bind_json",
    "bind_texts",
    "command_line",
    "confirm_text",
    "did_you_mean",
    "help_one",
    "help_overview",
    "language_for",
    "language_of",
    "offer_text",
    "parse_command",
    "read_value",
    "refuse_prefect_markers",
    "unknown_command",
]
