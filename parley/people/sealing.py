"""Sealing: AES-256-GCM for what must not be read by whoever gets hold of the database alone.

A sealed value is ``version (1) | key id (4) | nonce (12) | ciphertext and tag``. It is bound to its place, so that it
opens neither in another row nor in another column: associated data is ``table|column|row id|key id``, for the field
of a Prefect Block ``block|type|name|field|key id``. The version leaves room for keys wrapped by other keys.

The key file is JSON, ``{"version": 1, "keys": [{"id": "9f0c...", "key": "<base64 of 32 bytes>"}]}``: the last key
seals, every key opens. A nonce is random; one key is good for 2**32 values.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parley.errors import ConfigurationError, SealError

TEXT_PREFIX = "sealed:v1:"
"""How the sealed field of a Block begins."""

_VERSION = b"\x01"
_ID_BYTES = 4
_NONCE_BYTES = 12
_HEADER = len(_VERSION) + _ID_BYTES + _NONCE_BYTES
_KEY_BYTES = 32


class Keyring:
    """The keys of this installation. Its `repr` names them and shows none."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys` by id, the newest last."""
        if not keys or any(
            len(key) != _KEY_BYTES or len(bytes.fromhex(name)) != _ID_BYTES for name, key in keys.items()
        ):
            raise ConfigurationError("A keyring needs keys of 32 bytes with ids of 8 hexadecimal digits.")
        self._keys = dict(keys)
        self._newest = next(reversed(self._keys))

    @classmethod
    def generate(cls) -> Keyring:
        """A new keyring with one random key, kept nowhere."""
        return cls({secrets.token_hex(_ID_BYTES): secrets.token_bytes(_KEY_BYTES)})

    @classmethod
    def load_or_create(cls, path: Path, *, home: Path, sealed_rows: bool) -> Keyring:
        """The key file at `path`; made at the first start.

        Raises ConfigurationError when it lies within `home` (who copies the data would have the key with it), others
        can read it, it is malformed, or it is missing while the store holds `sealed_rows`: a new key could not open
        them, and would hide that the old one is lost.
        """
        path = path.absolute()
        _refuse_inside(path, home)
        if not _exists(path):
            if sealed_rows:
                raise ConfigurationError(
                    f"The key file {path} is missing, but the store already holds sealed rows, which only that key "
                    "opens. Restore it from where you keep its copy (mode 0400), or point PARLEY_KEY_FILE at it. "
                    "Without it the sealed rows are lost: then start with an empty PARLEY_HOME."
                )
            _create(path, cls.generate())
        return cls(_read(path))

    def seal(self, table: str, column: str, row: str, plaintext: bytes) -> bytes:
        """`plaintext`, to be opened only in this place."""
        return self._seal((table, column, row), plaintext)

    def open(self, table: str, column: str, row: str, sealed: bytes) -> bytes:
        """What was sealed here. Raises SealError when it was not, was altered, or its key is not in this keyring."""
        return self._open((table, column, row), sealed)

    def seal_text(self, block_type: str, block_name: str, field: str, plaintext: str) -> str:
        """The field of a Prefect Block, as text."""
        sealed = self._seal(("block", block_type, block_name, field), plaintext.encode())
        return TEXT_PREFIX + base64.urlsafe_b64encode(sealed).decode()

    def open_text(self, block_type: str, block_name: str, field: str, sealed: str) -> str:
        """What was sealed in this field of this Block. Raises SealError."""
        if not is_sealed_text(sealed):
            raise SealError(f"The field {field} of the Block {block_name} is not sealed.")
        try:
            raw = base64.b64decode(sealed.removeprefix(TEXT_PREFIX), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise SealError(f"The field {field} of the Block {block_name} is sealed, but damaged.") from None
        return self._open(("block", block_type, block_name, field), raw).decode()

    def keyed_hash(self, text: str) -> str:
        """The same text gives the same value as long as the newest key is the same; nobody without it can guess."""
        return f"{self._newest}:{self.authenticate(self._newest, 'keyed hash', text.encode())}"

    def authenticate(self, key_id: str, purpose: str, data: bytes) -> str:
        """HMAC-SHA256 in hexadecimal, by a key made from the key `key_id` for this purpose alone."""
        derived = hmac.digest(self._key(key_id), f"parley {purpose}".encode(), "sha256")
        return hmac.digest(derived, data, "sha256").hex()

    @property
    def newest(self) -> str:
        """The id of the key that seals."""
        return self._newest

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(self._keys)}>"

    def __reduce__(self) -> str:
        raise TypeError("A keyring stays in its process.")

    def _seal(self, place: tuple[str, ...], plaintext: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        ciphertext = AESGCM(self._key(self._newest)).encrypt(nonce, plaintext, _bound(place, self._newest))
        return _VERSION + bytes.fromhex(self._newest) + nonce + ciphertext

    def _open(self, place: tuple[str, ...], sealed: bytes) -> bytes:
        if len(sealed) < _HEADER or sealed[:1] != _VERSION:
            raise SealError(
                f"{_where(place)} does not hold a sealed value of a version that this parley knows."
            )
        key_id = sealed[1 : 1 + _ID_BYTES].hex()
        nonce = sealed[1 + _ID_BYTES : _HEADER]
        try:
            return AESGCM(self._key(key_id)).decrypt(nonce, sealed[_HEADER:], _bound(place, key_id))
        except InvalidTag:
            raise SealError(
                f"{_where(place)} does not open: it was altered, or moved there from another place."
            ) from None

    def _key(self, key_id: str) -> bytes:
        try:
            return self._keys[key_id]
        except KeyError:
            raise SealError(f"The key {key_id} is not in the key file: restore it there.") from None


def is_sealed_text(text: str) -> bool:
    """Whether the field of a Block is sealed already."""
    return text.startswith(TEXT_PREFIX)


def _bound(place: tuple[str, ...], key_id: str) -> bytes:
    if any("|" in part for part in place):
        raise ValueError(
            "The place of a sealed value has no '|' in its parts: two places could look the same."
        )
    return "|".join((*place, key_id)).encode()


def _where(place: tuple[str, ...]) -> str:
    return " / ".join(place)


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    key: str


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    version: Literal[1]
    keys: Annotated[list[_Key], Field(min_length=1)]


def _refuse_inside(path: Path, home: Path) -> None:
    # Both the name and what it leads to: a link in the data folder to a key elsewhere is copied as a name only, but
    # backup programs may follow it.
    roots = {home.absolute(), home.resolve()}
    if any(spelling.is_relative_to(root) for root in roots for spelling in (path, path.resolve())):
        raise ConfigurationError(
            f"The key file {path} lies in the data folder {home}: a copy of the data would hold the key to it. "
            "Point PARLEY_KEY_FILE to another folder and move the key there."
        )


def _exists(path: Path) -> bool:
    try:
        return path.is_file() or path.exists()
    except OSError as error:
        raise ConfigurationError(f"The key file {path} cannot be reached: {error.strerror}.") from None


def _read(path: Path) -> dict[str, bytes]:
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
    if not keys or len(keys) != len(parsed.keys) or any(len(key) != _KEY_BYTES for key in keys.values()):
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


def _create(path: Path, keyring: Keyring) -> None:
    """Whole or not at all, and never over a file that another process made meanwhile."""
    keys = [{"id": name, "key": base64.b64encode(key).decode()} for name, key in keyring._keys.items()]  # noqa: SLF001
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_open_folder(path.parent)
        try:
            _write(draft, json.dumps({"version": 1, "keys": keys}).encode())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise ConfigurationError(f"The key file {path} cannot be made: {error.strerror}.") from None


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
