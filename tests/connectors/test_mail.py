"""What mail says: from bytes to a message, from a reply to bytes. All mails are built here; no server is needed."""

from __future__ import annotations

import base64
import quopri
import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, default
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors._mail_headers import references, sender, words
from connectors._mail_render import Writer, to_html
from connectors._mail_text import decode, html_to_text, new_text
from connectors.mail import Arrival, parse, render
from parley.errors import Rejected
from parley.messages import MAX_TEXT, Assurance, ConversationKind, File, Message, Reply, Route

OWN = "assistant@example.org"
RECEIVED = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
ARRIVAL = Arrival(account="office", own_address=OWN, uid_validity=7, uid=42, received=RECEIVED)
FROM = b"From: Alice <alice@example.org>\r\n"
HEAD = FROM + b"Message-ID: <1@alice>\r\nSubject: A question\r\n"


def read(raw: bytes, arrival: Arrival = ARRIVAL) -> Message:
    message = parse(raw, arrival)
    assert message is not None
    return message


def text_of(body: bytes, content_type: bytes = b"text/plain; charset=utf-8") -> str:
    return read(HEAD + b"Content-Type: " + content_type + b"\r\n\r\n" + body).text


def letter(**headers: str) -> EmailMessage:
    mail = EmailMessage(policy=SMTP)
    for name, value in {"From": "Alice <alice@example.org>", "Message-ID": "<1@alice>", **headers}.items():
        if value:
            mail[name.replace("_", "-")] = value
    return mail


def notice(message: Message) -> str:
    return message.route.context.get("notice", "")


# --- what a plain mail becomes ---------------------------------------------------------------------------------------


def test_a_mail_is_a_message() -> None:
    message = read(
        b"From: =?gb2312?B?1cXI/Q==?= <Zhang.San@Example.ORG>\r\nTo: assistant@example.org\r\n"
        b"Message-ID: <abc@mail.example.org>\r\nSubject: =?utf-8?q?R=C3=A9sum=C3=A9?=\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n/order 1024\r\n"
    )
    assert (message.account, message.native_id, message.text) == (
        "office",
        "<abc@mail.example.org>",
        "/order 1024",
    )
    assert (message.sender.id, message.sender.name) == ("zhang.san@example.org", "张三")
    assert message.sender.assurance is Assurance.CLAIMED
    assert (message.subject, message.sent_at, message.automatic) == ("Résumé", RECEIVED, False)
    assert (message.route.conversation, message.route.kind) == (
        "zhang.san@example.org",
        ConversationKind.MAIL,
    )
    assert (message.route.thread, message.route.reply_to) == (
        "<abc@mail.example.org>",
        "<abc@mail.example.org>",
    )


def test_a_message_crosses_a_process_boundary() -> None:
    mail = letter(Subject="x")
    mail.set_content("hello")
    mail.add_attachment(b"\x00\xff", maintype="application", subtype="x", filename="a.bin")
    message = read(mail.as_bytes())
    assert Message.model_validate_json(message.model_dump_json()) == message


def test_without_a_message_id_the_place_in_the_mailbox_is_the_key() -> None:
    raw = FROM + b"\r\nhello"
    one, same = read(raw), read(raw)
    other = read(raw, Arrival(account="office", own_address=OWN, uid_validity=7, uid=43))
    rebuilt = read(raw, Arrival(account="office", own_address=OWN, uid_validity=8, uid=42))
    assert one.native_id == same.native_id
    assert len({one.native_id, other.native_id, rebuilt.native_id}) == 3
    assert one.route.reply_to is None


def test_a_thread_is_named_by_its_first_mail() -> None:
    first = read(HEAD + b"\r\nhello")
    before = b"In-Reply-To: <parley.t@example.org>\r\nReferences: <1@alice>\r\n <parley.t@example.org>\r\n"
    later = read(FROM + b"Message-ID: <3@alice>\r\n" + before + b"\r\n1024")
    assert later.route.same_place(first.route)
    assert later.route.context["references"].split() == ["<1@alice>", "<parley.t@example.org>", "<3@alice>"]
    only_parent = read(FROM + b"Message-ID: <3@alice>\r\nIn-Reply-To: <1@alice>\r\n\r\nx")
    assert only_parent.route.thread == "<1@alice>"


def test_many_references_are_bounded_and_keep_the_first() -> None:
    ids = " ".join(f"<{number}@x>" for number in range(500))
    found = references(message_from_bytes(f"References: {ids}\r\n\r\n".encode()))
    assert len(found) == 20
    assert (found[0], found[-1]) == ("<0@x>", "<499@x>")


