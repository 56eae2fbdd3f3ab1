"""`/runs` in the chat: one's own, or everybody's for whoever may see them."""

from __future__ import annotations

import pytest

from tests.hub.house import House, text_of

pytestmark = pytest.mark.prefect


async def test_everybodys_runs_are_for_the_owner_and_auditors(house: House) -> None:
    olga, vic = await house.person("olga", "operator"), await house.person("vic", "auditor")
    await house.say("/look 1", olga)
    await house.say("/look 2")
    own = str((await house.say("/runs")).replies)
    assert "/look" in own
    assert "olga" not in own
    for who in (None, vic):
        everybody = str((await house.say("/runs all", who)).replies)
        assert "olga" in everybody
        assert "owner" in everybody
    assert "Only the owner and auditors" in text_of(await house.say("/runs all", olga))


async def test_in_chinese(house: House) -> None:
    await house.say("/look 1")
    told = str((await house.say("/runs 全部")).replies)
    for word in ("发起者", "已完成", "/look"):
        assert word in told
