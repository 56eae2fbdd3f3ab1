"""`[sign_in.oidc]` of parley.toml: what is refused when the file is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from parley.errors import ConfigurationError
from parley.settings import File, load

DIRECTORY = """
[directory]
url = "ldaps://ldap.example.org"
bind = "cn=parley,dc=example,dc=org"
password_file = "/etc/parley/ldap-password"
base = "ou=people,dc=example,dc=org"
filter = "(objectClass=person)"
id = "entryUUID"
name = "uid"
identities = { post = "mail" }
"""


def read(folder: Path, provider: str, more: str = "") -> File:
    config = folder / "parley.toml"
    config.write_text(
        f'{more}\n[sign_in.oidc.corp]\nissuer = "https://id.example.org"\nclient_id = "x"\n{provider}\n'
    )
    return load({"PARLEY_HOME": str(folder / "data"), "PARLEY_CONFIG": str(config)}).file


@pytest.mark.parametrize("provider", ["join = true", 'join = true\nmail_account = "slack"'])
def test_beside_a_directory_nobody_joins_whom_it_could_not_tell(tmp_path: Path, provider: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"corp: beside \[directory\], `join` needs a `mail_account`"
    ):
        read(tmp_path, provider, DIRECTORY)
    assert read(tmp_path, provider).sign_in.oidc["corp"].join


@pytest.mark.parametrize("provider", ['join = true\nmail_account = "post"', "join = false", ""])
def test_beside_a_directory_who_is_known_by_address_may_join(tmp_path: Path, provider: str) -> None:
    assert read(tmp_path, provider, DIRECTORY).directory is not None
