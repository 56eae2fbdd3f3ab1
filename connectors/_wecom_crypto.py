"""WeCom's envelope: what its servers send to a callback address, and what they take as the answer.

The vendor's description is developer.work.weixin.qq.com/document/path/90968: AES-256-CBC under the key that
EncodingAESKey spells, with the key's first half as the initial vector; the plain text is 16 random bytes, the length
of the message in four bytes, the message, and the id of the company it is for, padded by PKCS#7 to 32 bytes. A
signature over token, time, nonce and cipher text says that it is from WeCom.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from typing import TYPE_CHECKING

from parley.errors import BadSignature, ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.modes import CBC

WINDOW = 300.0
"""Seconds that a request's time may be off. WeCom gives up sending again well within a minute; the rest is for clocks
that are wrong. What comes again within the window has the same native id, and does nothing."""

MAX_CIPHER = 1024 * 1024
"""Longest cipher text that is looked at, in characters; a message of a person has some kilobytes."""

_BLOCK = 32  # what WeCom pads to; AES itself has blocks of 16
_RANDOM = 16
_AES_KEY = re.compile(r"[A-Za-z0-9]{43}")
_DIGITS = re.compile(r"[0-9]{1,12}")


class Envelope:
    """Opens and closes the envelopes of one application. Raises nothing but `BadSignature` for what comes in."""

    def __init__(self, token: str, encoding_aes_key: str, corp_id: str) -> None:
        """Raises `ConfigurationError` for a key that is not one."""
        if not _AES_KEY.fullmatch(encoding_aes_key):
            raise ConfigurationError(
                "EncodingAESKey has 43 letters and digits: copy it from the application's page, under Receive messages."
            )
        self._token = token.encode()
        # The last character spells four bits more than the key has: a strict decoder would mind.
        self._key = base64.b64decode(encoding_aes_key + "=")
        self._corp_id = corp_id.encode()

    def __repr__(self) -> str:
        return "Envelope()"

    def signature(self, timestamp: str, nonce: str, cipher: str) -> str:
        """The signature of a cipher text, in hexadecimal. SHA-1 is the vendor's choice."""
        parts = sorted([self._token, _raw(timestamp), _raw(nonce), _raw(cipher)])
        return hashlib.sha1(b"".join(parts), usedforsecurity=False).hexdigest()

    def open(self, cipher: str, *, signature: str, timestamp: str, nonce: str, now: float) -> bytes:
        """The message in an envelope. `now` is in seconds since 1970.

        Raises `BadSignature`: it is not from WeCom, for another company, too old, or damaged.
        """
        if len(cipher) > MAX_CIPHER:
            raise BadSignature("The request is larger than any that WeCom sends.")
        if not hmac.compare_digest(_raw(self.signature(timestamp, nonce, cipher)), _raw(signature)):
            raise BadSignature("The request's signature is not WeCom's.")
        if not _DIGITS.fullmatch(timestamp) or abs(now - int(timestamp)) > WINDOW:
            raise BadSignature("The request is too old, or the clock of this machine is wrong.")
        return self._message(self._decrypted(cipher))

    def close(self, message: bytes, *, timestamp: str, nonce: str) -> tuple[str, str]:
        """An envelope around our own message: its cipher text and its signature."""
        plain = os.urandom(_RANDOM) + len(message).to_bytes(4, "big") + message + self._corp_id
        padding = _BLOCK - len(plain) % _BLOCK
        encryptor = self._cipher().encryptor()
        raw = encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()
        cipher = base64.b64encode(raw).decode()
        return cipher, self.signature(timestamp, nonce, cipher)

    def _decrypted(self, cipher: str) -> bytes:
        try:
            raw = base64.b64decode(_raw(cipher), validate=True)
        except binascii.Error:
            raw = b""
        if not raw or len(raw) % _BLOCK:
            raise BadSignature("The request's cipher text is damaged.")
        decryptor = self._cipher().decryptor()
        return decryptor.update(raw) + decryptor.finalize()

    def _message(self, padded: bytes) -> bytes:
        padding = padded[-1]
        if not 1 <= padding <= _BLOCK or padded[-padding:] != bytes([padding]) * padding:
            raise BadSignature("The request does not decrypt: is EncodingAESKey the application's?")
        plain = padded[_RANDOM:-padding]
        length = int.from_bytes(plain[:4], "big")
        message, receiver = plain[4 : 4 + length], plain[4 + length :]
        if len(plain) < 4 or len(message) != length or not hmac.compare_digest(receiver, self._corp_id):
            raise BadSignature("The request is for another company than this account's.")
        return message

    def _cipher(self) -> Cipher[CBC]:
        # Imported where it is used: a process that only looks at this module does not pay for it.
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        return Cipher(algorithms.AES(self._key), modes.CBC(self._key[:16]))


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
