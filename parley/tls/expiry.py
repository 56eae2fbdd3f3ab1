"""When certificates end, and when that is soon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from parley.errors import ConfigurationError
from parley.settings import PORTS, Settings
from parley.tls.authority import parsed

SOON: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Ending:
    """A certificate's time, for whom it is, and its SHA-256 fingerprint."""

    path: Path
    begins: datetime
    ends: datetime
    names: tuple[str, ...]
    fingerprint: str

    def soon(self, at: datetime) -> bool:
        """Whether it has to be renewed now: 30 days before its end, of one for less than 90 days its last third."""
        return self.ends - at < min(SOON, (self.ends - self.begins) / 3)

    def days(self, at: datetime) -> int:
        """Whole days that are left; negative when it has ended."""
        return (self.ends - at).days


def ending(path: Path) -> Ending:
    """The first certificate in this file (PEM). Raises `ConfigurationError`."""
    try:
        found = parsed(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the certificate {path} cannot be read: {error}.") from None
    return Ending(
        path,
        found.not_valid_before_utc,
        found.not_valid_after_utc,
        _names(found),
        found.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


def served(settings: Settings, at: datetime) -> Iterator[dict[str, Any]]:
    """The certificate of each port that has one: {"port", "ends", "days", "soon", "file"}.

    A file that is broken is left out: it is served as it was before, and the log says so.
    """
    for port in PORTS:
        pair = settings.pair(port)
        if pair is None or (port == "prefect" and not settings.own_prefect):
            continue
        try:
            found = ending(pair.certificate)
        except ConfigurationError:
            continue
        yield {
            "port": port,
            "ends": found.ends,
            "days": found.days(at),
            "soon": found.soon(at),
            "file": str(pair.certificate),
        }


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """For whom it is; of an authority, for whom it may sign."""
    extensions = certificate.extensions
    try:
        named = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        try:
            constraints = extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            return ()
        named = constraints.permitted_subtrees or []
    return tuple(str(one.value) for one in named)
