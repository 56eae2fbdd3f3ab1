"""What is read of a directory's answer: LDIF within bounds, entries as people, and what follows from them."""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from parley.people import directory_people, directory_plan
from parley.people.directory_people import Answer, DirectoryPerson
from parley.people.directory_plan import Known
from parley.people.directory_search import DirectoryError
from parley.people.directory_settings import Directory
from parley.people.group_lines import GroupLine
from parley.people.ldif import MOST_LINE, MOST_VALUES, Entry, Ldif, LdifError

AT = datetime(2026, 11, 23, tzinfo=UTC)
OPS = "cn=ops,ou=groups,dc=example,dc=org"
LINES = (GroupLine(source="directory", group=OPS, roles="operator"),)


def directory(**more: Any) -> Directory:
    values = {"url": "ldaps://ldap.example.org", "base": "ou=people,dc=example,dc=org"}
    return Directory.model_validate({**values, "identities": {"slack": "slackId", "post": "mail"}, **more})


def parsed(text: bytes, piece: int = 7) -> list[Entry]:
    ldif = Ldif()
    found = [one for at in range(0, len(text), piece) for one in ldif.feed(text[at : at + piece])]
    return [*found, *ldif.end()]


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# -- LDIF


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_entries_are_read_whatever_pieces_they_come_in(piece: int) -> None:
    name = "uid=b\u00e9a\n\ndn: uid=evil,dc=org"
    broken = "line\nbreak"
    text = (
        f"dn:: {b64(name)}\nUID: bea\ncn:: {b64(broken)}\nmail;lang-de: other@example.org\n"
        "userCertificate;binary:: AAEC\nempty:\n\n# pagedresults: cookie=AA==\n"
        "dn: uid=cleo,dc=org\nuid: cleo\n: \n"
    )
    with pytest.raises(LdifError, match="no attribute"):
        parsed(text.encode(), piece)
    first, second = parsed(text.removesuffix(": \n").encode(), piece)
    assert (first.dn, first.texts("uid"), first.texts("cn")) == (name, ("bea",), ("line\nbreak",))
    assert first.texts("mail") == ()
    assert first.values["usercertificate"] == (b"\x00\x01\x02",)
    assert first.values["empty"] == (b"",)
    assert (second.dn, second.texts("UID")) == ("uid=cleo,dc=org", ("cleo",))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"uid: x\n", "outside of an entry"),
        (b"dn: uid=x\nuid:< file:///etc/passwd\n", "elsewhere"),
        (b"dn: uid=x\nuid:: n o\n", "base64"),
        (b"dn: uid=x\n folded\n", "no attribute"),
        (b"dn:: /w==\n", "no text"),
        (b"dn: uid=x\nuid x\n", "no attribute"),
        (b"dn: uid=x\nuid;a b: x\n", "no attribute"),
        (b"dn: uid=x", "has no end"),
        (b"dn: uid=x\nuid: " + b"x" * MOST_LINE + b"\n", "more than"),
        (b"dn: uid=x\nuid: " + b"x" * 2 * MOST_LINE, "more than"),
        (b"dn: uid=x\n" + b"m: x\n" * (MOST_VALUES + 1), "more than"),
    ],
)
def test_what_is_not_expected_ends_the_reading(text: bytes, why: str) -> None:
    with pytest.raises(LdifError, match=why) as raised:
        parsed(text, 10_000)
    assert "passwd" not in str(raised.value)


def test_garbage_is_refused_and_nothing_else_happens() -> None:
    rng = random.Random(7)  # noqa: S311 - any will do
    alphabet = [
        b"dn",
        b":",
        b"::",
        b" ",
        b"\n",
        b"\n\n",
        b"#",
        b"# ref",
        b";",
        b"=",
        b"\x00",
        b"\xff",
        b"uid",
        b"QQ==",
    ]
    for _ in range(2000):
        text = b"".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 60)))
        try:
            entries = parsed(text, rng.randrange(1, 9))
        except LdifError:
            continue
        assert all(isinstance(one.dn, str) for one in entries)


def test_references_and_ranges_are_counted() -> None:
    ldif = Ldif()
    text = b"dn: cn=x\nmember;range=0-1499: a\n\n# refldap://127.0.0.1:1/ou=x??sub\n\n"
    (entry,) = ldif.feed(text)
    assert (ldif.references, ldif.ranges, dict(entry.values)) == (1, 1, {})


# -- entries as people


def entry(dn: str = "uid=bea,ou=people,dc=example,dc=org", **values: str | bytes | list[str]) -> Entry:
    def listed(value: str | bytes | list[str]) -> tuple[bytes, ...]:
        many = value if isinstance(value, list) else [value]
        return tuple(one if isinstance(one, bytes) else one.encode() for one in many)

    given: dict[str, Any] = {"entryUUID": "11111111-2222", "uid": "bea", **values}
    return Entry(dn, {name.lower(): listed(value) for name, value in given.items()})


