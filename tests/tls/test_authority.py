"""`parley certs`: an authority that signs for its own names alone; what it makes is judged by OpenSSL."""

from __future__ import annotations

import contextlib
import json
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from parley import tls
from parley.errors import ConfigurationError
from parley.tls import Renewed, authority, expiry
from parley.tls.folder import Folder
from parley.tls.handshake import refusal
from tests.tls.files import made_folder

NOW = datetime.now(UTC)


def verdict(folder: Folder, host: str) -> str:
    """What a client that trusts the authority says of the certificate for this host; empty when it takes it."""
    server = Renewed(folder.certificate, folder.key).context
    return refusal(server, tls.client(ca_file=folder.authority), host)


def parley(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "parley.cli", "certs", *words],
        env={"PARLEY_KEY_FILE": str(home / "key"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_is_taken_for_its_hosts_and_this_machine_and_for_nobody_else(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs", "parley.corp.example", "10.1.2.3", "fd00::5")
    for host in ("parley.corp.example", "10.1.2.3", "fd00::5", "localhost", "127.0.0.1", "::1"):
        assert verdict(folder, host) == ""
    for host in ("corp.example", "other.example", "10.1.2.4"):
        assert "mismatch" in verdict(folder, host)


def test_strict_openssl_has_nothing_against_it(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs", "parley.corp.example")
    check = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-purpose", "sslserver"]
    done = subprocess.run(
        [*check, "-verify_hostname", "parley.corp.example", "-CAfile", folder.authority, folder.certificate],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_time_and_its_kind(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs", "parley.corp.example")
    root, leaf = (
        x509.load_pem_x509_certificate(path.read_bytes()) for path in (folder.authority, folder.certificate)
    )
    assert (root.not_valid_after_utc - root.not_valid_before_utc).days == 3650
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 397
    for one in (root, leaf):
        key = one.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp256r1"
    assert root.extensions.get_extension_for_class(x509.NameConstraints).critical
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs", "parley.corp.example")
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    for key in (folder.key, folder.authority_key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "authority.key",
        "authority.pem",
        "parley.key",
        "parley.pem",
    ]


@pytest.mark.parametrize("host", ["bank.example", "8.8.8.8"])
def test_who_has_its_key_can_sign_for_nothing_else(tmp_path: Path, host: str) -> None:
    """Not our own check: a certificate that is signed with the stolen key is refused by OpenSSL."""
    folder = made_folder(tmp_path / "certs", "parley.corp.example")
    with pytest.raises(ConfigurationError, match="may not sign"):
        folder.create([host], [], at=NOW)
    forged = _forged(folder, host)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*forged)
    assert "permitted subtree" in refusal(server, tls.client(ca_file=folder.authority), host)


def _forged(folder: Folder, host: str) -> tuple[Path, Path]:
    signer = x509.load_pem_x509_certificate(folder.authority.read_bytes())
    key = serialization.load_pem_private_key(folder.authority_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name: x509.GeneralName = x509.DNSName(host)
    if host[0].isdigit():
        from ipaddress import ip_address

        name = x509.IPAddress(ip_address(host))
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forged")]))
        .issuer_name(signer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder.path / "forged.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path, folder.authority_key


@pytest.mark.parametrize("host", ["", "a b", "*", "-x.example", "https://x", "x" * 64, "a..b", "10.1.2.0/24"])
def test_what_is_no_host_is_refused_before_anything_is_written(tmp_path: Path, host: str) -> None:
    folder = Folder(tmp_path / "certs")
    with pytest.raises(ConfigurationError, match="neither a name nor an address"):
        folder.create([host], [], at=NOW)
    assert not folder.path.exists()


def test_an_authority_may_be_made_for_a_whole_domain(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "certs")
    folder.create(["a.corp.example"], ["corp.example", "10.0.0.0/8"], at=NOW)
    root = folder.authority.read_bytes()
    assert not folder.create(["b.corp.example", "10.9.9.9"], [], at=NOW), "the authority is kept"
    assert folder.authority.read_bytes() == root
    assert verdict(folder, "b.corp.example") == ""
    assert verdict(folder, "10.9.9.9") == ""
    with pytest.raises(ConfigurationError, match="another --folder"):
        folder.create(["c.corp.example"], ["other.example"], at=NOW)


def test_it_is_renewed_for_the_same_hosts(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs", "parley.corp.example", "10.1.2.3")
    before = folder.ending()
    key = folder.key.read_bytes()
    after = folder.renew(at=NOW + timedelta(days=380))
    assert after.names == before.names
    assert after.ends > before.ends
    assert after.fingerprint != before.fingerprint
    assert folder.key.read_bytes() != key


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\x00"])
@pytest.mark.parametrize("name", ["authority.pem", "authority.key", "parley.pem"])
def test_what_is_damaged_is_told_in_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    folder = made_folder(tmp_path / "certs", "parley.corp.example")
    (folder.path / name).write_bytes(content)
    before = folder.key.read_bytes()
    with pytest.raises(ConfigurationError, match="is damaged"):
        folder.renew(at=NOW)
    assert folder.key.read_bytes() == before
    if name == "parley.pem":
        folder.create(["parley.corp.example"], [], at=NOW)
        assert verdict(folder, "parley.corp.example") == ""
        return
    with pytest.raises(ConfigurationError, match=r"is damaged.*copy"):
        folder.create(["parley.corp.example"], [], at=NOW)


def test_the_text_within_a_certificate_may_be_damaged_too(tmp_path: Path) -> None:
    """Whatever byte of it is another one: a sentence, or a certificate that OpenSSL will judge."""
    folder = made_folder(tmp_path / "certs", "parley.corp.example")
    pem = folder.certificate.read_bytes()
    told = set()
    for place in range(28, len(pem) - 27):
        damaged = pem[:place] + (b"A" if pem[place : place + 1] != b"A" else b"B") + pem[place + 1 :]
        try:
            authority.hosts_of(damaged)
        except ConfigurationError as error:
            told.add(str(error))
        folder.certificate.write_bytes(damaged)
        with contextlib.suppress(ConfigurationError):
            folder.ending()
    assert len(told) == 1


def test_the_authoritys_key_must_be_its_own(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs", "parley.corp.example")
    other = made_folder(tmp_path / "other", "parley.corp.example")
    folder.authority_key.write_bytes(other.authority_key.read_bytes())
    with pytest.raises(ConfigurationError, match="copy of both"):
        folder.renew(at=NOW)
    assert verdict(folder, "parley.corp.example") == ""


def test_a_certificate_that_names_no_host_is_told_in_a_sentence(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs", "parley.corp.example")
    folder.certificate.write_bytes(folder.authority.read_bytes())
    done = parley("renew", "--force", "--folder", str(folder.path), home=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "names no host" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs", "parley.corp.example")
    end = expiry.ending(folder.authority).ends
    assert folder.renew(at=end - timedelta(days=50)).ends <= end
    with pytest.raises(ConfigurationError, match="run out"):
        folder.renew(at=end + timedelta(days=1))


def test_it_ends_soon_thirty_days_before_and_a_short_one_in_its_last_third(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs", "parley.corp.example")
    found = folder.ending()
    assert not found.soon(found.ends - timedelta(days=31))
    assert found.soon(found.ends - timedelta(days=29))
    short = authority.issue(
        authority.Issued(folder.authority.read_bytes(), folder.authority_key.read_bytes()),
        ["parley.corp.example"],
        at=NOW,
        days=9,
    )
    folder.certificate.write_bytes(short.certificate)
    found = folder.ending()
    assert not found.soon(found.ends - timedelta(days=4))
    assert found.soon(found.ends - timedelta(days=2))


def test_an_open_authority_key_is_not_used(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs", "parley.corp.example")
    folder.authority_key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod go="):
        folder.renew(at=NOW)


def test_from_the_command_line(tmp_path: Path) -> None:
    made = parley("create", "parley.corp.example", "10.1.2.3", home=tmp_path)
    assert made.returncode == 0, made.stderr
    assert f'certificate = "{tmp_path}/tls/parley.pem"' in made.stdout
    assert "PRIVATE KEY" not in made.stdout + made.stderr

    rows = json.loads(parley("show", "--json", home=tmp_path).stdout)
    assert [row["certificate"] for row in rows] == ["authority", "parley"]
    assert rows[1]["hosts"][:2] == ["parley.corp.example", "10.1.2.3"]
    assert "parley.corp.example" in rows[0]["hosts"]

    told = parley("trust", home=tmp_path).stdout
    assert rows[0]["sha256"] in told
    assert all(word in told for word in ("update-ca-certificates", "System.keychain", "certutil", "Firefox"))

    assert "nothing to do" in parley("renew", home=tmp_path).stdout
    assert "is renewed" in parley("renew", "--force", home=tmp_path).stdout
    assert json.loads(parley("show", "--json", home=tmp_path).stdout)[1]["sha256"] != rows[1]["sha256"]


def test_nothing_there_yet_is_said_without_a_traceback(tmp_path: Path) -> None:
    for command in ("show", "renew", "trust"):
        done = parley(command, home=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("parley: ")
        assert "Traceback" not in done.stderr
