from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from parley.errors import ConfigurationError
from parley.people import audit_reading
from parley.people.anchors import AnchorFile, Anchors, Head, check_place
from parley.people.audit import Audit
from parley.people.audit_walk import Place, walk
from parley.people.sealing import Keyring
from parley.settings import File
from parley.store.engine import Store
from tests.fakes._driver import eventually

KEYRING = Keyring({"00000001": b"a" * 32})


@pytest.fixture
def file(tmp_path: Path) -> AnchorFile:
    return AnchorFile(tmp_path / "keys" / "anchors", KEYRING)


def problems(file: AnchorFile) -> list[str]:
    return [line.problem for line in file.lines() if line.problem]


def test_lines_are_added_and_follow_one_another(file: AnchorFile) -> None:
    for number in range(1, 4):
        file.add(Head(number, f"k:{number}"))
    lines = list(file.lines())
    assert [line.anchor.sequence for line in lines if line.anchor] == [1, 2, 3]
    assert problems(file) == []
    assert file.last() == lines[-1].anchor
    assert file.path.stat().st_mode & 0o777 == 0o600
    # And from the middle on, as whoever verifies in parts goes on.
    first = lines[0].anchor
    assert first is not None
    rest = list(file.lines(offset=lines[0].end, number=1, seal=first.seal))
    assert [(line.number, line.problem) for line in rest] == [(2, ""), (3, "")]


def test_each_byte_counts(file: AnchorFile) -> None:
    for number in range(1, 4):
        file.add(Head(number, f"k:{number}"))
    whole = file.path.read_bytes()
    for place in range(len(whole)):
        file.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert problems(file), f"byte {place} of {whole[place : place + 10]!r}"


@pytest.mark.parametrize("kept", [(1, 2), (0, 2), (1, 0, 2), (0, 0, 1, 2)])
def test_lines_that_are_taken_out_moved_or_doubled_show(file: AnchorFile, kept: tuple[int, ...]) -> None:
    for number in range(1, 4):
        file.add(Head(number, f"k:{number}"))
    lines = file.path.read_bytes().splitlines(keepends=True)
    file.path.write_bytes(b"".join(lines[one] for one in kept))
    assert problems(file)


def test_a_line_that_a_loss_of_power_tore_is_passed_over(file: AnchorFile) -> None:
    file.add(Head(1, "k:1"))
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + whole[:60])
    file.add(Head(2, "k:2"))
    lines = list(file.lines())
    assert [line.anchor.sequence if line.anchor else None for line in lines] == [1, None, 2]
    assert problems(file) == []


def test_a_line_that_is_nested_deeply_is_one_that_cannot_be_read(file: AnchorFile) -> None:
    file.add(Head(1, "k:1"))
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + b"[" * 3000 + b"\n")
    assert problems(file) == ["Line 2 of the anchors cannot be read."]
    last = file.last()
    assert last is not None
    assert last.sequence == 1
    file.add(Head(2, "k:2"))
    assert problems(file) == ["Line 2 of the anchors cannot be read."]


def test_another_key_proves_nothing(file: AnchorFile) -> None:
    file.add(Head(1, "k:1"))
    other = AnchorFile(file.path, Keyring({"00000001": b"b" * 32}))
    assert problems(other) == ["Line 1 of the anchors was changed, or the one before it was."]


