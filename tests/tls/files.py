"""Certificates in files, for the tests of transport."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from parley.settings import Pair
from parley.tls.folder import Folder
from tests.certificates import self_signed


def self_signed_pair(folder: Path, *names: str, address: str = "127.0.0.1") -> Pair:
    """A certificate that signed itself, and its key, in files of this folder; written anew each time."""
    pair = Pair(folder / "certificate.pem", folder / "key.pem")
    for path, content in zip(pair, self_signed(*names, address=address), strict=True):
        path.write_bytes(content)
        path.chmod(0o600)
    return pair


def made_folder(path: Path, *hosts: str) -> Folder:
    """What `parley certs create` makes."""
    folder = Folder(path)
    folder.create(list(hosts), [], at=datetime.now(UTC))
    return folder
