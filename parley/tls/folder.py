"""The folder of `parley certs`: an authority and one certificate, each with its key, made and renewed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from parley.errors import ConfigurationError
from parley.tls import authority
from parley.tls.authority import Issued
from parley.tls.expiry import Ending, ending
from parley.tls.server import check_key


@dataclass(frozen=True, slots=True)
class Folder:
    """`authority.pem` and `parley.pem`, and beside each its `.key`, which nobody else may read."""

    path: Path

    @property
    def authority(self) -> Path:
        """The authority's certificate: what clients are told to trust."""
        return self.path / "authority.pem"

    @property
    def certificate(self) -> Path:
        """The certificate that the ports show."""
        return self.path / "parley.pem"

    @property
    def key(self) -> Path:
        """Its key."""
        return self.path / "parley.key"

    @property
    def authority_key(self) -> Path:
        """What signs: it may lie elsewhere, on another machine, between two renewals."""
        return self.path / "authority.key"

    def create(self, hosts: Sequence[str], permitted: Sequence[str], *, at: datetime) -> bool:
        """A certificate for these hosts, and an authority first where there is none: then true.

        Raises `ConfigurationError`, before anything is written.
        """
        fresh = not self.authority.exists()
        if fresh:
            made = authority.make_authority(permitted or hosts, name=(hosts or ["localhost"])[0], at=at)
        else:
            made = self._kept()
            if permitted:
                raise ConfigurationError(
                    f"{self.authority} is there already, and what it is for cannot be changed: give another --folder."
                )
        issued = authority.issue(made, hosts, at=at)
        self._make()
        if fresh:
            _write(self.authority, self.authority_key, made)
        _write(self.certificate, self.key, issued)
        return fresh

    def renew(self, *, at: datetime) -> Ending:
        """A new certificate and key for the same hosts. Raises `ConfigurationError`."""
        kept = self._kept()
        hosts = authority.hosts_of(_read(self.certificate))
        _write(self.certificate, self.key, authority.issue(kept, hosts, at=at))
        return self.ending()

    def ending(self) -> Ending:
        """When the certificate ends. Raises `ConfigurationError`."""
        return ending(self.certificate)

    def _kept(self) -> Issued:
        check_key(self.authority_key)
        return Issued(_read(self.authority), _read(self.authority_key))

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {self.path} cannot be made ({error.strerror}): give another --folder."
            ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror}): `parley certs create` makes it."
        ) from None


def _write(certificate: Path, key: Path, issued: Issued) -> None:
    """Both, each whole. Who reads between the two finds files that do not belong together and looks again."""
    for path, content, mode in ((key, issued.key, 0o600), (certificate, issued.certificate, 0o644)):
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise ConfigurationError(f"{path} cannot be written ({error.strerror}).") from None
