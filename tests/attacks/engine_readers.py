"""The readers of the engine itself: what people type, events, parley.toml, REST bodies, frames of the link."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import strategies as st
from websockets.asyncio.client import unix_connect
from websockets.exceptions import ConnectionClosed

from parley import settings
from parley.errors import BadArguments, CommandError, ConfigurationError
from parley.language.binding import bind, bind_json, read_value
from parley.language.grammar import parse_command
from parley.language.templates import compile_template, match
from parley.language.tokens import tokens_of
from parley.link.calls import Hello, Role
from parley.link.server import LinkServer
from parley.messages import topics
from parley.messages.filters import Condition, Template
from parley.settings import Settings
from parley.web.app import people_app
from parley.web.cursors import read_cursor
from parley.web.limits import Rate
from parley.web.problems import Problem
from tests.attacks import hostile
from tests.attacks.inventory import Reader
from tests.language.automations import ANYTHING, ORDER, REMEMBER
from tests.language.test_understanding import ALL, UNDERSTANDER, WORDS
from tests.link.test_link import answering, echo
from tests.web.fake_front import FakeFront

PARAMETERS = [parameter.name for parameter in ANYTHING.parameters]

TYPED = hostile.repeated(
    "/a ", "/anything ", "whole=", "tags=", "item=", "pair=", "period=", "day=", "1,", '"', "'", "“", "”", "{", "[",
    "=", "\\", "--", "@a ", "<@", "、", "／", " ", "\u200b", "9", "a", "２０２６年", "P1D", '{"a":', "00:",
    "é", "\u0301",
    "web1", "\n",
)  # fmt: skip


def engine_readers() -> tuple[Reader, ...]:
    """All of them."""
    return (*_language(), *_events(), _toml(), _rest(), _cursor(), _link())


# -- what people type


def _language() -> tuple[Reader, ...]:
    said = TYPED | hostile.texts | st.tuples(st.just("/anything "), TYPED).map("".join)
    words = st.lists(WORDS | hostile.texts, max_size=12).map(" ".join)

    def command(text: str) -> None:
        parse_command(text)

    def binding(text: str) -> None:
        found = parse_command(text)
        for spec in (ANYTHING, REMEMBER) if found else ():
            bind(found, spec) if found else None

    def value(given: tuple[str, str]) -> None:
        parameter = ANYTHING.parameter(given[0])
        assert parameter is not None
        read = read_value(given[1], parameter)
        assert bind_json({parameter.name: read}, ANYTHING).values == {parameter.name: read}

    def json(given: Any) -> None:
        bind_json(given if isinstance(given, dict) else {"free": given}, ANYTHING)

    def plain(text: str) -> None:
        assert len(UNDERSTANDER.understand(text, ALL).nearest) <= 3

    def template(given: tuple[str, str]) -> None:
        if (found := compile_template(given[0], ORDER)) is not None:
            match(found, tokens_of(given[1][:2000]), given[1][:2000])

    genuine = {
        "whole": 1,
        "tags": ["a"],
        "item": {"sku": "x", "count": 2},
        "pair": [1, "a"],
        "free": {"a": [1]},
        "code": "AB",
    }
    examples = hostile.repeated(
        "{order_id}", "{ order_id = 1 }", "where is ", "{", "}", "订单", "{x}", " ", most=2000
    )
    return (
        Reader("language.command", said, command, (BadArguments,)),
        Reader("language.binding", said, binding, (CommandError,)),
        Reader(
            "language.value",
            st.tuples(st.sampled_from(PARAMETERS), TYPED | hostile.texts),
            value,
            (BadArguments,),
        ),
        Reader("language.json", hostile.changed(genuine), json, (BadArguments,)),
        Reader("language.understanding", words | TYPED | hostile.texts, plain),
        Reader("language.template", st.tuples(examples, words), template),
    )


# -- events


def _events() -> tuple[Reader, ...]:
    event = {
        "topic": "github.push", "title": "a", "text": "b", "labels": {"severity": "critical",
        "a.b": "c"}, "list": ["a", 1],
        "nested": {"a": {"b": {"c": 1}}},
    }  # fmt: skip
    paths = st.sampled_from(
        ["labels.severity", "labels.a.b", "nested.a.b.c", "list", "title", "", ".", "nested..a", "x" * 9000]
    )
    globs = hostile.repeated("*", "?", "[a-z]", "[!", "]", "a", "*a", "**", "\\", most=200)

    def condition(given: tuple[str, list[str], Any]) -> None:
        path, patterns, fields = given
        Condition(path, patterns).holds(fields if isinstance(fields, dict) else {"list": fields})

    def template(given: tuple[str, Any]) -> None:
        text, fields = given
        Template(text).filled(fields if isinstance(fields, dict) else {})

    def topic(given: tuple[str, str]) -> None:
        pattern, said = given
        name = topics.topic(*said.split(".")[:50])
        topics.is_topic(name)
        topics.Pattern(pattern).matches(name)

    filled = hostile.repeated("{title}", "{labels.severity}", "{", "}", "{nested}", "x", "{a.b/c-d}")
    patterns = hostile.repeated("#.", "*.", "a.", "#", "*", "a", ".", " ", "ü", most=900)
    return (
        Reader(
            "events.condition",
            st.tuples(paths, st.lists(globs, max_size=3), hostile.changed(event)),
            condition,
        ),
        Reader("events.template", st.tuples(filled | hostile.texts, hostile.changed(event)), template),
        Reader("events.topic", st.tuples(patterns | hostile.texts, hostile.texts), topic, (ValueError,)),
    )


# -- parley.toml

TOML = b"""
[owner]
name = "ann"
[accounts.team]
platform = "slack"
block = "parley-slack-account/team"
[automations]
modules = ["flows"]
[automations.reindex]
deployment = "search/nightly"
effect = "write"
[limits]
per_person = "60/min"
[limits.per_automation]
"*" = "5/s"
[[routes]]
from = ["github.#", "*.alert.*"]
to = ["team:C1"]
run = "order"
with = {order_id = "{data.id}"}
[routes.where]
severity = ["crit*", "warning"]
[scripts.restart]
argv = ["/usr/bin/systemctl", "restart", "{unit}"]
[scripts.restart.parameters.unit]
type = "string"
pattern = "^[a-z]+$"
[[bridges]]
name = "b"
rooms = ["a:1", "b:2"]
[containers]
mounts = ["/a:/b"]
"""


def _toml() -> Reader:
    @contextmanager
    def opened() -> Iterator[Any]:
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            path = Path(folder) / "parley.toml"

            def read(raw: bytes) -> None:
                path.write_bytes(raw)
                settings.read_file(path)

            yield read

    lines = TOML.splitlines()
    shuffled = st.lists(st.sampled_from(lines) | st.binary(max_size=20), max_size=20).map(b"\n".join)
    deep = st.sampled_from(
        [b"a=" + b"[" * 20_000, b"a." * 5000 + b"a=1", b"[" + b"a." * 5000 + b"a]", b'a="' + b"x" * 10**5]
    )
    return Reader(
        "settings.toml",
        hostile.damaged(TOML) | shuffled | deep,
        refuses=(ConfigurationError,),
        opened=opened,
        lines=True,
    )


# -- REST


def _rest() -> Reader:
    """All operations of the OpenAPI, so that no route is forgotten."""
    place = Settings(
        home=Path("/nowhere"), config=Path("/nowhere/parley.toml"), key_file=Path("/nowhere/key")
    )
    operations = [
        (method.upper(), path)
        for path, item in people_app(FakeFront(), place).openapi()["paths"].items()
        for method in item
    ]
    genuine = (
        {
            "text": "/order 1024",
            "files": [{"name": "a", "content": "eA==", "media_type": "a/b"}],
            "thread": "t",
        },
        {"value": "yes 4f2a", "thread": "t"},
        {
            "topic": "shop.order.late",
            "title": "t",
            "text": "x",
            "severity": "info",
            "data": {"a": 1},
            "closes": True,
        },
        {"order_id": 1024, "note": {"a": 1}},
        {"confirm": True},
    )
    part = hostile.texts.map(lambda text: quote(text.encode("utf-8", "replace")[:300], safe="") or "x")
    query = st.dictionaries(
        st.sampled_from(["limit", "cursor", "topic", "after", "settled", "kind", "state"]), part, max_size=3
    )
    keys = hostile.headers(["idempotency-key", "accept", "content-type"])
    given = st.tuples(
        st.sampled_from(operations),
        st.lists(part, min_size=3, max_size=3),
        query,
        keys,
        hostile.bodies(*genuine),
    )

    @contextmanager
    def opened() -> Iterator[Any]:
        app = people_app(FakeFront(), place, rate=Rate(1e9, 1e9))
        transport = httpx.ASGITransport(app)  # which raises what the app does not handle
        base = f"http://127.0.0.1:{place.port}"
        headers = {"authorization": "Bearer token-ada", "content-type": "application/json"}
        with asyncio.Runner() as runner:
            client = httpx.AsyncClient(transport=transport, base_url=base, headers=headers)

            async def ask(request: Any) -> None:
                (method, path), parts, query, headers, body = request
                address = (
                    _filled(path, parts) + "?" + "&".join(f"{name}={value}" for name, value in query.items())
                )
                lines = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
                answer = await client.request(method, address, content=body, headers=lines)
                assert answer.status_code < 500, f"{method} {path}: {answer.status_code}"
                if answer.is_error:
                    assert answer.json()["status"] == answer.status_code

            yield lambda request: runner.run(ask(request))
            runner.run(client.aclose())

    return Reader("web.rest", given, opened=opened)


def _filled(path: str, parts: list[str]) -> str:
    pieces = path.split("{")
    return pieces[0] + "".join(
        part + piece.partition("}")[2] for piece, part in zip(pieces[1:], parts, strict=False)
    )


def _cursor() -> Reader:
    return Reader("web.cursor", hostile.texts, read_cursor, (Problem,))


# -- the link


def _link() -> Reader:
    hello = {"id": 1, "call": "hello", "args": Hello(role=Role.RUN, pid=1).model_dump(mode="json")}
    frames = hostile.bodies(
        hello, {"id": 2, "call": "echo", "args": {"a": 1}}, {"id": 3, "result": {"a": 1}},
        {"id": 4, "error": {"type": "RateLimited", "message": "x", "retry_after": "7"}},
    )  # fmt: skip

    @contextmanager
    def opened() -> Iterator[Any]:
        # Short: the path of a Unix socket may have about a hundred bytes.
        with tempfile.TemporaryDirectory(prefix="parley-") as folder, asyncio.Runner() as runner:
            path = Path(folder) / "hub.sock"
            server = LinkServer({Role.WORKER: "t"}, answering(echo=echo))
            listening = server.listen(path)
            runner.run(listening.__aenter__())

            async def say(given: tuple[list[bytes], bool]) -> None:
                raws, binary = given
                async with unix_connect(str(path), uri="ws://localhost/") as socket:
                    try:
                        for raw in raws:
                            await socket.send(raw if binary else raw.decode("utf-8", "replace"))
                        await socket.close()
                    except ConnectionClosed:
                        pass
                # 1011 is what a server says whose handler raised.
                assert socket.close_code != 1011, f"closed with {socket.close_code}"

            yield lambda given: runner.run(say(given))
            runner.run(listening.__aexit__(None, None, None))

    return Reader(
        "link.frames", st.tuples(st.lists(frames, min_size=1, max_size=3), st.booleans()), opened=opened
    )
