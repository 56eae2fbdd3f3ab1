"""Topics, patterns, conditions and templates."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.messages.filters import Condition, Template
from parley.messages.topics import Pattern, is_topic, topic, word

WORDS = st.sampled_from(["a", "b", "push", "pull_request", "x-1"])
TOPICS = st.lists(WORDS, min_size=1, max_size=8)
PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from(["*", "#"])), min_size=1, max_size=8)


def matches_slowly(pattern: list[str], words: list[str]) -> bool:
    """What AMQP says, word by word: the same rule, written in the plainest way."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches_slowly(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches_slowly(pattern[1:], words[1:])


@given(PATTERNS, TOPICS)
def test_a_pattern_matches_what_amqp_says(pattern: list[str], words: list[str]) -> None:
    assert Pattern(".".join(pattern)).matches(".".join(words)) == matches_slowly(pattern, words)


@given(TOPICS)
def test_a_topic_matches_itself_and_everything_matches_a_hash(words: list[str]) -> None:
    assert Pattern(".".join(words)).matches(".".join(words))
    assert Pattern("#").matches(".".join(words))
    assert Pattern(".".join(["*"] * len(words))).matches(".".join(words))
    assert not Pattern(".".join(["*"] * (len(words) + 1))).matches(".".join(words))


@pytest.mark.serial
def test_no_pattern_is_slow() -> None:
    pattern = Pattern(".".join(["#", "a"] * 60))
    long = ".".join(["a"] * 190 + ["b"])
    began = time.perf_counter()
    assert not any(pattern.matches(long) for _ in range(100))
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("text", ["", "A.b", "a..b", ".a", "a.", "a b", "a.*b", "ä", "a\n", "#a", "x" * 401])
def test_what_is_no_pattern_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Pattern(text)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_whatever_a_name_is_it_becomes_words(parts: list[str]) -> None:
    made = topic(*parts)
    assert is_topic(made)
    assert len(made.split(".")) == len(parts)


def test_words_keep_what_may_stay() -> None:
    assert word("My Git.Hub") == "my-git-hub"
    assert word("github_2") == "github_2"


FIELDS = {
    "labels": {"severity": "critical", "app.kubernetes.io/name": "shop"},
    "repository": "octo/app",
    "names": ["bug", "urgent"],
    "draft": False,
    "number": 12,
    "nothing": None,
}


@pytest.mark.parametrize(
    ("field", "globs", "holds"),
    [
        ("labels.severity", ["critical"], True),
        ("labels.severity", ["Critical"], False),
        ("labels.app.kubernetes.io/name", ["sh*"], True),
        ("repository", ["octo/api", "octo/*"], True),
        ("repository", ["octo"], False),
        ("names", ["urgent"], True),
        ("names", ["u"], False),
        ("draft", ["false"], True),
        ("number", ["1?"], True),
        ("nothing", [""], True),
        ("missing", ["*"], False),
        ("labels.severity.more", ["*"], False),
    ],
)
def test_conditions(field: str, globs: list[str], holds: bool) -> None:
    assert Condition(field, globs).holds(FIELDS) is holds


@pytest.mark.serial
def test_a_glob_takes_no_time_whatever_it_is() -> None:
    condition = Condition("repository", ["*a" * 30 + "b"])
    began = time.perf_counter()
    assert not condition.holds({"repository": "a" * 5000})
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{number}", 12),
        ("{names}", ["bug", "urgent"]),
        ("{missing}", None),
        ("#{number} of {repository}", "#12 of octo/app"),
        ("{missing}!", "!"),
        ("{labels.severity}", "critical"),
        ("{draft}.", "false."),
        ("{0.__class__} {}", "{0.__class__} {}"),
        ("plain", "plain"),
    ],
)
def test_templates(template: str, value: object) -> None:
    filled = Template(template).filled(FIELDS)
    if "__class__" in template:
        assert not re.search("type|class '", str(filled))
    else:
        assert filled == value
