"""Who is let in through the gate of a stack in a container."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from parley.errors import ConfigurationError
from parley.processes import publish, table
from parley.settings import load

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010012AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


def test_the_gateway_is_that_of_the_default_route() -> None:
    assert publish.default_gateway(ROUTES) == IPv4Address("172.18.0.1")
    without = "\n".join(line for line in ROUTES.splitlines() if "\t00000000\t0100" not in line)
    assert publish.default_gateway(without) is None
    assert publish.default_gateway("") is None


def test_only_the_gateway_and_named_networks_are_let_in() -> None:
    admits = publish.admission(["gateway", "10.5.0.0/24"], IPv4Address("172.18.0.1"))
    assert admits(("172.18.0.1", 40000))
    assert admits(("10.5.0.9", 40000))
    assert not admits(("172.18.0.3", 40000))
    assert not admits(("203.0.113.9", 40000))
    assert not admits("")
    assert not admits(None)


def test_without_a_gateway_nobody_is() -> None:
    admits = publish.admission(["gateway"], None)
    assert not admits(("172.18.0.1", 40000))


def test_a_machine_with_its_own_network_listens_nowhere() -> None:
    """The addresses of this machine's own cards and bridges are no container's."""
    import socket

    import psutil

    own = {
        one.address
        for name, addresses in psutil.net_if_addrs().items()
        for one in addresses
        if one.family == socket.AF_INET and (Path("/sys/class/net") / name / "device").exists()
    }
    assert not own & set(publish.own_addresses())


def test_the_gate_is_started_where_it_is_asked_for(tmp_path: Path) -> None:
    plain = {"PARLEY_HOME": str(tmp_path), "PARLEY_KEY_FILE": str(tmp_path / "key")}
    assert "publish" not in [program.role for program in table.programs(load(plain))]
    asked = load(plain | {"PARLEY_PUBLISH": "gateway, 10.5.0.0/24"})
    (program,) = [one for one in table.programs(asked) if one.role == "publish"]
    assert asked.publish == ("gateway", "10.5.0.0/24")
    secret = {"PREFECT_API_AUTH_STRING", "PARLEY_KEY_FILE", "PARLEY_DATABASE_URL"}
    assert not secret & set(program.environment)


@pytest.mark.parametrize("wrong", ["everybody", "10.5.0.1/24", "10.5.0.0/33"])
def test_what_is_no_network_is_refused(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="PARLEY_PUBLISH"):
        load({"PARLEY_HOME": str(tmp_path), "PARLEY_PUBLISH": wrong})


def test_a_port_that_speaks_tls_itself_is_left_alone(tmp_path: Path) -> None:
    config = tmp_path / "parley.toml"
    config.write_text('[web]\nhost = "0.0.0.0"\ncertificate = "/c.pem"\nkey = "/k.pem"\n')
    settings = load({"PARLEY_HOME": str(tmp_path), "PARLEY_CONFIG": str(config), "PARLEY_PORT": "8443"})
    assert 8443 not in publish.ports_of(settings)
    assert settings.metrics_port in publish.ports_of(settings)


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://parley:word@db/parley\n")
    plain = {"PARLEY_HOME": str(tmp_path)}
    assert load(plain | {"PARLEY_DATABASE_URL_FILE": str(secret)}).database_url == secret.read_text().strip()
    secret.write_text("")
    assert load(plain | {"PARLEY_DATABASE_URL_FILE": str(secret)}).database_url is None
    with pytest.raises(ConfigurationError, match="PARLEY_DATABASE_URL_FILE"):
        load(plain | {"PARLEY_DATABASE_URL_FILE": str(tmp_path / "none")})
