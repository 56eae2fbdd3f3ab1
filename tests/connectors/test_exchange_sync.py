"""Exchange's catch-up: what the sync state promises over restarts, crashes, moves and refusals."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.policy import SMTP
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from defusedxml.ElementTree import fromstring

from connectors.exchange import Exchange
from tests import measuring
from tests.connectors.hearing import Heard, listening
from tests.fakes._driver import eventually
from tests.fakes._ews_soap import M
from tests.fakes.exchange import TAKEN, ExchangeDriver
from tests.fakes.mail import letter
from tests.stack import ROOT, plain_environment

PAGE, BATCH = 512, 20


@pytest_asyncio.fixture
async def driver() -> AsyncIterator[ExchangeDriver]:
    async with ExchangeDriver() as running:
        yield running


@pytest.fixture
def heard() -> Heard:
    return Heard()


def written(text: str) -> bytes:
    return letter(text).as_bytes(policy=SMTP)


def asked_states(driver: ExchangeDriver) -> list[str]:
    """The sync state of each SyncFolderItems, as it was asked."""
    return [
        fromstring(asked.body).findtext(f".//{M}SyncState", "")
        for asked in driver.server.asked
        if asked.operation == "SyncFolderItems"
    ]


def fetched(driver: ExchangeDriver) -> int:
    """How many mails were fetched, with content or without."""
    bodies = [asked.body for asked in driver.server.asked if asked.operation == "GetItem"]
    return sum(body.count(b"ItemId Id=") for body in bodies)


def stays(driver: ExchangeDriver) -> None:
    """From here on nothing that a process leaves on the server arrives there, as if it were killed."""
    for operation in ("UpdateItem", "CreateUserConfiguration", "UpdateUserConfiguration"):
        driver.server.refuse[operation] = "ErrorMailboxMoveInProgress"


async def hears(driver: ExchangeDriver, heard: Heard, *texts: str, account: str = "office") -> None:
    """One life of a listener: it hears these, and ends when all it says about them is on the server."""
    async with driver.connector(account) as connector, listening(connector, heard):
        await heard.hears(*texts)
        await settled(driver)


async def settled(driver: ExchangeDriver) -> None:
    """Nothing is asked any more but the stream: no request for as long as many of them would take."""
    await eventually(lambda: driver.server.streams, "the stream")
    seen = -1
    while seen != len(driver.server.asked):
        seen = len(driver.server.asked)
        await asyncio.sleep(0.3)


# --- the state goes on, over restarts and machines -------------------------------------------------------------------


async def test_a_restart_goes_on_from_the_state(driver: ExchangeDriver, heard: Heard) -> None:
    await driver.person_says("one")
    await hears(driver, heard, "one")
    first = asked_states(driver)
    assert first[0] == "", "nothing was known"
    await driver.person_says("two")
    await hears(driver, heard, "two")
    assert asked_states(driver)[len(first)] not in ("", *first), "asked from where the first one was"
    assert heard.texts == ["one", "two"]
    assert fetched(driver) == 2


async def test_the_state_is_one_hidden_item_that_is_replaced(driver: ExchangeDriver, heard: Heard) -> None:
    async with driver.connector("office") as connector, listening(connector, heard):
        for text in ("one", "two", "three"):
            await driver.person_says(text)
            await heard.hears(text)
            await settled(driver)
    ((folder, name),) = driver.server.configurations.kept
    assert folder == "root"
    assert name.startswith("Parley.")
    assert "office" not in name
    assert driver.server.operations().count("CreateUserConfiguration") == 1
    assert driver.server.operations().count("UpdateUserConfiguration") >= 2


async def test_two_installations_do_not_disturb_each_other(driver: ExchangeDriver, heard: Heard) -> None:
    other = Heard()
    await driver.person_says("one")
    await hears(driver, heard, "one", account="office")
    await hears(driver, other, "one", account="test")
    await driver.person_says("two")
    await hears(driver, other, "two", account="test")
    await hears(driver, heard, "two", account="office")
    assert heard.texts == other.texts == ["one", "two"]
    assert len(driver.server.configurations.kept) == 2
    driver.server.configurations.kept.clear()
    await driver.person_says("three")
    await hears(driver, heard, "three", account="office")
    await hears(driver, other, "three", account="test")
    assert heard.texts == other.texts == ["one", "two", "three"], "each has its own mark"


async def test_more_than_a_page_is_taken_in_order_and_each_page_is_kept(
    driver: ExchangeDriver, heard: Heard
) -> None:
    begin = datetime.now(UTC) - timedelta(minutes=30)
    texts = [f"mail {number}" for number in range(PAGE + 100)]
    for number, text in enumerate(texts):
        driver.server.deliver(written(text), received=begin + timedelta(seconds=number))
    async with driver.connector("office") as connector, listening(connector, heard):
        await eventually(lambda: len(heard.texts) >= len(texts), "all of them", within=60)
        await settled(driver)
    assert heard.texts == texts
    kept = [operation for operation in driver.server.operations() if "UserConfiguration" in operation]
    assert kept == ["GetUserConfiguration", "CreateUserConfiguration", "UpdateUserConfiguration"]


# --- a kill between --------------------------------------------------------------------------------------------------


async def test_a_kill_before_the_state_is_kept_gives_the_same_ids_again(
    driver: ExchangeDriver, heard: Heard
) -> None:
    ids = [await driver.person_says(text) for text in ("one", "two", "three")]
    stays(driver)
    async with driver.connector("office") as connector, listening(connector, heard):
        await heard.hears("three")
    assert driver.server.configurations.kept == {}
    driver.server.refuse.clear()
    await hears(driver, heard, "one")
    assert [message.native_id for message in heard.messages] == ids * 2


async def test_a_kill_in_the_middle_of_a_page_loses_nothing(driver: ExchangeDriver, heard: Heard) -> None:
    texts = [f"mail {number}" for number in range(50)]
    for text in texts:
        await driver.person_says(text)

    class Full(Heard):
        """Takes so many, and then does not come back."""

        async def accept(self, event: Any) -> Any:
            if len(self.given) == 30:
                stays(driver)
                await asyncio.Event().wait()
            return await super().accept(event)

    full = Full()
    async with driver.connector("office") as connector, listening(connector, full):
        await eventually(lambda: len(full.given) == 30, "the middle")
        await eventually(lambda: driver.server.refuse, "the kill")
    assert driver.server.configurations.kept == {}, "the page was not accepted as a whole"
    marked = [TAKEN in item.properties for item in driver.server.items]
    assert marked == [True] * 20 + [False] * 30, "one batch was"
    driver.server.refuse.clear()
    await hears(driver, heard, *texts[20:])
    assert heard.texts == texts[20:], "what was accepted and not marked comes again, and nothing else does"


async def test_killed_processes_lose_nothing(driver: ExchangeDriver, tmp_path: Path) -> None:
    ids = [await driver.person_says(f"mail {number}") for number in range(400)]
    inbox = tmp_path / "inbox"
    inbox.touch()

    def lines() -> list[str]:
        return inbox.read_text().splitlines()

    kills = (7, 50, 133, 301)
    for kill_at in kills:
        async with listener(driver, inbox) as process:
            await eventually(partial(lambda at: len(lines()) >= at, kill_at), f"{kill_at} mails", within=60)
            assert process.returncode is None, "it is killed, and does not end by itself"
    async with listener(driver, inbox):
        await eventually(lambda: set(lines()) >= set(ids), "all mails", within=60)
        await settled(driver)
    assert set(lines()) == set(ids)
    # Each kill has at most one batch told again, and what was just being written.
    told = len(lines())
    assert told <= len(ids) + len(kills) * (BATCH + 1)
    last = await driver.person_says("the last one")
    async with listener(driver, inbox):
        await eventually(lambda: last in lines(), "the last one", within=60)
    assert lines()[told:] == [last], "the state was kept"


@asynccontextmanager
async def listener(driver: ExchangeDriver, inbox: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that listens, and is killed when the test leaves here: it could not write down what was measured."""
    settings = driver.settings()
    clear = settings.model_dump(mode="json") | {"password": settings.password.get_secret_value()}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.connectors.exchange_listener", str(inbox)),
        env=measuring.not_at_all(plain_environment())
        | {"PYTHONPATH": str(ROOT), "EXCHANGE_SETTINGS": json.dumps(clear)},
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_what_was_accepted_is_marked_when_a_listener_ends(driver: ExchangeDriver, heard: Heard) -> None:
    for text in ("one", "two"):
        await driver.person_says(text)

    class Stuck(Heard):
        async def accept(self, event: Any) -> Any:
            self.stuck = len(self.given) == 1
            return await super().accept(event)

    stuck = Stuck()
    async with driver.connector("office") as connector, listening(connector, stuck):
        await stuck.hears("two")
    assert [TAKEN in item.properties for item in driver.server.items] == [True, False]
    await hears(driver, heard, "two")
    assert heard.texts == ["two"]


