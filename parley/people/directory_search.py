"""A directory is asked by OpenLDAP's own program, `ldapsearch` (Debian: ldap-utils): nothing of ours speaks LDAP.

It is given no shell, none of our environment and no configuration file (`LDAPNOINIT`); the password comes through a
pipe, so that it is neither among its arguments nor in a file of ours. Certificate and name of the server are verified.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from parley.errors import ConfigurationError, ParleyError
from parley.people.directory_settings import Directory
from parley.people.ldif import Entry, Ldif, LdifError
from parley.tls.server import check_key

PROGRAM: Final = "ldapsearch"
LACKS: Final = f"{PROGRAM} is not installed: on Debian it is in the package ldap-utils."

MOST_PASSWORD: Final = 4096
_PIECE: Final = 64 * 1024
_MOST_ERRORS: Final = 4096
_TOLD: Final = 200
_GONE_WITHIN: Final = 5.0
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"

_SAID: Final = {
    1: "the directory refused it (operations error; does it want a password?)",
    2: "the directory does not speak as it should (does it know StartTLS?)",
    3: "it took the directory too long",
    4: "the directory gives this name only a part of the answer (its size limit)",
    7: "the directory takes no password of this kind",
    8: "the directory wants TLS or a stronger log-in",
    10: "the directory refers to another one: name that one as `url`, or another `base`",
    11: "the directory gives this name only so much (its administrative limit)",
    12: "the directory knows no paged results",
    13: "the directory wants TLS",
    32: "there is no such base in the directory",
    34: "bind or base is no name that the directory understands",
    48: "the directory lets nobody in without a password",
    49: "the directory does not accept bind and its password",
    50: "bind may not read this",
    51: "the directory is busy",
    52: "the directory is not available",
    53: "the directory refuses to do this",
    87: "the filter is none",
}


class DirectoryError(ParleyError):
    """The directory did not answer, or its answer is not whole: nothing follows from it."""


@dataclass(frozen=True, slots=True)
class Search:
    """One search: below `base`, for what `filter` finds, these attributes."""

    base: str
    filter: str
    attributes: Sequence[str] = field(default=())


def installed() -> str | None:
    """Where the program is; None when it is not installed."""
    return shutil.which(PROGRAM, path=_PATH)


async def search(directory: Directory, wanted: Search) -> list[Entry]:
    """All entries that are found. Raises `DirectoryError` unless the answer is whole, `ConfigurationError` else."""
    program = installed()
    if program is None:
        raise ConfigurationError(LACKS)
    password = await asyncio.to_thread(_password, directory.password_file)
    argv = [program, *_options(directory), *_bound(directory), *_asked(directory, wanted)]
    try:
        async with asyncio.timeout(directory.timeout):
            return await _run(argv, password)
    except TimeoutError:
        raise DirectoryError(f"The directory did not answer within {directory.timeout:g} s.") from None


def _options(directory: Directory) -> list[str]:
    authority = directory.authority or ssl.get_default_verify_paths().cafile
    seconds = str(max(1, int(directory.timeout)))
    return [
        *("-x", "-LLL", "-H", " ".join(directory.url)),
        *("-o", "ldif_wrap=no", "-o", f"nettimeout={seconds}", "-l", seconds),
        *("-o", "TLS_REQCERT=demand", "-o", "TLS_PROTOCOL_MIN=3.3"),
        *(("-o", f"TLS_CACERT={Path(authority).absolute()}") if authority else ()),
        *(("-ZZ",) if directory.is_upgraded(directory.url[0]) else ()),
    ]


def _bound(directory: Directory) -> list[str]:
    return ["-D", directory.bind, "-y", "/dev/fd/0"] if directory.bind else []


def _asked(directory: Directory, wanted: Search) -> list[str]:
    return [
        *("-E", f"pr={directory.page}/noprompt", "-s", "sub", "-b", wanted.base),
        *(wanted.filter, *wanted.attributes),
    ]


def _password(path: Path | None) -> bytes:
    if path is None:
        return b""
    check_key(path)
    try:
        # Editors end a file with a line break, and no password does.
        with path.open("rb") as file:
            password = file.read(MOST_PASSWORD + 2).rstrip(b"\r\n")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    if not password or len(password) > MOST_PASSWORD or b"\0" in password:
        # To bind without one would be to ask as nobody, and to be answered as such.
        raise ConfigurationError(f"{path} holds no password of 1 to {MOST_PASSWORD} bytes.")
    return password


async def _run(argv: list[str], password: bytes) -> list[Entry]:
    reads, writes = os.pipe()
    try:
        os.write(writes, password)  # a pipe holds more than the longest
        os.close(writes)
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=reads,  # a real pipe: it is opened by its name
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"LDAPNOINIT": "1", "LC_ALL": "C", "PATH": _PATH},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigurationError(f"{argv[0]} cannot be started: {error.strerror}.") from None
    finally:
        os.close(reads)
    try:
        return await _talk(process)
    except* DirectoryError as errors:
        raise errors.exceptions[0] from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        with suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            async with asyncio.timeout(_GONE_WITHIN):
                await process.communicate()


async def _talk(process: asyncio.subprocess.Process) -> list[Entry]:
    if process.stdout is None or process.stderr is None:
        raise AssertionError("they are pipes")
    async with asyncio.TaskGroup() as reading:
        complaining = reading.create_task(_errors(process.stderr))
        answering = reading.create_task(_entries(process.stdout))
    (entries, ldif), errors = answering.result(), complaining.result()
    code = await process.wait()
    if code:
        raise DirectoryError(_sentence(code, errors))
    if ldif.references:
        raise DirectoryError(
            "A part of what was asked for lies in another directory: name a `base` that holds no such reference."
        )
    if ldif.ranges:
        raise DirectoryError(
            "The directory gives only a range of a group's members: ask for memberOf instead."
        )
    return entries


async def _entries(stream: asyncio.StreamReader) -> tuple[list[Entry], Ldif]:
    ldif, entries = Ldif(), list[Entry]()
    try:
        while piece := await stream.read(_PIECE):
            entries += ldif.feed(piece)
        entries += ldif.end()
    except LdifError as error:
        raise DirectoryError(f"The directory's answer is not understood: {error}.") from None
    return entries, ldif


async def _errors(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    while piece := await stream.read(_PIECE):
        kept = (kept + piece)[:_MOST_ERRORS]
    return kept


def _sentence(code: int, errors: bytes) -> str:
    said = _SAID.get(code)
    if said is None:
        line = errors.decode("utf-8", "replace").strip().partition("\n")[0]
        told = "".join(char for char in line if char.isprintable())[:_TOLD]
        said = told or f"{PROGRAM} ended with {code}"
    return f"The directory did not answer in full: {said}."


__all__ = ["LACKS", "DirectoryError", "Search", "installed", "search"]