def test_the_answer_goes_to_from_and_never_to_reply_to() -> None:
    message = read(HEAD + b"Reply-To: Mallory <mallory@elsewhere.example>\r\n\r\n/order 1024")
    assert message.route.conversation == "alice@example.org"
    assert "mallory" not in message.model_dump_json()


# --- who wrote -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "address", "name"),
    [
        ("alice@example.org", "alice@example.org", ""),
        ("<alice@example.org>", "alice@example.org", ""),
        ("Alice <Alice@Example.org>", "alice@example.org", "Alice"),
        ('"Doe, Alice (Sales)" <alice@example.org>', "alice@example.org", "Doe, Alice (Sales)"),
        ('"boss@example.org" <alice@example.org>', "alice@example.org", "boss@example.org"),
        ("alice@example.org <alice@example.org>", "alice@example.org", "alice@example.org"),
        ("alice@example.org (Alice)", "alice@example.org", ""),
        ("Doe, Alice <alice@example.org>", "alice@example.org", "Doe, Alice"),
        ("=?utf-8?b?5byg5LiJ?= <a+b@例え.jp>", "a+b@例え.jp", "张三"),
    ],
)
def test_one_author_is_found(header: str, address: str, name: str) -> None:
    found = sender(message_from_bytes(f"From: {header}\r\n\r\n".encode()))
    assert found is not None
    assert (found.address, found.name) == (address, name)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Alice",
        "undisclosed-recipients:;",
        "a@example.org, b@example.org",
        "A <a@example.org>, B <b@example.org>",
        "boss@example.org <mallory@elsewhere.example>",
        "boss@example.org, <mallory@elsewhere.example>",
        "Team: a@example.org;",
        "a@example.org)b@elsewhere.example",
        "a@b@example.org",
        "<a@example.org> <b@example.org>",
        "<@relay.example:a@example.org>",
        '"quoted local"@example.org',
        "a b@example.org",
        "x" * 300 + "@example.org",
        "a@" + "x" * 300,
        "a@example.org\r\nFrom: b@example.org",
    ],
)
def test_no_author_is_guessed(header: str) -> None:
    assert parse(f"From: {header}\r\nMessage-ID: <1@x>\r\n\r\nhello".encode(), ARRIVAL) is None


# --- automatic mail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "Auto-Submitted: auto-replied",
        "Auto-Submitted: auto-generated; type=x",
        "auto-submitted: AUTO-NOTIFIED",
        "Precedence: bulk",
        "Precedence: List",
        "Precedence: junk",
        "List-Id: <dev.example.org>",
        "List-Unsubscribe: <mailto:x@example.org>",
        "Return-Path: <>",
        "X-Auto-Response-Suppress: All",
        "X-Autoreply: yes",
        f"X-Loop: {OWN}",
        "Content-Type: multipart/report; boundary=x",
    ],
)
def test_automatic_mail_is_known_by_its_headers(header: str) -> None:
    assert read(HEAD + header.encode() + b"\r\n\r\nI am away").automatic


@pytest.mark.parametrize(
    "address",
    [
        OWN,
        OWN.upper(),
        "MAILER-DAEMON@mx.example.org",
        "postmaster@example.org",
        "no-reply@example.org",
        "noreply+x@example.org",
        "donotreply@example.org",
        "list-bounces@example.org",
        "owner-list@example.org",
    ],
)
def test_automatic_mail_is_known_by_its_author(address: str) -> None:
    assert read(f"From: {address}\r\nMessage-ID: <1@x>\r\n\r\nhello".encode()).automatic


def test_our_own_mail_is_known_by_its_id() -> None:
    assert read(FROM + b"Message-ID: <parley.0199@example.org>\r\n\r\nx").automatic
    assert not read(FROM + b"Message-ID: <colleague@example.org>\r\n\r\nx").automatic


@pytest.mark.parametrize(
    "header",
    ["Auto-Submitted: no", "Precedence: normal", "Return-Path: <alice@example.org>", "X-Loop: other@x"],
)
def test_what_a_person_wrote_is_not_automatic(header: str) -> None:
    assert not read(HEAD + header.encode() + b"\r\n\r\nhello").automatic


def test_what_we_send_is_automatic_for_another_assistant() -> None:
    """Two assistants that write to each other stop at the first answer."""
    question = read(HEAD + b"\r\nhello")
    answer = render(Reply(text="hi"), question.route, Writer(OWN), token="t")
    other = Arrival(account="other", own_address="alice@example.org")
    assert read(answer.as_bytes(), other).automatic
    assert read(answer.as_bytes()).automatic


# --- text and charsets -----------------------------------------------------------------------------------------------


