"""A real directory is asked: over TLS and nothing else, in pages, and what is not whole is no answer."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parley.errors import ConfigurationError
from parley.people import directory_people
from parley.people.directory_people import Answer
from parley.people.directory_search import DirectoryError
from parley.people.directory_settings import Directory
from tests.certificates import self_signed
from tests.ports import free_port
from tests.servers.slapd import BASE, GROUPS, PEOPLE, Slapd, dn, group, need_slapd, person

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def filled() -> Iterator[Slapd]:
    """A directory of three people and two groups, one within the other."""
    need_slapd()
    server = Slapd().start()
    try:
        server.add(
            person("bea", slackId="UBEA", mail=["Bea@example.org", "bea@example.com"])
            + person("cleo", slackId="UCLEO")
            + person("dora", nsAccountLock="TRUE")
            + group("night", [dn("bea")])
            + group("ops", [f"cn=night,{GROUPS}", dn("cleo")])
        )
        yield server
    finally:
        server.close()


@pytest.fixture
def server() -> Iterator[Slapd]:
    """One of this test's own, which is empty and does not run yet."""
    need_slapd()
    one = Slapd()
    yield one
    one.close()


async def ask(server: Slapd, **more: Any) -> Answer:
    return await directory_people.ask(Directory.model_validate(server.settings(**more)))


async def test_everybody_is_read_with_accounts_and_groups(filled: Slapd) -> None:
    answer = await ask(filled)
    people = {one.name: one for one in answer.people.values()}
    assert sorted(people) == ["bea", "cleo", "dora"]
    assert people["bea"].identities == {
        ("slack", "UBEA"),
        ("post", "bea@example.org"),
        ("post", "bea@example.com"),
    }
    assert people["bea"].groups == (f"cn=night,{GROUPS}",)
    assert [people[name].disabled for name in ("bea", "cleo", "dora")] == [False, False, True]
    assert all(len(entry) == 36 for entry in answer.people)
    assert not answer.problems


async def test_groups_are_searched_and_those_of_groups_count(filled: Slapd) -> None:
    people = {one.name: one for one in (await ask(filled, group_base=GROUPS)).people.values()}
    assert people["bea"].groups == (f"cn=night,{GROUPS}", f"cn=ops,{GROUPS}")
    assert people["cleo"].groups == (f"cn=ops,{GROUPS}",)
    assert people["dora"].groups == ()


async def test_small_pages_are_the_same_answer(filled: Slapd) -> None:
    assert await ask(filled, page=1) == await ask(filled)


async def test_tls_may_begin_later(filled: Slapd) -> None:
    assert await ask(filled, url=filled.plain_url) == await ask(filled)
    assert await ask(filled, url=filled.plain_url, start_tls=False) == await ask(filled)


async def test_the_first_server_that_answers_is_asked(filled: Slapd) -> None:
    assert await ask(filled, url=[f"ldaps://127.0.0.1:{free_port()}", filled.url]) == await ask(filled)


@pytest.mark.parametrize("how", ["ldaps", "starttls"])
async def test_another_authority_is_not_believed(filled: Slapd, tmp_path: Path, how: str) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(self_signed("localhost")[0])
    url = filled.url if how == "ldaps" else filled.plain_url
    with pytest.raises(DirectoryError):
        await ask(filled, url=url, authority=str(other))
    with pytest.raises(DirectoryError):
        await ask(filled, url=url, authority=None)


async def test_another_name_is_not_believed(server: Slapd) -> None:
    certificate, key = self_signed("ldap.example.net", address="")
    (server.folder / "server.pem").write_bytes(certificate)
    (server.folder / "server.key").write_bytes(key)
    server.authority.write_bytes(certificate)
    server.fill(person("bea"))
    server.start()
    for url in (server.url, server.plain_url):
        with pytest.raises(DirectoryError):
            await ask(server, url=url)
    assert len((await ask(server, url=server.plain_url, start_tls=False)).people) == 1


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"bind": f"cn=nobody,{BASE}"}, "does not accept bind"),
        ({"bind": None, "password_file": None}, "no such base"),
        ({"base": f"ou=none,{BASE}"}, "no such base"),
        ({"filter": "(uid=none)"}, "nobody below this base"),
        ({"authority": "/nowhere.pem"}, "did not answer"),
        ({"group_base": f"ou=none,{BASE}"}, "no such base"),
    ],
)
async def test_what_is_wrong_is_told(filled: Slapd, more: dict[str, Any], why: str) -> None:
    with pytest.raises(DirectoryError, match=why) as raised:
        await ask(filled, **more)
    assert "geheim" not in str(raised.value)


