"""Proofs of who made a request: signatures, tokens and times, over the raw bytes and in constant time. Pure.

Each function returns nothing (or what it proved) and raises `BadSignature`, whose text never holds what was compared.
Several secrets are those of a rotation: any of them will do.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

from parley.errors import BadSignature, ConfigurationError

WINDOW = 300
"""Seconds that a signed time may be away from ours, as Standard Webhooks has it."""

_STAMP = re.compile(r"[0-9]{1,12}")
_ID = re.compile(r"[\x21-\x7e]{1,200}")
_FEWEST_KEY_BYTES = 16
_MOST_SIGNATURES = 10


def prove_hex_hmac(secrets: Sequence[str], signed: bytes, given: str) -> None:
    """`given` is the HMAC-SHA256 of `signed` in hexadecimal under one of the secrets."""
    made = [hmac.digest(secret.encode(), signed, hashlib.sha256).hex() for secret in secrets if secret]
    if not _any_equal(made, given.strip().lower()):
        raise BadSignature("The request's signature is missing or wrong.")


def prove_token(secrets: Sequence[str], given: str) -> None:
    """`given` is one of the secrets itself."""
    if not _any_equal([*filter(None, secrets)], given):
        raise BadSignature("The request's token is missing or wrong.")


def prove_authorization(tokens: Sequence[str], logins: Sequence[tuple[str, str]], header: str) -> None:
    """The Authorization header is one of the bearer tokens, or one of the logins (name, password)."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        prove_token(tokens, rest.strip())
    elif scheme.lower() == "basic":
        wanted = [f"{name}:{password}" for name, password in logins if name and password]
        prove_token(wanted, _from_base64(rest.strip()).decode("utf-8", "replace"))
    else:
        raise BadSignature("The request carries no authorization.")


def prove_recent(stamp: str, now: float, window: float = WINDOW) -> None:
    """`stamp`, in whole seconds since 1970, is no further than `window` seconds from `now`."""
    if not (_STAMP.fullmatch(stamp) and abs(now - int(stamp)) <= window):
        raise BadSignature("The request's time is missing, or too far from now.")


def prove_standard_webhook(keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float) -> str:
    """The request is signed as Standard Webhooks has it (scheme v1); returns its id, which the signature covers."""
    message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not _ID.fullmatch(message_id):
        raise BadSignature("The request has no usable webhook-id.")
    prove_recent(stamp, now)
    made = [standard_signature(key, message_id, int(stamp), body) for key in keys]
    # A sender that is changing its secret signs with both, one signature after the other.
    given = headers.get("webhook-signature", "").split(" ")[:_MOST_SIGNATURES]
    if not sum(_any_equal(made, one) for one in given):
        raise BadSignature("The request's signature is missing or wrong.")
    return message_id


def standard_signature(key: bytes, message_id: str, stamp: int, body: bytes) -> str:
    """What stands in `webhook-signature` for this message."""
    signed = f"{message_id}.{stamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def standard_key(secret: str, field: str) -> bytes:
    """The key in a secret of the form `whsec_<base64>`. Raises `ConfigurationError`, which names `field`."""
    encoded = secret.strip().removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < _FEWEST_KEY_BYTES:
        raise ConfigurationError(
            f"{field} must be whsec_ and the base64 of at least {_FEWEST_KEY_BYTES} bytes; "
            'make one with: python -c "import base64, secrets; '
            "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
        )
    return key


def _any_equal(wanted: Sequence[str], given: str) -> bool:
    raw = given.encode("utf-8", "replace")
    found = False
    for one in wanted:  # all are compared, so that time does not tell which one it was
        found |= hmac.compare_digest(one.encode("utf-8", "replace"), raw)
    return found


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
