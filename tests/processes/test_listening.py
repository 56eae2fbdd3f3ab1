"""Holding accounts: each for itself, whatever its platform, its SDK, the hub or another process does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from parley.errors import AuthError, ConfigurationError, Rejected, StoreUnavailable, Unknown, Unreachable
from parley.link.calls import CommandMenu, DeliverCall, HookCall
from parley.link.server import LinkServer
from parley.messages.model import CommandEntry, File, HookRequest, HookResponse, Receipt, Reply, Route
from parley.processes.holding import Ended, PrefectAway, with_fewer_files
from parley.processes.listening import Listening, deliver
from tests.processes.listening_hub import Hub, Platform, Radio, account, message

ROUTE = Route(account="one", conversation="c1")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with Hub(tmp_path).serving() as hub:
        hub.accounts = [account("one"), account("two")]
        yield hub


@pytest.fixture
def platform() -> Platform:
    return Platform()


def current() -> Listening | None:
    return Listening.current


def delivery(text: str = "hello", *, again: bool = False, to: str = "one") -> DeliverCall:
    return DeliverCall(
        delivery_id="d1", account=to, reply=Reply(text=text), route=ROUTE, token="t1", again=again
    )


async def test_every_account_of_the_hub_is_held(hub: Hub, platform: Platform) -> None:
    async with platform.listening(hub) as listening:
        await hub.is_told("one", "listening")
        await hub.is_told("two", "listening")
        assert current() is listening
    assert current() is None
    assert (hub.state_of("one"), hub.state_of("two")) == ("stopped", "stopped")
    assert sorted(platform.closed) == ["one", "two"]


async def test_what_is_heard_is_stored_under_the_accounts_own_name(hub: Hub, platform: Platform) -> None:
    async with platform.listening(hub):
        await hub.is_told("one", "listening")
        accept = platform.connectors["one"].accept
        assert accept is not None
        accepted = await accept(message("hi"))
    assert accepted.new
    (event,) = hub.accepted
    assert (event["account"], event["route"]["account"], event["text"]) == ("one", "one", "hi")


async def test_a_store_that_is_unavailable_is_the_connectors_to_know(hub: Hub, platform: Platform) -> None:
    hub.refuse["accept"] = StoreUnavailable("the disk is full")
    async with platform.listening(hub):
        await hub.is_told("one", "listening")
        accept = platform.connectors["one"].accept
        assert accept is not None
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await accept(message("hi"))


async def test_a_hub_that_is_broken_is_a_store_that_is_unavailable(hub: Hub, platform: Platform) -> None:
    """A connector knows one reason not to acknowledge, not two."""
    async with platform.listening(hub):
        await hub.is_told("one", "listening")
        accept = platform.connectors["one"].accept
        assert accept is not None
        hub.refuse["accept"] = ZeroDivisionError("inside of the hub")
        with pytest.raises(StoreUnavailable):
            await accept(message("hi"))


async def test_a_message_with_more_than_one_call_carries_is_taken_without_the_rest(
    hub: Hub, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given back to its platform it would come again for ever, and hold up all that follow."""
    monkeypatch.setattr("parley.link.connection.MAX_FRAME", 5000)
    big = message("look").model_copy(
        update={"files": (File(name="a", content=b"a" * 10), File(name="b", content=b"b" * 6000))}
    )
    async with platform.listening(hub):
        await hub.is_told("one", "listening")
        accept = platform.connectors["one"].accept
        assert accept is not None
        assert (await accept(big)).new
        with pytest.raises(StoreUnavailable, match="too large"):
            await accept(message("x" * 6000, "m2"))
    (event,) = hub.accepted
    assert [file["name"] for file in event["files"]] == ["a"]
    assert event["left_out"] == ["b: too large together with the other files"]


@pytest.mark.parametrize(
    ("sizes", "kept"), [((4, 4, 4), [0, 1]), ((9, 9, 9), [0]), ((11, 1), []), ((1, 1), [0]), ((1,), [])]
)
def test_the_first_files_are_kept_as_far_as_they_fit(sizes: tuple[int, ...], kept: list[int]) -> None:
    files = tuple(File(name=str(number), content=b"x" * size) for number, size in enumerate(sizes))
    lighter = with_fewer_files(message("").model_copy(update={"files": files}), most=10)
    assert [int(file.name) for file in lighter.files] == kept
    assert len(lighter.left_out) == len(files) - len(kept)


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (AuthError("the token was revoked"), "failed", "the token was revoked"),
        (ModuleNotFoundError("no", name="slack_sdk"), "failed", r"pip install 'prefect-parley\[test\]'"),
        (ZeroDivisionError("secret xoxb-1"), "failed", r"^ZeroDivisionError: the log"),
        (SystemExit(3), "failed", "SystemExit"),
        (asyncio.CancelledError(), "failed", "cancelled from within"),
        (PrefectAway("the Block waits for Prefect"), "connecting", "waits for Prefect"),
    ],
)
async def test_an_account_that_fails_disturbs_no_other_and_comes_back(
    hub: Hub, platform: Platform, error: BaseException, state: str, reason: str
) -> None:
    platform.trouble["one"] = error
    async with platform.listening(hub):
        await hub.is_told("two", "listening")
        await hub.until(lambda: hub.state_of("one") == state and hub.reason_of("one"))
        with pytest.raises(Unreachable, match="not connected"):
            await hub.call("deliver", delivery())
        await hub.call("deliver", delivery(to="two"))
        seen = hub.reason_of("one") or next(r for a, s, r in reversed(hub.states) if a == "one" and r)
        del platform.trouble["one"]
        await hub.is_told("one", "listening")
    assert re.search(reason, seen), seen


