"""Runs the scripts that parley.toml registers: an argv list with typed parameters, limits, no shell."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from jsonschema import Draft202012Validator, FormatChecker, SchemaError

from flows import _sample
from parley.errors import BadArguments, ConfigurationError
from parley.settings import Script, load

MAX_PROCESSES: Final = 64
"""Processes that a script may have at one time, itself included."""

_WARDEN: Final = Path(__file__).with_name("_script_warden.py")
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SCALARS: Final = ("string", "integer", "number", "boolean")
_GRACE: Final = 5.0


@dataclass(frozen=True)
class Outcome:
    """How a script ended. `code` is its exit code, negative for a signal, None when it was ended from outside."""

    how: Literal["ended", "timeout", "processes", "cancelled"]
    code: int | None
    output: str
    cut: bool
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether it ended by itself and said that all is well."""
        return self.code == 0


def registered() -> Mapping[str, Script]:
    """The scripts of parley.toml, or the harmless sample when it has none. Raises `ConfigurationError`."""
    scripts = load().file.scripts or _sample.scripts()
    for name, script in scripts.items():
        check(name, script)
        check_fallback(name, scripts)
    return scripts


def check(name: str, script: Script) -> None:
    """Raises `ConfigurationError` when a script could not be run safely with any parameters."""
    for parameter, schema in script.parameters.items():
        _check_parameter(f"[scripts.{name}] parameter {parameter!r}", parameter, schema)
    for argument in script.argv:
        whole = _PLACEHOLDER.fullmatch(argument)
        if whole and whole[1] not in script.parameters:
            raise ConfigurationError(f"[scripts.{name}] argument {argument!r}: there is no such parameter.")
        inside = [found for found in _PLACEHOLDER.findall(argument) if found in script.parameters]
        if inside and not whole:
            raise ConfigurationError(
                f"[scripts.{name}] argument {argument!r}: make {{{inside[0]}}} an argument of its own."
            )
    if _PLACEHOLDER.fullmatch(script.argv[0]):
        raise ConfigurationError(f"[scripts.{name}]: what is run cannot be a parameter.")
    for mended in script.mends:
        unknown = sorted(set(mended.parameters) - set(script.parameters))
        if unknown:
            raise ConfigurationError(
                f"[scripts.{name}] mends: `with` names {unknown[0]!r}, which is no parameter."
            )


def check_fallback(name: str, scripts: Mapping[str, Script]) -> None:
    """Raises `ConfigurationError` when a script's fallback is not there, or needs what the script has not."""
    fallback = scripts[name].fallback
    if not fallback:
        return
    if fallback not in scripts or fallback == name:
        raise ConfigurationError(f"[scripts.{name}] fallback {fallback!r}: name another registered script.")
    for parameter, schema in scripts[fallback].parameters.items():
        if parameter not in scripts[name].parameters and "default" not in schema:
            raise ConfigurationError(
                f"[scripts.{name}] fallback {fallback!r} needs {parameter!r}, which it would not get."
            )


def argv(script: Script, values: Mapping[str, Any]) -> list[str]:
    """The command line for these values, one argument a parameter. Raises `BadArguments` for a wrong one."""
    unknown = sorted(set(values) - set(script.parameters))
    if unknown:
        raise BadArguments(f"{unknown[0]}: this script has no such parameter.")
    texts = {name: _text(name, schema, values.get(name)) for name, schema in script.parameters.items()}
    arguments = []
    for argument in script.argv:
        whole = _PLACEHOLDER.fullmatch(argument)
        arguments.append(texts[whole[1]] if whole else argument)
    return arguments


async def run(script: Script, arguments: list[str]) -> Outcome:
    """Run it to its end. Cancelling this, or the death of this process, ends everything that the script started."""
    limits = {
        "timeout": script.timeout,
        "cpu_seconds": script.cpu_seconds,
        "memory_mb": script.memory_mb,
        "processes": MAX_PROCESSES,
    }
    told, report = os.pipe()
    try:
        warden = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_WARDEN), str(report), json.dumps(limits), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(report,),
            start_new_session=True,
            cwd=script.cwd or _folder(),
            env={"PATH": _PATH, "LANG": "C.UTF-8", **script.environment},
        )
    except OSError as error:
        os.close(told)
        raise ConfigurationError(
            f"the script cannot be started: {error.strerror}: {error.filename}."
        ) from None
    finally:
        os.close(report)
    try:
        output, cut = await _guarded(warden, script)
        return _outcome(os.read(told, 4096), output, cut)
    finally:
        os.close(told)


