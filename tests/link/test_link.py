"""The link: calls both ways, errors as their class, and calls that survive the hub's restart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json, to_json
from websockets.asyncio.client import unix_connect

from parley.errors import LinkError, RateLimited, StartRefused, TooLarge
from parley.link.calls import FinishCall, Hello, ProveCall, Role
from parley.link.client import HubClient
from parley.link.connection import UNPROVEN_FRAME, Handler
from parley.link.server import LinkServer, Peer, make_tokens


def answering(**handlers: Handler) -> Any:
    def handlers_of(peer: Peer) -> Mapping[str, Handler]:
        return handlers

    return handlers_of


async def echo(args: dict[str, Any]) -> dict[str, Any]:
    return args


async def test_a_call_is_answered(tmp_path: Path) -> None:
    """What the hub's handler returns is what the caller gets."""
    tokens = make_tokens(tmp_path)
    server = LinkServer(tokens, answering(echo=echo))
    async with (
        server.listen(tmp_path / "hub.sock"),
        HubClient(f"unix:{tmp_path}/hub.sock", Role.WORKER, tokens[Role.WORKER]) as client,
    ):
        assert await client.call("echo", {"text": "你好"}) == {"text": "你好"}


async def test_the_hub_calls_back(tmp_path: Path) -> None:
    """A process that said hello can be called by the hub."""
    tokens = make_tokens(tmp_path)
    joined: asyncio.Queue[Peer] = asyncio.Queue()
    server = LinkServer(tokens, answering(), joined=joined.put_nowait)
    async with (
        server.listen(tmp_path / "hub.sock"),
        HubClient(
            f"unix:{tmp_path}/hub.sock", Role.LISTENERS, tokens[Role.LISTENERS], handlers={"echo": echo}
        ),
    ):
        peer = await joined.get()
        assert await peer.call("echo", {"n": 1}) == {"n": 1}


