"""The key file: the keys of this installation on the disk, outside its data.

It is JSON, ``{"version": 1, "keys": [{"id": "9f0c...", "key": "<base64 of 32 bytes>"}]}``: the last key wraps the data
keys, every key unwraps. It is written whole or not at all, and read only when nobody else can read it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parley.errors import ConfigurationError
from parley.people.sealing import KEY_BYTES, new_key, new_key_id

Keys = Mapping[str, bytes]
"""Keys by id, the newest last."""


def load_or_create(path: Path, *, home: Path, sealed_rows: bool) -> Keys:
    """The keys of the file at `path`; made at the first start.

    Raises ConfigurationError when it lies within `home` (who copies the data would have the key with it), others
    can read it, it is malformed, or it is missing while the store holds `sealed_rows`: a new key could not open
    them, and would hide that the old one is lost.
    """
    path = path.absolute()
    refuse_inside(path, home)
    if not exists(path):
        if sealed_rows:
            raise ConfigurationError(
                f"The key file {path} is missing, but the store already holds sealed rows, which only that key "
                "opens. Restore it from where you keep its copy (mode 0400), or point PARLEY_KEY_FILE at it. "
                "Without it the sealed rows are lost: then start with an empty PARLEY_HOME."
            )
        _create(path, {new_key_id(): new_key()})
    return read(path)


def replace(path: Path, keys: Keys) -> None:
    """Write these keys in place of those that are there. Raises ConfigurationError, and then the old file stands."""
    draft = _draft(path)
    try:
        try:
            _write(draft, _json(keys))
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise ConfigurationError(
            f"The key file {path} cannot be written: {error.strerror}. Where it is mounted for reading only, change it "
            "there (docs/keys.md) and start again."
        ) from None


def refuse_inside(path: Path, home: Path) -> None:
    """Raises ConfigurationError for a key file in the data folder."""
    # Both the name and what it leads to: a link in the data folder to a key elsewhere is copied as a name only, but
    # backup programs may follow it.
    roots = {home.absolute(), home.resolve()}
    if any(spelling.is_relative_to(root) for root in roots for spelling in (path, path.resolve())):
        raise ConfigurationError(
            f"The key file {path} lies in the data folder {home}: a copy of the data would hold the key to it. "
            "Point PARLEY_KEY_FILE to another folder and move the key there."
        )


def exists(path: Path) -> bool:
    """Whether there is something at `path`. Raises ConfigurationError where that cannot be known."""
    try:
        return path.is_file() or path.exists()
    except OSError as error:
        raise ConfigurationError(f"The key file {path} cannot be reached: {error.strerror}.") from None


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    key: str


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    version: Literal[1]
    keys: Annotated[list[_Key], Field(min_length=1)]


def read(path: Path) -> Keys:
    """The keys in the file. Raises ConfigurationError, which never shows what it holds."""
    try:
        with path.open("rb") as file:
            _refuse_readable_by_others(path, os.fstat(file.fileno()))
            content = file.read()
    except OSError as error:
        raise ConfigurationError(f"The key file {path} cannot be read: {error.strerror}.") from None
    try:
        parsed = _KeyFile.model_validate_json(content)
        keys = {entry.id: base64.b64decode(entry.key, validate=True) for entry in parsed.keys}
    except (ValidationError, ValueError):
        keys = {}
    # One sentence for all of it, and never what the file holds.
    if not keys or len(keys) != len(parsed.keys) or any(len(key) != KEY_BYTES for key in keys.values()):
        raise ConfigurationError(f"The key file {path} is malformed. Restore it from its copy.")
    return keys


def _refuse_readable_by_others(path: Path, status: os.stat_result) -> None:
    others = status.st_mode & 0o077
    # A secret that an orchestrator mounts belongs to root, and to our group so that we can read it.
    mounted = status.st_uid == 0 != os.geteuid() and not others & ~stat.S_IRGRP
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in {0, os.geteuid()} or (others and not mounted):
        raise ConfigurationError(
            f"The key file {path} can be used by others than the user parley runs as. "
            f"Run: chown {os.geteuid()} {path} && chmod 0400 {path}"
        )


def _create(path: Path, keys: Keys) -> None:
    """Whole or not at all, and never over a file that another process made meanwhile."""
    draft = _draft(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_open_folder(path.parent)
        try:
            _write(draft, _json(keys))
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise ConfigurationError(f"The key file {path} cannot be made: {error.strerror}.") from None


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def _json(keys: Keys) -> bytes:
    listed = [{"id": name, "key": base64.b64encode(key).decode()} for name, key in keys.items()]
    return json.dumps({"version": 1, "keys": listed}).encode()


def _refuse_open_folder(folder: Path) -> None:
    if folder.stat().st_mode & 0o022:
        raise ConfigurationError(f"Others can change the folder of the key file. Run: chmod 0700 {folder}")


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
