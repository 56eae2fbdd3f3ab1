"""Similarity of sentences: TF-IDF over words, pieces of words and pairs of Chinese characters."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest

from parley.language.tokens import Token

# Words that say nothing about what is wanted. No negation is among them: "don't restart" is not "restart".
_STOP = """
a an the is are am was were be been being do does did of to in on at for from with by and or it its it's this that these
those i me my we us our you your he she they them his her their what what's which who how there here as so just some any
please now can could would will shall may might have has had get got give show tell see look want need let one about up
thanks hi hello hey
"""
STOP_WORDS = frozenset(_STOP.split())
STOP_HAN = frozenset(
    "的了是我你您他她它们这那个在和与就都也着过吗呢吧啊呀请帮一下给看想要有把里到会能可以么什"
)

_COMMON = 0.2  # posting lists longer than this share of a large catalogue carry next to nothing
_LARGE = 400
_VISITED = 2000
"""Entries of posting lists that are looked at in a large catalogue, those of the rarest features first."""
_COMPARED = 48
"""Documents of a large catalogue that are compared in full: those that share the most of what is rare."""


def features(tokens: Sequence[Token]) -> Counter[str]:
    """What a sentence is made of; numbers all look the same."""
    counts: Counter[str] = Counter()
    for place, token in enumerate(tokens):
        if token.kind == "word" and token.text not in STOP_WORDS:
            counts.update(_of_word(token.text[:40]))
        elif token.kind == "han":
            _count_han(counts, tokens, place)
    return counts


def _of_word(word: str) -> Iterable[str]:
    padded = f"_{word}_"
    yield padded
    for size in (3, 4):
        for start in range(len(padded) - size + 1):
            yield padded[start : start + size]


def _count_han(counts: Counter[str], tokens: Sequence[Token], place: int) -> None:
    this = tokens[place].text
    if this not in STOP_HAN:
        counts[this] += 1
    if place + 1 < len(tokens) and tokens[place + 1].kind == "han":
        after = tokens[place + 1].text
        if this not in STOP_HAN or after not in STOP_HAN:
            counts[this + after] += 2


_Shared = tuple[dict[int, float], float]
"""Weights of one feature by document, and its weight in what is asked."""


class Index:
    """Documents in groups, found by similarity; an inverted index."""

    def __init__(self, groups: Mapping[str, Iterable[Counter[str]]]) -> None:
        documents = [(name, counts) for name, all_counts in groups.items() for counts in all_counts if counts]
        holders: dict[str, set[str]] = defaultdict(set)
        for name, counts in documents:
            for feature in counts:
                holders[feature].add(name)
        self._weights = {feature: _rarity(len(groups), len(names)) for feature, names in holders.items()}
        self._unknown = _rarity(len(groups), 0)
        self._owners = [name for name, _ in documents]
        self._postings: dict[str, dict[int, float]] = defaultdict(dict)
        for number, (_, counts) in enumerate(documents):
            for feature, weight in self._vector(counts).items():
                self._postings[feature][number] = weight
        self._large = len(documents) > _LARGE
        self._longest = len(documents) * _COMMON if self._large else math.inf

    def _vector(self, counts: Counter[str]) -> dict[str, float]:
        raw = {
            feature: (1 + math.log(count)) * self._weights.get(feature, self._unknown)
            for feature, count in counts.items()
        }
        length = math.sqrt(sum(weight * weight for weight in raw.values())) or 1.0
        return {feature: weight / length for feature, weight in raw.items()}

    def nearness(self, counts: Counter[str]) -> dict[str, float]:
        """For each group that shares anything, the cosine (0 to 1) with its nearest document.

        In a large catalogue only for the groups that share the rarest things: what that costs does not grow with it.
        """
        shared = [
            (postings, weight)
            for feature, weight in self._vector(counts).items()
            if (postings := self._postings.get(feature)) and len(postings) <= self._longest
        ]
        sums = self._sums_of_few(shared) if self._large else _sums(shared)
        best: dict[str, float] = {}
        for number, score in sums.items():
            owner = self._owners[number]
            if score > best.get(owner, 0.0):
                best[owner] = score
        return best

    def _sums_of_few(self, shared: list[_Shared]) -> dict[int, float]:
        shared.sort(key=lambda one: len(one[0]))
        visited = 0
        for rare, (postings, _) in enumerate(shared):
            visited += len(postings)
            if visited > _VISITED and rare:
                break
        else:
            rare = len(shared)
        partly = _sums(shared[:rare])
        chosen = nlargest(_COMPARED, partly, key=lambda number: partly[number])
        return {
            number: sum(weight * postings.get(number, 0.0) for postings, weight in shared)
            for number in chosen
        }


def _sums(shared: Iterable[_Shared]) -> dict[int, float]:
    sums: dict[int, float] = defaultdict(float)
    for postings, weight in shared:
        for number, other in postings.items():
            sums[number] += weight * other
    return sums


def _rarity(total: int, holders: int) -> float:
    return math.log((1 + total) / (1 + holders)) + 1.0
