"""The binding rule: no port is plain where the network reaches it, whatever is configured."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from parley.errors import ConfigurationError
from parley.processes import environment, table
from parley.settings import PORTS, PortName, Settings, load
from parley.tls import ports
from tests.tls.files import made_folder, self_signed_pair

HOSTS = {"127.0.0.1": True, "::1": True, "localhost": True, "0.0.0.0": False, "::": False, "192.0.2.7": False}
"""Whether only this machine reaches it."""

PUBLISHED = {
    "": True,
    "gateway": True,
    "gateway,172.30.0.0/24": True,
    "0.0.0.0/0": False,
    "gateway,203.0.113.0/24": False,
}
"""Whether no address of the Internet is let in."""


def settings_of(tmp_path: Path, toml: str = "", **given: str) -> Settings:
    config = tmp_path / "parley.toml"
    config.write_text(toml)
    return load(
        {"PARLEY_HOME": str(tmp_path / "home"), "PARLEY_CONFIG": str(config), "HOME": str(tmp_path)} | given
    )


@pytest.mark.parametrize(
    ("port", "host", "secure", "publish"),
    list(product(("web", "hooks", "metrics"), HOSTS, (False, True), PUBLISHED)),
)
def test_nothing_plain_beyond_this_machine(
    tmp_path: Path, port: PortName, host: str, secure: bool, publish: str
) -> None:
    pair = self_signed_pair(tmp_path)
    tls = {"PARLEY_TLS_CERTIFICATE": str(pair.certificate), "PARLEY_TLS_KEY": str(pair.key)} if secure else {}
    settings = settings_of(tmp_path, f'[{port}]\nhost = "{host}"\n', PARLEY_PUBLISH=publish, **tls)
    if secure or (HOSTS[host] and PUBLISHED[publish]):
        ports.check(settings)
        return
    with pytest.raises(ConfigurationError) as refused:
        ports.check(settings)
    told = str(refused.value)
    assert (host if not HOSTS[host] else publish) in told
    assert "[tls]" in told, "it says how to mend it"


def test_plain_on_this_machine_is_what_there_is_without_settings(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    ports.check(settings)
    assert {settings.scheme(port) for port in PORTS} == {"http"}
    assert settings.prefect_trust is None


def test_one_table_is_for_all_ports_and_a_ports_own_comes_first(tmp_path: Path) -> None:
    toml = """
        [tls]
        certificate = "/all.pem"
        key = "/all.key"
        [hooks]
        certificate = "/hooks.pem"
        key = "/hooks.key"
    """
    settings = settings_of(tmp_path, toml)
    found = {port: str(pair.certificate) for port in PORTS if (pair := settings.pair(port))}
    assert found == {"web": "/all.pem", "hooks": "/hooks.pem", "metrics": "/all.pem", "prefect": "/all.pem"}
    given = {"PARLEY_TLS_CERTIFICATE": "/env.pem", "PARLEY_TLS_KEY": "/env.key"}
    settings = settings_of(tmp_path, toml, **given)
    found = {port: str(pair.certificate) for port in PORTS if (pair := settings.pair(port))}
    assert found == {"web": "/env.pem", "hooks": "/hooks.pem", "metrics": "/env.pem", "prefect": "/env.pem"}


@pytest.mark.parametrize(
    ("host", "origins", "console"),
    [
        ("127.0.0.1", '"https://parley.example.com"', "https://127.0.0.1:8080"),
        ("0.0.0.0", '"https://parley.example.com:8080"', "https://parley.example.com:8080"),
        ("0.0.0.0", "", "https://127.0.0.1:8080"),
        ("::", "", "https://127.0.0.1:8080"),
        ("::1", "", "https://[::1]:8080"),
        ("192.0.2.7", "", "https://192.0.2.7:8080"),
    ],
)
def test_people_are_sent_to_an_address_that_works(
    tmp_path: Path, host: str, origins: str, console: str
) -> None:
    toml = f'[web]\nhost = "{host}"\norigins = [{origins}]\n[tls]\ncertificate = "/c.pem"\nkey = "/k.pem"\n'
    assert settings_of(tmp_path, toml).console == console


def test_the_consoles_certificate_is_also_for_hooks_that_others_reach(tmp_path: Path) -> None:
    web = '[web]\ncertificate = "/web.pem"\nkey = "/web.key"\n'
    assert settings_of(tmp_path, web).pair("hooks") is None
    opened = settings_of(tmp_path, f'{web}[hooks]\nhost = "0.0.0.0"\n')
    assert opened.pair("hooks") == opened.pair("web")
    assert opened.pair("prefect") is None


@pytest.mark.parametrize("table_", ["tls", "web", "hooks", "metrics", "prefect"])
def test_certificate_and_key_belong_together(tmp_path: Path, table_: str) -> None:
    with pytest.raises(ConfigurationError, match="belong together"):
        settings_of(tmp_path, f'[{table_}]\ncertificate = "/c.pem"\n')


def test_so_they_do_in_the_environment(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="PARLEY_TLS_KEY"):
        settings_of(tmp_path, PARLEY_TLS_CERTIFICATE="/c.pem")


def test_certificates_of_readers_take_tls(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="client_authority"):
        ports.check(settings_of(tmp_path, '[metrics]\nclient_authority = "/clients.pem"\n'))


def test_a_key_that_others_can_read_is_refused_before_anything_starts(tmp_path: Path) -> None:
    pair = self_signed_pair(tmp_path)
    pair.key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod go="):
        ports.check(
            settings_of(tmp_path, PARLEY_TLS_CERTIFICATE=str(pair.certificate), PARLEY_TLS_KEY=str(pair.key))
        )


def test_prefects_certificate_must_be_one_that_our_own_processes_take(tmp_path: Path) -> None:
    """Told at the start, and not by a worker that never reaches its server."""
    folder = made_folder(tmp_path / "certs", "parley.example.com")
    given = {"PARLEY_TLS_CERTIFICATE": str(folder.certificate), "PARLEY_TLS_KEY": str(folder.key)}
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1 and would not take .*authority"):
        ports.check(settings_of(tmp_path, **given))
    ports.check(settings_of(tmp_path, PARLEY_TLS_AUTHORITY=str(folder.authority), **given))

    (tmp_path / "named").mkdir()
    named = self_signed_pair(tmp_path / "named", "parley.example.com", address="")
    given = {"PARLEY_TLS_CERTIFICATE": str(named.certificate), "PARLEY_TLS_KEY": str(named.key)}
    with pytest.raises(ConfigurationError, match=r"not valid for '127\.0\.0\.1'.*certs create"):
        ports.check(settings_of(tmp_path, **given))
    own = f'[prefect]\ncertificate = "{folder.certificate}"\nkey = "{folder.key}"\n'
    own += f'[tls]\nauthority = "{folder.authority}"\n'
    ports.check(settings_of(tmp_path, own, **given))


def test_the_port_of_somebody_elses_prefect_is_none_of_ours(tmp_path: Path) -> None:
    pair = self_signed_pair(tmp_path)
    tables = ("web", "hooks", "metrics")
    toml = "".join(f'[{port}]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n' for port in tables)
    with pytest.raises(ConfigurationError, match="no TLS on PARLEY_PREFECT_PORT:"):
        ports.check(settings_of(tmp_path, toml, PARLEY_PUBLISH="0.0.0.0/0"))
    existing = {"PREFECT_API_URL": "https://prefect.example.com/api"}
    ports.check(settings_of(tmp_path, toml, PARLEY_PUBLISH="0.0.0.0/0", **existing))
    with pytest.raises(
        ConfigurationError, match="no TLS on PARLEY_PORT, PARLEY_HOOKS_PORT, PARLEY_METRICS_PORT:"
    ):
        ports.check(settings_of(tmp_path, PARLEY_PUBLISH="0.0.0.0/0", **existing))


def test_every_process_that_talks_to_prefect_is_told_to_verify_it(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "certs")
    toml = f'[tls]\ncertificate = "{folder.certificate}"\nkey = "{folder.key}"\nauthority = "{folder.authority}"\n'
    settings = settings_of(tmp_path, toml)
    inherited = {"PREFECT_API_SSL_CERT_FILE": "/somebody's", "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "true"}
    for told in (
        environment.hub_environment(settings, inherited),
        environment.client_environment(settings, "worker", inherited),
        environment.client_environment(settings, "listeners", inherited),
    ):
        assert told["PREFECT_API_URL"] == f"https://127.0.0.1:{settings.prefect_port}/api"
        assert told["PREFECT_API_SSL_CERT_FILE"] == str(folder.authority)
        assert "PREFECT_API_TLS_INSECURE_SKIP_VERIFY" not in told
    prefect = next(one for one in table.programs(settings) if one.role == "prefect")
    assert prefect.probe is not None
    assert prefect.probe.tls
    assert [str(folder.certificate), str(folder.key), str(folder.authority)] == [
        prefect.argv[prefect.argv.index(name) + 1] for name in ("--certificate", "--key", "--authority")
    ]
    plain = environment.hub_environment(settings_of(tmp_path), inherited)
    assert "PREFECT_API_SSL_CERT_FILE" not in plain
