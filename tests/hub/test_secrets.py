"""A run opens the secrets of the Blocks that its automation names, and of no other."""

from __future__ import annotations

from typing import Any

import pytest

from parley.errors import LinkError, StartRefused
from parley.link.calls import RunOrder, Started
from parley.messages.model import Reply
from tests.hub.house import CATALOGUE, House, text_of

pytestmark = pytest.mark.prefect

SECRET = "hunter2-hunter2"


@pytest.fixture
async def shop(house: House) -> House:
    """A house whose `/look` names one Block."""
    look = CATALOGUE.find("look")
    assert look is not None
    named = look.model_copy(update={"blocks": ("parley-rest-api/orders",)})
    others = tuple(spec for spec in CATALOGUE if spec.command != "look")
    house.hub.publish(CATALOGUE.model_copy(update={"automations": (named, *others)}))
    return house


def script(house: House, block: str, epoch: int = 0) -> list[BaseException]:
    """Have the next run ask for this Block's token; what it got instead."""
    sealed = house.hub.keyring.seal_text("parley-rest-api", block, "token", SECRET)
    refused: list[BaseException] = []

    async def ask(order: RunOrder, started: Started) -> dict[str, Any]:
        call = {
            "token": started.token,
            "flow_run_id": order.flow_run_id,
            "run_id": started.run_id,
            "epoch": epoch or started.epoch,
            "block_type": "parley-rest-api",
            "block_name": block,
            "field": "token",
            "sealed": sealed,
        }
        try:
            opened = await house.worker.client.call("open_run_secret", call, timeout=10)
        except (LinkError, StartRefused) as error:
            refused.append(error)
            return {"outcome": "failed", "reason": str(error)}
        return {"outcome": "done", "reply": Reply(text=f"length {len(opened)}")}

    house.worker.answer = ask
    return refused


async def test_a_named_block_is_opened(shop: House) -> None:
    script(shop, "orders")
    assert text_of(await shop.say("/look 1")) == f"length {len(SECRET)}"


async def test_another_block_is_not(shop: House) -> None:
    refused = script(shop, "salaries")
    assert (await shop.say("/look 1")).state == "failed"
    assert "does not name parley-rest-api/salaries" in str(refused[0])


async def test_an_automation_that_names_none_opens_none(shop: House) -> None:
    refused = script(shop, "orders")
    await shop.say("/again")
    assert "does not name" in str(refused[0])


async def test_a_run_of_another_epoch_opens_nothing(shop: House) -> None:
    refused = script(shop, "orders", epoch=9)
    await shop.say("/look 1")
    assert isinstance(refused[0], StartRefused)
