"""Width, script, and what may be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.language.characters import language_for, language_of, narrow, narrow_words, visible


@given(st.text())
def test_narrowing_keeps_the_length_and_is_done_once(text: str) -> None:
    for narrowed in (narrow(text), narrow_words(text)):
        assert len(narrowed) == len(text)
    assert narrow(narrow(text)) == narrow(text)


def test_sentence_marks_stay_in_words() -> None:
    assert narrow_words("ＡＢ－１２＝！，：") == "AB-12=！，："
    assert narrow("ＡＢ！，　") == "AB!, "


@pytest.mark.parametrize(
    ("text", "language"),
    [("", "en"), ("where is it", "en"), ("order 1024 到哪了", "zh"), ("café", "en"), ("ひらがな", "en")],
)
def test_language_of_a_text(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("tag", "text", "language"),
    [("zh-CN", "hi", "zh"), ("en_GB", "你好", "en"), ("fr", "你好", "zh"), (None, "hi", "en")],
)
def test_a_persons_own_language_comes_first(tag: str | None, text: str, language: str) -> None:
    assert language_for(tag, text) == language


@given(st.text(max_size=200))
def test_what_is_shown_is_one_short_line_of_visible_characters(text: str) -> None:
    shown = visible(text, 20)
    assert "`" not in shown
    assert len(shown.splitlines()) <= 1
    assert not {"\x00", "\u202e", "\u2066", "\ufeff"} & set(shown)
