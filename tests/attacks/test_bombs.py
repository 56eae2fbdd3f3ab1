"""What unfolds into more than it was is refused, or kept folded, and costs nothing; it reads no file and no address."""

from __future__ import annotations

import gzip
import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from defusedxml.common import DefusedXmlException

from connectors import _exchange_protocol, _wecom_read
from connectors._hook_json import Unreadable, json_body
from connectors._mail_parse import parse as parse_mail
from parley.errors import BadSignature
from parley.messages import HookRequest
from tests.attacks.addresses import canary
from tests.attacks.effort import MOST_MEMORY, resident
from tests.connectors import test_mail as mail
from tests.connectors import test_wecom as wecom
from tests.fakes.wecom import CORP_ID

SECRET_FILE: Final = "parley-canary-7f3a"


def entities(name: str, kind: str) -> str:
    """XML that unfolds when it is read."""
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return {
        "laughs": f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]><xml><Encrypt>&l9;</Encrypt></xml>',
        "quadratic": f'<!DOCTYPE x [<!ENTITY a "{"a" * 50_000}">]><xml><Encrypt>{"&a;" * 50_000}</Encrypt></xml>',
        "file": f'<!DOCTYPE x [<!ENTITY a SYSTEM "file://{name}">]><xml><Encrypt>&a;</Encrypt></xml>',
        "address": f'<!DOCTYPE x [<!ENTITY a SYSTEM "{name}">]><xml><Encrypt>&a;</Encrypt></xml>',
        "parameter": f'<!DOCTYPE x [<!ENTITY % p SYSTEM "{name}">%p;]><xml><Encrypt>a</Encrypt></xml>',
        "dtd": f'<!DOCTYPE x SYSTEM "{name}"><xml><Encrypt>a</Encrypt></xml>',
        "include": (
            f'<xml xmlns:i="http://www.w3.org/2001/XInclude"><i:include href="file://{name}" parse="text"/></xml>'
        ),
        "deep": "<a>" * 200_000,
        "attributes": "<xml " + " ".join(f'a{n}="1"' for n in range(100_000)) + "/>",
        "stylesheet": f'<?xml-stylesheet href="{name}"?><xml><Encrypt>a</Encrypt></xml>',
    }[kind]


KINDS: Final = (
    "laughs", "quadratic", "file", "address", "parameter", "dtd", "include", "deep", "attributes", "stylesheet",
)  # fmt: skip


def by_wecom(raw: bytes) -> str:
    return repr(_wecom_read.fields(raw))


def by_wecom_sealed(raw: bytes) -> str:
    """The same inside a genuine envelope: from somebody who has the company's key."""
    cipher, _ = wecom.envelope(corp_id=CORP_ID).close(raw, timestamp=wecom.TIMESTAMP, nonce=wecom.NONCE)
    return repr(_wecom_read.fields(wecom.opened(cipher)))


def by_exchange(raw: bytes) -> str:
    from exchangelib.util import ParseError, to_xml, xml_to_str

    _exchange_protocol._busy(b"ErrorServerBusy" + raw)
    try:
        return str(xml_to_str(to_xml(raw).getroot()))[:1000]
    except ParseError:
        return ""


def by_mail(raw: bytes) -> str:
    heads = (b"text/html", b"text/xml", b"application/xhtml+xml", b"image/svg+xml")
    found = [
        parse_mail(mail.HEAD + b"Content-Type: " + head + b"\r\n\r\n" + raw, mail.ARRIVAL) for head in heads
    ]
    return " ".join(message.text for message in found if message is not None)


READERS: Final[dict[str, Callable[[bytes], str]]] = {
    "wecom": by_wecom, "wecom, sealed": by_wecom_sealed, "exchange": by_exchange, "mail": by_mail,
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
async def test_xml_that_unfolds(reader: str, kind: str, encoding: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET_FILE)
    async with canary() as here:
        name = (
            f"http://127.0.0.1:{here.port}/x"
            if kind in ("address", "parameter", "dtd", "stylesheet")
            else str(secret)
        )
        raw = entities(name, kind).encode(encoding)
        before, began = resident(), time.process_time()
        try:
            read = READERS[reader](raw)
        except (BadSignature, DefusedXmlException):
            read = ""
        assert time.process_time() - began < 1
        assert resident() - before < MOST_MEMORY
        assert SECRET_FILE not in read
        assert here.arrived == 0


def zipped(levels: int) -> bytes:
    """A thousand to one and more, in each other."""
    content = bytes(20 * 2**20)
    for level in range(levels):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
            for number in range(1 if level == 0 else 5):
                made.writestr(f"../../{number}.zip", content)
        content = out.getvalue()
    return content


@pytest.mark.parametrize("levels", [1, 10])
def test_a_packed_attachment_stays_packed(levels: int) -> None:
    packed = zipped(levels)
    letter = mail.letter()
    letter.add_attachment(packed, maintype="application", subtype="zip", filename="a.zip")
    raw = letter.as_bytes()
    before, began = resident(), time.process_time()
    (file,) = mail.read(raw).files
    assert file.content == packed
    assert time.process_time() - began < 1
    assert resident() - before < MOST_MEMORY


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-gzip"])
def test_a_packed_call_is_refused_as_it_is(coding: str) -> None:
    body = gzip.compress(gzip.compress(bytes(100 * 2**20)))
    headers = {"content-type": "application/json", "content-encoding": coding}
    began = time.process_time()
    with pytest.raises(Unreadable):
        json_body(HookRequest(method="POST", path="/", headers=headers, body=body))
    assert time.process_time() - began < 0.1


def test_mail_in_mail_in_mail_is_bounded() -> None:
    """A thousand levels of multipart, and of mails in mails."""
    for kind in (b'multipart/mixed; boundary="b"\r\n\r\n--b', b"message/rfc822\r\n"):
        raw = mail.HEAD + (b"Content-Type: " + kind + b"\r\n") * 1000 + b"\r\nx"
        began = time.process_time()
        parse_mail(raw, mail.ARRIVAL)
        assert time.process_time() - began < 1