@pytest.mark.parametrize("marks", [True, False])
async def test_the_state_waits_for_every_mail_of_its_page(driver: ExchangeDriver, marks: bool) -> None:
    if not marks:
        driver.server.refuse["UpdateItem"] = "ErrorQuotaExceeded"
    for text in ("one", "two"):
        await driver.person_says(text)

    class Half(Heard):
        async def accept(self, event: Any) -> Any:
            self.down = self.attempts == 1
            return await super().accept(event)

    half = Half()
    async with driver.connector("office") as connector, listening(connector, half):
        await eventually(lambda: driver.server.operations().count("UpdateItem") == 1, "the first one's mark")
        assert driver.server.configurations.kept == {}
        assert half.texts == ["one"]
        await half.hears("two")
        await eventually(lambda: driver.server.configurations.kept, "the state")
    assert half.texts == ["one", "two"], "what was accepted is not handed over again"
    assert asked_states(driver)[:2] == ["", ""]


# --- a state that is lost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lost", "refused", "no base64", "no state", "of another folder", "endless"])
async def test_without_a_state_nothing_is_told_again(driver: ExchangeDriver, heard: Heard, how: str) -> None:
    for text in ("one", "two"):
        await driver.person_says(text)
    await hears(driver, heard, "one", "two")
    kept = driver.server.configurations.kept
    (key,) = kept
    match how:
        case "lost":
            kept.clear()
        case "refused":
            driver.server.changes.forget()
        case "no base64":
            kept[key] = "%%%"
        case "no state":
            kept[key] = base64.b64encode(zlib.compress(b'{"folder": "F:inbox#0", "state": ["x"]}')).decode()
        case "of another folder":
            driver.server.made_anew["inbox"] = 1
        case "endless":
            endless = b'{"folder": "F:inbox#0", "state": "' + b"x" * 30_000_000 + b'"}'
            kept[key] = base64.b64encode(zlib.compress(endless)).decode()
    before = len(asked_states(driver))
    await driver.person_says("three")
    await hears(driver, heard, "three")
    assert heard.texts == ["one", "two", "three"]
    assert "" in asked_states(driver)[before:], "the folder was looked through anew"
    assert max(len(state) for state in asked_states(driver)) < 1_000_000
    assert fetched(driver) == 3
    await driver.person_says("four")
    before = len(asked_states(driver))
    await hears(driver, heard, "four")
    assert "" not in asked_states(driver)[before:], "there is a state again"


