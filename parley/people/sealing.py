"""Sealing: AES-256-GCM for what must not be read by whoever gets hold of the database alone.

A sealed value is ``version (1) | key id (4) | nonce (12) | ciphertext and tag``. It is bound to its place, so that it
opens neither in another row nor in another column: associated data is ``table|column|row id|key id``, for the field
of a Prefect Block ``block|type|name|field|key id``.

Version 2 names a data key: one of the keys that lie wrapped in the store (`parley.people.data_keys`). Version 1 names
a key of the key file itself, as installations sealed before they had data keys; it stays readable. A nonce is random;
one key is good for 2**32 values.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from parley.errors import ConfigurationError, SealError

TEXT_PREFIX: Final = "sealed:v1:"
"""How the sealed field of a Block begins."""

KEY_BYTES: Final = 32
ID_BYTES: Final = 4

MOST_VALUES: Final = 2**32
"""Values that one key may seal: beyond it two random nonces might be the same (NIST SP 800-38D, 8.3)."""

_FILE_KEY, _DATA_KEY = b"\x01", b"\x02"
_NONCE_BYTES = 12
HEADER_BYTES: Final = 1 + ID_BYTES
"""So many bytes at the beginning of a sealed value say which key sealed it: see `sealed_by`."""

_HEADER = HEADER_BYTES + _NONCE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """The keys that lie wrapped in the store, in clear, by id. Its `repr` shows none.

    `seals` is the data key that seals from now on, `proves` the root from which the keys of `authenticate` are made.
    """

    seals: str
    proves: str
    data: Mapping[str, bytes] = field(repr=False)
    roots: Mapping[str, bytes] = field(repr=False)
    former: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Keys that were in the key file once: they open values of version 1, and prove what was proved with them."""


