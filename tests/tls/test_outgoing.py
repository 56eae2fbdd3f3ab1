"""Connections that we open verify whom they reach: looked for in the source, and tried against real sockets."""

from __future__ import annotations

import ast
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from parley import tls
from parley.errors import ConfigurationError
from parley.tls.handshake import refusal
from tests.certificates import self_signed
from tests.tls.files import self_signed_pair

ROOT = Path(__file__).parents[2]
FOLDERS = ("parley", "connectors", "blocks", "flows", "deployments")

MAKERS = {
    "create_default_context",
    "SSLContext",
    "_create_unverified_context",
    "_create_default_https_context",
}
OFF = {"verify", "check_hostname", "verify_ssl", "ssl", "verify_mode", "validate_certs", "tls_verify"}
UNVERIFIED = {"CERT_NONE", "CERT_OPTIONAL", "_create_unverified_context", "PROTOCOL_TLS", "PROTOCOL_SSLv23"}

REASONS = {
    ("parley/tls/outgoing.py", "create_default_context"): "the place",
    ("parley/tls/outgoing.py", "SSLContext"): "the place",
    ("parley/tls/outgoing.py", "check_hostname"): "one pinned certificate, whose holder needs no name",
    ("parley/tls/server.py", "SSLContext"): "the place of servers",
    ("parley/processes/health.py", "SSLContext"): "a sign of life of our own process: nothing is sent",
    ("parley/processes/health.py", "check_hostname"): "as above",
    ("parley/processes/health.py", "CERT_NONE"): "as above",
}
"""Every exception there is, and why."""


def found_in(source: str) -> Iterator[tuple[str, int]]:
    """What makes a context of its own, or switches verification off."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in MAKERS:
                yield name, node.lineno
            yield from (
                (word.arg, node.lineno) for word in node.keywords if word.arg in OFF and _is_off(word.value)
            )
        elif isinstance(node, ast.Attribute) and node.attr in UNVERIFIED:
            yield node.attr, node.lineno
        elif isinstance(node, ast.Assign):
            yield from ((name, node.lineno) for name in _switched_off(node))
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in OFF and _is_off(value):
                    yield str(key.value), node.lineno


def _switched_off(node: ast.Assign) -> Iterator[str]:
    for target in node.targets:
        pairs = (
            zip(target.elts, node.value.elts, strict=False)
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            else [(target, node.value)]
        )
        for one, value in pairs:
            name = one.attr if isinstance(one, ast.Attribute) else getattr(one, "id", "")
            if name in OFF and _is_off(value):
                yield name


def _is_off(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def test_contexts_are_made_in_one_place_and_nothing_skips_verification() -> None:
    found = {
        (str(path.relative_to(ROOT)), what): line
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for what, line in found_in(path.read_text(encoding="utf-8"))
    }
    assert {
        f"{file}:{line} {what}" for (file, what), line in found.items() if (file, what) not in REASONS
    } == set()
    assert not REASONS.keys() - found.keys(), "an exception that is no longer needed"


@pytest.mark.parametrize(
    "source",
    [
        "httpx.get(url, verify=False)",
        "aiohttp.TCPConnector(ssl=False)",
        "session.verify = False",
        "context.check_hostname = False",
        "a, b.verify_mode = 1, ssl.CERT_NONE",
        "context.check_hostname, context.verify_mode = False, ssl.VerifyMode.CERT_NONE",
        "ssl._create_unverified_context()",
        "from ssl import create_default_context\ncreate_default_context()",
        "connect(**{'verify': False})",
    ],
)
def test_the_search_would_find_it(source: str) -> None:
    assert list(found_in(source))


def test_the_usual_authorities_are_trusted_and_1_2_is_the_least() -> None:
    context = tls.client()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert ssl.create_default_context().minimum_version >= ssl.TLSVersion.TLSv1_2, (
        "what libraries make themselves"
    )


@pytest.mark.parametrize(
    ("least", "most", "taken"),
    [
        (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ""),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_1_3_where_it_is_offered_and_nothing_below_1_2(
    tmp_path: Path, least: ssl.TLSVersion, most: ssl.TLSVersion, taken: str
) -> None:
    pair = self_signed_pair(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.set_ciphers("ALL:@SECLEVEL=0")
    server.minimum_version, server.maximum_version = least, most
    server.load_cert_chain(*pair)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = tls.client(ca_file=pair.certificate)
    ours = context.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    versions = set()
    for _ in range(5):
        for side in (ours, theirs):
            try:
                side.do_handshake()
                versions.add(side.version())
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                assert not taken
                return
    assert versions == {taken}


def test_only_the_authority_that_is_named_is_trusted(tmp_path: Path) -> None:
    pair = self_signed_pair(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*pair)
    assert refusal(server, tls.client(ca_file=pair.certificate), "127.0.0.1") == ""
    assert "self-signed" in refusal(server, tls.client(), "127.0.0.1")
    other = self_signed("other")[0].decode()
    assert "self-signed" in refusal(server, tls.client(ca_data=other), "127.0.0.1")
    assert "mismatch" in refusal(server, tls.client(ca_file=pair.certificate), "127.0.0.2")


def test_every_account_for_a_server_of_ones_own_takes_its_authority() -> None:
    """Mail, Exchange, XMPP, WebSocket and a company's API may be on an intranet; each names what it cannot read."""
    from blocks.exchange import ExchangeMailbox
    from blocks.mail import MailAccount
    from blocks.rest_api import RestApi
    from blocks.websocket import WebSocketAccount
    from blocks.xmpp import XMPPAccount

    for block in (ExchangeMailbox, MailAccount, WebSocketAccount):
        assert "ca_certificates" in block.model_fields
    for file in (XMPPAccount, RestApi):
        assert "ca_file" in file.model_fields
    account = WebSocketAccount(
        url="wss://chat.corp.example/", secret="s" * 20, ca_certificates="no certificate"
    )
    with pytest.raises(ConfigurationError, match="ca_certificates"):
        account.connector("office")
