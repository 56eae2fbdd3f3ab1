"""Names that nearly fit."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher

from parley.errors import UnknownCommand
from parley.language.characters import Language, narrow, visible
from parley.language.phrases import phrase

_LONGEST = 64
_NEAR = 0.6
_OFFERED = 3
_FEW = 32
"""So many names are all compared; among more only those that share the most with what was written."""


class NameIndex:
    """Names, found by what they share with one that is none of them: as quick among thousands as among dozens."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names: Sequence[str] = tuple(names)
        self._holders: defaultdict[str, list[int]] = defaultdict(list)
        for place, name in enumerate(self._names):
            for pair in _pairs(_folded(name)):
                self._holders[pair].append(place)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def near(self, name: str) -> Sequence[str]:
        """The names that are worth a comparison: all where they are few."""
        if len(self._names) <= _FEW:
            return self._names
        shared: Counter[int] = Counter()
        # The rare pairs first: what half of all names have tells them apart from nothing.
        pairs = sorted(_pairs(_folded(name)[:_LONGEST]), key=lambda pair: len(self._holders.get(pair, ())))
        seen = 0
        for pair in pairs:
            holders = self._holders.get(pair, ())
            if shared and seen + len(holders) > _FEW * 16:
                break
            seen += len(holders)
            shared.update(holders)
        return [self._names[place] for place, _ in shared.most_common(_FEW)]


def _pairs(name: str) -> set[str]:
    padded = f"^{name}"
    return {padded[place : place + 2] for place in range(len(padded) - 1)}


def did_you_mean(name: str, known: Iterable[str] | NameIndex) -> tuple[str, ...]:
    """At most three of the known names, nearest first; none when nothing is near."""
    wanted = _folded(name)
    if not wanted or len(wanted) > _LONGEST:
        return ()
    if isinstance(known, NameIndex):
        known = known.near(name)
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    scored = ((_nearness(matcher, wanted, _folded(candidate)), candidate) for candidate in known)
    near = sorted(
        ((score, candidate) for score, candidate in scored if score), key=lambda pair: (-pair[0], pair[1])
    )
    return tuple(candidate for _, candidate in near[:_OFFERED])


def unknown_command(name: str, known: Iterable[str] | NameIndex, language: Language = "en") -> UnknownCommand:
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
