"""Names that nearly fit."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

from parley.errors import UnknownCommand
from parley.language.characters import Language, narrow, visible
from parley.language.phrases import phrase

_LONGEST = 64
_NEAR = 0.6
_OFFERED = 3


def did_you_mean(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """At most three of the known names, nearest first; none when nothing is near."""
    wanted = _folded(name)
    if not wanted or len(wanted) > _LONGEST:
        return ()
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    scored = ((_nearness(matcher, wanted, _folded(candidate)), candidate) for candidate in known)
    near = sorted(
        ((score, candidate) for score, candidate in scored if score), key=lambda pair: (-pair[0], pair[1])
    )
    return tuple(candidate for _, candidate in near[:_OFFERED])


def unknown_command(name: str, known: Iterable[str], language: Language = "en") -> UnknownCommand:
    """The error for a name that is not known, with the nearest that are."""
    near = did_you_mean(name, known)
    parts = [phrase("unknown-command", language, name=visible(name, 40))]
    if near:
        parts.append(suggestion(tuple(f"/{one}" for one in near), language))
    parts.append(phrase("see-help", language))
    return UnknownCommand(joined(parts, language))


def suggestion(names: Iterable[str], language: Language) -> str:
    """The question that offers these names."""
    return phrase("did-you-mean", language, names=phrase("or", language).join(f"`{name}`" for name in names))


def joined(sentences: Iterable[str], language: Language) -> str:
    """Sentences one after the other; Chinese has no space between them."""
    return ("" if language == "zh" else " ").join(sentences)


def _folded(name: str) -> str:
    return narrow(name).lower().replace("_", "-")


def _nearness(matcher: SequenceMatcher[str], wanted: str, candidate: str) -> float:
    if candidate.startswith(wanted) or (len(candidate) > 1 and wanted.startswith(candidate)):
        return 0.9
    matcher.set_seq1(candidate[:_LONGEST])
    # The two quick bounds spare most of the exact comparisons: a thousand names take a few milliseconds.
    if matcher.real_quick_ratio() < _NEAR or matcher.quick_ratio() < _NEAR:
        return 0.0
    ratio = matcher.ratio()
    return ratio if ratio >= _NEAR else 0.0