IN_CHARSETS = {
    "utf-8": "查一下订单",
    "gb18030": "查一下订单",
    "gb2312": "查一下订单",
    "gbk": "查一下订单",
    "big5": "查詢訂單",
    "iso-2022-jp": "注文を教えて",
    "shift_jis": "注文を教えて",
    "euc-kr": "주문 상태",
}
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "8bit": bytes,
    "base64": base64.encodebytes,
    "quoted-printable": quopri.encodestring,
}


@pytest.mark.parametrize("charset", IN_CHARSETS)
@pytest.mark.parametrize("encoding", ENCODERS)
def test_charsets(charset: str, encoding: str) -> None:
    text = IN_CHARSETS[charset]
    headers = f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    assert read(HEAD + headers.encode() + ENCODERS[encoding](text.encode(charset))).text == text


@pytest.mark.parametrize(
    ("raw", "charset", "text"),
    [
        ("订单镕".encode("gb18030"), "gb2312", "订单镕"),
        ("订单".encode("gb18030"), None, "订单"),
        ("订单".encode(), "us-ascii", "订单"),
        ("café crème".encode("latin-1"), None, "café crème"),
        ("“quoted”".encode("cp1252"), "iso-8859-1", "“quoted”"),
        (b"hello", "no-such-charset", "hello"),
        (b"hello", "zip", "hello"),
        (b"hello", "rot13", "hello"),
        (b"a\\u0041", "unicode_escape", "a\\u0041"),
        (b"a" * 50_000, "punycode", "a" * 50_000),
        (b"a\x00b\x07c\x1b[31m", "utf-8", "abc[31m"),
        (b"+2AA-", "utf-7", "�"),
    ],
)
def test_wrong_charsets_do_no_harm(raw: bytes, charset: str | None, text: str) -> None:
    assert decode(raw, charset) == text


def test_invalid_utf8_is_shown_as_such() -> None:
    text = text_of(b"order \xff\xfe 1024")
    assert text.startswith("order ")
    assert text.endswith(" 1024")
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("=?utf-8?b?5p+l5LiA?= =?utf-8?b?5LiL?=", "查一下"),
        ("=?utf-8?b?5p+l5A==?= =?utf-8?b?uIDkuIs=?=", "查一下"),
        ("=?gb2312?Q?=B2=E9?= x", "查 x"),
        ("=?utf-8?q?a_b=0D=0AX-Evil:_1?=", "a b X-Evil: 1"),
        ("a =?utf-8?b?!!!?= b", "a b"),
        ("=?nope?q?abc?=", "abc"),
        ("plain =? text", "plain =? text"),
    ],
)
def test_encoded_words(value: str, text: str) -> None:
    assert words(value) == text


def test_raw_bytes_in_a_subject() -> None:
    assert read(FROM + b"Subject: " + "查一下订单".encode("gb18030") + b"\r\n\r\nx").subject == "查一下订单"


def test_html_only() -> None:
    html = """<html><head><style>p{color:red}</style><title>no</title></head><body>
      <div style="display:none">preheader</div><p>/order&nbsp;1024</p><script>alert(1)</script>
      <ul><li>one</li><li>two &amp; <b>three</b></li></ul>a<br>b</body></html>"""
    assert text_of(html.encode(), b"text/html; charset=utf-8") == "/order 1024\n\none\ntwo & three\na\nb"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<div>a</div><div>b</div>", "a\nb"),
        ("<div>a</div><div><br></div><div>b</div>", "a\n\nb"),
        ("<p>a</p><p>b</p>", "a\n\nb"),
        ("a<br><br><br>b", "a\n\nb"),
        ("<div>/order\n  1024</div>", "/order 1024"),
        ("<b>a</b>\n<i>b</i>", "a b"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
        ("a<!-- b -->c<script>d</script>e", "ace"),
        ("<p hidden-looking='display:none'>a", "a"),
        ("<span style='DISPLAY : none'>a<span>b</span></span>c", "c"),
        ("<blockquote>a<blockquote>b</blockquote>c</blockquote>d", "d"),
        ("&lt;b&gt; &amp;amp; &#x4e2d;&nbsp;x", "<b> &amp; 中 x"),
        ("a < b", "a < b"),
    ],
)
def test_html_as_it_is_seen(html: str, text: str) -> None:
    assert html_to_text(html) == text


def test_html_quotes_are_left_out() -> None:
    for quoted in (
        '<div class="gmail_quote"><div class="gmail_attr">On Monday Bob wrote:</div><blockquote>old</blockquote></div>',
        '<blockquote type="cite">old</blockquote>',
        '<div id="divRplyFwdMsg">From: Bob</div><div>old</div>',
        '<div id="appendonsend"></div><hr><div>old</div>',
        "<hr><div><b>发件人:</b> Bob</div><div><b>发送时间:</b> 2026</div><div><b>收件人:</b> x</div><div>old</div>",
        "<div><br></div><div>------------------ 原始邮件 ------------------</div><div>old</div>",
    ):
        assert html_to_text(f"<div>new</div>{quoted}").split("\n")[0] == "new"
        assert text_of(f"<div>new</div>{quoted}".encode(), b"text/html; charset=utf-8") == "new"


