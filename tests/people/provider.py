"""An OpenID provider in memory, with a key of its own: honest, and able to lie about each thing that is checked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

from parley.people.oidc_provider import Call

ISSUER = "https://id.example.org"
CLIENT = "parley"
REDIRECT = "https://console.example.org/login/provider/corp/callback"


@dataclass
class About:
    """As parley.toml says it."""

    issuer: str = ISSUER
    client_id: str = CLIENT
    client_secret_file: Path | None = None
    scopes: tuple[str, ...] = ("openid", "profile")
    label: str = ""
    groups_claim: str = ""
    join: bool = True
    mail_account: str = ""


@dataclass
class FakeProvider:
    """Takes calls as `Send` does. `lies` change the claims (None leaves one out), `header` and `key` the signature."""

    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "k1", "use": "sig"}))
    lies: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    signs_with: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] | None = None
    keys: list[dict[str, Any]] | None = None
    asked: dict[str, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def sign_in(self, address: str) -> dict[str, str]:
        """Somebody signs in on its page: what the browser is sent back with."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return {"code": code, "state": asked["state"], "issuer": ISSUER}

    async def send(self, call: Call) -> tuple[int, bytes]:
        """Answer a call."""
        self.calls.append(call)
        path = urlsplit(call.url).path
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps(self._describes()).encode()
        if path == "/jwks":
            public = [self.key.as_dict(private=False)] if self.keys is None else self.keys
            return 200, json.dumps({"keys": public}).encode()
        if path == "/me":
            return 200, json.dumps(self.info).encode()
        assert path == "/token", path
        form = {name: values[0] for name, values in parse_qs(call.body.decode()).items()}
        asked = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        right = asked and asked["code_challenge"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if not asked or not right or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, b'{"error": "invalid_grant"}'
        return 200, json.dumps({"access_token": "at", "id_token": self.token(asked["nonce"])}).encode()

    def token(self, nonce: str | None = None, **more: Any) -> str:
        """A token, with the lies in it."""
        at = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": CLIENT,
            "sub": "subject-1",
            "exp": at + 300,
            "iat": at,
            "nonce": nonce,
            "preferred_username": "ann",
            **more,
            **self.lies,
        }
        told = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": "RS256", "kid": "k1", **self.header}
        if header["alg"] in ("none", "HS256"):
            text = ".".join(_text(json.dumps(one).encode()) for one in (header, told))
            # The public key taken for a shared secret: the oldest trick.
            proof = hmac.digest(self.key.as_pem(private=False), text.encode(), "sha256")
            return f"{text}.{_text(proof) if header['alg'] == 'HS256' else ''}"
        key = self.signs_with or self.key
        return jwt.encode(header, told, key, algorithms=[header["alg"]])

    def _describes(self) -> dict[str, Any]:
        return {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/auth",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/jwks",
            **({"userinfo_endpoint": f"{ISSUER}/me"} if self.info is not None else {}),
            **self.metadata,
        }


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
