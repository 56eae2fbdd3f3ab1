"""What did not come with a message is said, whatever becomes of the message."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people.principals import link_identity
from tests.hub.house import House

pytestmark = pytest.mark.prefect

LEFT_OUT = ("big.iso: it has 99 bytes, the limit is 3", "`**evil**`.txt: no")


async def test_files_left_out_are_named_beside_the_answer(house: House) -> None:
    bob = await house.person("bob", "user")

    async def link(conn: AsyncConnection) -> None:
        await link_identity(conn, bob.id, "post", "bob@example.com", verified=False)

    await house.hub.store.write(link)
    answers = await house.answers_to(await house.from_mail("/help", left_out=LEFT_OUT))
    (said,) = [answer for answer in answers if "big.iso" in answer]
    assert len(answers) == 2
    assert said.splitlines()[1:] == [f"- `{LEFT_OUT[0]}`", "- `ˋ**evil**ˋ.txt: no`"]


async def test_a_stranger_is_told_nothing_of_it(house: House) -> None:
    answers = await house.answers_to(await house.from_mail("/help", "eve@example.com", left_out=LEFT_OUT))
    assert not [answer for answer in answers if "big.iso" in answer]
