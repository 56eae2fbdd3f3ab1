"""Entries of a directory as people: who they are, how they are known, in which groups, and whether they are disabled.

What an entry lacks or says twice, and what two entries say of themselves at once, gives nobody anything; it is told.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from parley.people.directory_search import DirectoryError, Search, search
from parley.people.directory_settings import Directory
from parley.people.distinguished_names import canonical
from parley.people.ldif import Entry

DISABLED: Final = (
    "userAccountControl",
    "nsAccountLock",
    "pwdAccountLockedTime",
    "accountExpires",
    "loginDisabled",
)
"""Attributes by which servers say that somebody is disabled: AD, 389, OpenLDAP's policies, AD, eDirectory."""

MOST_ID: Final = 200
"""Bytes of an id."""

LONGEST_ENTRY: Final = 2 + 2 * MOST_ID
"""Characters of one as it is written here: bytes that are no text as hexadecimal ones."""

MOST_NATIVE: Final = 300
MOST_PROBLEMS: Final = 1000

_ACCOUNT_DISABLED: Final = 0x2
_FOR_EVER: Final = "000001010000Z"
_NEVER: Final = frozenset({0, 0x7FFF_FFFF_FFFF_FFFF})
_EPOCH_OF_AD: Final = datetime(1601, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryPerson:
    """One entry. `entry` is the id that never changes; `identities` are (account, user id)."""

    entry: str
    name: str
    identities: frozenset[tuple[str, str]] = field(default_factory=frozenset, repr=False)
    groups: tuple[str, ...] = field(default=(), repr=False)
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """All people whom the directory has now, by entry, and what was wrong with some entries, in words.

    `contested` are user ids that several entries say are theirs: nobody gets them, and who had one before keeps it.
    """

    people: Mapping[str, DirectoryPerson]
    problems: Sequence[str] = ()
    contested: frozenset[tuple[str, str]] = field(default_factory=frozenset, repr=False)


async def ask(directory: Directory) -> Answer:
    """Everybody, of a whole answer. Raises `DirectoryError` or `ConfigurationError`."""
    attributes = (*directory.attributes, *DISABLED)
    entries = await search(directory, Search(directory.base, directory.filter, attributes))
    if not entries:
        raise DirectoryError("The directory has nobody below this base whom the filter finds.")
    if directory.group_base is None:
        return read(directory, entries, {}, datetime.now(UTC))
    wanted = Search(directory.group_base, directory.group_filter, (directory.member,))
    found = await search(directory, wanted)
    return read(directory, entries, memberships(directory.member, found), datetime.now(UTC))


def memberships(attribute: str, found: Iterable[Entry]) -> dict[str, tuple[str, ...]]:
    """Groups by member (canonical name), those of groups that are members of groups included."""
    above: dict[str, set[str]] = {}
    for group in found:
        for member in group.texts(attribute):
            if (name := _canonical(member)) is not None:
                above.setdefault(name, set()).add(group.dn)
    names = {dn: name for groups in above.values() for dn in groups if (name := _canonical(dn)) is not None}
    return {member: tuple(sorted(_closure(groups, above, names))) for member, groups in above.items()}


def read(
    directory: Directory, entries: Sequence[Entry], memberships: Mapping[str, tuple[str, ...]], at: datetime
) -> Answer:
    """The people whom these entries are. An entry without an id or a name is nobody, and a problem."""
    problems: list[str] = []
    people: dict[str, DirectoryPerson] = {}
    twice: set[str] = set()
    for number, entry in enumerate(entries, 1):
        person = _person(directory, entry, memberships, at)
        if person is None:
            problems.append(
                f"entry {number} of the answer has not one {directory.id} and one {directory.name}"
            )
        elif person.entry in people:
            twice.add(person.entry)
        else:
            people[person.entry] = person
    if twice:
        # Whose it is cannot be told: nothing follows from such an answer.
        raise DirectoryError(f"{len(twice)} entries of the directory have the same {directory.id} as others.")
    claims = Counter(one for person in people.values() for one in person.identities)
    contested = frozenset(one for one, count in claims.items() if count > 1)
    for account, _ in sorted(contested):
        problems.append(
            f"several entries have the same user id of {account}: it is linked to none of them anew"
        )
    return Answer(_told_apart(people, contested), problems[:MOST_PROBLEMS], contested)


def is_disabled(entry: Entry, at: datetime) -> bool:
    """Whether the directory itself lets them in no more."""
    control = _number(entry, "userAccountControl")
    expires = _number(entry, "accountExpires")
    return (
        (control is not None and bool(control & _ACCOUNT_DISABLED))
        or any(text.upper() == "TRUE" for text in entry.texts("nsAccountLock"))
        or any(text.upper() == "TRUE" for text in entry.texts("loginDisabled"))
        or _FOR_EVER in entry.texts("pwdAccountLockedTime")
        or (expires is not None and expires not in _NEVER and _is_past(expires, at))
    )


def _person(
    directory: Directory, entry: Entry, memberships: Mapping[str, tuple[str, ...]], at: datetime
) -> DirectoryPerson | None:
    identifier, names = _identifier(entry, directory.id), entry.texts(directory.name)
    if identifier is None or not names:
        return None
    if directory.group_base is None:
        groups = entry.texts(directory.groups)
    else:
        groups = memberships.get(_canonical(entry.dn) or "", ())
    return DirectoryPerson(
        entry=identifier,
        name=names[0],
        identities=frozenset(
            (account, native)
            for account, attribute in directory.identities.items()
            for text in entry.texts(attribute)
            if (native := _native(text)) is not None
        ),
        groups=groups,
        disabled=is_disabled(entry, at),
    )


def _told_apart(
    people: Mapping[str, DirectoryPerson], contested: frozenset[tuple[str, str]]
) -> dict[str, DirectoryPerson]:
    return {
        entry: replace(person, identities=person.identities - contested)
        if person.identities & contested
        else person
        for entry, person in people.items()
    }


def _identifier(entry: Entry, attribute: str) -> str | None:
    values = entry.values.get(attribute.lower(), ())
    if len(values) != 1 or not 0 < len(values[0]) <= MOST_ID:
        return None
    try:
        text = values[0].decode("ascii")
    except UnicodeDecodeError:
        return f"0x{values[0].hex()}"
    # Microsoft's objectGUID is sixteen bytes, which may be letters by chance.
    return text if text.isprintable() and len(text) != 16 else f"0x{values[0].hex()}"


def _native(text: str) -> str | None:
    """A user id as connectors give it: addresses in lower case, others as they are; None for what is none."""
    text = text.strip()
    if (
        not 0 < len(text) <= MOST_NATIVE
        or not text.isprintable()
        or text != unicodedata.normalize("NFC", text)
    ):
        return None
    return text.lower() if "@" in text else text


def _closure(groups: Iterable[str], above: Mapping[str, set[str]], names: Mapping[str, str]) -> set[str]:
    found, left = set[str](), list(groups)
    while left:
        group = left.pop()
        if group not in found:
            found.add(group)
            left += above.get(names.get(group, ""), ())
    return found


def _canonical(dn: str) -> str | None:
    try:
        return canonical(dn)
    except ValueError:
        return None


def _number(entry: Entry, name: str) -> int | None:
    texts = entry.texts(name)
    plain = len(texts) == 1 and len(texts[0]) <= 20 and texts[0].lstrip("-").isascii()
    return int(texts[0]) if plain and texts[0].lstrip("-").isdigit() else None


def _is_past(expires: int, at: datetime) -> bool:
    try:
        return _EPOCH_OF_AD + timedelta(microseconds=expires // 10) <= at
    except OverflowError:
        return False


__all__ = ["Answer", "DirectoryPerson", "ask", "is_disabled", "memberships", "read"]
