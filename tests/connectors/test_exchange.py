"""Exchange, what is pure: which mail is taken for what, and how an answer stands in its conversation."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta
from email.policy import SMTP
from typing import Any

import pytest

from connectors._exchange_parse import child_index, in_thread
from connectors._mail_render import Writer
from connectors.exchange import Mail, parse, render
from parley.errors import Rejected
from parley.messages import Assurance, ConversationKind, Message, Reply, Route
from tests.fakes.mail import ASSISTANT, letter

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
WRITER = Writer(ASSISTANT, "Assistant", NOW)
ALICE = "alice@example.org"
INTERNAL = ("X-MS-Exchange-Organization-AuthAs", "Internal")


def mail(text: str = "hello", **told: Any) -> Mail:
    raw = told.pop("raw", None) or letter(text).as_bytes(policy=SMTP)
    values = {"account": "office", "own_address": ASSISTANT, "item_id": "AAMk=", "raw": raw, "received": NOW}
    return Mail(**{**values, "author": ALICE, "sender": ALICE, **told})


def parsed(arrived: Mail, *, trust_internal: bool = False) -> Message:
    message = parse(arrived, trust_internal=trust_internal)
    assert message is not None
    return message


def index_of(moment: datetime) -> bytes:
    """The 22 bytes that begin a conversation, written from the definition: a FILETIME's top 6 bytes, then a GUID."""
    filetime = (moment - datetime(1601, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 10
    return filetime.to_bytes(8, "big")[:6] + bytes(range(16))


# --- what a mail is


def test_a_mail_is_a_message_of_its_sender() -> None:
    message = parsed(mail("where is order 1024?"))
    assert message.text == "where is order 1024?"
    assert (message.sender.id, message.sender.assurance) == (ALICE, Assurance.CLAIMED)
    assert (message.route.conversation, message.route.kind) == (ALICE, ConversationKind.MAIL)
    assert message.native_id.startswith("<")
    assert message.route.thread == message.native_id
    assert message.sent_at == NOW


@pytest.mark.parametrize(
    ("item_class", "automatic"),
    [
        ("IPM.Note", False),
        ("IPM.Note.SMIME.MultipartSigned", False),
        ("IPM.Note.Rules.OofTemplate.Microsoft", True),
        ("IPM.Note.Rules.ReplyTemplate.Microsoft", True),
        ("IPM.Note.Microsoft.Missed.Voice", True),
        ("REPORT.IPM.Note.NDR", True),
        ("REPORT.IPM.Note.IPNRN", True),
    ],
)
def test_what_a_machine_wrote_is_automatic_by_its_class(item_class: str, automatic: bool) -> None:
    assert parsed(mail(item_class=item_class)).automatic is automatic


@pytest.mark.parametrize(
    "header",
    [("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "All"), ("Return-Path", "<>")],
)
def test_what_a_machine_wrote_is_automatic_by_its_headers(header: tuple[str, str]) -> None:
    written = letter("I am away")
    written[header[0]] = header[1]
    assert parsed(mail(raw=written.as_bytes(policy=SMTP))).automatic


def test_a_mail_without_a_message_id_has_the_same_id_each_time() -> None:
    written = letter("hello")
    del written["Message-ID"]
    raw = written.as_bytes(policy=SMTP)
    one, again, other = (parsed(mail(raw=raw, item_id=item)).native_id for item in ("A=", "A=", "B="))
    assert one == again != other
    assert one.startswith("sha256:")


def test_of_a_mail_that_is_too_large_only_the_headers_count() -> None:
    headers = (
        ("From", f"Alice <{ALICE}>"),
        ("Subject", "/order 1024"),
        ("Message-ID", "<big@example.org>"),
        ("Content-Type", "multipart/mixed; boundary=x"),
        ("Bad Name", "x"),
        ("X-Folded", "a\r\nX-Loop: assistant@example.org"),
    )
    message = parsed(Mail("office", ASSISTANT, "A=", b"", NOW, size=51_200_000, headers=headers))
    assert (message.text, message.native_id, message.files) == ("/order 1024", "<big@example.org>", ())
    assert "51.2 MB" in message.route.context["notice"]
    assert not message.automatic, "a folded value must not become a header of its own"


@pytest.mark.parametrize("raw", [b"", b"\0", b"\r\n\r\n", b"From: a@b\r\nFrom: c@d\r\n\r\nx", b"\xff" * 3000])
def test_a_mail_of_nobody_is_none(raw: bytes) -> None:
    assert parse(Mail("office", ASSISTANT, "A=", raw, NOW)) is None


# --- who is believed


def test_exchange_vouches_for_people_of_the_organisation() -> None:
    trusted = parsed(mail(headers=(INTERNAL,)), trust_internal=True)
    assert trusted.sender.assurance is Assurance.VERIFIED


@pytest.mark.parametrize(
    "told",
    [
        {"headers": ()},
        {"headers": ((INTERNAL[0], "Anonymous"),)},
        {"headers": ((INTERNAL[0], "External"),)},
        {"headers": ((INTERNAL[0], "Internal, Anonymous"),)},
        {"headers": ((INTERNAL[0], ""),)},
        {"headers": (INTERNAL, INTERNAL)},
        {"headers": (INTERNAL, (INTERNAL[0].upper(), "Anonymous"))},
        {"headers": (("X-Original-" + INTERNAL[0], "Internal"),)},
        {"headers": (INTERNAL,), "sender": "secretary@example.org"},
        {"headers": (INTERNAL,), "author": "boss@example.org", "sender": "boss@example.org"},
        {"headers": (INTERNAL,), "author": "", "sender": ""},
    ],
)
def test_of_anybody_else_the_sender_is_claimed(told: dict[str, Any]) -> None:
    assert parsed(mail(**told), trust_internal=True).sender.assurance is Assurance.CLAIMED


def test_nobody_is_believed_unless_the_owner_says_so() -> None:
    assert parsed(mail(headers=(INTERNAL,))).sender.assurance is Assurance.CLAIMED


# --- where an answer stands


def test_an_answer_stands_in_the_conversation() -> None:
    parent = base64.b64encode(index_of(NOW)).decode()
    asked = parsed(mail(headers=(("Thread-Index", parent), ("Thread-Topic", "A question"))))
    sent = render(Reply(text="**on** its way"), asked.route, WRITER, token="t-1")
    assert sent["To"] == ALICE
    assert sent["Subject"] == "Re: A question"
    assert sent["In-Reply-To"] == sent["References"] == asked.native_id
    assert sent["Thread-Topic"] == "A question"
    assert base64.b64decode(sent["Thread-Index"])[:22] == base64.b64decode(parent)
    assert sent["Auto-Submitted"] == "auto-replied"
    assert {part.get_content_type() for part in sent.walk()} >= {"text/plain", "text/html"}


@pytest.mark.parametrize("index", ["\ud800", "\x00", "索引", "AQ\r\nBcc: x@y"])
def test_what_is_no_index_is_not_kept(index: str) -> None:
    asked = parsed(mail(headers=(("Thread-Index", index),)))
    assert "thread_index" not in asked.route.context
    assert asked.model_dump_json()


def test_without_an_index_exchange_makes_one() -> None:
    sent = render(Reply(text="x"), parsed(mail()).route, WRITER, token="t-1")
    assert sent["Thread-Index"] is None
    assert sent["References"]


@pytest.mark.parametrize(
    ("later", "most", "unit"),
    [
        (timedelta(0), 0, 2**18),
        (timedelta(seconds=1), 0, 2**18),
        (timedelta(days=600), 0, 2**18),
        (timedelta(days=1000), 1, 2**23),
        (timedelta(days=9000), 1, 2**23),
    ],
)
def test_the_time_since_the_first_mail_is_in_the_index(later: timedelta, most: int, unit: int) -> None:
    child = base64.b64decode(child_index(base64.b64encode(index_of(NOW)).decode(), NOW + later))
    assert (child[:22], len(child)) == (index_of(NOW), 27)
    code, steps = child[22] >> 7, int.from_bytes(child[22:26], "big") & 0x7FFFFFFF
    assert code == most
    # The header has no more than the top 48 bits of its moment: 6.5 ms.
    assert abs(steps * unit - later // timedelta(microseconds=1) * 10) <= unit + 2**16


def test_an_answer_to_an_answer_is_one_level_deeper() -> None:
    once = child_index(base64.b64encode(index_of(NOW)).decode(), NOW)
    assert len(base64.b64decode(child_index(once, NOW))) == 32


@pytest.mark.parametrize(
    "parent", ["", "no base64!", "AQ==", base64.b64encode(bytes(23)).decode(), "A" * 5000, "é"]
)
def test_an_index_that_cannot_be_read_is_left_out(parent: str) -> None:
    assert child_index(parent, NOW) == ""


def test_an_index_from_the_future_does_no_harm() -> None:
    child = base64.b64decode(child_index(base64.b64encode(b"\xff" * 22).decode(), NOW))
    assert child[22:26] == bytes(4)


def test_an_answer_to_a_mail_of_ours_goes_under_it() -> None:
    route = Route(
        account="office", conversation=ALICE, kind=ConversationKind.MAIL, thread="<parley.1@example.org>"
    )
    sent = render(Reply(text="more"), in_thread(route, "Order 1024"), WRITER, token="t-2")
    assert sent["In-Reply-To"] == "<parley.1@example.org>"
    assert sent["Subject"] == "Re: Order 1024"


def test_a_route_that_answers_a_mail_stays_as_it_is() -> None:
    route = parsed(mail()).route
    assert in_thread(route, "other") is route
    alone = route.model_copy(update={"reply_to": None, "thread": "sha256:00"})
    assert in_thread(alone, "other") is alone


@pytest.mark.parametrize("address", [ASSISTANT, "no address", "a@example.org, b@example.org"])
def test_only_one_person_can_be_written_to(address: str) -> None:
    route = Route(account="office", conversation=address, kind=ConversationKind.MAIL)
    with pytest.raises(Rejected):
        render(Reply(text="x"), route, WRITER, token="t")


def test_purpose_made_headers_cost_no_time() -> None:
    headers = tuple((f"X-{number}", "x" * 5000) for number in range(2000))
    begun = time.monotonic()
    parse(Mail("office", ASSISTANT, "A=", b"", NOW, headers=(("From", ALICE), *headers)))
    assert time.monotonic() - begun < 5