def test_plain_text_wins_over_html_unless_it_is_blank() -> None:
    mail = letter()
    mail.set_content("plain")
    mail.add_alternative("<p>html</p>", subtype="html")
    assert read(mail.as_bytes()).text == "plain"
    blank = letter()
    blank.set_content(" \n\n")
    blank.add_alternative("<p>html</p>", subtype="html")
    assert read(blank.as_bytes()).text == "html"


def test_flowed_text_is_one_line_again() -> None:
    flowed = b"where is \r\norder 1024?\r\nplease\r\n-- \r\nAlice\r\n"
    assert text_of(flowed, b"text/plain; charset=utf-8; format=flowed") == "where is order 1024?\nplease"
    assert (
        text_of("查一下 \r\n订单".encode(), b"text/plain; charset=utf-8; format=flowed; delsp=yes")
        == "查一下订单"
    )


# --- nothing to read -------------------------------------------------------------------------------------------------


def test_no_text_at_all() -> None:
    message = read(HEAD + b"\r\n")
    assert (message.text, message.files) == ("", ())


def test_a_command_in_the_subject_of_an_empty_mail() -> None:
    assert read(FROM + b"Subject: /order 1024\r\n\r\n").text == "/order 1024"
    assert read(FROM + "Subject: ／order 1024\r\n\r\n".encode()).text == "／order 1024"
    assert read(FROM + b"Subject: Re: /order 1024\r\n\r\n").text == ""
    assert read(FROM + b"Subject: hello\r\n\r\n").text == ""
    assert read(FROM + b"Subject: /order 1024\r\n\r\n/status").text == "/status"


def test_too_long_a_text_is_refused_with_a_reason() -> None:
    message = read(HEAD + b"\r\n" + b"word " * (MAX_TEXT // 5 + 1))
    assert message.text == ""
    assert "longer than 1,000,000" in notice(message)
    assert read(HEAD + b"\r\n" + b"x" * MAX_TEXT).text == "x" * MAX_TEXT


def test_encrypted_mail_says_so() -> None:
    smime = b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m\r\n\r\nMIIB"
    pgp = b"\r\n-----BEGIN PGP MESSAGE-----\r\n\r\nabc\r\n-----END PGP MESSAGE-----\r\n"
    for body in (smime, pgp):
        message = read(HEAD + body)
        assert message.text == ""
        assert "cannot be read" in notice(message)


def test_signed_mail_is_read_without_its_signature() -> None:
    signed = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n/order 1024\n- -- \nAlice\n"
    clear = signed + "-----BEGIN PGP SIGNATURE-----\nabc\n"
    assert text_of(clear.replace("\n", "\r\n").encode()) == "/order 1024"
    parts = (
        b"Content-Type: multipart/signed; protocol=application/pgp-signature; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\n/order 1024\r\n"
        b"--b\r\nContent-Type: application/pgp-signature; name=signature.asc\r\n\r\nabc\r\n--b--\r\n"
    )
    message = read(HEAD + parts)
    assert (message.text, message.files) == ("/order 1024", ())


def test_only_the_beginning_of_a_huge_mail() -> None:
    arrival = Arrival(account="office", own_address=OWN, cut_from=80_000_000)
    mail = letter()
    mail.set_content("/order 1024")
    mail.add_attachment(b"x" * 100_000, maintype="application", subtype="x", filename="big.bin")
    message = read(mail.as_bytes()[:60_000], arrival)
    assert (message.text, message.files) == ("/order 1024", ())
    assert "80.0 MB" in notice(message)


# --- files -----------------------------------------------------------------------------------------------------------


def attached(content: bytes, name: str, media_type: str = "application/octet-stream") -> Message:
    mail = letter(Subject="file")
    mail.set_content("see")
    main, _, sub = media_type.partition("/")
    mail.add_attachment(content, maintype=main, subtype=sub, filename=name)
    return read(mail.as_bytes())


def test_a_file_is_taken() -> None:
    message = attached(b"a,b\n\x00\xff", "报告.csv", "text/csv")
    assert message.text == "see"
    assert message.files == (File(name="报告.csv", media_type="text/csv", content=b"a,b\n\x00\xff"),)


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Windows\\x.txt", "x.txt"),
        ("..", "file.bin"),
        ("a\u202etxt.exe", "atxt.exe"),
        ("x" * 300 + ".pdf", "x" * 180 + ".pdf"),
        (".bashrc", "bashrc"),
        ("a\x00b.txt", "ab.txt"),
    ],
)
def test_a_file_name_is_a_bare_name(given_name: str, name: str) -> None:
    header = f"Content-Disposition: attachment; filename*=utf-8''{quote(given_name, safe='')}\r\n\r\nx"
    assert [file.name for file in read(HEAD + header.encode()).files] == [name]