async def test_a_password_that_others_can_read_is_not_used(filled: Slapd, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("geheim")
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="read by others"):
        await ask(filled, password_file=str(file))
    file.chmod(0o600)
    with pytest.raises(DirectoryError, match="does not accept"):
        await ask(filled, password_file=str(file))
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match="holds no password"):
        await ask(filled, password_file=str(file))
    with pytest.raises(ConfigurationError, match="No such file"):
        await ask(filled, password_file=str(tmp_path / "none"))


async def test_the_users_own_configuration_changes_nothing(
    filled: Slapd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rc = tmp_path / "ldaprc"
    rc.write_text("SIZELIMIT 1\nTLS_REQCERT never\nBASE dc=wrong\n")
    other = tmp_path / "other.pem"
    other.write_bytes(self_signed("localhost")[0])
    for name, value in (("LDAPCONF", str(rc)), ("LDAPRC", str(rc)), ("LDAPTLS_REQCERT", "never")):
        monkeypatch.setenv(name, value)
    assert len((await ask(filled)).people) == 3
    with pytest.raises(DirectoryError):
        await ask(filled, authority=str(other))


async def test_the_password_is_in_no_command_line(server: Slapd) -> None:
    """It is looked for in every process of this machine while a directory that does not answer is asked."""
    server.start()
    assert server._process is not None
    server._process.send_signal(signal.SIGSTOP)
    asking = asyncio.create_task(ask(server, timeout=3))
    seen = await asyncio.to_thread(_command_lines_with, b"ldapsearch", asking)
    server._process.send_signal(signal.SIGCONT)
    await asyncio.gather(asking, return_exceptions=True)
    assert seen
    assert all(b"/dev/fd/0" in one and b"geheim" not in one for one in seen)


def _command_lines_with(word: bytes, until: asyncio.Task[Any]) -> list[bytes]:
    while not until.done():
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                try:
                    line = (folder / "cmdline").read_bytes()
                    both = line + (folder / "environ").read_bytes()
                except OSError:
                    continue
                if line.partition(b"\0")[0].endswith(word):
                    found.append(both)
        if found:
            return found
    return []


async def test_a_directory_that_says_nothing_is_left_in_time(server: Slapd) -> None:
    server.start()
    assert server._process is not None
    server._process.send_signal(signal.SIGSTOP)
    try:
        began = asyncio.get_running_loop().time()
        with pytest.raises(DirectoryError, match="did not answer"):
            await ask(server, timeout=1)
        assert asyncio.get_running_loop().time() - began < 10
    finally:
        server._process.send_signal(signal.SIGCONT)


async def test_an_answer_that_is_not_whole_is_none(server: Slapd) -> None:
    server.fill("".join(person(f"p{number}") for number in range(30)))
    server.limit_to("size.soft=10 size.hard=10 size.prtotal=20")
    server.start()
    with pytest.raises(DirectoryError, match="only a part"):
        await ask(server, page=5)
    server.stop()
    server.limit_to("size=unlimited")
    server.fill(
        f"dn: ou=elsewhere,{PEOPLE}\nobjectClass: referral\nobjectClass: extensibleObject\nou: elsewhere\n"
        "ref: ldap://127.0.0.1:1/ou=elsewhere,dc=example,dc=org\n\n"
    )
    server.start()
    with pytest.raises(DirectoryError, match="lies in another directory"):
        await ask(server)
    with pytest.raises(DirectoryError, match="refers to another"):
        await ask(server, base=f"ou=elsewhere,{PEOPLE}")


async def test_what_somebody_wrote_about_themselves_is_only_their_own(server: Slapd) -> None:
    """Line breaks, other people's attributes, text that looks like LDIF: it stays within the value."""
    server.start()
    evil = "x\nslackId: UBOSS\n\ndn: uid=boss," + PEOPLE
    encoded = base64.b64encode(evil.encode()).decode()
    server.add(
        f"dn: uid=evil\\0Auid: boss,{PEOPLE}\nobjectClass: inetOrgPerson\nobjectClass: ourPerson\n"
        f"uid:: {base64.b64encode(b'evil' + bytes([10]) + b'uid: boss').decode()}\n"
        f"cn:: {encoded}\nsn: x\nslackId:: {encoded}\nmail: e@example.org\n\n"
        + person("big", mail=[f"m{number}@example.org" for number in range(5000)])
    )
    people = sorted((await ask(server)).people.values(), key=lambda one: len(one.identities))
    assert [one.identities for one in people[:1]] == [frozenset({("post", "e@example.org")})]
    assert people[0].name == "evil\nuid: boss"
    assert len(people[1].identities) == 5000
    server.add(person("huge", slackId="U" * 70_000))
    with pytest.raises(DirectoryError, match="more than"):
        await ask(server)
