"""Two machines that answer each other's mail stop at once, and no automatic mail is answered."""

from __future__ import annotations

from email.policy import SMTP
from typing import Final

import pytest

from connectors._mail_render import Writer
from connectors.mail import Arrival, parse, render
from parley.messages import Reply
from tests.connectors.test_mail import RECEIVED, letter

ONE, OTHER = "one@example.org", "other@example.net"


def answer_of(own: str, raw: bytes, number: int) -> bytes | None:
    """What an installation with this address answers; None where it does not."""
    arrival = Arrival(account="post", own_address=own, uid_validity=1, uid=number, received=RECEIVED)
    message = parse(raw, arrival)
    if message is None or message.automatic:
        return None
    return render(Reply(text="I do not know that."), message.route, Writer(own), token=f"t{number}").as_bytes(
        policy=SMTP
    )


def test_two_of_us_stop_after_one_answer() -> None:
    """Somebody's rule forwards what one writes to the other: they do not go on for ever."""
    first = letter(From=OTHER, To=ONE, Subject="hello")
    first.set_content("is anybody there?")
    raw: bytes | None = first.as_bytes(policy=SMTP)
    sent = 0
    while raw is not None and sent < 10:
        own = (ONE, OTHER)[sent % 2]
        raw = answer_of(own, raw, sent)
        sent += raw is not None
    assert sent == 1


AUTOMATIC: Final = (
    {"Auto-Submitted": "auto-replied"}, {"Auto-Submitted": "auto-generated"}, {"Auto-Submitted": "auto-notified; x=y"},
    {"Precedence": "bulk"}, {"Precedence": "junk"}, {"Precedence": "list"}, {"Precedence": "auto_reply"},
    {"List-Id": "<a.example.org>"}, {"List-Unsubscribe": "<mailto:x@example.org>"}, {"Return-Path": "<>"},
    {"X-Auto-Response-Suppress": "All"}, {"X-Autoreply": "yes"}, {"X-Autorespond": "vacation"},
    {"From": "MAILER-DAEMON@example.org"}, {"From": "postmaster@example.org"}, {"From": "no-reply@example.org"},
    {"From": ONE}, {"From": ONE.upper()},
)  # fmt: skip


@pytest.mark.parametrize("headers", AUTOMATIC, ids=lambda headers: "-".join(*headers.items()))
def test_automatic_mail_is_not_answered(headers: dict[str, str]) -> None:
    mail = letter(
        **{
            "To": ONE,
            "Subject": "Out of office",
            **{name.replace("-", "_"): value for name, value in headers.items()},
        }
    )
    mail.set_content("I am away. /order 1024")
    assert answer_of(ONE, mail.as_bytes(policy=SMTP), 1) is None


def test_a_persons_mail_is_answered() -> None:
    mail = letter(To=ONE, Subject="hello", Auto_Submitted="no")
    mail.set_content("/order 1024")
    assert answer_of(ONE, mail.as_bytes(policy=SMTP), 1) is not None


def test_our_answer_says_that_it_is_automatic_and_names_what_it_answers() -> None:
    mail = letter(To=ONE, Subject="hello")
    mail.set_content("/order 1024")
    raw = answer_of(ONE, mail.as_bytes(policy=SMTP), 1) or b""
    assert b"Auto-Submitted: auto-replied\r\n" in raw
    assert b"In-Reply-To: <1@alice>\r\n" in raw
