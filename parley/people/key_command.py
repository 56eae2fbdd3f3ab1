"""A KMS as a program: it wraps and unwraps the data keys, and the key that it does so with never comes here.

The program is run once for each key, without a shell, with `wrap` or `unwrap` as its last argument. It reads one JSON
object from its standard input and writes one to its standard output:

    wrap    <- {"protocol": 1, "context": "...", "key": "<base64>"}
            -> {"key_id": "...", "wrapped": "<base64>"}
    unwrap  <- {"protocol": 1, "context": "...", "key_id": "...", "wrapped": "<base64>"}
            -> {"key": "<base64>"}

`context` is the same for both and different for each key: a KMS that knows such a thing binds the key to it. Whether
it does or not, what comes back is checked to be the key of that context. Exit code 0 means done; of anything else the
end of its standard error is told.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from parley.errors import ConfigurationError, SealError
from parley.people.sealing import KEY_BYTES

COMMAND: Final = "command"

MOST_OUTPUT: Final = 64 * 1024
"""Bytes that it may write; a wrapped key has a few hundred."""

_CHECK_BYTES: Final = 16
_MOST_ID: Final = 500
_GONE_WITHIN: Final = 5.0
_TOLD: Final = 300
_OURS: Final = (
    "PARLEY_KEY",
    "PARLEY_DATABASE_URL",
    "PARLEY_TOKEN",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_KEY",
)


class KeyCommand:
    """The program of `[keys] command`, and how many seconds it may take."""

    def __init__(self, argv: Sequence[str], timeout: float) -> None:
        self._argv = tuple(argv)
        self._timeout = timeout

    async def wrap(self, context: str, key: bytes) -> tuple[str, bytes]:
        """Who wrapped it, and the wrapped key. Raises ConfigurationError."""
        said = await self._ask("wrap", {"context": context, "key": _text(key + _check(context, key))})
        key_id, wrapped = said.get("key_id"), _bytes(said.get("wrapped"))
        if not isinstance(key_id, str) or not 0 < len(key_id) <= _MOST_ID or not wrapped:
            raise self._wrong('wrap has to write {"key_id": "...", "wrapped": "<base64>"}')
        return f"{COMMAND}:{key_id}", wrapped

    async def unwrap(self, context: str, by: str, wrapped: bytes) -> bytes:
        """The key. Raises ConfigurationError, or SealError when it is another context's or was altered."""
        key_id = by.partition(":")[2]
        asked = {"context": context, "key_id": key_id, "wrapped": _text(wrapped)}
        opened = _bytes((await self._ask("unwrap", asked)).get("key"))
        if not opened:
            raise self._wrong('unwrap has to write {"key": "<base64>"}')
        key, check = opened[:KEY_BYTES], opened[KEY_BYTES:]
        if len(key) != KEY_BYTES or not hmac.compare_digest(check, _check(context, key)):
            raise SealError(f"The data key {context.partition(' ')[0]} was altered, or is another one's.")
        return key

    async def _ask(self, operation: str, question: dict[str, str]) -> dict[str, Any]:
        asked = json.dumps({"protocol": 1, **question}).encode() + b"\n"
        output, errors, code = await self._run(operation, asked)
        if code:
            raise self._wrong(f"{operation} ended with {code}: {_told(errors, question)}")
        try:
            said = json.loads(output)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise self._wrong(f"{operation} has to write one JSON object")
        return said

    async def _run(self, operation: str, asked: bytes) -> tuple[bytes, bytes, int]:
        process = await self._started(operation)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._talk(process, asked)
        except TimeoutError:
            raise self._wrong(f"{operation} took longer than {self._timeout:g} s") from None
        finally:
            if process.returncode is None:
                # What it has started goes with it: they are a session of their own.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await _gone(process)

    async def _started(self, operation: str) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self._argv,
                operation,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={name: value for name, value in os.environ.items() if not name.startswith(_OURS)},
                start_new_session=True,
            )
        except OSError as error:
            raise self._wrong(f"it cannot be started ({error.strerror})") from None

    async def _talk(self, process: asyncio.subprocess.Process, asked: bytes) -> tuple[bytes, bytes, int]:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise AssertionError("they are pipes")
        with suppress(BrokenPipeError, ConnectionResetError):  # it may end without having read
            process.stdin.write(asked)
            await process.stdin.drain()
        process.stdin.close()
        reading = [asyncio.create_task(self._read(one)) for one in (process.stdout, process.stderr)]
        try:
            output, errors = await asyncio.gather(*reading)
        finally:
            # Of two that are read, one may have said too much: nobody reads the other any more.
            for one in reading:
                one.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
        return output, errors, await process.wait()

    async def _read(self, stream: asyncio.StreamReader) -> bytes:
        try:
            await stream.readexactly(MOST_OUTPUT + 1)
        except asyncio.IncompleteReadError as all_of_it:
            return all_of_it.partial
        raise self._wrong(f"it wrote more than {MOST_OUTPUT} bytes")

    def _wrong(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"The key command {self._argv[0]} did not do its work: {what}.")


async def _gone(process: asyncio.subprocess.Process) -> None:
    # Its end may be told only when nothing is left in its pipes, and nobody reads what it wrote too much of. What has
    # left its session may hold them open.
    with suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
        async with asyncio.timeout(_GONE_WITHIN):
            await process.communicate()


def _check(context: str, key: bytes) -> bytes:
    return hmac.digest(key, f"parley data key {context}".encode(), "sha256")[:_CHECK_BYTES]


def _told(errors: bytes, question: dict[str, str]) -> str:
    """The end of what it complained of, without what it was given."""
    text = " ".join(errors.decode("utf-8", "replace").split())
    for secret in (question.get("key"), question.get("wrapped")):
        text = text.replace(secret, "...") if secret else text
    return "".join(char for char in text if char.isprintable())[-_TOLD:] or "it said nothing"


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        return b""