def test_names_in_the_ways_that_programs_write_them() -> None:
    for header in (
        'Content-Disposition: attachment; filename="=?utf-8?b?5oql5ZGKLmNzdg==?="',
        'Content-Type: text/csv; name="=?gb2312?B?saiw5i5jc3Y=?="',
        "Content-Disposition: attachment; filename*0*=utf-8''%E6%8A%A5; filename*1*=%E5%91%8A.csv",
    ):
        (file,) = read(HEAD + header.encode() + b"\r\n\r\nx").files
        assert file.name.endswith(".csv")
        assert file.name.startswith("报")


def test_too_much_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors._mail_parse.MOST_BYTES_OF_FILES", 1000)
    message = attached(b"x" * 1001, "big.bin")
    assert (message.text, message.files) == ("see", ())
    assert message.left_out == ("big.bin (1.0 kB): too large, or too many files",)


def test_too_many_files_are_left_out_and_said() -> None:
    mail = letter()
    mail.set_content("see")
    for number in range(60):
        mail.add_attachment(b"x", maintype="application", subtype="x", filename=f"{number}.bin")
    message = read(mail.as_bytes())
    assert len(message.files) == 50
    assert message.left_out[0].startswith("50.bin ")


def test_a_forwarded_mail_is_a_file_and_not_our_text() -> None:
    inner = letter(Subject="../inner", From="mallory@elsewhere.example")
    inner.set_content("/run restart")
    mail = letter()
    mail.set_content("/summary")
    mail.add_attachment(inner)
    message = read(mail.as_bytes())
    assert message.text == "/summary"
    (file,) = message.files
    assert (file.name, file.media_type) == ("inner.eml", "message/rfc822")
    assert b"/run restart" in file.content


# --- winmail.dat -----------------------------------------------------------------------------------------------------


def attribute(name: int, data: bytes, level: int = 2) -> bytes:
    return struct.pack("<BII", level, name, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)


def winmail(long_name: str = "") -> bytes:
    value = long_name.encode("utf-16-le") + b"\0\0"
    padded = value + b"\0" * (-len(value) % 4)
    properties = (
        struct.pack("<I", 3)
        + struct.pack("<HHI", 0x0003, 0x3705, 1)
        + struct.pack("<HH16sIII", 0x0003, 0x8001, b"g" * 16, 0, 1, 9)
        + struct.pack("<HHII", 0x001F, 0x3707, 1, len(value))
        + padded
    )
    return (
        struct.pack("<IH", 0x223E9F78, 1)
        + attribute(0x00089006, b"\0\0\1\0", 1)
        + attribute(0x0002800C, b"/order 1024\0", 1)
        + attribute(0x00069002, b"\0" * 14)
        + attribute(0x00018010, b"REPORT~1.CSV\0")
        + attribute(0x0006800F, b"a,b\n1,2\n")
        + (attribute(0x00069005, properties) if long_name else b"")
    )


def with_winmail(raw: bytes) -> Message:
    mail = letter()
    mail.add_attachment(raw, maintype="application", subtype="ms-tnef", filename="winmail.dat")
    return read(mail.as_bytes())


def test_winmail_dat_is_opened() -> None:
    message = with_winmail(winmail("季度报告 2026.csv"))
    assert message.text == "/order 1024"
    assert [(file.name, file.content) for file in message.files] == [("季度报告 2026.csv", b"a,b\n1,2\n")]
    assert [file.name for file in with_winmail(winmail()).files] == ["REPORT~1.CSV"]


def test_a_broken_winmail_dat_stays_a_file_with_a_reason() -> None:
    message = with_winmail(b"not tnef")
    assert [file.name for file in message.files] == ["winmail.dat"]
    assert "winmail.dat could not be opened" in notice(message)


@given(st.binary(max_size=400), st.integers(0, 300))
def test_no_winmail_dat_breaks_the_reader(noise: bytes, at: int) -> None:
    good = winmail("name.csv")
    with_winmail(good[:at] + noise + good[at:])
    with_winmail(good[:4] + noise)


# --- quotes and signatures -------------------------------------------------------------------------------------------

NEW = "where is order 1024?"


