"""`parley connect`: the credentials of an account go, sealed, into a Prefect Block; the hub is told of the account."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from parley.errors import BadArguments, ConfigurationError

if TYPE_CHECKING:
    from parley.cli.installation import Installation

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def connect(
    installation: Installation,
    platform: str,
    name: str,
    given: Mapping[str, str],
    *,
    prompt: Callable[[str, str], str] | None,
) -> str:
    """Seal, save, announce; returns the Block. `prompt(field, description)` asks for a missing secret.

    Raises `BadArguments`, `ConfigurationError`, `LinkError`.
    """
    if not _NAME.fullmatch(name):
        raise BadArguments(
            f"{name!r} cannot be an account's name: small letters, digits and inner dashes, 63 at most."
        )
    installation.must_run()
    with _Saver(installation, platform) as saver:
        about = saver.read()
        fields = _complete(about["fields"], given, prompt)
        saver.write({"name": name, "fields": _sealed(installation, about, name, fields)})
        block = str(saver.read()["block"])
    if about["account"]:  # credentials of a service that only automations call are nothing to listen to
        installation.admin("add_account", name=name, platform=platform, block=block)
    return block


def parse_fields(given: Sequence[str]) -> dict[str, str]:
    """`name=value` each; `name=@path` reads a file, so that a secret need not stand on a command line."""
    fields = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name.isidentifier():
            raise BadArguments(f"--field {name}: write name=value, or name=@path of a file that holds it.")
        fields[name] = _from_file(value[1:]) if value.startswith("@") else value
    return fields


def from_environment(platform: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Fields from variables: `PARLEY_SLACK_BOT_TOKEN` is `bot_token` of slack. Raises `BadArguments` without any."""
    prefix = f"PARLEY_{platform.upper()}_"
    found = {
        key.removeprefix(prefix).lower(): value
        for key, value in environment.items()
        if key.startswith(prefix)
    }
    if not found:
        raise BadArguments(f"--from-env: no variable begins with {prefix}, as in {prefix}TOKEN.")
    return found


def _complete(
    fields: Sequence[Mapping[str, Any]], given: Mapping[str, str], prompt: Callable[[str, str], str] | None
) -> dict[str, tuple[str, bool]]:
    """Every given field with whether it is secret."""
    secret = {field["name"]: bool(field["secret"]) for field in fields}
    if unknown := sorted(set(given) - set(secret)):
        raise BadArguments(f"there is no field {unknown[0]!r}; there are {', '.join(secret)}.")
    values = dict(given)
    missing = [field for field in fields if field["required"] and field["name"] not in values]
    for field in missing:
        if prompt is None:
            raise BadArguments(f"--field {field['name']}=... is missing: {field['description']}")
        values[field["name"]] = prompt(field["name"], field["description"])
    return {name: (value, secret[name]) for name, value in values.items()}


def _sealed(
    installation: Installation, about: Mapping[str, Any], name: str, fields: Mapping[str, tuple[str, bool]]
) -> dict[str, str]:
    def seal(field: str, value: str) -> str:
        arguments = {"block_type": about["block_type"], "block_name": name, "field": field, "value": value}
        return str(installation.admin("seal", **arguments)["sealed"])

    return {
        field: seal(field, value) if is_secret and value else value
        for field, (value, is_secret) in fields.items()
    }


class _Saver:
    """`python -m blocks.save`, which imports Prefect."""

    def __init__(self, installation: Installation, platform: str) -> None:
        from parley.processes.environment import client_environment

        # A file and not a pipe: nobody reads it while the two talk, however much Prefect has to say.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", "blocks.save", platform],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=client_environment(installation.settings, "blocks"),
        )

    def read(self) -> dict[str, Any]:
        """Its next line. Raises `ConfigurationError` with what it complains of."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        said: dict[str, Any] = json.loads(line) if line.startswith("{") else {"error": self._last_words()}
        if "error" in said:
            raise ConfigurationError(str(said["error"]))
        return said

    def write(self, data: Mapping[str, Any]) -> None:
        """Tell it."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(json.dumps(data) + "\n")
        self._process.stdin.flush()

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        return (self._errors.read().strip().splitlines() or ["saving the Block ended without a word."])[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.communicate()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            if file is not None:
                file.close()


def _from_file(path: str) -> str:
    try:
        return Path(path).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadArguments(f"{path} cannot be read: {error}.") from None