def revisions(scripts: Mapping[str, Script]) -> dict[str, str]:
    """The revision of each script with its fallback: what an approval of it is bound to."""
    return {
        name: revision({one: scripts[one] for one in (name, script.fallback) if one})
        for name, script in scripts.items()
    }


def revision(scripts: Mapping[str, Script]) -> str:
    """A digest of what would be run: the registrations, and the files that they name."""
    digest = hashlib.sha256()
    for name, script in sorted(scripts.items()):
        digest.update(f"{name}\0{script.model_dump_json()}\0".encode())
        for argument in script.argv:
            path = Path(script.cwd or "/", argument)
            with suppress(OSError, ValueError):
                if path.is_file():
                    with path.open("rb") as content:
                        digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _check_parameter(where: str, name: str, schema: Mapping[str, Any]) -> None:
    if not name.isidentifier() or name == "script":
        raise ConfigurationError(f"{where}: choose a name of letters, digits and _ other than `script`.")
    if schema.get("type") not in _SCALARS and "enum" not in schema:
        raise ConfigurationError(f"{where}: give it a `type`, one of {', '.join(_SCALARS)}.")
    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as error:
        raise ConfigurationError(f"{where}: {error.message}.") from None


def _text(name: str, schema: Mapping[str, Any], value: Any) -> str:
    given = schema.get("default") if value is None else value
    if given is None:
        raise BadArguments(f"{name}: a value is missing.")
    validator = Draft202012Validator(dict(schema), format_checker=FormatChecker())
    problem = next(validator.iter_errors(given), None)
    if problem is not None:
        raise BadArguments(f"{name}: {problem.message[:200]}.")
    if isinstance(given, bool):
        return "true" if given else "false"
    text = str(given)
    _refuse_treacherous(name, schema, text)
    return text


def _refuse_treacherous(name: str, schema: Mapping[str, Any], text: str) -> None:
    if "\0" in text or not _is_encodable(text):
        raise BadArguments(f"{name}: it has a character that no program can be given.")
    if schema.get("type") == "string" and text.startswith("-") and "enum" not in schema:
        # A program would read it as an option of its own.
        raise BadArguments(f"{name}: it must not begin with a dash.")
    if "pattern" in schema and text.endswith("\n"):
        # `$` in a pattern lets one line end through.
        raise BadArguments(f"{name}: it must not end with a line break.")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _folder() -> Path:
    folder = _sample.home()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


async def _guarded(warden: asyncio.subprocess.Process, script: Script) -> tuple[bytes, bool]:
    """The output, at most what is allowed; the warden is gone when this returns or raises."""
    try:
        async with asyncio.timeout(script.timeout + _GRACE):
            output, cut = await _read(warden, script.output_kb * 1024)
            await warden.wait()
            return output, cut
    except TimeoutError:
        raise ConfigurationError(
            "the script could not be ended in time; its processes were killed."
        ) from None
    finally:
        await asyncio.shield(_end(warden))


async def _read(warden: asyncio.subprocess.Process, most: int) -> tuple[bytes, bool]:
    # Read on after the limit: a script that nobody reads from would stop in its next print.
    kept, cut = bytearray(), False
    while warden.stdout and (piece := await warden.stdout.read(65536)):
        cut = cut or len(kept) + len(piece) > most
        kept += piece[: most - len(kept)]
    return bytes(kept), cut


async def _end(warden: asyncio.subprocess.Process) -> None:
    if warden.returncode is not None:
        return
    if warden.stdin:
        warden.stdin.close()  # the warden's sign to kill all of it
    try:
        async with asyncio.timeout(_GRACE):
            await warden.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            warden.kill()
        await warden.wait()


def _outcome(told: bytes, output: bytes, cut: bool) -> Outcome:
    try:
        said = json.loads(told)
    except ValueError:
        said = {"how": "cancelled", "seconds": 0.0}
    text = output.decode(errors="replace")
    return Outcome(said["how"], said.get("code"), text, cut, said["seconds"])