@pytest.mark.parametrize(
    "quoted",
    [
        "On Mon, 23 Nov 2026 at 08:30, Bob <bob@example.org> wrote:\n> old\n> older",
        "On Mon, 23 Nov 2026 at 08:30, A Person With A Very Long Name\n<bob@example.org> wrote:\n\n> old",
        "On 23.11.2026, Bob wrote:\nold without marks",
        "-----Original Message-----\nFrom: Bob\nold",
        "________________________________\nFrom: Bob <bob@example.org>\nSent: Monday\nTo: Alice\nSubject: x\n\nold",
        "From: Bob\nDate: Monday\nSubject: x\n\nold",
        "*From:* Bob\n*Sent:* Monday\n*To:* Alice\n\nold",
        "---------- Forwarded message ---------\nFrom: Bob\nold",
        "-----原始邮件-----\n发件人: Bob\nold",
        '------------------ 原始邮件 ------------------\n发件人: "Bob"<bob@qq.com>;\nold',
        "发件人: Bob\n发送时间: 2026年11月23日 8:30\n收件人: Alice\n主题: x\n\nold",
        "发件人： Bob\n日期： 2026-11-23\n收件人： Alice\n\nold",
        "寄件者: Bob\n寄件日期: 2026\n收件者: Alice\n主旨: x\n\nold",
        "在 2026年11月23日 星期一 08:30，Bob <bob@example.org> 写道：\n\n> old",
        "在 2026-11-23 08:30:00，Bob 写道：\nold",
        '在 2026-11-23 08:30:00，"Bob" <bob@163.com> 写道：\n>old',
        "Bob <bob@example.org> 于2026年11月23日周一 08:30写道：\n\n> old",
        "于 2026/11/23 08:30, Bob 寫道:\n> old",
        "---- Replied Message ----\n| From | Bob |\nold",
        "---- 回复的原邮件 ----\nold",
        "Am 23.11.2026 um 08:30 schrieb Bob <bob@example.org>:\n> old",
        "Le lun. 23 nov. 2026 à 08:30, Bob <bob@example.org> a écrit :\n> old",
        "2026年11月23日(月) 8:30 Bob <bob@example.org>:\n> old",
        "> old\n> older",
        "＞ old",
        "-- \nAlice\nSales",
        "--\nAlice",
        "Sent from my iPhone",
        "Get Outlook for iOS<https://aka.ms/o0ukef>",
        "发自我的iPhone",
        "从我的 iPhone 发送",
        "發自我的 iPhone",
        "发自网易邮箱大师",
        "________________________________",
    ],
)
def test_only_what_was_written_now_is_read(quoted: str) -> None:
    assert new_text(f"{NEW}\n\n{quoted}") in (NEW, f"{NEW}\n\n2026年11月23日(月) 8:30 Bob <bob@example.org>:")


@pytest.mark.parametrize(
    "text",
    [
        "/run restart host=web1\nnote: he wrote: stop",
        "From: here\nto there",
        "the plan:\n- one\n- two",
        "a -- b",
        "The man on the phone wrote:",
        "subject: x\nfrom: y",
        "--verbose",
        "今天写道：",
        "发件人是谁？",
        "Please send from my account",
        "a\n\nb\n\nc",
    ],
)
def test_what_only_looks_like_a_quote_is_kept(text: str) -> None:
    assert new_text(text) == text


def test_an_answer_below_the_quote_is_kept() -> None:
    text = "On Mon, 23 Nov 2026, Bob <bob@example.org> wrote:\n> which one?\n> really\n\n1024\n\n> and when?\n\nnow"
    assert new_text(text).split() == ["1024", "now"]


def test_a_mail_that_only_quotes_says_nothing() -> None:
    assert new_text("> old\n> older") == ""


# --- whatever the bytes are ------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        b"From: a@b.c",
        b"From:",
        b"Content-Type: multipart/mixed; boundary=x",
        b"Content-Type: multipart/alternative; boundary=",
        b"Content-Type: text/html; charset=gb2312",
        b"Content-Type: message/rfc822",
        b"Content-Type: application/ms-tnef",
        b"Content-Type: message/external-body",
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: x-uuencode",
        b"Content-Disposition: attachment; filename*0*=utf-8''%ff; filename*9999999999999999999999=x",
        b"Subject: =?utf-8?b?//?=",
        b"--x",
        b"--x--",
        b"begin 644 x",
        b"<div style='",
        b"<!--",
        b"<![CDATA[",
        b"<?xml",
        b"\xff\xfe\x00",
        b"",
        b"\r\n",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=500),
        st.lists(st.one_of(WORDS, st.binary(max_size=30)), max_size=25).map(b"\r\n".join),
    )
)
def test_no_bytes_break_the_parser(raw: bytes) -> None:
    for whole in (raw, FROM + raw, FROM + b"Content-Type: text/html\r\n\r\n" + raw):
        message = parse(whole, ARRIVAL)
        if message is not None:
            assert Message.model_validate_json(message.model_dump_json()) == message


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_no_text_breaks_the_readers(text: str) -> None:
    for found in (html_to_text(text), html_to_text(f"<p>{text}"), new_text(text), words(text), to_html(text)):
        assert isinstance(found, str)


