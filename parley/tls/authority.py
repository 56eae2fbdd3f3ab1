"""A certificate authority for an intranet: one that can sign for its own names and addresses, and for nothing else.

Keys are EC P-256: the one kind that every browser, Python and Prometheus take.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from parley.errors import ConfigurationError

AUTHORITY_DAYS: Final = 3650
CERTIFICATE_DAYS: Final = 397
"""Browsers that count take no longer one."""

_HERE: Final = ("localhost", "127.0.0.1", "::1")
"""In every certificate: our own processes talk to each other on this machine."""

_HERE_PERMITTED: Final = ("localhost", "127.0.0.0/8", "::1/128")

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_SLACK = timedelta(hours=1)
"""Clocks of other machines may be behind."""


class Issued(NamedTuple):
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Issued()"


def make_authority(
    permitted: Iterable[str], *, name: str, at: datetime, days: int = AUTHORITY_DAYS
) -> Issued:
    """A new authority, critically constrained to these domains (with all below them), addresses and networks.

    What belongs to this machine itself is permitted too. Raises `ConfigurationError` for what is neither.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name[:40]} (parley, {at:%Y-%m-%d})")])
    allowed = [_subtree(one) for one in dict.fromkeys([*permitted, *_HERE_PERMITTED])]
    made = (
        _builder(subject, subject, key.public_key(), at, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(
            x509.NameConstraints(permitted_subtrees=allowed, excluded_subtrees=None), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _issued(made, key)


def issue(authority: Issued, hosts: Sequence[str], *, at: datetime, days: int = CERTIFICATE_DAYS) -> Issued:
    """A certificate for these names and addresses and for this machine itself, with a key of its own.

    It ends no later than the authority. Raises `ConfigurationError` for a host that is none or that the authority may
    not sign for, and for an authority that is damaged.
    """
    signer, signing = _signer(authority)
    named = [_host(one) for one in dict.fromkeys([*hosts, *_HERE])]
    for one in named:
        _check_permitted(signer, one)
    key = ec.generate_private_key(ec.SECP256R1())
    left = (signer.not_valid_after_utc - at).days
    if left < 1:
        raise ConfigurationError("the authority has run out: make a new one with `parley certs create`.")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (hosts or _HERE)[0][:64])])
    made = (
        _builder(subject, signer.subject, key.public_key(), at, min(days, left))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(named), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False
        )
        .sign(signing, hashes.SHA256())
    )
    return _issued(made, key)


def hosts_of(certificate: bytes) -> list[str]:
    """The names and addresses that a certificate (PEM) is for, those of this machine itself left out.

    Raises `ConfigurationError` for one that is damaged, or for nobody.
    """
    try:
        found = parsed(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound):
        raise ConfigurationError(
            "the certificate is damaged, or names no host: make a new one with `parley certs create HOST`."
        ) from None
    names = [str(one.value) for one in found.value]
    return [name for name in names if name not in _HERE]


def parsed(certificate: bytes) -> x509.Certificate:
    """The first certificate in this PEM, whose extensions can be read. Raises `ValueError`."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        _ = found.extensions  # read only when they are asked for
    except (x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(str(error)) from None
    return found


def _signer(authority: Issued) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        signer = parsed(authority.certificate)
        signing = serialization.load_pem_private_key(authority.key, password=None)
        belong = signer.public_key() == signing.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: a key with a password
        raise ConfigurationError(
            "the authority's certificate or its key is damaged: put back its copy, or give another --folder and let "
            "the clients trust the authority that is made there."
        ) from None
    if not belong or not isinstance(signing, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(
            "the authority's key is none that `parley certs` made for its certificate: put back the copy of both."
        )
    return signer, signing


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, at: datetime, days: int
) -> x509.CertificateBuilder:
    at = at.astimezone(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _SLACK)
        .not_valid_after(at - _SLACK + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _issued(made: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    return Issued(made.public_bytes(pem), key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def _host(text: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(_domain(text))


def _subtree(text: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ip_network(text))
    except ValueError:
        return x509.DNSName(_domain(text))


def _domain(text: str) -> str:
    try:
        name = text.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        name = ""
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ConfigurationError(
            f"{text[:80]!r} is neither a name nor an address: give it as parley.example.com or 10.1.2.3."
        )
    return name


def _check_permitted(authority: x509.Certificate, host: x509.DNSName | x509.IPAddress) -> None:
    try:
        found = authority.extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return
    if any(_holds(one, host) for one in found.value.permitted_subtrees or ()):
        return
    raise ConfigurationError(
        f"the authority may not sign for {host.value}, and clients would refuse it: it is for what it was made for. "
        "Give another --folder, and let the clients trust the authority that is made there too."
    )


def _holds(permitted: x509.GeneralName, host: x509.DNSName | x509.IPAddress) -> bool:
    if isinstance(permitted, x509.DNSName) and isinstance(host, x509.DNSName):
        return host.value == permitted.value or host.value.endswith(f".{permitted.value}")
    if isinstance(permitted, x509.IPAddress) and isinstance(host, x509.IPAddress):
        network, address = permitted.value, host.value
        return isinstance(network, IPv4Network | IPv6Network) and address in network
    return False