async def test_a_state_that_is_refused_while_listening_is_made_anew(
    driver: ExchangeDriver, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    async with driver.connector("office") as connector, listening(connector, heard):
        await driver.person_says("one")
        await heard.hears("one")
        await settled(driver)
        driver.server.changes.forget()
        await driver.person_says("two")
        await heard.hears("two")
    assert heard.texts == ["one", "two"]
    assert "looked through anew" in caplog.text


async def test_without_state_and_marks_only_mail_after_since_comes_again(
    driver: ExchangeDriver, heard: Heard
) -> None:
    driver.server.deliver(written("before"), received=datetime.now(UTC) - timedelta(hours=2))
    native_id = await driver.person_says("one")
    await hears(driver, heard, "one")
    driver.server.configurations.kept.clear()
    for item in driver.server.items:
        item.properties.clear()
    again = Heard()
    await hears(driver, again, "one")
    assert again.texts == heard.texts == ["one"]
    assert [message.native_id for message in again.messages] == [native_id], "the inbox knows this id"


async def test_a_large_old_mailbox_is_connected_without_reading_its_mails(
    driver: ExchangeDriver, heard: Heard
) -> None:
    pages = 8
    old, raw = datetime.now(UTC) - timedelta(days=400), written("old")
    for number in range(pages * PAGE):
        driver.server.deliver(raw, received=old + timedelta(seconds=number))
    await driver.person_says("new")
    await hears(driver, heard, "new")
    assert heard.texts == ["new"]
    assert fetched(driver) == 1
    assert driver.server.operations().count("FindItem") == 0
    assert len(asked_states(driver)) == pages + 1
    before = len(asked_states(driver))
    await driver.person_says("newer")
    await hears(driver, heard, "newer")
    assert len(asked_states(driver)) - before <= 3, "what lies behind is not gone through again"


async def test_a_large_old_mailbox_is_gone_on_with_where_it_was_left(
    driver: ExchangeDriver, heard: Heard
) -> None:
    old, raw = datetime.now(UTC) - timedelta(days=400), written("old")
    for number in range(3 * PAGE):
        driver.server.deliver(raw, received=old + timedelta(seconds=number))
    async with driver.connector("office") as connector, listening(connector, heard):
        await eventually(lambda: driver.server.configurations.kept, "the first page")
        stays(driver)
    driver.server.refuse.clear()
    before = len(asked_states(driver))
    await driver.person_says("new")
    await hears(driver, heard, "new")
    assert asked_states(driver)[before] != ""


# --- what is new, and what is not ------------------------------------------------------------------------------------


async def test_only_new_mail_counts_of_all_that_changes(driver: ExchangeDriver, heard: Heard) -> None:
    texts = ("read", "changed", "deleted")
    async with driver.connector("office") as connector, listening(connector, heard):
        for text in texts:
            await driver.person_says(text)
        await heard.hears(*texts)
        await settled(driver)
        read, changed, deleted = driver.server.items
        read.is_read = True
        changed.change += 1
        driver.server.items.remove(deleted)
        await driver.person_says("new")
        await heard.hears("new")
        await settled(driver)
    assert heard.texts == [*texts, "new"]
    assert fetched(driver) == 4


async def test_a_mail_that_is_moved_away_and_back_is_taken_once(driver: ExchangeDriver, heard: Heard) -> None:
    driver.server.folders["Done"] = "msgfolderroot"
    async with driver.connector("office") as connector, listening(connector, heard):
        await driver.person_says("one")
        await heard.hears("one")
        await settled(driver)
        (item,) = driver.server.items
        for folder in ("Done", "inbox"):
            driver.server.move(item, folder)
            await settled(driver)
        await driver.person_says("two")
        await heard.hears("two")
    assert heard.texts == ["one", "two"]
    assert fetched(driver) == 2


async def test_a_mail_that_is_gone_before_it_is_fetched_holds_nobody_up(
    driver: ExchangeDriver, heard: Heard
) -> None:
    driver.server.deliver(written("gone"), broken="ErrorItemNotFound")
    await driver.person_says("there")
    await hears(driver, heard, "there")
    assert heard.texts == ["there"]
    assert driver.server.configurations.kept


async def test_an_item_of_a_kind_that_nobody_knows_holds_nobody_up(
    driver: ExchangeDriver, heard: Heard
) -> None:
    driver.server.deliver(written("strange"), tag="Telepathy", item_class="IPM.Telepathy")
    await driver.person_says("usual")
    await hears(driver, heard, "usual")
    assert heard.texts == ["usual"]


@pytest.mark.parametrize(
    ("field", "said", "heard_of_it"),
    [
        ("item:DateTimeReceived", "<t:DateTimeReceived>yesterday</t:DateTimeReceived>", ["odd"]),
        ("item:DateTimeReceived", "", ["odd"]),
        ("item:Size", "<t:Size>²</t:Size>", ["odd"]),
        ("item:Size", f"<t:Size>{'9' * 5000}</t:Size>", ["odd"]),
        ("message:IsRead", "<t:IsRead/>", ["odd"]),
        (
            "item:InternetMessageHeaders",
            "<t:InternetMessageHeaders><t:X/></t:InternetMessageHeaders>",
            ["odd"],
        ),
        (
            "message:From",
            "<t:From><t:Mailbox><t:RoutingType>EX</t:RoutingType></t:Mailbox></t:From>",
            ["odd"],
        ),
        ("message:From", "<t:From/>", ["odd"]),
        ("item:MimeContent", "<t:MimeContent>é</t:MimeContent>", [""]),
        ("item:MimeContent", "", [""]),
        ("item:MimeContent", "<t:MimeContent>Zm9v!</t:MimeContent>", []),
        ("item:ItemClass", "", []),
        ("", "", []),
        ("", "<t:ItemId/>", []),
    ],
)
async def test_odd_answers_hold_nobody_up(
    driver: ExchangeDriver, heard: Heard, field: str, said: str, heard_of_it: list[str]
) -> None:
    item = driver.server.deliver(written("odd"), garbled={field: said})
    item.received -= timedelta(minutes=1)
    await driver.person_says("usual")
    await hears(driver, heard, "usual")
    assert sorted(heard.texts) == sorted([*heard_of_it, "usual"])
    assert driver.server.configurations.kept


async def test_large_mails_are_fetched_one_at_a_time(driver: ExchangeDriver, heard: Heard) -> None:
    for number in range(4):
        driver.server.deliver(written(f"large {number}"), size=7_000_000)
    await hears(driver, heard, *(f"large {number}" for number in range(4)))
    assert driver.server.operations().count("GetItem") == 4


# --- a server that is busy, away or unwilling ------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["SyncFolderItems", "GetItem", "UpdateItem", "CreateUserConfiguration"])
async def test_a_busy_server_is_given_the_time_it_asks_for(
    driver: ExchangeDriver, heard: Heard, operation: str
) -> None:
    driver.server.busy[operation] = 2
    await driver.person_says("hello")
    async with driver.connector("office") as connector, listening(connector, heard):
        await eventually(lambda: not driver.server.busy, "the refusal")
        begun, before = time.monotonic(), len(driver.server.asked)
        await eventually(lambda: "SyncFolderItems" in driver.server.operations()[before:], "the next attempt")
        assert time.monotonic() - begun >= 1.9
        await heard.hears("hello")
        await settled(driver)
        assert driver.server.configurations.kept
        assert all(TAKEN in item.properties for item in driver.server.items)
    assert heard.texts == ["hello"]


async def test_a_mailbox_that_was_moved_is_gone_on_with(driver: ExchangeDriver, heard: Heard) -> None:
    async with driver.connector("office") as connector, listening(connector, heard):
        await driver.person_says("before")
        await heard.hears("before")
        await settled(driver)
        refused = {"SyncFolderItems", "GetFolder", "Subscribe"}
        driver.server.refuse |= dict.fromkeys(refused, "ErrorMailboxMoveInProgress")
        driver.server.subscriptions.clear()
        driver.server.changes.forget()
        before = len(driver.server.asked)
        driver.server.cut()
        # Which is asked first, by the stream or by the catch-up, is nobody's promise: what is refused first ends both.
        await eventually(lambda: refused & set(driver.server.operations()[before:]), "an attempt", within=40)
        await driver.person_says("meanwhile")
        driver.server.refuse.clear()
        await heard.hears("meanwhile")
        await settled(driver)
    assert heard.texts == ["before", "meanwhile"]


async def test_where_no_state_can_be_kept_the_marks_do(
    driver: ExchangeDriver, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    for operation in ("GetUserConfiguration", "CreateUserConfiguration", "UpdateUserConfiguration"):
        driver.server.refuse[operation] = "ErrorAccessDenied"
    for text in ("one", "two"):
        await driver.person_says(text)
        await hears(driver, heard, text)
    assert heard.texts == ["one", "two"]
    told = [record for record in caplog.records if "is not kept" in record.getMessage()]
    assert len(told) == 2, "once for each of the two listeners"


async def test_where_no_mark_can_be_set_the_state_does(
    driver: ExchangeDriver, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    driver.server.refuse["UpdateItem"] = "ErrorQuotaExceeded"
    for text in ("one", "two"):
        await driver.person_says(text)
        await hears(driver, heard, text)
    assert heard.texts == ["one", "two"]
    assert "cannot be marked" in caplog.text


@pytest.mark.parametrize("meanwhile", ["made", "taken away"])
async def test_another_process_may_have_kept_or_taken_the_state(
    driver: ExchangeDriver, heard: Heard, meanwhile: str
) -> None:
    await driver.person_says("one")
    await hears(driver, heard, "one")
    kept = driver.server.configurations.kept
    (key,), before = kept, dict(kept)
    if meanwhile == "made":
        kept.clear()
    async with driver.connector("office") as connector, listening(connector, heard):
        await settled(driver)
        if meanwhile == "made":
            kept.update(before)
        else:
            kept.clear()
        await driver.person_says("two")
        await heard.hears("two")
        await eventually(lambda: kept.get(key, before[key]) != before[key], "the state")
    assert heard.texts == ["one", "two"]


async def test_a_state_of_absurd_size_is_not_kept(
    driver: ExchangeDriver, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    driver.server.changes.padding = 2_000_000
    await driver.person_says("one")
    await hears(driver, heard, "one")
    assert driver.server.configurations.kept == {}
    assert "is not kept" in caplog.text


async def test_an_account_is_alone_in_its_name(driver: ExchangeDriver, heard: Heard) -> None:
    async with Exchange("office", driver.settings(folder="INBOX")) as connector, listening(connector, heard):
        await driver.person_says("one")
        await heard.hears("one")
        await eventually(lambda: driver.server.configurations.kept, "the state")
    before = set(driver.server.configurations.kept)
    await driver.person_says("two")
    await hears(driver, heard, "two")
    assert set(driver.server.configurations.kept) == before, "inbox and INBOX are one folder"