@pytest.mark.parametrize(
    "frame",
    [
        "", "{", "[]", "7", '"a"', "null", "[" * 5000, "{}", '{"id": "1", "call": "hello"}',
        '{"id": [1], "result": 1}', '{"id": true, "call": "hello"}', '{"id": 1, "call": 7}',
        '{"id": 1, "call": "echo", "args": [1]}', '{"id": 1, "error": "x"}', b"\xff\xfe",
    ],
    ids=repr,
)  # fmt: skip
async def test_what_is_no_frame_ends_the_connection_and_nothing_else(
    tmp_path: Path, frame: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = make_tokens(tmp_path)
    server = LinkServer(tokens, answering(echo=echo))
    path = str(tmp_path / "hub.sock")
    async with (
        server.listen(tmp_path / "hub.sock"),
        HubClient(f"unix:{path}", Role.WORKER, tokens[Role.WORKER]) as client,
    ):
        async with unix_connect(path, uri="ws://localhost/") as stranger:
            await stranger.send(frame)
            await asyncio.wait_for(stranger.wait_closed(), 10)
        assert stranger.close_code == 1008
        assert await client.call("echo", {"n": 1}) == {"n": 1}
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("wait", ["x", "nan", "inf", None, [1], "-5"])
async def test_an_error_that_cannot_be_read_is_one_still(tmp_path: Path, wait: object) -> None:
    """Another version of us may say more, or less, than this one knows."""
    joined: asyncio.Queue[Peer] = asyncio.Queue()
    server = LinkServer({}, answering(), joined=joined.put_nowait)
    path = str(tmp_path / "hub.sock")
    async with server.listen(tmp_path / "hub.sock"), unix_connect(path, uri="ws://localhost/") as other:
        hello = {"id": 1, "call": "hello", "args": Hello(role=Role.RUN, pid=1)}
        await other.send(to_json(hello).decode())
        await other.recv()
        calling = asyncio.create_task((await joined.get()).call("echo"))
        asked = from_json(await other.recv())
        error = {"type": "RateLimited", "message": 7, "retry_after": wait}
        await other.send(to_json({"id": asked["id"], "error": error}).decode())
        with pytest.raises(RateLimited) as limited:
            await calling
    assert 0 <= limited.value.retry_after <= 1


async def test_who_has_proven_nothing_sends_nothing_large(tmp_path: Path) -> None:
    """The hub neither keeps nor reads what is large, said to be a hello, or a call of a run with no token."""
    tokens = make_tokens(tmp_path)
    heard: list[int] = []

    async def refuse(args: dict[str, Any]) -> None:
        heard.append(len(args["text"]))
        raise StartRefused("this token is not for this run.")

    server = LinkServer(tokens, answering(refuse=refuse, echo=echo))
    path = str(tmp_path / "hub.sock")
    hello = to_json({"id": 1, "call": "hello", "args": Hello(role=Role.RUN, pid=1)}).decode()
    large = "x" * (UNPROVEN_FRAME + 1)
    async with server.listen(tmp_path / "hub.sock"):
        async with unix_connect(path, uri="ws://localhost/") as stranger:
            await stranger.send(large)
            await asyncio.wait_for(stranger.wait_closed(), 10)
        assert stranger.close_code == 1009
        async with unix_connect(path, uri="ws://localhost/") as stranger:
            await stranger.send(hello)
            await stranger.recv()
            await stranger.send(to_json({"id": 2, "call": "refuse", "args": {"text": "x" * 1000}}).decode())
            assert "StartRefused" in str(await stranger.recv())
            await stranger.send(to_json({"id": 3, "call": "refuse", "args": {"text": large}}).decode())
            await asyncio.wait_for(stranger.wait_closed(), 10)
        assert stranger.close_code == 1009
        assert heard == [1000]
        async with HubClient(f"unix:{path}", Role.WORKER, tokens[Role.WORKER]) as worker:
            assert await worker.call("echo", {"text": large}) == {"text": large}


async def test_a_run_sends_large_things_once_it_has_proven_itself(tmp_path: Path) -> None:
    """Its end with files may be the first that a hub hears of it which has started again: a proof goes before it."""
    proofs: list[ProveCall] = []
    ends: list[int] = []

    async def prove(args: dict[str, Any]) -> None:
        call = ProveCall.model_validate(args)
        proofs.append(call)
        if call.token != "good":
            raise StartRefused("this token is not for this run.")

    async def finish(args: dict[str, Any]) -> None:
        ends.append(len(FinishCall.model_validate(args).reason))

    def end(token: str, size: int) -> FinishCall:
        return FinishCall(
            token=token, flow_run_id="f", run_id="r", epoch=1, outcome="failed", reason="x" * size
        )

    server = LinkServer({}, answering(prove=prove, finish=finish))
    path = str(tmp_path / "hub.sock")
    async with HubClient(f"unix:{path}", Role.RUN) as run:
        async with server.listen(tmp_path / "hub.sock"):
            await run.call("finish", end("good", 5_000_000))
            await run.call("finish", end("good", 6_000_000))
            assert proofs == [ProveCall(token="good", flow_run_id="f", run_id="r")]
        async with LinkServer({}, answering(prove=prove, finish=finish)).listen(tmp_path / "hub.sock"):
            await run.call("finish", end("good", 10))
            await run.call("finish", {**end("good", 7_000_000).model_dump()})
            assert len(proofs) == 1, "its first call was a proof already"
        async with LinkServer({}, answering(prove=prove, finish=finish)).listen(tmp_path / "hub.sock"):
            with pytest.raises(StartRefused):
                await run.call("finish", end("bad", 5_000_000))
    assert ends == [5_000_000, 6_000_000, 10, 7_000_000]


async def test_who_says_nothing_is_sent_away(tmp_path: Path) -> None:
    server = LinkServer({}, answering(), hello_seconds=0.2)
    path = str(tmp_path / "hub.sock")
    async with server.listen(tmp_path / "hub.sock"), HubClient(f"unix:{path}", Role.RUN) as known:
        async with unix_connect(path, uri="ws://localhost/") as silent:
            await asyncio.wait_for(silent.wait_closed(), 10)
        with pytest.raises(LinkError, match="no call"):
            await known.call("anything")


async def test_errors_keep_their_class(tmp_path: Path) -> None:
    """An error of ours is raised as its own class, with its data; a stranger says nothing of its insides."""

    async def refuse(args: dict[str, Any]) -> None:
        raise StartRefused("another process has this run")

    async def limit(args: dict[str, Any]) -> None:
        raise RateLimited("slow down", 7.5)

    async def crash(args: dict[str, Any]) -> None:
        raise ZeroDivisionError("the secret is 42")

    server = LinkServer({}, answering(refuse=refuse, limit=limit, crash=crash))
    async with (
        server.listen(tmp_path / "hub.sock"),
        HubClient(f"unix:{tmp_path}/hub.sock", Role.RUN) as client,
    ):
        with pytest.raises(StartRefused, match="another process"):
            await client.call("refuse")
        with pytest.raises(RateLimited) as limited:
            await client.call("limit")
        assert limited.value.retry_after == 7.5
        with pytest.raises(LinkError) as crashed:
            await client.call("crash")
        assert "42" not in str(crashed.value)
        with pytest.raises(LinkError, match="no call"):
            await client.call("nonsense")


async def test_a_call_survives_the_hubs_restart(tmp_path: Path) -> None:
    """A call whose answer was lost with the hub is sent again to the next hub."""
    asked = asyncio.Event()

    async def never(args: dict[str, Any]) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with HubClient(f"unix:{tmp_path}/hub.sock", Role.RUN) as client:
        async with LinkServer({}, answering(work=never)).listen(tmp_path / "hub.sock"):
            call = asyncio.create_task(client.call("work", {"n": 3}))
            await asked.wait()
        async with LinkServer({}, answering(work=echo)).listen(tmp_path / "hub.sock"):
            assert await call == {"n": 3}


async def test_a_wrong_token_is_refused(tmp_path: Path) -> None:
    """A role without its token gets no handler, and the caller is told."""
    tokens = make_tokens(tmp_path)
    server = LinkServer(tokens, answering(echo=echo))
    async with (
        server.listen(tmp_path / "hub.sock"),
        HubClient(f"unix:{tmp_path}/hub.sock", Role.WORKER, "wrong") as client,
    ):
        with pytest.raises(LinkError, match="token"):
            await client.call("echo", {}, timeout=5)


async def test_who_was_refused_comes_back_with_the_token_of_now(tmp_path: Path) -> None:
    """Until then every call fails at once, and none is kept waiting."""
    tokens = make_tokens(tmp_path)
    held = {Role.WORKER: "of another hub"}
    joined: asyncio.Queue[Peer] = asyncio.Queue()
    server = LinkServer(tokens, answering(echo=echo), joined=joined.put_nowait)
    async with (
        server.listen(tmp_path / "hub.sock"),
        HubClient(f"unix:{tmp_path}/hub.sock", Role.WORKER, lambda: held[Role.WORKER]) as client,
    ):
        with pytest.raises(LinkError, match="token"):
            await client.call("echo", {}, timeout=5)
        held |= tokens
        await asyncio.wait_for(joined.get(), 20)
        assert await client.call("echo", {"n": 1}) == {"n": 1}


def test_a_token_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Others wait for the file and read it at once: in no moment it is empty."""
    seen, path, over = set[str](), tmp_path / "worker.token", threading.Event()

    def read() -> None:
        while not over.is_set():
            with suppress(FileNotFoundError):
                seen.add(path.read_text())

    reading = threading.Thread(target=read)
    reading.start()
    made = set[str]()
    for _ in range(300):
        path.unlink(missing_ok=True)
        made.add(make_tokens(tmp_path)[Role.WORKER])
    over.set()
    reading.join()
    assert seen
    assert seen <= made


def test_a_token_that_was_left_empty_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "worker.token").touch()
    token = make_tokens(tmp_path)[Role.WORKER]
    assert token
    assert (tmp_path / "worker.token").read_text() == token
    assert (tmp_path / "worker.token").stat().st_mode & 0o777 == 0o600


async def test_no_hub_is_an_error_after_the_time_out(tmp_path: Path) -> None:
    """Without a hub a call ends with a clear error."""
    async with HubClient(f"unix:{tmp_path}/none.sock", Role.RUN) as client:
        with pytest.raises(LinkError, match="did not answer"):
            await client.call("echo", {}, timeout=0.2)


async def test_what_is_too_large_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that cannot be carried fails at once and alone, and so does an answer; neither is repeated."""

    async def long(args: dict[str, Any]) -> str:
        return "x" * 2000

    monkeypatch.setattr("parley.link.connection.MAX_FRAME", 1000)
    tokens = make_tokens(tmp_path)
    server = LinkServer(tokens, answering(echo=echo, long=long))
    async with (
        server.listen(tmp_path / "hub.sock"),
        HubClient(f"unix:{tmp_path}/hub.sock", Role.WORKER, tokens[Role.WORKER]) as client,
    ):
        for name, args in (("echo", {"text": "x" * 2000}), ("long", {})):
            with pytest.raises(TooLarge) as raised:
                await client.call(name, args)
            assert not raised.value.retryable
        assert await client.call("echo", {"n": 1}) == {"n": 1}
