"""Plain language: the development sentences that the thresholds were set on, and the rules that keep it safe."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.language.understanding import Understander, Understanding
from parley.runs.catalogue import AutomationSpec
from tests.language.automations import CATALOGUE, ORDER, REMEMBER, REPAIR, REPORT, spec_of

ALL = frozenset(spec.command for spec in CATALOGUE)
UNDERSTANDER = Understander(CATALOGUE)

# (message, command that is meant, values that the message gives)
MEANT: list[tuple[str, str, dict[str, Any]]] = [
    ("where is order 1024", "order", {"order_id": 1024}),
    ("Where's order 1024?", "order", {"order_id": 1024}),
    ("where is my order 1024 please", "order", {"order_id": 1024}),
    ("order 1024 status", "order", {"order_id": 1024}),
    ("what's the status of order #77", "order", {"order_id": 77}),
    ("can you track order 5", "order", {"order_id": 5}),
    ("tracking for order 5", "order", {"order_id": 5}),
    ("查一下订单 1024 的物流", "order", {"order_id": 1024}),
    ("帮我查订单1024的物流", "order", {"order_id": 1024}),
    ("订单1024到哪里了？", "order", {"order_id": 1024}),
    ("订单 1024 发货了吗", "order", {"order_id": 1024}),
    ("查订单物流", "order", {}),
    ("where is my order", "order", {}),
    ("run restart-nginx on web1", "repair", {"script": "restart-nginx", "host": "web1"}),
    ("please repair web1 with clean_tmp", "repair", {"script": "clean_tmp", "host": "web1"}),
    ("run clean-tmp on db-1.example.com now", "repair", {"script": "clean_tmp", "host": "db-1.example.com"}),
    ("在 web1 上运行 restart-db", "repair", {"script": "restart-db", "host": "web1"}),
    ("帮我用restart-nginx修复web1", "repair", {"script": "restart-nginx", "host": "web1"}),
    ("make the daily report", "report", {}),
    ("I need the daily report", "report", {}),
    ("show the report of 2026-11-05", "report", {"day": "2026-11-05"}),
    ("日报", "report", {}),
    ("请生成今天的日报", "report", {}),
    ("生成2026年11月5日的日报", "report", {"day": "2026-11-05"}),
    ("给我看一下今天的日报", "report", {}),
]

# Nothing here may run by itself.
NOT_MEANT = [
    "cancel order 1024",
    "取消订单 1024",
    "don't track order 5",
    "不要查订单 1024",
    "别在web1上运行clean-tmp",
    "where is order 1024 and 1025",
    "where is order 1024 if it rains",
    "why is order 1024 late",
    "delete all orders",
    "I want to order a pizza",
    "order 2 pizzas",
    "who can see the report",
    "我看了日报",
    "what is this report about",
    "send the daily report to everybody",
    "a report on order 55",
    "订单报告",
    "删除日报",
    "yesterday's report",
    "why did you run clean-tmp on web1",
    "run clean-tmp and restart-db on web1",
    "run rm -rf on web1",
    "run away on holiday",
    "don't run restart-nginx on web1",
    "in order to report a problem",
    "the status of the world",
    "report order 1024",
]

FAR_OUT = [
    "hello",
    "你好",
    "谢谢",
    "what's the weather in Berlin",
    "今天天气怎么样",
    "tell me a joke",
    "讲个笑话",
    "who won the match",
    "明天几点开会",
    "1024",
    "?",
    "asdfghjkl",
    "how old are you",
    "我饿了",
    "帮我写一首诗",
]


@pytest.mark.parametrize(("text", "command", "values"), MEANT)
def test_what_is_meant_is_sure_or_offered_first(text: str, command: str, values: dict[str, Any]) -> None:
    understood = UNDERSTANDER.understand(text, ALL)
    assert understood.nearest[0].command == command
    assert understood.nearest[0].values == values
    if understood.sure is not None:
        assert understood.sure == understood.nearest[0]


def test_most_of_what_is_meant_is_sure() -> None:
    complete = [text for text, command, values in MEANT if command == "report" or values]
    sure = [text for text in complete if UNDERSTANDER.understand(text, ALL).sure]
    assert len(sure) / len(complete) >= 0.75, sorted(set(complete) - set(sure))


@pytest.mark.parametrize("text", NOT_MEANT + FAR_OUT)
def test_nothing_that_is_not_meant_is_sure(text: str) -> None:
    assert UNDERSTANDER.understand(text, ALL).sure is None


@pytest.mark.parametrize("text", [*FAR_OUT, "", " ", "。。。", "\x00", "\ud800", "🎉" * 100])
def test_far_out_of_scope_offers_nothing(text: str) -> None:
    assert UNDERSTANDER.understand(text, ALL) == Understanding()


def test_only_what_is_allowed_is_proposed() -> None:
    for text, command, _ in MEANT:
        understood = UNDERSTANDER.understand(text, ALL - {command})
        assert understood.sure is None
        assert command not in {one.command for one in understood.nearest}
    assert UNDERSTANDER.understand("where is order 5", ()) == Understanding()


def test_an_example_of_two_automations_is_not_sure() -> None:
    twin = ORDER.model_copy(update={"command": "parcel"})
    both = Understander([*CATALOGUE, twin])
    understood = both.understand("where is order 5", {"order", "parcel"})
    assert understood.sure is None
    assert [(one.command, one.values) for one in understood.nearest] == [
        ("order", {"order_id": 5}),
        ("parcel", {"order_id": 5}),
    ]
    assert both.understand("where is order 5", {"order"}).sure is None


def privately(order_id: int, private: bool = False) -> None: ...


def test_a_required_value_that_the_example_lacks_is_missing() -> None:
    spec = ORDER.model_copy(update={"examples": ("where is my parcel",)})
    sure = Understander([spec]).understand("where is my parcel?", {"order"}).sure
    assert sure is not None
    assert [one.name for one in sure.missing] == ["order_id"]


def test_what_a_sentence_means_is_never_taken_from_one_that_is_only_near() -> None:
    """Nobody may be answered in public who asked in private, only because the words stood in another order."""
    spec = spec_of(
        privately,
        "report",
        summary="Send the report of an order.",
        examples=(
            "send me the report of order {order_id}",
            "send me the report of order {order_id} privately {private=yes}",
        ),
    )
    understander = Understander((spec,))
    plain = understander.understand("send me the report of order 7", {"report"}).sure
    assert plain is not None
    assert plain.values == {"order_id": 7}
    meant = understander.understand("please send me the report of order 7 privately", {"report"}).sure
    assert meant is not None
    assert meant.values == {"order_id": 7, "private": True}
    near = understander.understand("privately, send me the report of order 7", {"report"})
    assert near.sure is None
    assert near.nearest[0].command == "report"


def test_two_numbers_are_not_chosen_from() -> None:
    (best, *_) = UNDERSTANDER.understand("where is order 1024 or 1025", ALL).nearest
    assert best.values == {}
    assert [one.name for one in best.missing] == ["order_id"]


def test_two_texts_of_the_same_sort_are_not_mixed_up() -> None:
    def move(source: str, target: str) -> None: ...

    spec = spec_of(move, "move", examples=("move {source} to {target}",))
    understood = Understander([spec, REPORT, REMEMBER]).understand(
        "quickly move a-1 to b-2 over night", {"move"}
    )
    assert understood.sure is None
    assert understood.nearest[0].values == {"source": "a-1", "target": "b-2"}


def test_every_value_stands_in_the_message() -> None:
    for text, _, _ in MEANT:
        for proposal in UNDERSTANDER.understand(text, ALL).nearest:
            assert set(proposal.values) <= {"order_id", "script", "host", "day"}
            if "order_id" in proposal.values:
                assert str(proposal.values["order_id"]) in text


def test_a_long_message_is_never_sure() -> None:
    assert UNDERSTANDER.understand("where is order 5" + " " * 3000 + "cancel it", ALL).sure is None


def test_a_broken_example_spoils_nothing() -> None:
    spec = ORDER.model_copy(update={"examples": ("{nonsense} {", "where is order {order_id}", "", "}{")})
    assert Understander([spec]).understand("where is order 5", {"order"}).sure is not None
    assert Understander([]).understand("where is order 5", ALL) == Understanding()


def many(count: int) -> list[AutomationSpec]:
    made = []
    for number in range(count):
        model = (ORDER, REPAIR, REPORT)[number % 3]
        thing, han = f"thing{number}", chr(0x4E00 + number)
        examples = tuple(
            one.replace("order ", f"{thing} ").replace("report", thing).replace("订单", f"订{han}")
            for one in model.examples
        )
        made.append(model.model_copy(update={"command": f"{thing}-{model.command}", "examples": examples}))
    return made


@pytest.mark.parametrize(("count", "limit"), [(50, 0.002), (1000, 0.02)])
@pytest.mark.serial
def test_takes_milliseconds(count: int, limit: float) -> None:
    """The fastest of several, as the machine may be busy; ten times the promised time is left for slow machines."""
    specs = many(count)
    understander = Understander(specs)
    allowed = {spec.command for spec in specs}
    times = []
    for text in ["where is thing12 1024 today", "查一下订一 1024 现在的物流"] * 5:
        started = time.perf_counter()
        understander.understand(text, allowed)
        times.append(time.perf_counter() - started)
    assert sorted(times)[len(times) // 2] < limit * 10


@pytest.mark.parametrize(
    "text", ["x " * 500_000, "订单" * 500_000, "run on " * 150_000, "1 " * 500_000, "-" * 1_000_000]
)
def test_a_megabyte_takes_no_time(text: str) -> None:
    started = time.process_time()
    UNDERSTANDER.understand(text, ALL)
    assert time.process_time() - started < 1


WORDS = st.sampled_from(
    [
        "where",
        "is",
        "order",
        "track",
        "run",
        "on",
        "repair",
        "with",
        "restart-nginx",
        "clean_tmp",
        "web1",
        "1024",
        "5",
        "the",
        "report",
        "daily",
        "make",
        "订单",
        "查",
        "的",
        "物流",
        "日报",
        "生成",
        "不要",
        "在",
        "上",
        "运行",
    ]
)


@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=80))
def test_any_text_is_understood_or_not_without_an_error(text: str) -> None:
    understood = UNDERSTANDER.understand(text, ALL)
    assert len(understood.nearest) <= 3
    if understood.sure is not None:
        assert understood.sure.command in ALL