async def test_a_connection_that_ends_is_made_again(hub: Hub, platform: Platform) -> None:
    async with platform.listening(hub):
        await hub.is_told("one", "listening")
        first = platform.connectors["one"]
        first.fail(RuntimeError("the SDK lost its mind"))
        await hub.is_told("one", "failed")
        await hub.is_told("one", "listening")
        assert platform.connectors["one"] is not first
    assert platform.closed.count("one") == 2


async def test_an_account_is_listening_once_its_platform_answers(hub: Hub, platform: Platform) -> None:
    """The connector tries by itself meanwhile, and what it hears is taken."""
    platform.check_trouble["one"] = Unreachable("no route to chat.example")
    async with platform.listening(hub):
        await hub.until(lambda: ("one", "connecting", "no route to chat.example") in hub.states)
        await hub.until(lambda: "one" in platform.connectors or hub.state_of("one"))
        del platform.check_trouble["one"]
        await hub.is_told("one", "listening")


async def test_refused_credentials_end_the_connection(hub: Hub, platform: Platform) -> None:
    platform.check_trouble["one"] = AuthError("wrong password")
    async with platform.listening(hub):
        await hub.is_told("one", "failed")
        assert hub.reason_of("one") == "wrong password"
        assert "one" in platform.closed


async def test_a_connector_that_does_not_let_go_holds_nobody_up(
    hub: Hub, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley.processes.holding.CLOSE_SECONDS", 0.05)
    platform.stuck.add("one")
    async with asyncio.timeout(5):
        async with platform.listening(hub):
            await hub.is_told("one", "listening")
            stuck = platform.connectors["one"]
        assert (hub.state_of("one"), hub.state_of("two")) == ("stopped", "stopped")
    platform.stuck.clear()
    stuck.fail(RuntimeError("let go after all"))


async def test_accounts_come_and_go(hub: Hub, platform: Platform) -> None:
    async with platform.listening(hub) as listening:
        await hub.is_told("one", "listening")
        hub.accounts = [account("two"), account("three")]
        await hub.call("accounts_changed")
        await hub.is_told("three", "listening")
        await hub.is_told("one", "stopped")
        assert set(listening.holdings) == {"two", "three"}


async def test_only_the_account_whose_block_changed_connects_anew(hub: Hub, platform: Platform) -> None:
    async with platform.listening(hub):
        await hub.is_told("one", "listening")
        await hub.is_told("two", "listening")
        before = dict(platform.connectors)
        platform.blocks["one"] = "other password "
        hub.states.clear()
        await hub.call("accounts_changed")
        await hub.is_told("one", "listening")
        assert platform.connectors["one"] is not before["one"]
        hub.accounts = [account("one"), account("two", block="test/other")]
        await hub.call("accounts_changed")
        await hub.is_told("two", "listening")
        assert platform.connectors["two"] is not before["two"]
        assert [name for name, *_ in hub.states].count("one") == 2, "connecting, listening, and no more"


async def test_a_new_hub_is_told_what_is_held(tmp_path: Path, platform: Platform) -> None:
    """The hub keeps who holds what in memory; after its restart it hears it again, and nobody reconnects."""
    hub = Hub(tmp_path)
    hub.accounts = [account("one")]
    async with platform.listening(hub):
        async with hub.serving():
            await hub.is_told("one", "listening")
        connector = platform.connectors["one"]
        hub.states.clear()
        hub.server = LinkServer(hub.tokens, hub._handlers)
        async with hub.serving():
            await hub.is_told("one", "listening")
            assert platform.connectors["one"] is connector
            assert hub.states == [("one", "listening", "")]


async def test_an_account_that_another_process_holds_is_waited_for(hub: Hub, platform: Platform) -> None:
    hub.others.add("one")
    async with platform.listening(hub) as listening:
        await hub.is_told("two", "listening")
        assert "one" not in platform.connectors
        assert not listening.holdings["one"].confirmed
        hub.others.clear()
        await hub.is_told("one", "listening")


async def test_a_cancelled_account_stays_away_until_the_accounts_change(hub: Hub, platform: Platform) -> None:
    async with platform.listening(hub) as listening:
        holding = asyncio.create_task(listening.hold("one"))
        await hub.is_told("one", "listening")
        await listening.release("one", Ended.CANCELLED, "cancelled in Prefect")
        assert await holding is Ended.CANCELLED
        assert (hub.state_of("one"), hub.reason_of("one")) == ("stopped", "cancelled in Prefect")
        await listening._sync(refresh=False)
        assert await listening.hold("one") is Ended.CANCELLED, "a run that comes late does not take it up"
        assert "one" not in listening.holdings
        await hub.call("accounts_changed")
        await hub.is_told("one", "listening")


async def test_after_the_stop_nothing_is_taken_up(hub: Hub, platform: Platform) -> None:
    """A flow run may be that late: what it joins then has ended."""
    async with platform.listening(hub) as listening:
        await hub.is_told("one", "listening")
        await listening.stop()
        assert await listening.hold("one") is Ended.RELEASED
        await listening._sync(refresh=False)
        assert not listening.holdings


async def test_whoever_joins_a_holding_does_not_end_it(hub: Hub, platform: Platform) -> None:
    async with platform.listening(hub) as listening:
        states: list[str] = []
        joined = asyncio.create_task(listening.hold("one", told=lambda said: states.append(said.state)))
        await hub.is_told("one", "listening")
        joined.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joined
        assert hub.state_of("one") == "listening"
        assert states == ["connecting", "listening"]


async def test_one_account_alone_is_held_where_a_flow_run_has_its_own_process(
    hub: Hub, platform: Platform
) -> None:
    async with platform.listening(hub, everything=False) as listening:
        assert current() is None
        holding = asyncio.create_task(listening.hold("two"))
        await hub.is_told("two", "listening")
        assert hub.state_of("one") == ""
        hub.accounts = [account("one")]
        await hub.call("accounts_changed")
        assert await holding is Ended.RELEASED
        with pytest.raises(ConfigurationError, match="no enabled account"):
            await listening.hold("nonsense")


async def test_a_delivery_goes_out_by_the_accounts_connector(hub: Hub, platform: Platform) -> None:
    async with platform.listening(hub):
        await hub.is_told("one", "listening")
        receipt = Receipt.model_validate(await hub.call("deliver", delivery()))
        assert receipt.native_ids == ("sent-t1",)
        assert platform.connectors["one"].sent == [("t1", "hello")]
        with pytest.raises(Unknown, match="ZeroDivisionError"):
            await hub.call("deliver", delivery("crash"))
        with pytest.raises(Unreachable):
            await hub.call("deliver", delivery(to="nobody"))


class Forgetful(Radio):
    """Cannot be asked what it sent."""


class Asked(Radio):
    """Can be asked, and knows of one message."""

    async def find_sent(self, token: str, route: Route) -> Receipt | None:
        if token == "unclear":
            raise Rejected("the platform does not say")
        return Receipt(native_ids=("there",)) if token == "t1" else None


class Idempotent(Radio):
    """Removes duplicates."""

    capabilities = Radio.capabilities.model_copy(update={"idempotent_send": True})


async def test_a_doubtful_delivery_is_asked_for_before_it_is_sent_again(platform: Platform) -> None:
    with pytest.raises(Unknown, match="cannot tell"):
        await deliver(Forgetful("one", platform), delivery(again=True))
    asked = Asked("one", platform)
    assert (await deliver(asked, delivery(again=True))).native_ids == ("there",)
    assert asked.sent == []
    other = delivery(again=True).model_copy(update={"token": "t2"})
    assert (await deliver(asked, other)).native_ids == ("sent-t2",)
    assert (await deliver(Idempotent("one", platform), delivery(again=True))).native_ids == ("sent-t1",)


async def test_a_hook_reaches_its_account(hub: Hub, platform: Platform) -> None:
    request = HookRequest(method="POST", path="/hooks/one", headers={}, body=b"ring")

    async def ring(name: str) -> Any:
        return HookResponse.model_validate(await hub.call("hook", HookCall(account=name, request=request)))

    async with platform.listening(hub):
        await hub.is_told("one", "listening")
        answer = await ring("one")
        assert (answer.status, answer.body) == (200, b"id-1")
        assert hub.accepted[0]["account"] == "one"
        assert (await ring("nobody")).status == 503


async def test_the_menu_of_commands_is_given_to_present_and_later_accounts(
    hub: Hub, platform: Platform
) -> None:
    hub.accounts = [account("one")]
    menu = CommandMenu(commands=(CommandEntry(name="order", summary="Show where an order is."),))
    async with platform.listening(hub):
        await hub.is_told("one", "listening")
        await hub.call("command_menu", menu)
        hub.accounts = [account("one"), account("two")]
        await hub.call("accounts_changed")
        await hub.is_told("two", "listening")
        async with asyncio.timeout(5):
            await platform.connectors["two"].has_menu.wait()
        assert platform.connectors["one"].menu == platform.connectors["two"].menu == menu.commands
