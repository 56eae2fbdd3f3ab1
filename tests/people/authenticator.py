"""A security key in software (WebAuthn, ES256): honest, and able to lie about each thing that has to be checked."""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


@dataclass
class Authenticator:
    """Makes one credential, and signs with it. What is given to `make` and `sign` besides is the lie."""

    rp_id: str
    origin: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    credential: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    user: str = ""
    count: int = 0

    def make(self, options: dict[str, Any], **lie: Any) -> dict[str, Any]:
        """The answer to `navigator.credentials.create`."""
        self.user = options["user"]["id"]
        numbers = self.key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + len(self.credential).to_bytes(2, "big") + self.credential + cbor2.dumps(public)
        data = self._data(PRESENT | VERIFIED | ATTESTED, lie) + attested
        statement = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", options, lie)
        return self._answer({"clientDataJSON": text(client), "attestationObject": text(statement)})

    def sign(self, options: dict[str, Any], **lie: Any) -> dict[str, Any]:
        """The answer to `navigator.credentials.get`."""
        self.count = lie.get("count", self.count + 1)
        data = self._data(PRESENT | VERIFIED, lie)
        client = self._client("webauthn.get", options, lie)
        signature = lie.get("key", self.key).sign(data + hashlib.sha256(client).digest(), ec.ECDSA(SHA256()))
        return self._answer(
            {
                "clientDataJSON": text(client),
                "authenticatorData": text(data),
                "signature": text(signature),
                "userHandle": lie.get("user", self.user),
            }
        )

    def _data(self, flags: int, lie: dict[str, Any]) -> bytes:
        rp_hash = hashlib.sha256(str(lie.get("rp_id", self.rp_id)).encode()).digest()
        return rp_hash + bytes([lie.get("flags", flags)]) + self.count.to_bytes(4, "big")

    def _client(self, kind: str, options: dict[str, Any], lie: dict[str, Any]) -> bytes:
        said = {
            "type": lie.get("type", kind),
            "challenge": lie.get("challenge", options["challenge"]),
            "origin": lie.get("origin", self.origin),
        }
        return json.dumps(said).encode()

    def _answer(self, response: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": text(self.credential),
            "rawId": text(self.credential),
            "type": "public-key",
            "response": response,
        }
