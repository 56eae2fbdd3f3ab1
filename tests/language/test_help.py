"""Help and questions, in English and Chinese."""

from __future__ import annotations

import re

import pytest

from parley.language.asking import ask_parameter, confirm_text, offer_text
from parley.language.binding import bind, read_value
from parley.language.grammar import parse_command
from parley.language.help import about, help_one, help_overview, usage
from parley.language.phrases import PHRASES
from parley.language.understanding import Understander
from tests.language.automations import ANYTHING, CATALOGUE, ORDER, REPAIR, UNLOCK, spec_of


def test_every_sentence_has_the_same_slots_in_both_languages() -> None:
    for key, (english, chinese) in PHRASES.items():
        assert set(re.findall(r"{(\w+)}", english)) == set(re.findall(r"{(\w+)}", chinese)), key


def test_the_overview_lists_by_command_and_marks_what_is_not_harmless() -> None:
    text = help_overview(CATALOGUE, "en", {"status": "What is running."}).text
    assert "- `/order <order_id>`: Show where an order is.\n" in text
    assert "- `/repair <script> <host>`: Run a registered repair script on a host. (dangerous)" in text
    assert "- `/status`: What is running." in text
    assert text.index("/order") < text.index("/repair") < text.index("/report")
    assert "您可以运行" in help_overview(CATALOGUE, "zh").text
    assert "nothing" in help_overview([], "en").text


def test_help_for_one_tells_all_about_it() -> None:
    text = help_one(ORDER).text
    for told in (
        "/order <order_id>",
        "Order number.",
        "a whole number greater than 0",
        "1024",
        "only looks things up",
    ):
        assert told in text
    assert "- where is order 1024" in text
    assert "- `/order order_id=1024`" in text
    assert "参数" in help_one(ORDER, "zh").text
    assert "`restart-nginx`, `clean_tmp`, `restart-db`" in help_one(REPAIR).text
    assert "approved" in help_one(REPAIR).text
    assert "Without it: `restart-nginx`." in help_one(ANYTHING).text
    assert usage(ANYTHING).startswith("/anything [whole] [real]")


def test_a_question_for_a_value_says_what_is_allowed() -> None:
    reply = ask_parameter(ORDER.parameters[0], ORDER)
    assert reply.text == "`/order` needs `order_id`. Order number. Answer with a whole number greater than 0."
    assert not reply.buttons
    assert not reply.private
    assert "需要 `order_id`" in ask_parameter(ORDER.parameters[0], ORDER, "zh").text
    assert ask_parameter(UNLOCK.parameters[0], UNLOCK).private


@pytest.mark.parametrize("name", ["script", "sure"])
def test_every_button_of_a_question_is_an_answer(name: str) -> None:
    parameter = ANYTHING.parameter(name)
    assert parameter is not None
    buttons = ask_parameter(parameter, ANYTHING).buttons
    assert len(buttons) > 1
    for button in buttons:
        read_value(button.value, parameter)


def test_a_confirmation_shows_every_value_but_sealed_ones() -> None:
    text = confirm_text(REPAIR, {"script": "clean_tmp", "host": "web1\u202e`"})
    assert "- `script`: `clean_tmp`" in text
    assert "web1<U+202E>ˋ" in text
    assert "dangerous" in text
    sealed = confirm_text(UNLOCK, {"password": "swordfish"}, "zh")
    assert "•••" in sealed
    assert "swordfish" not in sealed


def test_an_offer_is_a_row_of_complete_command_lines() -> None:
    nearest = Understander(CATALOGUE).understand("cancel order 1024", {"order", "report", "repair"}).nearest
    reply = offer_text(nearest)
    assert [button.value for button in reply.buttons] == ["/order 1024"]
    for button in reply.buttons:
        command = parse_command(button.value)
        assert command is not None
        assert bind(command, ORDER).values == {"order_id": 1024}
    assert "您是想" in offer_text(nearest, "zh").text
    assert "/help" in offer_text(()).text


def test_an_offer_with_a_very_long_value_has_no_button_for_it() -> None:
    def note(text: str) -> None: ...

    spec = spec_of(note, "note", examples=("note {text}",))
    nearest = Understander([spec]).understand("note " + "x" * 300, {"note"}).nearest
    reply = offer_text(nearest)
    assert not reply.buttons
    assert "/note" in reply.text


def test_a_long_list_is_cut_and_says_how_to_find_the_others() -> None:
    many = [ORDER.model_copy(update={"command": f"job-{number:03d}"}) for number in range(100)]
    text = help_overview(many, "en", most=40).text
    assert text.count("- `/job-") == 40
    assert "... and 60 more: `/help WORD` lists those about it." in text
    assert "还有 60 个" in help_overview(many, "zh", most=40).text
    assert "more:" not in help_overview(many[:40], "en", most=40).text
    assert [one.command for one in about("JOB 07", many, most=3)] == ["job-007", "job-070", "job-071"]
    assert about("an ORDER is", many, most=40)
    assert about("nothing of the sort", many, most=40) == []
