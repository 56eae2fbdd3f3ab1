"""Language: the command grammar and the understanding of plain language."""

from parley.language.binding import Bound, bind, bind_json, bind_texts, read_value, refuse_prefect_markers
from parley.language.characters import Language, language_of
from parley.language.grammar import Command, parse_command
from parley.language.names import did_you_mean, unknown_command

__all__ = [
    "Bound",
    "Command",
    "Language",
    "bind",
    "bind_json",
    "bind_texts",
    "did_you_mean",
    "language_of",
    "parse_command",
    "read_value",
    "refuse_prefect_markers",
    "unknown_command",
]
