"""Names lie: of files, of people. No file's name is a path or hides its kind; nobody becomes another by a name."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from email.message import EmailMessage
from functools import partial
from typing import Final
from urllib.parse import quote

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors._discord_messages import _name_of as discord_name
from connectors._file_names import bare_name
from connectors._wecom_api import _name as wecom_header_name
from connectors._wecom_bot_read import Media, name_of
from connectors._wecom_read import bare_name as wecom_name
from connectors.slack import _name_of as slack_name
from parley.messages import Message, Route, Sender
from parley.messages.carrying import copy_of
from parley.people import principals
from parley.people.principals import Role
from parley.store.engine import Store
from tests.connectors import test_mail as mail
from tests.people.conftest import (
    postgres_server,
    postgres_store_url,
    postgres_url,
    prepared_database,
    store,
    store_url,
)

__all__ = ["postgres_server", "postgres_store_url", "postgres_url", "prepared_database", "store", "store_url"]

PATHS: Final = (
    "../../etc/passwd", "..\\..\\windows\\x", "/etc/passwd", "\\\\host\\share\\x", "C:\\x", "C:x",
    "file:///etc/passwd",
    "a/../../b", "....//x", "..", ".", "", " ", "/", "\\", "./.", "a\x00.txt", "a\n.txt", "a\r\nX: y",
    "\x1b[31ma", "a\x85b",
    "%2e%2e%2fx", "%00", "~/.ssh/authorized_keys", "$(id)", "`id`", "-rf", "--help", "a" * 5000, "字" * 5000 + ".csv",
    "invoice\u202egpj.exe", "a\u2066b\u2069", "a\u200b.txt", "\ufeffa", "a\u2028b",
    "e" + "\u0301" * 10_000, "\ud800", "con", "nul.txt",
    "a:b", "a|b", "*", "?", "a\u2215b", "a\uff0fb", "..\u2215..\u2215x", "\u2024\u2024/x", "a\tb", ".htaccess",
    "x.tar.gz/..",
)  # fmt: skip


def by_mail(name: str) -> str:
    letter = EmailMessage()
    letter["From"], letter["Message-ID"] = "a@b.example", "<1@b.example>"
    letter.set_content("x")
    raw = letter.as_bytes().replace(b"\n", b"\r\n")
    value = quote(name.encode("utf-8", "replace"), safe="")
    kind = f"Content-Type: text/plain\r\nContent-Disposition: attachment; filename*=utf-8''{value}\r\n\r\nx".encode()
    (file,) = mail.read(raw.partition(b"\r\n\r\n")[0].split(b"Content-Type")[0] + kind).files
    return file.name


def by_winmail(name: str) -> str:
    files = mail.with_winmail(
        mail.winmail(name.encode("utf-16-le", "replace").decode("utf-16-le")[:2000])
    ).files
    return files[0].name


def by_wecom_bot(name: str) -> str:
    header = f"attachment; filename*=utf-8''{quote(name.encode('utf-8', 'replace'), safe='')}"
    return name_of(header, Media("file", "https://a/b", "", name=name), b"x")[0]


def by_wecom(name: str) -> str:
    header = name.encode("latin-1", "replace").decode("latin-1")
    return wecom_name(name) or wecom_header_name(f'attachment; filename="{header}"') or "file"


READERS: Final[dict[str, Callable[[str], str]]] = {
    "mail": by_mail, "winmail": by_winmail, "wecom": by_wecom, "wecom_bot": by_wecom_bot, "xmpp": bare_name,
    "slack": lambda name: slack_name({"name": name}), "discord": lambda name: discord_name({"filename": name}),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_no_files_name_is_a_path_or_hides_anything(reader: str) -> None:
    for given in PATHS:
        name = READERS[reader](given)
        assert 0 < len(name) <= 255, (given, name)
        assert not set(name) & {"/", "\\"}, (given, name)
        assert name.strip(". "), (given, name)
        bad = [
            char
            for char in name
            if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in "\u202e\u2066\u200b\ufeff"
        ]
        assert not bad, (given, name)


ALICE: Final = "alice"
LOOKALIKES: Final = (
    "аlice", "alicе", "ALICE", "Alice", "alice ", " alice", "alice\u200b", "\u200balice", "ali\u00adce",
    "alice\u0301", "ａｌｉｃｅ",
    "𝐚lice", "alıce", "a1ice", "alice\u202e", "\u202eecila", "alice\ufeff", "alice.", "alice@",
    "alice\u0300" * 50,
    "alice" + "\u0301" * 500, "ecila", "alice%", "alic_", "a%", "%", "_____", "' or '1'='1", "alice'--",
    "alice\n", "ᴬlice", "ǎlice",
)  # fmt: skip


async def test_nobody_becomes_another_by_a_name_that_looks_the_same(store: Store) -> None:
    """Also not where the database has an opinion of its own about which texts are equal."""

    async def link(conn: AsyncConnection) -> str:
        owner = await principals.add_principal(conn, "alice", role=Role.OWNER)
        await principals.link_identity(conn, owner, "office", ALICE, verified=True)
        return owner

    owner = await store.write(link)
    found = await store.read(lambda conn: principals.find_by_identity(conn, "office", ALICE))
    assert found is not None
    assert found.principal.id == owner
    for name in LOOKALIKES:
        assert (
            await store.read(partial(principals.find_by_identity, account="office", native_user_id=name))
            is None
        ), name
        assert (
            await store.read(partial(principals.find_by_identity, account=name, native_user_id=ALICE)) is None
        ), name


@pytest.mark.parametrize(
    "name",
    [
        *LOOKALIKES,
        "e" + "\u0301" * 10_000,
        "**admin**",
        "[x](javascript:0)",
        "<b>",
        "@everyone",
        "@所有人",
        "a\nb",
        "x" * 10**6,
    ],
)
def test_a_copied_message_shows_its_authors_name_in_one_short_piece(name: str) -> None:
    said = Message(
        account="a",
        native_id="1",
        sender=Sender(id="u", name=name),
        route=Route(account="a", conversation="c"),
        text="hello",
    )
    first, _, rest = copy_of(said).text.partition("**: ")
    shown = first.removeprefix("**")
    assert rest == "hello"
    assert 0 < len(shown) <= 80
    assert not set(shown) & set("*`[]<>|\n\x00\u202e\u2066")
    assert "@everyone" not in shown