class Keyring:
    """The keys of this installation. Its `repr` names them and shows none."""

    def __init__(self, keys: Mapping[str, bytes], ring: Ring | None = None) -> None:
        """`keys` of the key file by id, the newest last; without a `ring` of data keys that one seals."""
        if not keys and ring is None:
            raise ConfigurationError("A keyring needs a key.")
        for name, key in keys.items():
            _check(name, key)
        self._keys = dict(keys)
        self._newest = ""
        self._sealed = 0
        self._take(ring)

    @classmethod
    def generate(cls) -> Keyring:
        """A new keyring with one random key, kept nowhere."""
        return cls({new_key_id(): new_key()})

    def take(self, ring: Ring, keys: Mapping[str, bytes] | None = None) -> None:
        """Use these keys from now on, all at once; `keys` are the key file's, as they were when it is left out."""
        self._keys = self._keys if keys is None else dict(keys)
        self._take(ring)

    def _take(self, ring: Ring | None) -> None:
        data, former = (ring.data, ring.former) if ring else ({}, {})
        for name, key in (*data.items(), *former.items()):
            _check(name, key)
        if ring is None or ring.seals != self._newest:
            self._sealed = 0
        self._by_version = {
            _FILE_KEY: {name: AESGCM(key) for name, key in {**former, **self._keys}.items()},
            _DATA_KEY: {name: AESGCM(key) for name, key in data.items()},
        }
        self._proving = {**former, **self._keys, **(ring.roots if ring else {})}
        self._version, self._newest = (
            (_DATA_KEY, ring.seals) if ring else (_FILE_KEY, next(reversed(self._keys)))
        )
        self._proves = ring.proves if ring else self._newest

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
        raw = raw_of(sealed)
        if raw is None:
            raise SealError(f"The field {field} of the Block {block_name} is sealed, but damaged.")
        return self._open(("block", block_type, block_name, field), raw).decode()

    def keyed_hash(self, text: str) -> str:
        """The same text gives the same value, whatever keys are rotated; nobody without the root key can guess it."""
        return f"{self._proves}:{self.authenticate(self._proves, 'keyed hash', text.encode())}"

    def is_hash_of(self, keyed: str, text: str) -> bool:
        """Whether `keyed` is the `keyed_hash` of this text, made today or with an earlier root."""
        key_id, _, digest = keyed.partition(":")
        if key_id not in self._proving:
            return False
        proof = self.authenticate(key_id, "keyed hash", text.encode())
        return hmac.compare_digest(proof.encode(), digest.encode("utf-8", "surrogatepass"))

    def authenticate(self, key_id: str, purpose: str, data: bytes) -> str:
        """HMAC-SHA256 in hexadecimal, by a key made from the key `key_id` for this purpose alone. Raises SealError."""
        try:
            key = self._proving[key_id]
        except KeyError:
            raise SealError(f"The key {key_id} is not known here: {_MISSING}") from None
        derived = hmac.digest(key, f"parley {purpose}".encode(), "sha256")
        return hmac.digest(derived, data, "sha256").hex()

    @property
    def newest(self) -> str:
        """The id of the key that proves from now on: what was proved with another one names that."""
        return self._proves

    @property
    def sealing(self) -> str:
        """The id of the key that seals."""
        return self._newest

    @property
    def sealed_values(self) -> int:
        """How many values the key that seals has sealed in this process."""
        return self._sealed

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._proving or key_id in self._by_version[_DATA_KEY]

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(sorted({*self._proving, *self._by_version[_DATA_KEY]}))}>"

    def __reduce__(self) -> str:
        raise TypeError("A keyring stays in its process.")

    def is_newest(self, sealed: bytes) -> bool:
        """Whether the key that seals today sealed this, going by its first bytes."""
        return sealed[:HEADER_BYTES] == self._version + bytes.fromhex(self._newest)

    def _seal(self, place: tuple[str, ...], plaintext: bytes) -> bytes:
        # Half of it for this process: the other half is for those before it (`DataKeys.reserve`).
        if self._sealed >= MOST_VALUES // 2:
            raise SealError("The data key has sealed as many values as one may: `parley keys rotate --data`.")
        self._sealed += 1
        nonce = secrets.token_bytes(_NONCE_BYTES)
        cipher = self._by_version[self._version][self._newest]
        ciphertext = cipher.encrypt(nonce, plaintext, _bound(place, self._newest))
        return self._version + bytes.fromhex(self._newest) + nonce + ciphertext

    def _open(self, place: tuple[str, ...], sealed: bytes) -> bytes:
        ciphers = self._by_version.get(bytes(sealed[:1]))
        if len(sealed) < _HEADER or ciphers is None:
            raise SealError(
                f"{_where(place)} does not hold a sealed value of a version that this parley knows."
            )
        key_id = sealed[1:HEADER_BYTES].hex()
        if key_id not in ciphers:
            raise SealError(
                f"{_where(place)} was sealed with the key {key_id}, which is not there: {_MISSING}"
            )
        nonce = sealed[HEADER_BYTES:_HEADER]
        try:
            return ciphers[key_id].decrypt(nonce, sealed[_HEADER:], _bound(place, key_id))
        except InvalidTag:
            raise SealError(
                f"{_where(place)} does not open: it was altered, or moved there from another place."
            ) from None


_MISSING = "restore the key file, or the rows of data_key, that belong to this store."


def new_key() -> bytes:
    """A random key of 256 bits."""
    return secrets.token_bytes(KEY_BYTES)


def new_key_id() -> str:
    """A random id of a key."""
    return secrets.token_hex(ID_BYTES)


def sealed_by(sealed: bytes) -> str | None:
    """The id of the key that sealed this, going by its first `HEADER_BYTES`; None for what is not sealed."""
    whole = len(sealed) >= HEADER_BYTES and sealed[:1] in (_FILE_KEY, _DATA_KEY)
    return sealed[1:HEADER_BYTES].hex() if whole else None


def is_sealed_text(text: str) -> bool:
    """Whether the field of a Block is sealed already."""
    return text.startswith(TEXT_PREFIX)


def raw_of(text: str) -> bytes | None:
    """The sealed value in the field of a Block; None when it is damaged."""
    try:
        return base64.b64decode(text.removeprefix(TEXT_PREFIX), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


def _check(name: str, key: bytes) -> None:
    try:
        proper = len(bytes.fromhex(name)) == ID_BYTES and len(key) == KEY_BYTES
    except ValueError:
        proper = False
    if not proper:
        raise ConfigurationError("A keyring needs keys of 32 bytes with ids of 8 hexadecimal digits.")


def _bound(place: tuple[str, ...], key_id: str) -> bytes:
    if any("|" in part for part in place):
        raise ValueError(
            "The place of a sealed value has no '|' in its parts: two places could look the same."
        )
    return "|".join((*place, key_id)).encode()


def _where(place: tuple[str, ...]) -> str:
    return " / ".join(place)
