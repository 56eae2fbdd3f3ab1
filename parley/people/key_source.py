"""Where the keys come from that wrap the data keys: the key file, the environment, or a command of a KMS.

source = key_source.open_source(settings, sealed_rows=True)
wrapped = await source.wrap("9f0c11aa", "data", key)
key = await source.unwrap("9f0c11aa", "data", wrapped)
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from typing import Final, Literal

from parley.errors import ConfigurationError, SealError
from parley.people import key_file
from parley.people.key_command import COMMAND, KeyCommand
from parley.people.key_file import Keys
from parley.people.sealing import ID_BYTES, KEY_BYTES, Keyring, new_key, new_key_id
from parley.settings import Settings

Origin = Literal["file", "environment", "command"]

_TABLE: Final = "data_key"
_COLUMN: Final = "wrapped"


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A key as it may lie in the store. `by` names the key that wrapped it."""

    by: str
    value: bytes = field(repr=False)


class KeySource:
    """Wraps with its newest key, unwraps with all of them. Its `repr` shows none."""

    def __init__(self, settings: Settings, keys: Keys, origin: Origin, command: KeyCommand | None) -> None:
        self._settings = settings
        self._command = command
        self.origin: Origin = origin
        self.keys: Keys = dict(keys)
        """Those that are in this process, by id, the newest last: they open values of version 1."""

    @property
    def newest(self) -> str:
        """What wraps: the id of a key, or `command`."""
        return COMMAND if self._command else list(self.keys)[-1]

    def is_newest(self, by: str) -> bool:
        """Whether what wraps today wrapped this."""
        return by.partition(":")[0] == self.newest

    async def wrap(self, key_id: str, kind: str, key: bytes) -> Wrapped:
        """This key, to be unwrapped as this key of this kind only. Raises ConfigurationError."""
        if self._command:
            return Wrapped(*await self._command.wrap(f"{key_id} {kind}", key))
        sealed = Keyring(self.keys).seal(_TABLE, _COLUMN, f"{key_id} {kind}", key)
        return Wrapped(self.newest, sealed)

    async def unwrap(self, key_id: str, kind: str, wrapped: Wrapped) -> bytes:
        """The key. Raises SealError when it was altered, ConfigurationError when what wrapped it is not here."""
        if wrapped.by.partition(":")[0] == COMMAND:
            if self._command is None:
                raise ConfigurationError(
                    f"The data key {key_id} was wrapped by a key command, and parley.toml names none: "
                    "set [keys] command as it was."
                )
            return await self._command.unwrap(f"{key_id} {kind}", *_both(wrapped))
        if wrapped.by not in self.keys:
            raise ConfigurationError(
                f"The key {wrapped.by} wrapped the data key {key_id}, and is neither in the key file "
                f"{self._settings.key_file} nor in PARLEY_KEY or PARLEY_KEY_PREVIOUS. "
                "Restore the key file that was used with this store."
            )
        key = Keyring(self.keys).open(_TABLE, _COLUMN, f"{key_id} {kind}", wrapped.value)
        if len(key) != KEY_BYTES:
            raise SealError(f"The data key {key_id} is damaged.")
        return key

    def rotate(self) -> str:
        """Put a new key into the key file; its id. Raises ConfigurationError where the key is kept elsewhere."""
        if self.origin != "file":
            raise ConfigurationError(_ELSEWHERE[self.origin])
        path = self._settings.key_file
        fresh = new_key_id()
        keys = {**key_file.read(path), fresh: new_key()}
        key_file.replace(path, keys)
        self.keys = keys
        return fresh

    def remove(self, key_id: str) -> None:
        """Take a key out of the key file; the last one only where another source wraps. Raises ConfigurationError."""
        path = self._settings.key_file
        in_file = key_file.read(path) if key_file.exists(path) else {}
        if key_id not in in_file:
            raise ConfigurationError(
                f"The key {key_id} is wrapped in the store, and not in the key file {path}: take it out of "
                "PARLEY_KEY_PREVIOUS, where it may still be."
            )
        left = {name: key for name, key in in_file.items() if name != key_id}
        if left:
            key_file.replace(path, left)
        elif self.origin == "file":
            raise ConfigurationError(f"The key {key_id} is the only one in the key file {path}.")
        else:
            path.unlink()
        self.keys = {name: key for name, key in self.keys.items() if name != key_id}

    def __repr__(self) -> str:
        return f"<KeySource {self.origin}, {self.newest}>"


_ELSEWHERE: Final = {
    "environment": (
        "The key is in the environment: set PARLEY_KEY_PREVIOUS to what PARLEY_KEY is now and PARLEY_KEY to a new key "
        "(openssl rand -base64 32), and start again. The data keys are wrapped anew at that start."
    ),
    "command": "",
}


def open_source(settings: Settings, *, sealed_rows: bool) -> KeySource:
    """The source that the settings name. Raises ConfigurationError; see `key_file.load_or_create`."""
    configured = settings.file.keys
    command = KeyCommand(configured.command, configured.timeout) if configured.command else None
    given = _from_environment(settings)
    if not command and not given:
        keys = key_file.load_or_create(settings.key_file, home=settings.home, sealed_rows=sealed_rows)
        return KeySource(settings, keys, "file", None)
    # A key file that is still there unwraps what it wrapped before.
    in_file = key_file.read(settings.key_file) if key_file.exists(settings.key_file) else {}
    return KeySource(settings, {**in_file, **given}, "command" if command else "environment", command)


def _from_environment(settings: Settings) -> Keys:
    if settings.key is None:
        if settings.key_previous:
            raise ConfigurationError(
                "PARLEY_KEY_PREVIOUS is set and PARLEY_KEY is not: set both, or neither."
            )
        return {}
    earlier = [text for text in (settings.key_previous or "").replace(",", " ").split() if text]
    keys = [_decoded(text, "PARLEY_KEY_PREVIOUS") for text in earlier]
    return {_id_of(key): key for key in [*keys, _decoded(settings.key, "PARLEY_KEY")]}


def _decoded(text: str, variable: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"{variable} is not a key: give 32 bytes in base64 (openssl rand -base64 32)."
        )
    return key


def _id_of(key: bytes) -> str:
    """The environment has no room for an id: it is made of the key, and tells nothing of it."""
    return hmac.digest(key, b"parley key id", "sha256")[:ID_BYTES].hex()


def _both(wrapped: Wrapped) -> tuple[str, bytes]:
    return wrapped.by, wrapped.value