def test_they_do_not_lie_with_the_data(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir()
    with pytest.raises(ConfigurationError, match="lie in the data folder"):
        check_place(home / "anchors", home=home)
    (tmp_path / "link").symlink_to(home)
    with pytest.raises(ConfigurationError, match="lie in the data folder"):
        check_place(tmp_path / "link" / "anchors", home=home)
    with pytest.raises(ConfigurationError, match="lie in the data folder"):
        check_place(home / "anchors", home=tmp_path / "link")
    check_place(tmp_path / "keys" / "anchors", home=home)


def test_others_cannot_write_them(file: AnchorFile, tmp_path: Path) -> None:
    file.add(Head(1, "k:1"))
    file.path.chmod(0o620)
    with pytest.raises(ConfigurationError, match="chmod 0600"):
        check_place(file.path, home=tmp_path / "data")


def test_a_place_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for folder in ("file", "circle", "x" * 300):
        with pytest.raises(ConfigurationError, match="cannot be reached"):
            check_place(tmp_path / folder / "anchors", home=tmp_path / "data")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with another user's eyes")
def test_so_is_one_that_only_somebody_else_may_reach(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from parley.people.anchors import check_place; os.seteuid(65534)\n"
        "check_place(Path(sys.argv[1]), home=Path('/nowhere'))"
    )
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    done = subprocess.run(
        [sys.executable, "-c", program, str(closed / "anchors")], capture_output=True, text=True, check=False
    )
    assert "ConfigurationError: The audit's anchors" in done.stderr
    assert "Permission denied" in done.stderr


def test_a_link_in_their_place_is_not_followed(file: AnchorFile, tmp_path: Path) -> None:
    file.path.parent.mkdir()
    file.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        file.add(Head(1, "k:1"))
    assert not (tmp_path / "elsewhere").exists()


@contextlib.asynccontextmanager
async def running(anchors: Anchors) -> AsyncIterator[None]:
    task = asyncio.create_task(anchors.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def watching(store: Store, file: AnchorFile, **more: float | str) -> Anchors:
    return Anchors(
        file,
        lambda: store.read(audit_reading.head),
        lambda sequence: store.read(lambda conn: audit_reading.chain_of(conn, sequence)),
        **more,  # type: ignore[arg-type]
    )


async def happens(store: Store) -> None:
    await store.write(lambda conn: Audit(KEYRING).record(conn, action="x", actor="ann"))


async def until(file: AnchorFile, sequence: int) -> None:
    def there() -> bool:
        last = file.last()
        return last is not None and last.sequence >= sequence

    await eventually(there, f"an anchor of row {sequence}")


async def test_the_head_is_anchored_when_it_moves_and_at_the_end(store: Store, file: AnchorFile) -> None:
    await happens(store)
    async with running(watching(store, file, look_every=0.01, least_gap=0.0)):
        await until(file, 2)
        await happens(store)
        await until(file, 4)
        await asyncio.sleep(0.1)
    assert [line.anchor.sequence for line in file.lines() if line.anchor] == [2, 4]
    async with running(watching(store, file, look_every=0.01, least_gap=60)):
        await until(file, 4)
        await happens(store)
    assert [line.anchor.sequence for line in file.lines() if line.anchor][-1] == 6
    assert problems(file) == []


async def test_a_burst_is_a_few_lines(store: Store, file: AnchorFile) -> None:
    async with running(watching(store, file, look_every=0.001, least_gap=30)):
        for _ in range(50):
            await happens(store)
            await asyncio.sleep(0.002)
    assert [line.anchor.sequence for line in file.lines() if line.anchor][-1] == 100
    assert len(list(file.lines())) <= 3


async def test_what_cannot_be_written_is_told_and_written_later(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("no folder")
    file = AnchorFile(folder / "anchors", KEYRING)
    anchors = watching(store, file, look_every=0.01, least_gap=0.0)
    await happens(store)
    async with running(anchors):
        await eventually(lambda: anchors.problem, "a problem")
        folder.unlink()
        await until(file, 2)
    assert anchors.problem == ""


async def test_a_store_that_was_put_back_is_noticed_at_the_start(store: Store, file: AnchorFile) -> None:
    await happens(store)
    anchors = watching(store, file, look_every=0.01)
    async with running(anchors):
        await until(file, 2)
    assert anchors.behind == ""
    file.add(Head(9, "k:9"))
    later = watching(store, file, look_every=0.01)
    async with running(later):
        await until(file, 2)
        await asyncio.sleep(0.05)
    assert "row 9 of the audit" in later.behind


async def test_two_hubs_that_share_the_file_raise_no_alarm(store: Store, file: AnchorFile) -> None:
    """One looks at the head, and before it writes, the other one has written a newer row's."""
    other = watching(store, file)
    overtaken = 0

    async def slow_head() -> Head | None:
        nonlocal overtaken
        head = await store.read(audit_reading.head)
        if overtaken < 4:
            overtaken += 1
            await happens(store)
            assert await other.add()
        return head

    await happens(store)
    slow = Anchors(
        file, slow_head, lambda sequence: store.read(lambda c: audit_reading.chain_of(c, sequence))
    )
    assert await slow.add()
    assert overtaken == 4
    assert [line.anchor.sequence for line in file.lines() if line.anchor] == [4, 6, 8, 10, 10]
    assert (await walk(store.read, Audit(KEYRING), file, Place())).problems == []


async def test_a_store_that_was_put_back_stays_in_the_file(store: Store, file: AnchorFile) -> None:
    """An older head is held back for nobody: the line shows that the store went back."""
    await happens(store)
    file.add(Head(9, "k:9"))
    assert await watching(store, file).add()
    assert [line.anchor.sequence for line in file.lines() if line.anchor] == [9, 2]
    problems = (await walk(store.read, Audit(KEYRING), file, Place())).problems
    assert any("row 9 of" in words or "row 9 was" in words for words in problems), problems


@pytest.mark.parametrize("kind", ["udp", "unix"])
async def test_syslog_gets_them_too(store: Store, file: AnchorFile, tmp_path: Path, kind: str) -> None:
    family = socket.AF_INET if kind == "udp" else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_DGRAM) as log:
        log.settimeout(10)
        log.bind(("127.0.0.1", 0) if kind == "udp" else str(tmp_path / "log"))
        address = f"127.0.0.1:{log.getsockname()[1]}" if kind == "udp" else str(tmp_path / "log")
        await happens(store)
        assert await watching(store, file, syslog=address).add()
        said = (await asyncio.to_thread(log.recv, 4096)).decode().rstrip("\0")
    priority, _, line = said.partition("parley-audit: ")
    assert priority == "<86>"  # authpriv.info
    assert json.loads(line)["sequence"] == 2
    assert json.loads(line) == json.loads(file.path.read_text())


@pytest.mark.parametrize("syslog", ["nobody", "a..b:514"])
async def test_a_syslog_that_is_not_there_costs_nothing(
    store: Store, file: AnchorFile, tmp_path: Path, syslog: str
) -> None:
    await happens(store)
    anchors = watching(store, file, syslog=syslog if ":" in syslog else str(tmp_path / syslog))
    assert await anchors.add()
    assert file.last() is not None


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_syslog_has_a_port_that_there_is(port: str) -> None:
    with pytest.raises(ValidationError, match="1 to 65535"):
        File.model_validate({"audit": {"syslog": f"logs.example.com:{port}"}})


@pytest.mark.parametrize("syslog", ["", "/dev/log", "logs.example.com:65535", "[::1]:514", "10.0.0.1:1"])
def test_what_a_syslog_may_be(syslog: str) -> None:
    assert File.model_validate({"audit": {"syslog": syslog}}).audit.syslog == syslog
