"""`@automation`: what it promises around a flow, against a real Prefect server and the real link."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Annotated, Any

import cloudpickle  # type: ignore[import-untyped]
import pytest
from prefect import Flow, flow
from prefect.exceptions import Abort
from prefect.flow_runs import asuspend_flow_run
from prefect.states import Failed
from pydantic import AfterValidator, Field

import parley
from parley import AutomationError, Sealed, Subscription, automation, current_message, say
from parley.errors import BadArguments, ConfigurationError, StartedElsewhere, StartRefused, StoreUnavailable
from parley.link.calls import Started
from parley.runs.automation import declaration_of
from tests.runs.fake_hub import FakeHub, hub
from tests.runs.prefect_client import IN_PREFECT, deployed_run, executed, prefect_api, read_run, run_deployed

__all__ = ["hub", "prefect_api"]


@automation(command="double", summary="Double a number.", examples=["double {n}"])
@flow
def double(n: Annotated[int, Field(gt=0)]) -> int:
    say("doubling")
    return n * 2


@automation(command="adouble", effect="write")
@flow
async def adouble(n: int = 2) -> int:
    """Double, later."""
    say("doubling")
    return n * 2


def _even(n: int) -> int:
    if n % 2:
        raise ValueError("has to be even")
    return n


@automation(command="even")
@flow
async def even(n: Annotated[int, AfterValidator(_even)]) -> int:
    return n


@automation(command="broken")
@flow
async def broken() -> None:
    raise RuntimeError("password=hunter2")


@automation(command="sorry")
@flow
def sorry() -> None:
    raise AutomationError("the stock system is closed on Sundays.")


@automation(command="slow", time_limit=0.3)
@flow
async def slow() -> None:
    await asyncio.sleep(30)


@automation(command="slow-sync", time_limit=0.5)
@flow
def slow_sync() -> None:
    for _ in range(3000):
        threading_wait(0.01)


def threading_wait(seconds: float) -> None:
    import threading

    threading.Event().wait(seconds)


def _spare(n: int) -> str:
    return f"spare {n}"


@automation(command="spared", fallback=_spare)
@flow
async def spared(n: int) -> str:
    raise ConnectionError("primary is away")


@automation(command="secret")
@flow
async def secret(key: Sealed[int], who: str = "me") -> str:
    return f"{type(key).__name__} {who}"


@automation(command="waiting")
@flow
async def waiting() -> None:
    say("here")
    await asyncio.sleep(60)


@automation(command="pausing")
@flow(persist_result=True)
async def pausing() -> None:
    await asuspend_flow_run(timeout=600)


@automation(command="stated")
@flow
async def stated() -> Any:
    return Failed(message="not today.")


@flow
async def outer() -> int:
    return await adouble(4)


# -- declaring


def test_it_returns_the_same_flow() -> None:
    @flow
    def plain() -> None: ...

    assert automation(command="plain")(plain) is plain
    assert isinstance(plain, Flow)


def test_the_signature_and_the_schema_stay() -> None:
    import inspect

    assert list(inspect.signature(double.fn).parameters) == ["n"]
    assert double.parameters.properties["n"]["exclusiveMinimum"] == 0
    assert not inspect.iscoroutinefunction(double.fn)
    assert inspect.iscoroutinefunction(adouble.fn)


def test_command_and_summary_have_defaults() -> None:
    declared = declaration_of(adouble)
    assert declared is not None
    assert (declared.command, declared.summary) == ("adouble", "Double, later.")


def test_an_option_of_the_flow_may_still_be_changed() -> None:
    again = double.with_options(name="again")
    assert declaration_of(again) is declaration_of(double)


def _function() -> None: ...


@flow(retries=2)
def _retried() -> None: ...


@flow
def _generator() -> Any:
    yield 1


@flow
def _many(*things: int) -> None: ...


@flow
def _hidden(thing: list[Sealed[str]]) -> None: ...


@flow
def _plain(n: int) -> None: ...


@flow(on_completion=[lambda *_: None])
def _hooked(n: int) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "options", "says"),
    [
        (_function, {}, "above @flow"),
        (_retried, {}, "@step"),
        (_generator, {}, "yields"),
        (_many, {}, "things"),
        (_hidden, {}, "whole type"),
        (_plain, {"command": "Über"}, "cannot be typed"),
        (_plain, {"examples": ["do {x}"]}, "'x'"),
        (_plain, {"alert_after": 0}, "alert_after"),
        (_plain, {"time_limit": 0}, "time_limit"),
        (_plain, {"on": "A.b"}, "pattern"),
        (_plain, {"on": Subscription(pattern="a.b", parameters={"x": "{x}"})}, "no parameter"),
        (_plain, {"batch": 0}, "from 1"),
        (_plain, {"batch": 101}, "to 100"),
        (_plain, {"batch": 2, "effect": "write"}, "only an automation with effect"),
        (_plain, {"batch": 2, "isolation": "container"}, "container"),
        (_hooked, {"batch": 2}, "on_completion hooks"),
        (double, {}, "already"),
    ],
)
def test_what_cannot_be_offered_is_refused(wrong: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        automation(**{"command": "x", **options})(wrong)


# -- outside a run of the hub


def test_it_can_be_sent_to_another_process_as_flow_serve_does() -> None:
    @flow
    async def answered(n: int) -> int:
        return n

    offered = automation(batch=5, time_limit=9)(answered)
    again = cloudpickle.loads(cloudpickle.dumps(offered))
    assert again.name == "answered"


def test_the_function_is_a_function() -> None:
    assert double.fn(n=4) == 8


def test_parameters_are_validated_without_a_hub_too() -> None:
    with pytest.raises(BadArguments, match="n: Input should be greater than 0"):
        double.fn(n=-4)


def test_names_that_need_prefect_are_loaded_when_used() -> None:
    """Supervisor and hub import the package and never Prefect."""
    script = (
        "import sys, parley; parley.say, parley.Reply, parley.Sealed; assert 'prefect' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_all_public_names_are_there() -> None:
    assert sorted(parley.__all__) == parley.__all__
    assert all(getattr(parley, name) for name in parley.__all__)
    assert set(parley.__all__) <= set(dir(parley))
    with pytest.raises(AttributeError, match="nothing"):
        _ = parley.nothing


class TestInPrefect:
    """In flow runs of a real server."""

    pytestmark = IN_PREFECT

    async def test_a_plain_call_never_asks_the_hub(self, hub: FakeHub) -> None:
        assert await adouble(3) == 6
        assert hub.calls == []

    async def test_a_sub_flow_never_asks_the_hub(self, hub: FakeHub) -> None:
        assert await outer() == 8
        assert hub.calls == []

    @pytest.mark.parametrize("automated", [double, adouble], ids=["sync", "async"])
    async def test_a_deployed_run_starts_speaks_and_finishes(
        self, hub: FakeHub, automated: Flow[..., Any]
    ) -> None:
        flow_run = await deployed_run(automated, n=5)
        state = await executed(automated, flow_run)
        assert state.is_completed()
        assert await state.aresult() == 10
        assert hub.names() == ["start", "say", "finish"]
        (start,) = hub.of("start")
        assert start["flow_run_id"] == str(flow_run.id)
        assert start["parameters"] == {"n": 5}
        assert start["token"] == "t1"
        finish = hub.finish()
        assert (finish.outcome, finish.run_id, finish.epoch) == ("done", "r1", 1)
        assert finish.reply is not None
        assert finish.reply.text == "10"

    async def test_a_refused_start_is_the_reason_in_the_state(self, hub: FakeHub) -> None:
        hub.refuse["start"] = StartRefused("write automations need a grant.")
        state = await run_deployed(adouble)
        assert state.is_failed()
        assert "need a grant" in (state.message or "")
        assert hub.names() == ["start"]

    @pytest.mark.parametrize("automated", [adouble, double], ids=["async", "sync"])
    async def test_what_another_flow_run_answers_is_cancelled_here(
        self, hub: FakeHub, automated: Flow[..., Any]
    ) -> None:
        hub.refuse["start"] = StartedElsewhere("this request is answered in another flow run.")
        state = await run_deployed(automated, n=3)
        assert state.is_cancelled()
        assert "in another flow run" in (state.message or "")
        assert hub.names() == ["start"]

    async def test_wrong_arguments_are_told_as_such(self, hub: FakeHub) -> None:
        state = await run_deployed(even, n=3)
        assert state.is_failed()
        assert hub.finish().kind == "arguments"
        assert hub.finish().reason == "n: has to be even."

    async def test_a_foreign_error_shows_its_type_only(self, hub: FakeHub) -> None:
        state = await run_deployed(broken)
        assert state.is_failed()
        assert hub.finish().kind == "error"
        assert "RuntimeError" in hub.finish().reason
        assert "hunter2" not in hub.finish().reason

    async def test_an_error_of_the_author_is_shown(self, hub: FakeHub) -> None:
        await run_deployed(sorry)
        assert hub.finish().reason == "the stock system is closed on Sundays."

    @pytest.mark.parametrize("automated", [slow, slow_sync], ids=["async", "sync"])
    async def test_a_time_out_is_told(self, hub: FakeHub, automated: Flow[..., Any]) -> None:
        state = await run_deployed(automated)
        assert state.name == "TimedOut"
        assert hub.finish().kind == "timeout"

    async def test_the_alternative_runs_once_and_the_answer_says_so(self, hub: FakeHub) -> None:
        state = await run_deployed(spared, n=7)
        assert await state.aresult() == "spare 7"
        finish = hub.finish()
        assert finish.fell_back
        assert finish.reply is not None
        assert finish.reply.text.startswith("spare 7")
        assert "alternative" in finish.reply.text

    async def test_a_sealed_parameter_is_opened_inside(self, hub: FakeHub) -> None:
        hub.started = hub.started.model_copy(update={"sealed": {"key": "42"}})
        flow_run = await deployed_run(secret, key="sealed:abc")
        state = await executed(secret, flow_run)
        assert await state.aresult() == "int me"
        assert "42" not in str((await read_run(flow_run)).parameters)

    async def test_an_unopened_seal_never_reaches_the_function(self, hub: FakeHub) -> None:
        state = await run_deployed(secret, key="sealed:abc")
        assert state.is_failed()
        assert hub.finish().kind == "arguments"

    async def test_cancellation_ends_an_async_flow(self, hub: FakeHub) -> None:
        async def no(_args: dict[str, Any]) -> bool:
            return not hub.of("say")

        hub.started = hub.started.model_copy(update={"lease": 0.3})
        hub.answers["beat"] = no
        state = await run_deployed(waiting)
        assert state.is_cancelled()
        assert hub.names() == ["start", "say"]

    async def test_a_suspended_run_is_told_as_such(self, hub: FakeHub) -> None:
        flow_run = await deployed_run(pausing)
        with pytest.raises(BaseException) as raised:  # noqa: PT011 - Prefect's signal is no Exception
            await executed(pausing, flow_run)
        assert type(raised.value).__name__ == "Pause"
        assert hub.finish().outcome == "suspended"
        assert (await read_run(flow_run)).state_name == "Suspended"

    async def test_a_hub_that_cannot_store_is_asked_again(self, hub: FakeHub) -> None:
        hub.refuse["finish"] = StoreUnavailable("the disk is full.")

        async def free_later() -> None:
            await asyncio.to_thread(hub.wait_for, "finish", 2)
            hub.refuse.clear()

        state, _ = await asyncio.gather(run_deployed(adouble), free_later())
        assert state.is_completed()
        assert len(hub.of("finish")) >= 3

    async def test_a_run_that_was_given_up_leaves_prefect_alone(self, hub: FakeHub) -> None:
        hub.refuse["finish"] = StartRefused("this run was given up as lost.")
        flow_run = await deployed_run(adouble)
        with pytest.raises(Abort):
            await executed(adouble, flow_run)
        assert (await read_run(flow_run)).state_name == "Running"

    async def test_a_failed_state_of_the_author_is_a_failure(self, hub: FakeHub) -> None:
        state = await run_deployed(stated)
        assert state.is_failed()
        assert hub.finish().outcome == "failed"
        assert hub.finish().reason == "not today."

    async def test_ours_does_not_run_where_the_hub_is_not_known(
        self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PARLEY_HOME")
        state = await run_deployed(adouble)
        assert state.is_failed()
        assert "PARLEY_HUB" in (state.message or "")

    async def test_somebody_elses_deployment_runs_as_a_plain_flow(
        self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PARLEY_HOME")
        flow_run = await deployed_run(adouble, tags=["mine"])
        state = await executed(adouble, flow_run)
        assert state.is_completed()


def test_the_message_is_there_only_in_a_run() -> None:
    assert current_message() is None
    assert Started.model_fields["message"].default is None
