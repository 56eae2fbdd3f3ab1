"""One OpenID provider as we talk to it: what it says of itself, its keys, and the exchange of a code.

What it says of itself is read again each hour, keys too, and once a minute at the most when a token names one that is
not known. Every answer is bounded, and every address it names is one of its own host or of the public Internet.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode, urlsplit

from parley.errors import ConfigurationError, Rejected, Unreachable
from parley.people import id_tokens

KEPT_SECONDS: Final = 3600.0
KEYS_AGAIN_SECONDS: Final = 60.0
LONGEST_SECRET: Final = 4096


class Described(Protocol):
    """`[sign_in.oidc.<name>]` of parley.toml."""

    @property
    def issuer(self) -> str:
        """What it calls itself."""

    @property
    def client_id(self) -> str:
        """What it calls us."""

    @property
    def client_secret_file(self) -> Path | None:
        """Where the secret is that we share with it."""

    @property
    def scopes(self) -> tuple[str, ...]:
        """What it is asked for."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the provider. `inside`: it may lead into networks of our own. Its `repr` hides what is sent."""

    method: str
    url: str
    inside: bool
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


Send = Callable[[Call], Awaitable[tuple[int, bytes]]]
"""Status and body, bounded in size and time. Raises `Unreachable`, `Rejected`."""


class Provider:
    """Talks to one provider; keeps what it said for a while."""

    def __init__(self, about: Described, send: Send, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.about = about
        self._send = send
        self._clock = clock
        self._metadata: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, Any] | None = None

    async def address(self, *, redirect: str, state: str, nonce: str, challenge: str) -> str:
        """Where the browser is sent to sign in there. Raises `Unreachable`, `Rejected`."""
        endpoint = self._endpoint(await self._described(), "authorization_endpoint")
        asked = {
            "response_type": "code",
            "client_id": self.about.client_id,
            "redirect_uri": redirect,
            "scope": " ".join(self.about.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    async def check_answering(self, said: str | None) -> None:
        """RFC 9207: whoever answers is this provider. Raises `Rejected`."""
        required = (await self._described()).get("authorization_response_iss_parameter_supported") is True
        if said != self.about.issuer and (said is not None or required):
            raise Rejected("Another provider has answered than was asked.")

    async def claims(self, *, code: str, redirect: str, verifier: str, nonce: str) -> dict[str, Any]:
        """What it says of who signed in there, checked; `sub` is there. Raises `Unreachable`, `Rejected`."""
        answer = await self._exchange(code, redirect, verifier)
        claims = await self.checked(answer.get("id_token"))
        subject = id_tokens.check_id_token(
            claims, issuer=self.about.issuer, client_id=self.about.client_id, nonce=nonce
        )
        more = await self._user_info(answer.get("access_token"), subject)
        return {**more, **claims}

    async def checked(self, token: object) -> dict[str, Any]:
        """What a token says that this provider signed. Raises `Unreachable`, `Rejected`."""
        try:
            return id_tokens.signed_claims(token, await self._signing_keys())
        except id_tokens.UnknownKey:
            if self._keys is not None and self._clock() - self._keys[0] < KEYS_AGAIN_SECONDS:
                raise
            self._keys = None
        return id_tokens.signed_claims(token, await self._signing_keys())

    async def _exchange(self, code: str, redirect: str, verifier: str) -> dict[str, Any]:
        described = await self._described()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "code_verifier": verifier,
        }
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        secret = self._secret()
        methods = described.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if secret and "client_secret_basic" in methods:
            pair = f"{quote(self.about.client_id, safe='')}:{quote(secret, safe='')}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = self.about.client_id
            form |= {"client_secret": secret} if secret else {}
        url = self._endpoint(described, "token_endpoint")
        return await self._json("POST", url, headers=headers, body=urlencode(form).encode())

    async def _user_info(self, access_token: object, subject: str) -> dict[str, Any]:
        """Claims that are not in the ID token; only those of the same subject count."""
        described = await self._described()
        if "userinfo_endpoint" not in described or not isinstance(access_token, str):
            return {}
        if not access_token.isascii() or not access_token.isprintable():
            return {}
        headers = {"authorization": f"Bearer {access_token}", "accept": "application/json"}
        said = await self._json("GET", self._endpoint(described, "userinfo_endpoint"), headers=headers)
        if said.get("sub") != subject:
            raise Rejected("The provider speaks of two people.")
        return said

    async def _described(self) -> dict[str, Any]:
        if self._metadata is None or self._clock() - self._metadata[0] > KEPT_SECONDS:
            url = f"{self.about.issuer.rstrip('/')}/.well-known/openid-configuration"
            found = await self._json("GET", url)
            if found.get("issuer") != self.about.issuer:
                raise Rejected("The provider calls itself by another issuer than parley.toml does.")
            self._metadata = (self._clock(), found)
        return self._metadata[1]

    async def _signing_keys(self) -> Any:
        if self._keys is None or self._clock() - self._keys[0] > KEPT_SECONDS:
            url = self._endpoint(await self._described(), "jwks_uri")
            self._keys = (self._clock(), id_tokens.keys_of(await self._json("GET", url)))
        return self._keys[1]

    def _endpoint(self, described: Mapping[str, Any], name: str) -> str:
        url = described.get(name)
        if not isinstance(url, str) or len(url) > 2000 or not url.isascii() or not url.isprintable():
            raise Rejected(f"The provider names no {name}.")
        parts, own = urlsplit(url), urlsplit(self.about.issuer)
        if parts.scheme != "https" and (parts.scheme, parts.netloc) != (own.scheme, own.netloc):
            raise Rejected(f"The provider's {name} is not https.")
        if parts.fragment or "@" in parts.netloc or "\\" in url:
            raise Rejected(f"The provider's {name} is no address.")
        return url

    async def _json(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> dict[str, Any]:
        inside = urlsplit(url).hostname == urlsplit(self.about.issuer).hostname
        status, raw = await self._send(Call(method, url, inside, headers or {}, body))
        if status >= 500:
            raise Unreachable(f"The provider answers {status}.")
        if status != 200:
            raise Rejected(f"The provider answers {status}.")
        try:
            said = json.loads(raw)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise Rejected("The provider's answer is no JSON object.")
        return said

    def _secret(self) -> str:
        path = self.about.client_secret_file
        if path is None:
            return ""
        try:
            with path.open("rb") as file:
                return file.read(LONGEST_SECRET).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"client_secret_file of {self.about.issuer} cannot be read.") from error


__all__ = ["Call", "Described", "Provider", "Send"]
