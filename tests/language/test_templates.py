"""An author's examples, matched word by word."""

from __future__ import annotations

import time
from typing import Any

import pytest

from parley.language.templates import compile_template, match
from parley.language.tokens import tokens_of, without_politeness
from parley.runs.catalogue import AutomationSpec
from tests.language.automations import ANYTHING, ORDER, REMEMBER, REPAIR, REPORT


def found(example: str, spec: AutomationSpec, text: str) -> dict[str, Any] | None:
    template = compile_template(example, spec)
    assert template is not None
    matched = match(template, without_politeness(tokens_of(text)), text)
    return None if matched is None else dict(matched.values)


@pytest.mark.parametrize(
    "text",
    [
        "where is order 1024",
        "Where is ORDER 1024?",
        "ｗｈｅｒｅ　ｉｓ　ｏｒｄｅｒ　１０２４？",
        "please, where is order #1024",
        "Hi, can you tell me where is order 1024, please? Thanks!",
        "where  is\norder1024",
    ],
)
def test_case_width_spaces_and_politeness_do_not_count(text: str) -> None:
    assert found("where is order {order_id}", ORDER, text) == {"order_id": 1024}


def test_letters_between_digits_make_no_number_of_the_last_ones() -> None:
    assert found("where is order {order_id}", ORDER, "where is order 12x4") is None


def test_a_sentence_may_mean_a_value_that_no_word_of_it_gives() -> None:
    example = "repair {script} as usual {host=web1}"
    assert found(example, REPAIR, "repair restart-nginx as usual") == {
        "script": "restart-nginx",
        "host": "web1",
    }
    assert found(example, REPAIR, "repair restart-nginx") is None


@pytest.mark.parametrize(
    "text",
    [
        "查一下订单 1024 的物流",
        "查一下订单1024的物流。",
        "请帮我查一下订单１０２４的物流，谢谢！",
        "你好，麻烦查一下 订单1024的 物流吧",
    ],
)
def test_spaces_beside_chinese_do_not_count(text: str) -> None:
    assert found("查一下订单 {order_id} 的物流", ORDER, text) == {"order_id": 1024}


@pytest.mark.parametrize(
    "text",
    [
        "where is order",
        "where is order ten",
        "where is order 1024 and 1025",
        "where is order 10.24",
        "where is order 1024a",
        "where is order A1024",
        "where is order 10 24",
        "I know where is order 1024",
        "don't tell me where is order 1024",
        "",
    ],
)
def test_anything_else_in_the_message_is_no_match(text: str) -> None:
    assert found("where is order {order_id}", ORDER, text) is None


def test_a_number_that_is_not_allowed_is_left_to_be_asked_for() -> None:
    assert found("where is order {order_id}", ORDER, "where is order 0") == {}
    assert found("where is order {order_id}", ORDER, "where is order -5") == {}


@pytest.mark.parametrize(
    ("text", "script", "host"),
    [
        ("run restart-nginx on web1", "restart-nginx", "web1"),
        ("run Restart Nginx on db-1.example.com.", "restart-nginx", "db-1.example.com"),
        ("run clean tmp on 'web1'", "clean_tmp", "web1"),
        ("run clean-tmp on “web1”", "clean_tmp", "web1"),
    ],
)
def test_choices_and_names(text: str, script: str, host: str) -> None:
    assert found("run {script} on {host}", REPAIR, text) == {"script": script, "host": host}


@pytest.mark.parametrize(
    "text",
    [
        "run restart on web1",
        "run restart-nginx-now on web1",
        "run restart-nginx on web1; rm -rf /",
        "run restart-nginx on WEB 1",
        "run restart-nginx on -v",
    ],
)
def test_a_value_that_does_not_fit_is_no_match(text: str) -> None:
    assert found("run {script} on {host}", REPAIR, text) is None


def test_two_ways_to_read_are_no_match() -> None:
    assert found("note {subject} as {note}", REMEMBER, "note milk as two litres") == {
        "subject": "milk",
        "note": "two litres",
    }
    assert found("note {subject} as {note}", REMEMBER, "note milk as two as litres") is None


def test_dates_are_read_as_dates() -> None:
    assert found("生成 {day} 的日报", REPORT, "生成2026年11月5日的日报") == {"day": "2026-11-05"}
    assert found("show the report of {day}", REPORT, "show the report of 2026/11/5") == {"day": "2026-11-05"}
    assert found("show the report of {day}", REPORT, "show the report of yesterday") is None


def test_fractions_belong_to_numbers_only() -> None:
    assert found("set {real}", ANYTHING, "set 1.5") == {"real": 1.5}
    assert found("set {whole}", ANYTHING, "set 1.5") is None


@pytest.mark.parametrize(
    "example",
    [
        "",
        "please!",
        "{order_id}",
        "where is {unknown}",
        "{order_id} or {order_id}",
        "order {order_id=x}",
        "order {order_id} {order_id=1}",
    ],
)
def test_an_example_that_says_nothing_usable_makes_no_template(example: str) -> None:
    assert compile_template(example, ORDER) is None


@pytest.mark.parametrize("text", ["x " * 1000, "note " + "as " * 900, "a, " * 600, "帮我" * 900, "请" * 1999])
def test_takes_linear_time(text: str) -> None:
    template = compile_template("note {subject} as {note}", REMEMBER)
    assert template is not None
    started = time.process_time()
    match(template, without_politeness(tokens_of(text)), text)
    assert time.process_time() - started < 0.5
