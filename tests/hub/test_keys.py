"""`parley keys` on a living hub: new keys while people talk, what is sealed anew, what is refused, what is audited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError, StartRefused
from parley.messages.model import Reply, now
from parley.people import key_file
from parley.people.audit import Audit
from parley.people.data_keys import rows
from parley.people.sealing import Keyring
from parley.processes import block_seals
from parley.processes import keys as hub_keys
from parley.processes.hub import open_hub
from parley.runs.prefect_api import PrefectApi
from parley.runs.requests import run_token
from parley.store import schema
from parley.store.engine import Store
from parley.store.resealing import count_by_key
from tests.hub.house import PATIENCE, House, deploy, house_in, settings_for, text_of
from tests.prefect_fixture import PrefectServer
from tests.store.sealed_rows import begin, message, put

pytestmark = pytest.mark.prefect


@pytest.fixture
def deployed(own_server: PrefectServer) -> PrefectServer:
    """A server of this module's own: other tests leave Blocks that were sealed elsewhere."""
    deploy(own_server)
    return own_server


@pytest.fixture(autouse=True)
def credentials(deployed: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub takes Prefect's password from its environment."""
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", deployed.environment["PREFECT_API_AUTH_STRING"])


async def admin(house: House, verb: str, **arguments: Any) -> Any:
    """As `parley keys`."""
    return await house.hub.admin.run(verb, arguments)


async def resealed(house: House) -> None:
    """Return once what was asked to be sealed anew is."""
    async with asyncio.timeout(PATIENCE):
        while (await admin(house, "keys"))["resealing"]:  # noqa: ASYNC110 - looked at as people do
            await asyncio.sleep(0.05)


async def check(house: House) -> dict[str, Any]:
    """`parley keys check`, to its end."""
    opened, broken = 0, []
    step: dict[str, Any] | None = {}
    while step is not None:
        found = await admin(house, "keys_check", **step)
        opened += found["opened"]
        broken += found["broken"]
        step = found["next"]
    return {"opened": opened, "broken": broken}


async def audited(house: House, action: str) -> list[tuple[str, Any]]:
    table = schema.audit
    query = (
        sa.select(table.c.phase, table.c.details).where(table.c.action == action).order_by(table.c.sequence)
    )

    async def fetch(conn: AsyncConnection) -> list[tuple[str, Any]]:
        return [(row.phase, row.details) for row in (await conn.execute(query)).all()]

    return await house.hub.store.read(fetch)


async def save_block(server: PrefectServer, house: House, name: str, clear: str) -> None:
    """A Block as `parley connect` saves it: its secret is sealed."""
    sealed = house.hub.keyring.seal_text("parley-rest-api", name, "token", clear)
    with server.client() as client:
        kinds = client.post("/block_types/filter", json={}).raise_for_status().json()
        kind = next((one for one in kinds if one["slug"] == "parley-rest-api"), None)
        if kind is None:
            body = {"name": "parley-rest-api", "slug": "parley-rest-api"}
            kind = client.post("/block_types/", json=body).raise_for_status().json()
        fields = {"title": "x", "type": "object", "properties": {"token": {"type": "string"}}}
        schema_ = {"fields": fields, "block_type_id": kind["id"], "capabilities": [], "version": "1"}
        made = client.post("/block_schemas/", json=schema_).raise_for_status().json()
        document = {
            "name": name,
            "block_type_id": kind["id"],
            "block_schema_id": made["id"],
            "data": {"token": sealed},
        }
        client.post("/block_documents/", json=document).raise_for_status()


class Meanwhile(httpx.AsyncHTTPTransport):
    """The way to the server, on which something happens right after the first Block was changed."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act: Callable[[], None] | None = act

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if request.method == "PATCH" and self._act is not None:
            act, self._act = self._act, None
            act()
        return response


def remove_block(server: PrefectServer, name: str) -> None:
    """The server is other tests' too, and their keys do not open it."""
    with server.client() as client:
        path = f"/block_types/slug/parley-rest-api/block_documents/name/{name}"
        client.delete(
            f"/block_documents/{client.get(path).raise_for_status().json()['id']}"
        ).raise_for_status()


def token_of(server: PrefectServer, name: str) -> str:
    with server.client() as client:
        path = f"/block_types/slug/parley-rest-api/block_documents/name/{name}"
        found = client.get(path, params={"include_secrets": True}).raise_for_status().json()
        return str(found["data"]["token"])


async def test_a_new_data_key_seals_everything_anew_while_people_talk(
    house: House, deployed: PrefectServer
) -> None:
    """No answer fails, the Blocks in Prefect are among it, and the old key can go."""
    for _ in range(5):
        await house.say("/secret word=hunter2")
    await save_block(deployed, house, "erp", "block-secret")
    old = house.hub.keyring.sealing

    done = await admin(house, "keys_rotate", data=True)
    assert house.hub.keyring.sealing == done["data_key"] != old
    talk = [asyncio.create_task(house.say("/look 7")) for _ in range(20)]
    await resealed(house)
    assert {text_of(await one) for one in talk} == {"ok"}

    assert set(await count_by_key(house.hub.store)) == {done["data_key"]}
    assert await check(house) == {"opened": (await check(house))["opened"], "broken": []}
    sealed = token_of(deployed, "erp")
    assert house.hub.keyring.open_text("parley-rest-api", "erp", "token", sealed) == "block-secret"

    with pytest.raises(ConfigurationError, match="a moment ago"):
        await admin(house, "keys_retire", key_id=old)
    await backdate(house, old)
    await admin(house, "keys_retire", key_id=old)
    assert old not in house.hub.keyring
    assert (await house.say("/look 7")).state == "done"
    assert house.hub.keyring.open_text("parley-rest-api", "erp", "token", token_of(deployed, "erp"))
    remove_block(deployed, "erp")
    assert [phase for phase, _ in await audited(house, "data-key-rotated")] == ["intent", "outcome"]
    assert [phase for phase, _ in await audited(house, "data-key-retired")] == ["intent", "outcome"]
    assert (await admin(house, "audit_verify"))["problems"] == []


@pytest.mark.parametrize("what", ["changed", "deleted"])
async def test_what_somebody_saves_while_blocks_are_sealed_anew_stays(
    house: House, deployed: PrefectServer, what: str
) -> None:
    names = ("away-a", "away-b", "away-c")
    for name in names:
        await save_block(deployed, house, name, "old")
    await house.hub.keys.data_keys.make()
    keyring, before = house.hub.keyring, {name: token_of(deployed, name) for name in names}

    def act() -> None:
        if what == "deleted":
            remove_block(deployed, "away-b")
            return
        data = {"token": keyring.seal_text("parley-rest-api", "away-b", "token", "new")}
        with deployed.client() as client:
            path = "/block_types/slug/parley-rest-api/block_documents/name/away-b"
            block = client.get(path).raise_for_status().json()["id"]
            body = {"data": data, "merge_existing_data": True}
            client.patch(f"/block_documents/{block}", json=body).raise_for_status()

    auth = deployed.environment["PREFECT_API_AUTH_STRING"]
    prefect = PrefectApi(deployed.api, auth, transport=Meanwhile(act))
    try:
        await block_seals.reseal(prefect, keyring)
    finally:
        await prefect.aclose()
    left = [name for name in names if what == "changed" or name != "away-b"]
    after = {name: token_of(deployed, name) for name in left}
    for name in left:
        remove_block(deployed, name)
    opened = {name: keyring.open_text("parley-rest-api", name, "token", text) for name, text in after.items()}
    assert opened == {name: "new" if name == "away-b" else "old" for name in left}
    assert all(after[name] != before[name] for name in left), "the others are sealed anew"


async def backdate(house: House, key_id: str) -> None:
    """As if it had been retired two minutes ago."""
    table, past = schema.data_key, now() - 2 * hub_keys.STILL_WRITING
    query = sa.update(table).where(table.c.id == key_id).values(retired_at=past)
    await house.hub.store.write(lambda conn: conn.execute(query))


async def test_the_key_file_is_rotated_and_its_old_key_retired(home: Path, deployed: PrefectServer) -> None:
    """After that the file holds one key, everything opens, a run in flight keeps its right, and the audit holds."""
    async with house_in(home, deployed) as house:
        await house.say("/look 7")
        path = house.hub.settings.key_file
        (old,) = key_file.read(path)
        token = run_token(house.hub.keyring, "run-1")
        fresh = (await admin(house, "keys_rotate"))["key"]
        assert list(key_file.read(path)) == [old, fresh]
        assert {row.kek_id for row in await house.hub.store.read(rows)} == {fresh}
        with pytest.raises(ConfigurationError, match="wraps the data keys"):
            await admin(house, "keys_retire", key_id=fresh)
        await admin(house, "keys_retire", key_id=old)
        assert list(key_file.read(path)) == [fresh]
        assert text_of(await house.say("/look 7")) == "ok"
    async with house_in(home, deployed) as house:
        assert run_token(house.hub.keyring, "run-1") == token
        assert (await check(house))["broken"] == []
        assert (await admin(house, "audit_verify"))["problems"] == []
        assert [phase for phase, _ in await audited(house, "key-retired")] == 2 * ["intent", "outcome"]


async def test_a_run_in_flight_keeps_its_right_to_start_and_to_end(house: House) -> None:
    house.worker.manual = True
    said = asyncio.create_task(house.say("/look 7"))
    order = await house.worker.next_order()
    await admin(house, "keys_rotate", data=True)
    await admin(house, "keys_rotate")
    await house.worker.carry_out(order)
    assert text_of(await said) == "ok"


async def test_a_token_of_another_run_ends_nothing(house: House) -> None:
    house.worker.manual = True
    said = asyncio.create_task(house.say("/look 7"))
    order = await house.worker.next_order()
    started = await house.worker.start(order)
    for token in (run_token(house.hub.keyring, "another"), "", started.token[:-1], started.token + "0"):
        wrong = started.model_copy(update={"token": token})
        with pytest.raises(StartRefused):
            await house.worker.finish(order, wrong, outcome="done", reply=Reply(text="forged"))
    await house.worker.finish(order, started, outcome="done", reply=Reply(text="ok"))
    assert text_of(await said) == "ok"


async def test_what_something_needs_stays(house: House) -> None:
    await house.say("/look 7")
    found = await admin(house, "keys")
    root = next(one["id"] for one in found["data_keys"] if one["kind"] == "root")
    for key_id, told in (
        (house.hub.keyring.sealing, "seals"),
        (root, "what it proves"),
        ("0badc0de", "There is no key"),
        (found["newest"], "wraps the data keys"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            await admin(house, "keys_retire", key_id=key_id)
    old = house.hub.keyring.sealing
    await house.hub.keys.data_keys.make()  # as after thirty days: nothing is sealed anew
    await backdate(house, old)
    with pytest.raises(ConfigurationError, match=r"\d+ values are sealed with the key"):
        await admin(house, "keys_retire", key_id=old)
    assert (await check(house))["broken"] == []


async def test_a_refused_rotation_leaves_both_rows(house: House) -> None:
    path = house.hub.settings.key_file
    before = path.read_bytes()
    path.chmod(0o600)
    path.write_text("not a key")
    with pytest.raises(ConfigurationError):
        await admin(house, "keys_rotate")
    path.write_bytes(before)
    assert [phase for phase, _ in await audited(house, "key-rotated")] == ["intent", "outcome"]
    assert (await audited(house, "key-rotated"))[1][1] == {"failed": "ConfigurationError"}
    assert (await house.say("/look 7")).state == "done"


async def test_keys_are_shown_by_their_ids(house: House) -> None:
    shown = await admin(house, "keys")
    assert shown["source"] == "file"
    assert [one["wraps"] for one in shown["keys"]] == [True]
    assert sorted(one["kind"] for one in shown["data_keys"]) == ["data", "root"]
    (key,) = key_file.read(house.hub.settings.key_file).values()
    assert key.hex() not in str(shown)
    assert "wrapped'" not in str(shown)


async def test_a_data_key_of_yesterdays_yesterday_is_replaced_by_itself(house: House) -> None:
    old = house.hub.keyring.sealing
    table, long_ago = schema.data_key, now().replace(year=2020)
    query = sa.update(table).where(table.c.id == old).values(created_at=long_ago)
    await house.hub.store.write(lambda conn: conn.execute(query))
    await house.hub.keys.look()
    assert house.hub.keyring.sealing != old
    assert (await house.say("/look 7")).state == "done"


async def before_data_keys(house_home: Path, deployed: PrefectServer) -> str:
    """A store as an earlier version left it, sealed with the key file itself: the id of that key."""
    chosen = settings_for(house_home, deployed)
    keyring = Keyring(key_file.load_or_create(chosen.key_file, home=chosen.home, sealed_rows=False))
    store = await Store.open(house_home / "parley.db")
    try:
        await begin(store)
        await put(store, schema.message, [message(keyring, f"old-{number}") for number in range(3)])
        log = Audit(keyring)

        async def grant(conn: AsyncConnection) -> None:
            for number in range(3):
                await log.record(conn, action="granted", actor="x", subject=f"automation:{number}")

        await store.write(grant)
    finally:
        await store.aclose()
    return keyring.newest


async def test_a_store_of_an_earlier_version_is_taken_over(home: Path, deployed: PrefectServer) -> None:
    """What it sealed opens, its audit holds, also after everything was sealed anew and its key has left the file."""
    old = await before_data_keys(home, deployed)
    async with house_in(home, deployed) as house:
        assert (await check(house))["broken"] == []
        assert text_of(await house.say("/look 7")) == "ok"
        assert (await count_by_key(house.hub.store))[old] == 6
        await admin(house, "keys_rotate", data=True)
        await resealed(house)
        assert (await count_by_key(house.hub.store))[old] == 0
        await admin(house, "keys_rotate")
        await admin(house, "keys_retire", key_id=old)
    async with house_in(home, deployed) as house:
        assert old not in key_file.read(house.hub.settings.key_file)
        assert (await check(house))["broken"] == []
        assert (await admin(house, "audit_verify"))["problems"] == []


async def test_a_store_of_an_earlier_version_is_refused_with_another_key(
    home: Path, deployed: PrefectServer
) -> None:
    await before_data_keys(home, deployed)
    path = settings_for(home, deployed).key_file
    key_file.replace(path, {"0badc0de": b"x" * 32})
    with pytest.raises(ConfigurationError, match="does not fit the store"):
        await open_hub(settings_for(home, deployed))
    path.unlink()
    with pytest.raises(ConfigurationError, match="is missing"):
        await open_hub(settings_for(home, deployed))