def read(*entries: Entry, **more: Any) -> Answer:
    return directory_people.read(directory(**more), entries, {}, AT)


def test_an_entry_is_a_person() -> None:
    answer = read(entry(slackId="U1", mail=["Bea@Example.org", "b@example.org"], memberOf=[OPS]))
    assert answer.people == {
        "11111111-2222": DirectoryPerson(
            entry="11111111-2222",
            name="bea",
            identities=frozenset({("slack", "U1"), ("post", "bea@example.org"), ("post", "b@example.org")}),
            groups=(OPS,),
        )
    }


@pytest.mark.parametrize("native", ["", " ", "U\u202e1", "U\x001", "x" * 301, b"\xff", "e\u0301"])
def test_what_cannot_be_a_user_id_is_none(native: str | bytes) -> None:
    (person,) = read(entry(slackId=native)).people.values()
    assert person.identities in (frozenset(), frozenset({("slack", "U1")})), (
        "a line break at the end is cut off"
    )


def test_ids_that_look_alike_are_different_people() -> None:
    answer = read(
        entry(slackId="U1"), entry(entryUUID="2", slackId="u1"), entry(entryUUID="3", slackId="\uff351")
    )
    assert [sorted(one.identities) for one in answer.people.values()] == [
        [("slack", "U1")],
        [("slack", "u1")],
        [("slack", "\uff351")],
    ]


def test_a_user_id_that_two_claim_is_neithers() -> None:
    answer = read(entry(slackId="U1"), entry(entryUUID="2", uid="cleo", slackId="U1", mail="c@example.org"))
    assert [one.identities for one in answer.people.values()] == [
        frozenset(),
        frozenset({("post", "c@example.org")}),
    ]
    assert answer.contested == {("slack", "U1")}
    assert "same user id of slack" in answer.problems[0]


def test_an_entry_without_its_id_is_nobody() -> None:
    answer = read(entry(entryUUID=["1", "2"]), Entry("uid=x", {"uid": (b"x",)}), entry())
    assert list(answer.people) == ["11111111-2222"]
    assert len(answer.problems) == 2


def test_two_entries_of_one_id_are_no_answer() -> None:
    with pytest.raises(DirectoryError, match="same entryUUID"):
        read(entry(), entry(uid="cleo"))


def test_an_id_of_bytes_is_told_from_its_letters() -> None:
    (person,) = read(entry(objectGUID=bytes(range(16))), id="objectGUID").people.values()
    assert person.entry == f"0x{bytes(range(16)).hex()}"
    (person,) = read(entry(objectGUID=b"sixteen letters!"), id="objectGUID").people.values()
    assert person.entry == f"0x{b'sixteen letters!'.hex()}"


@pytest.mark.parametrize(
    ("values", "disabled"),
    [
        ({"userAccountControl": "514"}, True),
        ({"userAccountControl": "512"}, False),
        ({"userAccountControl": "-2147483134"}, True),
        ({"userAccountControl": "\u0665\u0661\u0664"}, False),
        ({"nsAccountLock": "true"}, True),
        ({"nsAccountLock": "FALSE"}, False),
        ({"loginDisabled": "TRUE"}, True),
        ({"pwdAccountLockedTime": "000001010000Z"}, True),
        ({"pwdAccountLockedTime": "20261123000000Z"}, False),
        ({"accountExpires": "0"}, False),
        ({"accountExpires": "9223372036854775807"}, False),
        ({"accountExpires": "9223372036854775806"}, False),
        ({"accountExpires": "132223104000000000"}, True),
    ],
)
def test_who_is_disabled_is(values: dict[str, str], disabled: bool) -> None:
    (person,) = read(entry(**values)).people.values()
    assert person.disabled is disabled


def test_groups_of_groups_are_groups_of_their_members() -> None:
    def group(name: str, *members: str) -> Entry:
        return Entry(f"cn={name},dc=org", {"member": tuple(one.encode() for one in members)})

    found = directory_people.memberships(
        "member",
        [
            group("night", "UID=bea, dc=org"),
            group("ops", "cn=Night,dc=org", "uid=cleo,dc=org"),
            group("all", "cn=ops,dc=org", "cn=all,dc=org", "no name"),
        ],
    )
    (bea,) = (groups for member, groups in found.items() if len(groups) == 3)
    assert bea == ("cn=all,dc=org", "cn=night,dc=org", "cn=ops,dc=org")
    person = directory_people.read(
        directory(group_base="dc=org"), [entry(dn="uid=bea,dc=org")], found, AT
    ).people["11111111-2222"]
    assert person.groups == bea