LINES = 500_000


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n" + b"\r\n" * 12_000_000,
        b"a:b\r\n" * 2_000_000,
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n' * 5000,
        b"Content-Type: message/rfc822\r\n\r\n" * 3000,
        b"Content-Type: text/html\r\n\r\n" + b"<!--" * 500_000,
        b"Content-Type: text/html\r\n\r\n" + b"<a " * 500_000,
        b"Content-Type: text/html\r\n\r\n" + b"<div>" * 500_000,
        b"Content-Type: text/plain; charset=punycode\r\n\r\n" + b"a" * 3_000_000,
        b"Subject: " + b"=?a?q?" * 40_000 + b"\r\n\r\n",
        b"Subject: " + b"re:" * 80_000 + b"\r\n\r\n",
        b"From: " + b"(" * 200_000 + b"\r\n\r\n",
        b"References: " + b"<a" * 100_000 + b"\r\n\r\n",
        b"\r\n" + b"On @1\r\n" * 140_000,
        b"\r\n" + b">\n" * LINES,
        b"\r\n" + b"--\n" * LINES,
        b"\r\n" + b"_" * 900_000,
    ],
    ids=range(16),
)
def test_purpose_made_mail_costs_little(raw: bytes) -> None:
    began = time.process_time()
    parse(HEAD + raw, ARRIVAL)
    assert time.process_time() - began < 5, "a bound is missing: the usual is below one second"


# --- writing ---------------------------------------------------------------------------------------------------------


def route(**changed: Any) -> Route:
    values: dict[str, Any] = {
        "account": "office",
        "conversation": "alice@example.org",
        "kind": ConversationKind.MAIL,
        "thread": "<1@alice>",
        "reply_to": "<1@alice>",
        "context": {"subject": "A question", "references": "<1@alice>"},
    }
    return Route(**(values | changed))


def written(reply: Reply, where: Route | None = None, name: str = "") -> EmailMessage:
    raw = render(reply, where or route(), Writer(OWN, name), token="0199-token").as_bytes()
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    raw.decode("ascii")
    mail = message_from_bytes(raw, policy=default)
    assert isinstance(mail, EmailMessage)
    return mail


def test_an_answer_stays_in_its_thread() -> None:
    mail = written(
        Reply(text="on its way"), route(context={"subject": "A question", "references": "<0@x> <1@alice>"})
    )
    assert (mail["To"], mail["From"], mail["Subject"]) == ("alice@example.org", OWN, "Re: A question")
    assert (mail["In-Reply-To"], mail["References"]) == ("<1@alice>", "<0@x> <1@alice>")
    assert (mail["Message-ID"], mail["Auto-Submitted"]) == ("<parley.0199-token@example.org>", "auto-replied")
    assert mail["X-Loop"] == OWN


def test_the_same_token_gives_the_same_id() -> None:
    one, two = (render(Reply(text=text), route(), Writer(OWN), token="t") for text in ("a", "b"))
    assert one["Message-ID"] == two["Message-ID"]
    odd = render(Reply(text="a"), route(), Writer(OWN), token="a b\r\n>é/x")
    assert odd["Message-ID"] == "<parley.a-b-----x@example.org>"


def test_long_message_ids_are_not_altered() -> None:
    """Outlook's are longer than a line; Python's own policy would encode them, and the thread would break."""
    ids = [
        f"<AS8PR04MB7589F0C8D5F4C6F9B9C8B0A5E9{number:02}@AS8PR04MB7589.eurprd04.prod.outlook.com>"
        for number in range(30)
    ]
    mail = written(Reply(text="x"), route(reply_to=ids[-1], context={"references": " ".join(ids)}))
    assert mail["In-Reply-To"] == ids[-1]
    found = str(mail["References"]).split()
    assert (found[0], found[-1]) == (ids[0], ids[-1])
    assert set(found) <= set(ids)


def test_a_mail_that_answers_nothing() -> None:
    mail = written(Reply(text="**Daily report**\nall well"), route(reply_to=None, thread=None, context={}))
    assert (mail["Subject"], mail["Auto-Submitted"]) == ("Daily report", "auto-generated")
    assert mail["In-Reply-To"] is None


def test_prefixes_do_not_pile_up() -> None:
    for subject in (
        "Re: A question",
        "回复：A question",
        "RE: AW: Re[2]: A question",
        "答复: Fwd: A question",
    ):
        assert written(Reply(text="x"), route(context={"subject": subject}))["Subject"] == "Re: A question"


