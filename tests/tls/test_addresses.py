"""Which hosts are this machine, and which networks are a house's own."""

from __future__ import annotations

import pytest

from parley.tls import is_loopback, is_private


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "192.168.0.1", "localhost.example.com", "127.0.0.1.example.com", "::ffff:8.8.8.8"],
)
def test_what_others_may_reach(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("networks", "private"),
    [
        ([], True),
        (["10.0.0.0/8", "172.30.0.0/24", "192.168.1.7/32", "fd00::/8", "::1/128"], True),
        (["0.0.0.0/0"], False),
        (["::/0"], False),
        (["10.0.0.0/7"], False),
        (["172.0.0.0/11"], False),
        (["203.0.113.0/24"], False),
        (["10.0.0.0/8", "8.8.8.8/32"], False),
    ],
)
def test_a_houses_own_networks(networks: list[str], private: bool) -> None:
    assert is_private(networks) is private
