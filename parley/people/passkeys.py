"""Passkeys: what of one is kept, and what proves it.

User verification (a finger, a face, a PIN) is required, and credentials are discoverable: nobody types a name. Whose a
passkey is and its public key are sealed together, bound to their row: who can write rows cannot give themselves one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments
from parley.messages.model import now
from parley.people.principals import Principal
from parley.people.sealing import Keyring
from parley.store.ids import new_id
from parley.store.schema import passkey

MOST: Final = 20
LONGEST_NAME: Final = 60
LONGEST_ID: Final = 1400
"""Characters of a credential's id: 1,023 bytes, as base64url."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a passkey is used: the site's name as the browser knows it, and the page's exact origin."""

    rp_id: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """One of somebody's, as they see it."""

    id: str
    name: str
    created_at: datetime
    used_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One as it is kept: what an answer is checked against."""

    id: str
    principal_id: str
    public_key: bytes
    sign_count: int


def creation_options(who: Principal, place: Place, challenge: bytes, known: Sequence[str]) -> dict[str, Any]:
    """What the browser is asked for a new passkey; `known` are credentials that are there already."""
    import webauthn
    from webauthn.helpers import base64url_to_bytes
    from webauthn.helpers.structs import (
        AuthenticatorSelectionCriteria,
        PublicKeyCredentialDescriptor,
        ResidentKeyRequirement,
        UserVerificationRequirement,
    )

    options = webauthn.generate_registration_options(
        rp_id=place.rp_id,
        rp_name="Parley",
        user_id=who.id.encode(),
        user_name=who.name,
        user_display_name=who.name,
        challenge=challenge,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(one)) for one in known],
    )
    return _json(webauthn.options_to_json(options))


def request_options(place: Place, challenge: bytes) -> dict[str, Any]:
    """What the browser is asked for to sign in."""
    import webauthn
    from webauthn.helpers.structs import UserVerificationRequirement

    options = webauthn.generate_authentication_options(
        rp_id=place.rp_id, challenge=challenge, user_verification=UserVerificationRequirement.REQUIRED
    )
    return _json(webauthn.options_to_json(options))


def created(answer: dict[str, Any], place: Place, challenge: bytes) -> tuple[str, bytes, int]:
    """Credential, public key and counter of a new passkey. Raises `BadArguments` for one that proves nothing."""
    import webauthn
    from webauthn.helpers import bytes_to_base64url

    try:
        made = webauthn.verify_registration_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=place.rp_id,
            expected_origin=place.origin,
            require_user_verification=True,
        )
    except Exception as error:
        # The library raises its own errors, and for some malformed answers whatever came up on the way.
        raise BadArguments("This is no passkey that was made here just now.") from error
    return bytes_to_base64url(made.credential_id), made.credential_public_key, made.sign_count


def proved(answer: dict[str, Any], kept: Kept, place: Place, challenge: bytes) -> int | None:
    """The new counter when this answer is the passkey's to this challenge; else None."""
    import webauthn

    try:
        done = webauthn.verify_authentication_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=place.rp_id,
            expected_origin=place.origin,
            credential_public_key=kept.public_key,
            credential_current_sign_count=kept.sign_count,
            require_user_verification=True,
        )
    except Exception:  # noqa: BLE001 - see `created`
        return None
    return done.new_sign_count


def is_of(answer: dict[str, Any], principal_id: str) -> bool:
    """Whether the answer names this person as the credential's user, as discoverable ones do."""
    response = answer.get("response")
    handle = response.get("userHandle") if isinstance(response, dict) else None
    if not isinstance(handle, str):
        return False
    expected = base64.urlsafe_b64encode(principal_id.encode()).decode().rstrip("=")
    return handle.rstrip("=") == expected


async def add(
    conn: AsyncConnection,
    keyring: Keyring,
    principal_id: str,
    name: str,
    credential: tuple[str, bytes, int],
) -> str:
    """Keep a new one; its id. Raises `BadArguments` when there are too many, or it is there already."""
    credential_id, public_key, count = credential
    theirs = sa.select(sa.func.count()).where(passkey.c.principal_id == principal_id)
    if int(await conn.scalar(theirs) or 0) >= MOST:
        raise BadArguments(f"Nobody has more than {MOST} passkeys: remove one first.")
    if await find(conn, keyring, credential_id) is not None:
        raise BadArguments("This passkey is known here already.")
    identifier = new_id()
    text = json.dumps([principal_id, credential_id, base64.b64encode(public_key).decode()])
    row = {
        "id": identifier,
        "principal_id": principal_id,
        "credential_id": credential_id,
        "key_sealed": keyring.seal("passkey", "key_sealed", identifier, text.encode()),
        "sign_count": count,
        "name": clean_name(name),
        "created_at": now(),
    }
    await conn.execute(sa.insert(passkey).values(row))
    return identifier


async def find(conn: AsyncConnection, keyring: Keyring, credential_id: object) -> Kept | None:
    """The passkey of this credential. Raises SealError for one that was altered."""
    if not isinstance(credential_id, str) or not 0 < len(credential_id) <= LONGEST_ID:
        return None
    if not credential_id.isascii():
        return None
    row = (await conn.execute(sa.select(passkey).where(passkey.c.credential_id == credential_id))).first()
    if row is None:
        return None
    principal_id, sealed_id, key = json.loads(
        keyring.open("passkey", "key_sealed", row.id, bytes(row.key_sealed))
    )
    if (principal_id, sealed_id) != (row.principal_id, row.credential_id):
        return None
    return Kept(
        id=row.id, principal_id=principal_id, public_key=base64.b64decode(key), sign_count=row.sign_count
    )


async def used(conn: AsyncConnection, kept: Kept, count: int) -> bool:
    """It was used, and its counter is this; False when somebody used it meanwhile."""
    same = sa.and_(passkey.c.id == kept.id, passkey.c.sign_count == kept.sign_count)
    done = await conn.execute(sa.update(passkey).where(same).values(sign_count=count, used_at=now()))
    return done.rowcount == 1


async def of_person(conn: AsyncConnection, principal_id: str) -> list[Passkey]:
    """Somebody's passkeys, the oldest first."""
    query = sa.select(passkey).where(passkey.c.principal_id == principal_id).order_by(passkey.c.id)
    return [
        Passkey(id=row.id, name=row.name, created_at=row.created_at, used_at=row.used_at)
        for row in await conn.execute(query)
    ]


async def credentials(conn: AsyncConnection, principal_id: str) -> list[str]:
    """Credentials of somebody's passkeys."""
    query = sa.select(passkey.c.credential_id).where(passkey.c.principal_id == principal_id)
    return list((await conn.execute(query)).scalars())


async def remove(conn: AsyncConnection, principal_id: str, passkey_id: str) -> bool:
    """Take one of somebody's away; whether it was there."""
    same = sa.and_(passkey.c.principal_id == principal_id, passkey.c.id == passkey_id)
    return bool((await conn.execute(sa.delete(passkey).where(same))).rowcount)


def clean_name(name: str) -> str:
    """A passkey's name as it is kept. Raises `BadArguments`."""
    shown = " ".join(name.split())
    if not 0 < len(shown) <= LONGEST_NAME or not shown.isprintable():
        raise BadArguments(f"A passkey's name has 1 to {LONGEST_NAME} characters, all of them visible.")
    return shown


def _json(text: str) -> dict[str, Any]:
    options: dict[str, Any] = json.loads(text)
    return options


__all__ = ["Kept", "Passkey", "Place"]
