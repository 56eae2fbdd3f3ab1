"""Certificates that are renewed while they are served, on real sockets."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from parley import tls
from parley.errors import ConfigurationError
from parley.settings import Pair
from parley.tls import Renewed
from parley.tls.server import check_key
from tests.tls.files import made_folder, self_signed_pair


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while said := await reader.readline():
        writer.write(said)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def serving(used: Renewed) -> AsyncIterator[int]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0, ssl=used.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def shown(port: int, context: ssl.SSLContext) -> bytes:
    """The certificate that a client with this context is shown and takes."""
    _reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        connection = writer.get_extra_info("ssl_object")
        assert connection.version() == "TLSv1.3"
        return bytes(connection.getpeercert(binary_form=True))
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_renewed_certificate_is_served_at_once_and_open_connections_stay(tmp_path: Path) -> None:
    pair = self_signed_pair(tmp_path)
    async with serving(Renewed(*pair)) as port:
        before = tls.pinned(pair.certificate)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=before)
        first = await shown(port, before)
        self_signed_pair(tmp_path)
        after = tls.pinned(pair.certificate)

        assert await shown(port, after) != first
        with pytest.raises(ssl.SSLCertVerificationError):
            await shown(port, before)
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"
        writer.close()


@pytest.mark.parametrize("broken", ["gone", "half", "another's", "open"])
async def test_files_that_do_not_work_leave_the_one_before(
    tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    pair = self_signed_pair(tmp_path)
    trusted = tls.pinned(pair.certificate)
    kept = pair.key.read_bytes()
    async with serving(Renewed(*pair)) as port:
        first = await shown(port, trusted)
        if broken == "gone":
            pair.key.unlink()
        elif broken == "half":
            pair.key.write_bytes(kept[: len(kept) // 2])
        elif broken == "another's":
            other = tmp_path / "other"
            other.mkdir()
            self_signed_pair(other).key.replace(pair.key)
        else:
            pair.key.write_bytes(kept)
            pair.key.chmod(0o644)

        assert await shown(port, trusted) == first
        assert await shown(port, trusted) == first
        told = [one for one in caplog.messages if "served on" in one]
        assert len(told) == 1, "it is said once, not at each handshake"

        renewed = self_signed_pair(tmp_path)
        assert await shown(port, tls.pinned(renewed.certificate)) != first


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_nothing_older_than_1_3(tmp_path: Path, version: ssl.TLSVersion) -> None:
    pair = self_signed_pair(tmp_path)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(pair.certificate)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = version
    async with serving(Renewed(*pair)) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shown(port, old)


async def test_a_client_without_a_certificate_is_turned_away_where_one_is_asked_for(tmp_path: Path) -> None:
    for name in ("server", "client"):
        (tmp_path / name).mkdir()
    pair, theirs = self_signed_pair(tmp_path / "server"), self_signed_pair(tmp_path / "client")
    async with serving(Renewed(*pair, clients=theirs.certificate)) as port:
        context = tls.pinned(pair.certificate)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"anybody there?\n")
        # In TLS 1.3 the client learns of it only when it reads: an alert, or the end.
        with suppress(ssl.SSLError, ConnectionError):
            assert await reader.readline() == b""
        writer.close()
        context.load_cert_chain(*theirs)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()


@pytest.mark.parametrize("signed_by", ["itself", "an authority"])
async def test_pinned_takes_one_certificate_and_no_other(tmp_path: Path, signed_by: str) -> None:
    """Whatever name it has, and whoever signed it: another one of the same authority is another server's."""
    if signed_by == "itself":
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
        ours = self_signed_pair(tmp_path / "one", "parley.example.com", address="")
        other = self_signed_pair(tmp_path / "other", "parley.example.com", address="")
    else:
        folder = made_folder(tmp_path / "certs", "parley.example.com")
        ours = Pair(tmp_path / "ours.pem", tmp_path / "ours.key")
        ours.certificate.write_bytes(folder.certificate.read_bytes() + folder.authority.read_bytes())
        ours.key.write_bytes(folder.key.read_bytes())
        ours.key.chmod(0o600)
        folder.create(["parley.example.com"], [], at=folder.ending().begins)
        other = Pair(folder.certificate, folder.key)
    async with serving(Renewed(*ours)) as port, serving(Renewed(*other)) as others:
        trusting = tls.pinned(ours.certificate)
        assert await shown(port, trusting)
        with pytest.raises(ssl.SSLCertVerificationError):
            await shown(others, trusting)


def test_files_that_do_not_belong_together_are_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = self_signed_pair(tmp_path / "a"), self_signed_pair(tmp_path / "b")
    with pytest.raises(ConfigurationError, match="belong together"):
        Renewed(one.certificate, other.key)
    with pytest.raises(ConfigurationError, match="No such file"):
        Renewed(one.certificate, tmp_path / "none")


@pytest.mark.parametrize(
    ("mode", "taken"),
    [(0o600, True), (0o400, True), (0o640, False), (0o604, False), (0o666, False), (0o610, False)],
)
def test_a_key_is_for_its_owner_alone(tmp_path: Path, mode: int, taken: bool) -> None:
    key = tmp_path / "key"
    key.write_text("k")
    key.chmod(mode)
    assert stat.S_IMODE(key.stat().st_mode) == mode
    if taken:
        check_key(key)
        return
    with pytest.raises(ConfigurationError, match="chmod go="):
        check_key(key)
