"""Which language people are answered in: the one they write, else their own, else the one of the installation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parley.link.calls import RunOrder, Started
from parley.people.principals import Role
from parley.runs.failures import Notice, told
from parley.store import schema
from tests.hub.house import house_in, text_of
from tests.hub.rooms import World, world_in
from tests.prefect_fixture import PrefectServer

CHINESE: dict[str, Any] = {"owner": {"name": "owner", "language": "zh"}}


async def say(world: World, text: str, sender: str = "owner") -> str:
    """What somebody is answered in the room."""
    before = len(world.platforms.calls)
    await world.platforms.say("slack:C1", text, person=sender, addressed=True)
    await world.settled()
    return "\n".join(call.reply.text for call in world.platforms.calls[before:])


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("/cancel", "zh"),
        ("/whoami", "zh"),
        ("hello", "zh"),
        ("what is this about", "en"),
        ("您好", "zh"),
    ],
)
async def test_the_installations_language_where_none_shows(home: Path, text: str, language: str) -> None:
    async with world_in(home, **CHINESE) as world:
        await world.person("olga", Role.OPERATOR)
        answer = await say(world, text, "olga")
        assert any("\u4e00" <= char <= "\u9fff" for char in answer) == (language == "zh"), answer


async def test_ones_own_language_comes_before_the_installations(home: Path) -> None:
    async with world_in(home, **CHINESE) as world:
        await world.hub.admin.run("person_add", {"name": "eve", "role": "operator", "language": "en"})
        await world.hub.admin.run("person_link", {"name": "eve", "account": "slack", "user_id": "eve"})
        assert await say(world, "/cancel", "eve") == "Nothing of yours is running here."


async def test_the_people_on_duty_and_the_answers_of_runs(
    home: Path, deployed: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", deployed.environment["PREFECT_API_AUTH_STRING"])

    async def fails(order: RunOrder, started: Started) -> dict[str, Any]:
        assert started.language == "zh"
        return {"outcome": "failed", "reason": "坏了"}

    async with house_in(home, deployed, **CHINESE) as house:
        house.worker.answer = fails
        assert text_of(await house.say("/change web1")) == "`/change` 失败：坏了"
        assert text_of(await house.say("/change web1")) == "`/change` 失败：坏了"
        rows = await house.hub.store.read(_deliveries)
        (alert,) = [
            house.hub.outbox.opened(row).reply.text for row in rows if row.source.startswith("alert:")
        ]
        assert alert.startswith("`/change` 连续失败 2 次。最近一次：坏了")


def test_a_first_failure_is_not_counted_aloud() -> None:
    once = Notice(source="s", key="alert", values={"command": "repair", "count": 1, "reason": "it broke"})
    assert told(once).startswith("`/repair` failed: it broke\n`/ack repair`")
    assert told(once, "zh").startswith("`/repair` 失败：it broke\n`/ack repair`")
    over = Notice(source="s", key="recovered", values={"command": "repair", "count": 1})
    assert told(over) == "`/repair` works again."


async def _deliveries(conn: Any) -> Any:
    return (await conn.execute(schema.delivery.select())).all()
