"""`say`, `ask`, `current_message`, `log_action`: in a granted run over the real link, and outside one."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from pydantic import BaseModel, Field, field_validator

from parley import AutomationError, Reply, ask, automation, current_message, log_action, publish, say
from parley.errors import Denied, StoreUnavailable
from parley.messages.model import Message, Route, Sender
from parley.runs.hub_thread import HubThread
from tests.runs.fake_hub import FakeHub, hub
from tests.runs.prefect_client import IN_PREFECT, prefect_api, run_deployed

__all__ = ["hub", "prefect_api"]


class Address(BaseModel):
    """Where should it go?"""

    street: str
    number: int = Field(ge=1)

    @field_validator("street")
    @classmethod
    def _known(cls, street: str) -> str:
        if street == "Nowhere":
            raise ValueError("no such street")
        return street


class Choice(BaseModel):
    size: int = 3


@automation(command="asks")
@flow(name="asks")
async def asks() -> str:
    say("before")
    address = await ask(Address)
    say("after")
    return f"{address.street} {address.number}"


@automation(command="asks-sync")
@flow(name="asks-sync")
def asks_sync() -> str:
    return str(ask(Address, "Where?").result().number)


@automation(command="blocks")
@flow(name="blocks")
async def blocks() -> str:
    return ask(Address).result().street


@automation(command="chatty")
@flow(name="chatty")
async def chatty() -> None:
    for number in range(50):
        say(str(number))


@task
def speak() -> None:
    say("from a task's thread")


@automation(command="tasked")
@flow(name="tasked")
def tasked() -> None:
    speak.submit().result()


@automation(command="logs")
@flow(name="logs")
async def logs() -> None:
    log_action("restart", {"host": "web1", "tries": 2})


@automation(command="publishes")
@flow(name="publishes")
async def publishes() -> None:
    publish("shop.order.late", {"order": 7}, title="Order 7 is late", key="7", severity="warning")
    publish("shop.order.here", {"order": 7}, key="7", closes=True)


@automation(command="reads")
@flow(name="reads")
async def reads() -> str:
    message = current_message()
    return message.text if message else "nothing"


class TestInARun:
    pytestmark = IN_PREFECT

    async def test_an_answer_is_given_as_the_model(self, hub: FakeHub) -> None:
        async def answer(_args: dict[str, Any]) -> dict[str, Any]:
            return {"street": "Main", "number": "7"}

        hub.answers["ask"] = answer
        state = await run_deployed(asks)
        assert await state.aresult() == "Main 7"
        assert hub.names() == ["start", "say", "ask", "say", "finish"]
        (question,) = hub.of("ask")
        assert question["text"] == "Where should it go?"
        assert set(question["json_schema"]["properties"]) == {"street", "number"}

    async def test_a_sync_flow_waits_for_the_result(self, hub: FakeHub) -> None:
        async def answer(_args: dict[str, Any]) -> dict[str, Any]:
            return {"street": "Main", "number": 8}

        hub.answers["ask"] = answer
        state = await run_deployed(asks_sync)
        assert await state.aresult() == "8"

    async def test_an_answer_that_does_not_fit_is_asked_for_again(self, hub: FakeHub) -> None:
        async def answer(_args: dict[str, Any]) -> dict[str, Any]:
            return {"street": "Nowhere" if len(hub.of("ask")) == 1 else "Main", "number": 1}

        hub.answers["ask"] = answer
        state = await run_deployed(asks)
        assert await state.aresult() == "Main 1"
        first, second = hub.of("ask")
        assert "no such street" in second["text"]
        assert first["ordinal"] != second["ordinal"]

    async def test_async_code_is_told_to_await(self, hub: FakeHub) -> None:
        state = await run_deployed(blocks)
        assert state.is_failed()
        assert "await ask" in hub.finish().reason

    async def test_progress_arrives_in_order_and_before_the_end(self, hub: FakeHub) -> None:
        await run_deployed(chatty)
        assert [args["reply"]["text"] for args in hub.of("say")] == [str(number) for number in range(50)]
        ordinals = [args["ordinal"] for args in hub.of("say")]
        assert ordinals == sorted(set(ordinals))
        assert hub.names()[-1] == "finish"

    async def test_another_epoch_counts_above_the_first(self, hub: FakeHub) -> None:
        hub.started = hub.started.model_copy(update={"epoch": 2})
        await run_deployed(chatty)
        assert min(args["ordinal"] for args in hub.of("say")) > 50

    async def test_a_task_in_a_thread_speaks_for_its_run(self, hub: FakeHub) -> None:
        await run_deployed(tasked)
        assert hub.of("say")[0]["reply"]["text"] == "from a task's thread"

    async def test_an_action_is_recorded_as_text(self, hub: FakeHub) -> None:
        await run_deployed(logs)
        (row,) = hub.of("log_action")
        assert (row["action"], row["details"]) == ("restart", {"host": "web1", "tries": "2"})

    async def test_a_run_is_not_done_without_its_record(self, hub: FakeHub) -> None:
        hub.refuse["log_action"] = Denied("the log is closed.")
        state = await run_deployed(logs)
        assert state.is_failed()

    async def test_events_are_published_in_order_each_with_its_number(self, hub: FakeHub) -> None:
        state = await run_deployed(publishes)
        assert state.is_completed()
        first, second = hub.of("publish")
        assert (first["topic"], first["data"], first["severity"]) == (
            "shop.order.late",
            {"order": 7},
            "warning",
        )
        assert second["closes"]
        assert second["ordinal"] > first["ordinal"]
        assert hub.names()[-1] == "finish"

    async def test_a_run_is_not_done_without_its_event(self, hub: FakeHub) -> None:
        hub.refuse["publish"] = Denied("not this topic.")
        state = await run_deployed(publishes)
        assert state.is_failed()

    async def test_the_message_that_asked_is_there(self, hub: FakeHub) -> None:
        route = Route(account="console", conversation="c")
        message = Message(
            account="console", native_id="1", sender=Sender(id="ada"), route=route, text="/reads 你好"
        )
        hub.started = hub.started.model_copy(update={"message": message})
        state = await run_deployed(reads)
        assert await state.aresult() == "/reads 你好"

    async def test_the_answer_speaks_the_persons_language(self, hub: FakeHub) -> None:
        hub.started = hub.started.model_copy(update={"language": "zh"})
        await run_deployed(chatty)
        reply = hub.finish().reply
        assert reply is not None
        assert reply.text == "已完成。"


class TestOutside:
    def test_speaking_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "parley"):
            say("hello")
            say(Reply(text="you"))
            log_action("restart")
        assert [record.getMessage() for record in caplog.records] == [
            "say: hello",
            "say: you",
            "action: restart {}",
        ]

    async def test_a_question_has_its_default(self) -> None:
        assert (await ask(Choice)).size == 3
        assert ask(Choice).result().size == 3
        given = Address(street="Main", number=1)
        assert await ask(Address, default=given) is given

    def test_a_question_without_default_says_what_to_do(self) -> None:
        with pytest.raises(AutomationError, match="nobody to ask"):
            ask(Address).result()

    def test_there_is_no_message(self) -> None:
        assert current_message() is None


class _Away:
    """A hub that cannot store for a while."""

    def __init__(self, fails: int) -> None:
        self.fails = fails
        self.closed = False

    async def call(self, name: str, args: BaseModel, *, timeout: float | None = 60.0) -> Any:
        self.fails -= 1
        if self.fails >= 0:
            raise StoreUnavailable("full")
        return name

    async def aclose(self) -> None:
        self.closed = True


class TestHubThread:
    def test_it_insists_while_errors_may_pass(self, tmp_path: Path) -> None:
        away = _Away(2)

        async def connect() -> _Away:
            return away

        thread = HubThread(connect)
        assert thread.submit(thread.insist("finish", Choice(), within=30)).result(30) == "finish"
        thread.close()
        assert away.closed

    def test_it_gives_up_in_time(self) -> None:
        async def connect() -> _Away:
            return _Away(10**6)

        thread = HubThread(connect)
        with pytest.raises(StoreUnavailable):
            thread.submit(thread.insist("finish", Choice(), within=0.5)).result(30)
        thread.close()

    def test_closing_ends_what_waits(self) -> None:
        async def connect() -> _Away:
            return _Away(0)

        thread = HubThread(connect)
        waiting = thread.submit(asyncio.sleep(3600))
        thread.close()
        assert waiting.cancelled()
        thread.close()


class TestPublishing:
    @pytest.mark.parametrize("topic", ["", "Shop.late", "a..b", "a b", "x" * 401])
    def test_what_is_no_topic_is_refused_where_it_is_written(self, topic: str) -> None:
        with pytest.raises(AutomationError):
            publish(topic)

    @pytest.mark.parametrize("data", [{"x": "y" * 70_000}, {"x": object()}])
    def test_data_is_small_json(self, data: dict[str, Any]) -> None:
        with pytest.raises(AutomationError, match="cannot be published"):
            publish("shop.late", data)

    def test_outside_a_run_it_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        publish("shop.late", title="Order 7 is late")
        assert "Order 7 is late" in caplog.text
