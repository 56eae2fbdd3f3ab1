"""Tokens of an OpenID provider: signed with a key of the provider, for us, now, and in answer to our question.

The list of algorithms is ours: what a token says of itself chooses none that is not in it, so that neither `none` nor a
public key taken for a shared secret gets through.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from typing import Any, Final

from parley.errors import Rejected

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "ES384", "Ed25519", "EdDSA")

LONGEST: Final = 32 * 1024
"""Bytes of a token."""

LEEWAY: Final = 60
"""Seconds by which clocks may differ."""

MOST_AGE: Final = 600
"""Seconds since a token was made, at the most: it answers a question of a moment ago."""

LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"

_KEY_TYPES: Final = frozenset({"RSA", "EC", "OKP"})
MOST_KEYS: Final = 100


class UnknownKey(Rejected):
    """No key that is known has this token's id; the provider may have new ones."""


def keys_of(document: object) -> Any:
    """The keys of a JWKS that may sign. Raises `Rejected` for what is none."""
    from joserfc.jwk import KeySet

    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise Rejected("The provider's keys are not a list of keys.")
    usable = [one for one in listed if _may_sign(one)]
    try:
        return KeySet.import_key_set({"keys": usable})
    except Exception as error:
        # The library raises whatever a malformed key makes it raise.
        raise Rejected("One of the provider's keys is malformed.") from error


def signed_claims(token: object, keys: Any) -> dict[str, Any]:
    """What a token says, whose signature is one of these keys'. Raises `UnknownKey`, `Rejected`."""
    from joserfc import jws, jwt
    from joserfc.errors import JoseError

    if not isinstance(token, str) or not token.isascii() or not 0 < len(token) <= LONGEST:
        raise Rejected("The provider gave no token.")
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise Rejected("The provider's token is none.") from error
    key = _key_for(header, keys)
    try:
        claims: Any = jwt.decode(token, key, algorithms=list(ALGORITHMS)).claims
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise Rejected("The provider's token is not signed as it has to be.") from error
    if not isinstance(claims, dict):
        raise Rejected("The provider's token says nothing.")
    return claims


def check_id_token(claims: Mapping[str, Any], *, issuer: str, client_id: str, nonce: str) -> str:
    """The subject. Raises `Rejected` for a token that is not for us, not now, or answers another question."""
    _check_for_us(claims, issuer, client_id)
    said = claims.get("nonce")
    if not isinstance(said, str) or not hmac.compare_digest(said.encode("utf-8", "replace"), nonce.encode()):
        raise Rejected("The provider's token answers another question.")
    return subject_of(claims)


def check_logout_token(
    claims: Mapping[str, Any], *, issuer: str, client_id: str
) -> tuple[str | None, str | None, str]:
    """Subject, session and id of a logout token. Raises `Rejected` for what is none."""
    _check_for_us(claims, issuer, client_id)
    events, subject, session, identifier = (claims.get(name) for name in ("events", "sub", "sid", "jti"))
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict) or "nonce" in claims:
        raise Rejected("This is no logout token.")
    if not isinstance(identifier, str) or not 0 < len(identifier) <= 1000:
        raise Rejected("This logout token has no id.")
    sub = subject if isinstance(subject, str) else None
    sid = session if isinstance(session, str) else None
    if sub is None and sid is None:
        raise Rejected("This logout token names nobody.")
    return sub, sid, identifier


def subject_of(claims: Mapping[str, Any]) -> str:
    """The subject as the standard has it: up to 255 ASCII characters. Raises `Rejected`."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255 or not subject.isascii():
        raise Rejected("The provider's token names nobody.")
    if not subject.isprintable():
        raise Rejected("The provider's token names nobody.")
    return subject


def _check_for_us(claims: Mapping[str, Any], issuer: str, client_id: str) -> None:
    if claims.get("iss") != issuer:
        raise Rejected("The provider's token is of another issuer.")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    party = claims.get("azp")
    if client_id not in audiences or (len(audiences) > 1 and party is None):
        raise Rejected("The provider's token is for somebody else.")
    if party is not None and party != client_id:
        raise Rejected("The provider's token is for somebody else.")
    now = time.time()
    expires, made, begins = (_seconds(claims, name) for name in ("exp", "iat", "nbf"))
    if expires is None or expires <= now - LEEWAY:
        raise Rejected("The provider's token has run out.")
    if made is None or not now - MOST_AGE <= made <= now + LEEWAY:
        raise Rejected("The provider's token was not made just now.")
    if begins is not None and begins > now + LEEWAY:
        raise Rejected("The provider's token is not good yet.")


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise Rejected(f"The provider's token has no time in {name}.")
    return float(value)


def _may_sign(one: object) -> bool:
    return isinstance(one, dict) and one.get("kty") in _KEY_TYPES and one.get("use", "sig") == "sig"


def _key_for(header: Mapping[str, Any], keys: Any) -> Any:
    wanted = header.get("kid")
    fitting = [key for key in keys.keys if wanted is None or key.kid == wanted]
    if wanted is None and len(fitting) > 1:
        raise Rejected("The provider's token does not say which key signed it.")
    if not fitting:
        raise UnknownKey("The provider's token is signed with a key that it does not show.")
    return fitting[0]


__all__ = [
    "ALGORITHMS",
    "UnknownKey",
    "check_id_token",
    "check_logout_token",
    "keys_of",
    "signed_claims",
    "subject_of",
]
