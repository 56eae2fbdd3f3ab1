"""Passwords: what one may be, who is meant by a name, and how many guesses there are."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest

from parley.errors import BadArguments, RateLimited
from parley.people import passwords, principals
from parley.people.audit import Audit
from parley.people.guesses import Guesses, network
from parley.people.passwords import MOST_WAITING, Hasher
from parley.people.principals import PrincipalKind
from parley.people.sealing import Keyring
from parley.store.engine import Store

GOOD = "seven quiet otters"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "eleven char",
        "x" * 257,
        "Password1234",
        "qwertyuiop123",
        "１２３４５６７８９０１２",
        "aaaaaaaabbbbbbbb",
        "ann-katharina",
    ],
)
def test_what_everybody_tries_is_refused(wrong: str) -> None:
    with pytest.raises(BadArguments) as refused:
        passwords.check_new(wrong, "ann-katharina")
    assert not wrong or wrong not in str(refused.value)


def test_what_is_long_enough_is_taken_in_any_script() -> None:
    for text in (GOOD, "四只安静的水獭在河里慢慢游", "x9!kQ#2mLp@7vB"):
        assert passwords.check_new(text, "ann")
    assert passwords.clean("ﬁne café") == passwords.clean("fine café")


async def test_a_hash_is_argon2id_with_the_recommended_cost_and_tells_right_from_wrong() -> None:
    hasher = Hasher()
    made = await hasher.hash(GOOD)
    assert made.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert await hasher.check(made, GOOD)
    assert not await hasher.check(made, GOOD + "x")
    assert not await hasher.check("no hash at all", GOOD)
    assert not await hasher.check(None, "nobody's"), "the hash that nobody has lets nobody in"
    assert not hasher.is_outdated(made)
    assert hasher.is_outdated("$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$lq7gqLK4kcg9IwaUmUqRmg")


async def test_nobody_takes_as_long_as_somebody() -> None:
    hasher = Hasher()
    made = await hasher.hash(GOOD)
    await hasher.check(None, GOOD)

    async def lasts(stored: str | None) -> float:
        began = time.thread_time_ns(), time.perf_counter()
        await hasher.check(stored, "wrong guess")
        return time.perf_counter() - began[1]

    pairs = [(await lasts(made), await lasts(None)) for _ in range(7)]
    some, none = (statistics.median(column) for column in zip(*pairs, strict=True))
    assert 0.4 < none / some < 2.5


async def test_few_wait_and_the_rest_is_asked_to_come_again() -> None:
    hasher = Hasher()
    tries = [hasher.hash(GOOD) for _ in range(MOST_WAITING + 5)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, RateLimited) for one in done) == 5
    assert await hasher.hash(GOOD), "and there is room again"


async def test_a_name_means_one_person(store: Store) -> None:
    async def meant(typed: str) -> str | None:
        found = await store.read(lambda conn: passwords.by_sign_in_name(conn, typed))
        return found.name if found else None

    for name in ("ann", "Bea", "cleo", "Cleo", "王伟"):
        await store.write(lambda conn, name=name: principals.add_principal(conn, name))  # type: ignore[misc]
    service = await store.write(
        lambda conn: principals.add_principal(conn, "forge", kind=PrincipalKind.SERVICE)
    )
    assert service
    left = await store.write(lambda conn: principals.add_principal(conn, "left"))
    await store.write(lambda conn: principals.disable(conn, left))
    assert [await meant(one) for one in (" Ann ", "bea", "Cleo", "王伟")] == ["ann", "Bea", "Cleo", "王伟"]
    for nobody in ("CLEO", "forge", "left", "", "a\x00", "x" * 1000, "an_", "%"):
        assert await meant(nobody) is None, nobody


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refused(guesses: Guesses, name: str, address: str, known: str | None = None) -> float:
    try:
        guesses.take(name, address, known)
    except RateLimited as error:
        return error.retry_after if f"{error.retry_after:g} s" in str(error) else -1
    return 0


def test_strangers_use_up_no_known_browser_and_a_name_for_a_minute_only() -> None:
    clock, keyring = Clock(), Keyring.generate()
    guesses = Guesses(keyring, Audit(keyring), clock=clock)
    waits = [refused(guesses, "ann", f"192.0.2.{n}") for n in range(12)]
    assert waits[:10] == [0] * 10
    assert waits[10:] == [60, 60]
    assert refused(guesses, " Ann", "198.51.100.1") == 60, "however it is written"
    for spelled in ("ＡＮＮ", "𝒶𝓃𝓃", "\u2007ⓐⓝⓝ\u3000", "ａnn"):
        assert passwords.clean(spelled).strip().casefold() == "ann"
        assert refused(guesses, spelled, "198.51.100.2") == 60, "and in whatever letters"
    assert refused(guesses, "bea", "192.0.2.1") == 0
    mark = guesses.mark("id-of-ann")
    known = guesses.is_known(mark, "id-of-ann")
    assert known
    assert refused(guesses, "ann", "192.0.2.1", known) == 0
    for wrong in ("", mark[:-1], mark + "0", "é" * 10, "a.b.c", mark.replace(".", "..", 1)):
        assert guesses.is_known(wrong, "id-of-ann") is None
    assert guesses.is_known(mark, "id-of-bea") is None
    assert Guesses(Keyring.generate(), Audit(keyring)).is_known(mark, "id-of-ann") is None
    clock.now += 60
    assert refused(guesses, "ann", "198.51.100.1") == 0


def test_one_address_tries_few_names() -> None:
    clock, keyring = Clock(), Keyring.generate()
    guesses = Guesses(keyring, Audit(keyring), clock=clock)
    waits = [refused(guesses, f"name-{n}", f"2001:db8::{n:x}") for n in range(31)]
    assert waits == [0] * 30 + [6]
    assert refused(guesses, "name-1", "2001:db8:0:1::1") == 0


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", ""),
    ],
)
def test_whose_an_address_is(address: str, whose: str) -> None:
    assert network(address) == whose