# -- what follows


def someone(number: int, *, groups: tuple[str, ...] = (), disabled: bool = False) -> DirectoryPerson:
    return DirectoryPerson(entry=f"e{number}", name=f"p{number}", groups=groups, disabled=disabled)


def known(number: int, *roles: str, enabled: bool = True, gone: bool = False) -> tuple[str, Known]:
    return f"e{number}", Known(f"id{number}", f"p{number}", enabled, gone, {}, set(roles))


def answer_of(*people: DirectoryPerson) -> Answer:
    return Answer({one.entry: one for one in people})


def test_who_is_missing_leaves_and_who_is_new_joins() -> None:
    here = dict([known(1), known(2), known(3, enabled=False), known(4, enabled=False, gone=True)])
    plan = directory_plan.plan(
        directory(),
        LINES,
        answer_of(someone(1), someone(3), someone(4), someone(5, disabled=True), someone(6)),
        here,
    )
    assert plan.leave == ["id2"]
    assert [one.entry for one in plan.join] == ["e4", "e6"], "whom people removed does not come back"
    assert (plan.change, plan.held) == ([], None)


@pytest.mark.parametrize(
    ("there", "missing", "held"),
    [(4, 4, False), (100, 4, False), (10, 5, True), (17, 5, False), (100, 30, False), (100, 31, True)],
)
def test_many_who_are_missing_at_once_are_a_mistake(there: int, missing: int, held: bool) -> None:
    here = dict(known(number) for number in range(there))
    answer = answer_of(*(someone(number) for number in range(missing, there)), someone(999))
    plan = directory_plan.plan(directory(), LINES, answer, here)
    assert plan.held == ((missing, there) if held else None)
    assert len(plan.leave) == (0 if held else missing)
    assert len(plan.join) == (0 if held else 1)
    assert len(directory_plan.plan(directory(), LINES, answer, here, anyway=True).leave) == missing


def test_who_is_disabled_leaves_even_then() -> None:
    here = dict(known(number) for number in range(20))
    answer = answer_of(*(someone(number, disabled=number == 19) for number in range(10, 20)))
    plan = directory_plan.plan(directory(), LINES, answer, here)
    assert (plan.held, plan.leave) == ((10, 20), ["id19"])


def test_many_who_lose_their_roles_at_once_are_a_mistake_and_a_changed_file_is_none() -> None:
    here = dict(known(number, "operator") for number in range(10))
    answer = answer_of(*(someone(number, groups=() if number < 5 else (OPS,)) for number in range(10)))
    assert directory_plan.plan(directory(), LINES, answer, here).held == (5, 10)
    plan = directory_plan.plan(directory(), (), answer, here)
    assert (plan.held, len(plan.change)) == (None, 10)


# -- settings


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"url": "ldap://ldap.example.org", "start_tls": False}, "without TLS"),
        ({"url": "http://ldap.example.org"}, "no address"),
        ({"url": "ldaps://"}, "no address"),
        ({"url": "ldaps://me:secret@ldap.example.org"}, "no address"),
        ({"url": "ldaps://a b"}, "no address"),
        ({"url": ["ldaps://a", "ldap://b"]}, "mixes"),
        ({"url": []}, "at least 1"),
        ({"bind": "cn=x,dc=org"}, "belong together"),
        ({"password_file": "/x"}, "belong together"),
        ({"bind": "x", "password_file": "/x"}, "distinguished name"),
        ({"base": "people"}, "distinguished name"),
        ({"filter": "objectClass=person"}, "no filter"),
        ({"filter": "(a=b)(c=d)"}, "no filter"),
        ({"filter": "((a=b)"}, "no filter"),
        ({"filter": "(a=b\\zz)"}, "no filter"),
        ({"filter": "(a=\n)"}, "no filter"),
        ({"verified": "chat"}, "no attribute"),
        ({"identities": {"slack": "-x"}}, "pattern"),
        ({"id": "a b"}, "pattern"),
        ({"every": "1s"}, "greater"),
        ({"every": "often"}, "no time"),
        ({"page": 0}, "greater"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        directory(**given)


def test_a_directory_of_this_machine_may_be_plain() -> None:
    assert not directory(url="ldap://127.0.0.1:3389", start_tls=False).is_upgraded("ldap://127.0.0.1:3389")
    assert directory(url="ldap://ldap.example.org").is_upgraded("ldap://ldap.example.org")
    assert directory(filter="(&(objectClass=person)(!(cn=\\28x\\29)))", every="2h").every.seconds == 7200