def test_text_html_and_files() -> None:
    files = (
        File(name="报告.csv", media_type="text/csv", content="a,好".encode()),
        File(name="a.bin", content=b"\x00"),
    )
    mail = written(Reply(text="**done** 中文 🚀", files=files))
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().strip() == "**done** 中文 🚀"
    assert "<strong>done</strong> 中文 🚀" in html.get_content()
    found = [
        (part.get_filename(), part.get_content_type(), part.get_payload(decode=True))
        for part in mail.iter_attachments()
    ]
    assert found == [
        ("报告.csv", "text/csv", "a,好".encode()),
        ("a.bin", "application/octet-stream", b"\x00"),
    ]


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a & <b>", "<p>a &amp; &lt;b&gt;</p>"),
        ("**b** *i* `c < d`", "<p><strong>b</strong> <em>i</em> <code>c &lt; d</code></p>"),
        ("[site](https://x.example/?a=1&b=2)", '<p><a href="https://x.example/?a=1&amp;b=2">site</a></p>'),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
        ('[x](https://a" onclick="b)', "<p>[x](https://a&quot; onclick=&quot;b)</p>"),
        ("- one\n- two", "<ul><li>one</li><li>two</li></ul>"),
        ("```python\nif a < b:\n    *x*\n```\nend", "<pre>if a &lt; b:\n    *x*</pre><p>end</p>"),
        ("2 * 3 * 4", "<p>2 * 3 * 4</p>"),
        ("a\nb\n\nc", "<p>a<br>b</p><p>c</p>"),
    ],
)
def test_markup_becomes_safe_html(text: str, html: str) -> None:
    assert to_html(text) == html


EVIL = [
    "x\r\nBcc: evil@elsewhere.example",
    "x\nBcc: evil@elsewhere.example\n\nbody",
    "x\rBcc: evil@elsewhere.example",
    "=?utf-8?q?x=0D=0ABcc:_evil@elsewhere.example?=",
    "=?utf-8?b?eA0KQmNjOiBldmlsQGVsc2V3aGVyZS5leGFtcGxl?=",
    "x\u2028Bcc: evil@elsewhere.example",
    "x\x85Bcc: evil@elsewhere.example",
    "x\x0bBcc: evil@elsewhere.example\x00",
    "x\x1cBcc: evil@elsewhere.example",
    "é" * 300 + "\r\nBcc: evil@elsewhere.example",
]


@pytest.mark.parametrize("evil", EVIL)
def test_no_value_adds_a_header(evil: str) -> None:
    context = {"subject": evil, "references": evil + " <1@alice>", "notice": evil}
    file = File(name=evil[:200], media_type=f"text/plain; x={evil}", content=b"x")
    mail = written(Reply(text=evil, files=(file,)), route(context=context, reply_to="<1@alice>"), name=evil)
    for part in mail.walk():
        assert part["Bcc"] is None
        assert not [name for name in part.keys() if name.lower().startswith("bcc")]  # noqa: SIM118
    assert mail["To"] == "alice@example.org"
    assert [address.addr_spec for address in mail["From"].addresses] == [OWN]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.text(min_size=1, max_size=60), st.text(max_size=60))
def test_any_value_makes_one_mail_to_one_person(subject: str, name: str, file_name: str, body: str) -> None:
    context = {"subject": subject, "references": body, "notice": name}
    mail = written(
        Reply(text=body, files=(File(name=file_name, content=b"x"),)), route(context=context), name
    )
    assert mail["To"] == "alice@example.org"
    assert mail["Bcc"] is None
    assert len(mail.get_all("Subject", [])) == 1


@pytest.mark.parametrize(
    "address",
    [
        OWN,
        OWN.upper(),
        "alice",
        "alice@example.org, bob@example.org",
        "alice@example.org\r\nRCPT TO:<evil@elsewhere.example>",
        "alice@example.org>",
        "Alice <alice@example.org>",
        "alice@example.org bob@example.org",
    ],
)
def test_what_is_no_other_persons_address_is_refused(address: str) -> None:
    with pytest.raises(Rejected):
        render(Reply(text="x"), route(conversation=address), Writer(OWN), token="t")


def test_an_answer_for_somebody_else_is_refused() -> None:
    with pytest.raises(Rejected):
        render(Reply(text="x"), route(private_to="bob@example.org"), Writer(OWN), token="t")


def test_addresses_beyond_ascii() -> None:
    mail = written(Reply(text="x"), route(conversation="alice@bücher.example"))
    assert mail["To"] == "alice@xn--bcher-kva.example"
    raw = render(Reply(text="x"), route(conversation="张三@例え.jp"), Writer(OWN), token="t").as_bytes()
    assert "To: 张三@例え.jp\r\n".encode() in raw
