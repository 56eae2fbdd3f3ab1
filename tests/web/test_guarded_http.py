"""Requests to addresses that others chose go to public networks only, or to those that are allowed by name."""

from __future__ import annotations

import ipaddress

import httpx
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from parley.errors import Unreachable
from parley.web.guarded_http import PRIVATE, Forbidden, Guard, guarded_client, is_allowed, networks
from tests.prefect_fixture import free_port

LOOPBACK = networks(["127.0.0.0/8"])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "::7f00:1", "::ffff:0:127.0.0.1", "fec0::1", "3fff::1",
        "2002:7f00:1::", "ff02::1", "192.0.2.1", "198.18.0.1", "240.0.0.1",
    ],
)  # fmt: skip
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not is_allowed(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_what_is_public_is_allowed(address: str) -> None:
    assert is_allowed(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4, network="10.1.0.0/16"))
def test_a_named_network_is_allowed_and_its_neighbour_is_not(address: ipaddress.IPv4Address) -> None:
    assert is_allowed(address, networks(["10.1.0.0/16"]))
    assert is_allowed(ipaddress.ip_address(f"::ffff:{address}"), networks(["10.1.0.0/16"]))
    assert not is_allowed(address, networks(["10.2.0.0/16"]))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254",
        "fe80::1", "0.0.0.0", "::ffff:168.63.129.16",
    ],
)  # fmt: skip
def test_where_clouds_keep_credentials_is_never_reached(address: str) -> None:
    assert not is_allowed(ipaddress.ip_address(address), (*PRIVATE, *networks(["0.0.0.0/0", "::/0"])))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0"]
)
async def test_no_spelling_of_this_machine_is_reached(host: str) -> None:
    port = free_port()
    async with guarded_client(Guard(), timeout=httpx.Timeout(5)) as client:
        with pytest.raises((Forbidden, Unreachable)) as refused:
            await client.get(f"http://{host}:{port}/")
    # Nobody listens: a connection that was tried would have failed otherwise.
    assert "cannot be found" in str(refused.value) or isinstance(refused.value, Forbidden)


async def test_an_allowed_one_is_reached_under_its_name_and_redirects_are_left_alone() -> None:
    hosts: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        hosts.append(request.host)
        return web.Response(status=302, headers={"location": "http://169.254.169.254/latest"})

    app = web.Application()
    app.router.add_get("/", answer)
    runner, port = web.AppRunner(app), free_port()
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        async with guarded_client(Guard(LOOPBACK), timeout=httpx.Timeout(5)) as client:
            found = await client.get(f"http://127.0.0.1:{port}/")
        assert found.status_code == 302
        assert hosts == [f"127.0.0.1:{port}"]
    finally:
        await runner.cleanup()


async def test_a_name_that_does_not_exist_is_unreachable() -> None:
    async with guarded_client(Guard(), timeout=httpx.Timeout(5)) as client:
        with pytest.raises(Unreachable, match="cannot be found"):
            await client.get("http://no-such-host.invalid/")
