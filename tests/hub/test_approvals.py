"""What is dangerous runs once somebody else has approved exactly that; whatever happens in between, never otherwise."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from parley.errors import StartRefused
from parley.messages.model import Action, ConversationKind, Route, Sender, now
from parley.people import principals
from parley.people.principals import Role
from parley.runs.catalogue import AutomationSpec, Effect
from parley.store import schema
from parley.store.ids import new_id
from tests.fakes._driver import eventually
from tests.hub.approving import (
    approval,
    audit_is_whole,
    code_in,
    people_in,
    press,
    request,
    start,
    trail,
    who,
    write,
)
from tests.hub.house import CATALOGUE, HOST
from tests.hub.rooms import World

TO_ROOM = {"automations": "harm", "to": "slack:OPS"}


async def asked(world: World, text: str = "/harm", **more: Any) -> str:
    """Ann asks; the code."""
    said = await write(world, text, person="ann", **more)
    return code_in(said[0].reply.text)


async def set_all(world: World, table: sa.Table, **values: Any) -> None:
    """Change all rows of a table, as time or somebody at the database would."""
    await world.hub.store.write(lambda conn: conn.execute(sa.update(table).values(values)))


@pytest.mark.parametrize("heard", [False, True])
async def test_a_request_that_cannot_be_read_is_told_of_once_and_not_approved(
    home: Path, heard: bool
) -> None:
    """With `heard` a route takes what is said, so that there is something to publish, too."""
    routes = [{"from": "message.slack", "to": "slack:HEARD"}] if heard else []
    async with people_in(home, routes=routes) as world:
        code = await asked(world)
        (row,) = await world.rows(schema.request)
        sealed = row.parameters_sealed
        await set_all(world, schema.request, parameters_sealed=sealed[:-1] + bytes([sealed[-1] ^ 1]))
        said = await write(world, f"/approve {code}", person="bob")
        to_bob = [call.reply.text for call in said if call.route.conversation == "D-bob"]
        assert to_bob == ["Something went wrong on our side; the operator's log says what."]
        (*_, message) = await world.rows(schema.message)
        assert (message.state, message.reason.split(";")[0]) == (
            "dead",
            "it could not be handled (SealError)",
        )
        assert [letter.subject for letter in await world.rows(schema.dead_letter)] == [
            f"message:{message.id}"
        ]
        assert ((await request(world)).state, (await approval(world)).state) == ("awaiting-approval", "open")
        assert await world.rows(schema.vote) == []
        assert await audit_is_whole(world)


async def test_it_waits_for_somebody_else_and_runs_once(home: Path) -> None:
    async with people_in(home, approvals=[TO_ROOM]) as world:
        await write(world, "/help", person="bob")
        said = await write(world, "/harm", person="ann")
        told, *cards = said
        assert told.route.conversation == "D-ann"
        assert "Waits for approval by 1 of: bob, owner (not you)" in told.reply.text
        assert "Ends at" in told.reply.text
        assert told.reply.buttons == ()
        assert {card.route.conversation for card in cards} == {"OPS", "D-bob"}
        assert all("**ann asks**: `/harm` - may do harm" in card.reply.text for card in cards)
        assert [button.label for button in cards[0].reply.buttons] == ["Approve", "Refuse"]
        assert await world.rows(schema.run) == []

        card = next(card for card in cards if card.route.conversation == "OPS")
        locks = await press(world, card.reply.buttons[0], person="bob", call=card)
        assert {lock.route.conversation for lock in locks} == {"D-ann", "OPS", "D-bob"}
        assert all(lock.edits and lock.reply.text.startswith("**approved by bob ") for lock in locks)
        assert all(lock.reply.buttons == () for lock in locks)
        assert ((await request(world)).state, (await approval(world)).state) == ("queued", "granted")
        assert len(await world.rows(schema.run)) == 1
        assert (await start(world)).command == "harm"

        again = await press(world, card.reply.buttons[0], person="bob", call=card)
        assert "approved by bob" in again[0].reply.text
        assert len(await world.rows(schema.run)) == 1
        assert await trail(world, "run:", "approval:", "approve") == [
            ("run:harm", "intent", "ann", "awaiting-approval"),
            ("approval:harm", "intent", "ann", "asked"),
            ("approve", "intent", "bob", None),
            ("approve", "outcome", "bob", None),
            ("approval:harm", "outcome", "bob", "granted"),
        ]
        assert await audit_is_whole(world)


async def test_a_code_counts_from_another_platform_too(home: Path) -> None:
    async with people_in(home) as world:
        code = await asked(world)
        bob = await who(world, "bob")
        await world.hub.store.write(
            lambda conn: principals.link_identity(conn, bob.id, "chat", "bob-elsewhere")
        )
        said = await write(world, f"/approve {code.lower()}", person="bob-elsewhere", account="chat")
        assert f"Approved: `/harm` of ann runs now ({code})." in [call.reply.text for call in said]
        assert (await request(world)).state == "queued"


async def test_where_there_is_nothing_to_press_it_says_what_to_write(home: Path) -> None:
    async with people_in(home, approvals=[{"automations": "harm", "to": "post:duty@example.org"}]) as world:
        said = await write(world, "/harm", person="ann")
        (mail,) = [call for call in said if call.account == "post"]
        code = code_in(said[0].reply.text)
        assert f"`/approve {code}` or `/refuse {code} why`" in mail.reply.text
        assert mail.reply.buttons == ()
        locks = await write(world, f"/refuse {code} not today", person="bob")
        below = [call for call in locks if call.account == "post"]
        assert [call.edits for call in below] == [None]
        assert "refused by bob" in below[0].reply.text
        assert "not today" in below[0].reply.text


async def test_nobody_approves_what_they_asked_for(home: Path) -> None:
    async with people_in(home) as world:
        await world.give_role("ann", Role.OWNER)
        code = await asked(world)
        ann = await who(world, "ann")
        await world.hub.store.write(lambda conn: principals.link_identity(conn, ann.id, "chat", "second"))
        for person, account in (("ann", "slack"), ("second", "chat")):
            said = await write(world, f"/approve {code}", person=person, account=account)
            assert "your own request" in said[0].reply.text
        for word in ("yes", "/yes", f"/yes {(await request(world)).id}"):
            await write(world, word, person="ann")
        assert (await request(world)).state == "awaiting-approval"
        assert await world.rows(schema.vote) == []


async def test_who_speaks_for_somebody_approves_nothing_and_what_they_asked_for_others_do(home: Path) -> None:
    async with people_in(home) as world:
        ann, bob = await who(world, "ann"), await who(world, "bob")
        front = world.hub.front
        await front.say(bob, "/harm", acting_as="ann")
        await world.settled()
        row = await approval(world)
        assert sorted(row.excluded) == sorted([ann.id, bob.id])
        said = await write(world, f"/approve {row.code}", person="bob")
        assert "your own request" in said[0].reply.text
        (first,) = await world.rows(schema.principal, name="owner")
        owner = await world.principal(first.id)
        await front.say(bob, f"/approve {row.code}", acting_as="owner")
        await world.settled()
        assert (await request(world)).state == "awaiting-approval"
        await front.say(owner, f"/approve {row.code}")
        await world.settled()
        assert (await request(world)).state == "queued"


async def test_a_claimed_sender_and_a_stranger_to_the_rule_do_not_count(home: Path) -> None:
    async with people_in(home) as world:
        code = await asked(world)
        bob = await who(world, "bob")
        await world.link_claimed(bob, "post", "bob@example.org")
        said = await write(world, f"/approve {code}", person="bob@example.org", account="post", claimed=True)
        assert "vouches for who is writing" in said[0].reply.text
        await world.person("otto", Role.OPERATOR)
        said = await write(world, f"/approve {code}", person="otto")
        assert "You may not approve this. bob, owner may." in said[0].reply.text
        said = await write(world, "/approve ZZZZ", person="bob")
        assert "Nothing waits for approval with the code `ZZZZ`" in said[0].reply.text
        assert (await request(world)).state == "awaiting-approval"
        assert await world.rows(schema.vote) == []


async def test_two_of_three(home: Path) -> None:
    rule = {"automations": "harm", "needed": 2, "people": ["bob", "cleo", "dan", "ann"]}
    async with people_in(home, approvals=[rule]) as world:
        for name in ("cleo", "dan"):
            await world.person(name, Role.USER)
            await write(world, "/help", person=name)
        code = await asked(world)
        first = await write(world, f"/approve {code}", person="cleo")
        assert any("Your approval counts: 1 of 2 for `/harm`" in call.reply.text for call in first)
        edits = [call for call in first if call.edits]
        assert edits
        assert all("**1 of 2: approved by cleo**" in call.reply.text for call in edits)
        assert any(call.reply.buttons for call in edits)
        again = await write(world, f"/approve {code}", person="cleo")
        assert "already" in again[0].reply.text
        assert (await request(world)).state == "awaiting-approval"
        await write(world, f"/approve {code}", person="dan")
        assert (await request(world)).state == "queued"
        assert (await approval(world)).decided_by == "cleo, dan"
        await start(world)


async def test_two_words_at_once_let_it_run_once(home: Path) -> None:
    rule = {"automations": "harm", "needed": 2, "roles": "owner"}
    async with people_in(home, approvals=[rule]) as world:
        for name in ("cleo", "dan", "eve"):
            await world.person(name, Role.OWNER)
        code = await asked(world)
        people = ("bob", "cleo", "dan", "eve", "bob", "cleo")
        await asyncio.gather(
            *(
                world.platforms.say(
                    f"slack:D-{name}",
                    f"/approve {code}",
                    person=name,
                    addressed=True,
                    kind=ConversationKind.DIRECT,
                )
                for name in people
            )
        )
        await world.settled()
        assert (await request(world)).state == "queued"
        assert len(await world.rows(schema.run)) == 1
        assert len(await world.rows(schema.vote)) == 2
        assert len(await trail(world, "approve")) == 4
        assert await audit_is_whole(world)


async def test_it_is_said_in_everybodys_own_language(home: Path) -> None:
    async with people_in(home, approvals=[TO_ROOM], owner={"language": "zh"}) as world:
        told, *cards = await write(world, "/harm", person="ann")
        assert "等待以下人员中 1 人批准：bob、owner（您本人除外）" in told.reply.text
        assert all("**ann 请求执行**：`/harm`（有风险）" in card.reply.text for card in cards)
        assert [button.label for button in cards[0].reply.buttons] == ["批准", "拒绝"]
        code = re.search(r"代码 `([A-Z2-9]{4})`", told.reply.text)
        assert code
        said = await write(world, f"/refuse {code[1]} 正在发布", person="bob")
        assert any("bob 于" in call.reply.text and "拒绝：正在发布" in call.reply.text for call in said)
        assert any("已拒绝：ann 的 `/harm` 不会运行" in call.reply.text for call in said)


async def test_who_lost_the_right_meanwhile_does_not_count(home: Path) -> None:
    rule = {"automations": "harm", "needed": 2, "roles": ["operator", "owner"]}
    async with people_in(home, approvals=[rule]) as world:
        for name in ("cleo", "dan"):
            await world.person(name, Role.OPERATOR)
        code = await asked(world)
        await write(world, f"/approve {code}", person="cleo")
        await world.give_role("cleo", Role.USER)
        await write(world, f"/approve {code}", person="dan")
        assert (await request(world)).state == "awaiting-approval"
        await write(world, f"/approve {code}", person="bob")
        assert (await request(world)).state == "queued"
        # The right is looked at once more when it starts.
        await world.give_role("dan", Role.USER)
        with pytest.raises(StartRefused, match="may no longer do so"):
            await start(world)
        await world.settled()
        assert (await request(world)).state == "refused"
        assert "may no longer do so" in world.platforms.texts("slack", "D-ann")[-1]


async def test_one_refusal_ends_it(home: Path) -> None:
    async with people_in(home) as world:
        code = await asked(world)
        said = await write(world, f"/refuse {code} not before the backup", person="bob")
        assert any("Refused: `/harm` of ann is not run" in call.reply.text for call in said)
        to_ann = [call.reply.text for call in said if call.route.conversation == "D-ann"]
        assert any("not before the backup" in text for text in to_ann)
        row = await request(world)
        assert (row.state, row.reason) == ("refused", "refused by bob")
        late = await write(world, f"/approve {code}", person="bob")
        assert "refused by bob" in late[0].reply.text
        assert await world.rows(schema.run) == []
        assert ("run:harm", "outcome", "ann", "refused") in await trail(world, "run:")


async def test_a_change_of_what_would_run_voids_it(home: Path) -> None:
    async with people_in(home) as world:
        code = await asked(world)
        newer = tuple(
            spec.model_copy(update={"version": "2"}) if spec.command == "harm" else spec for spec in CATALOGUE
        )
        world.hub.publish(CATALOGUE.model_copy(update={"automations": newer}))
        said = await write(world, f"/approve {code}", person="bob")
        assert any("has changed since" in call.reply.text for call in said)
        assert ((await request(world)).state, (await approval(world)).state) == ("refused", "void")
        assert any("void" in text for text in world.platforms.texts("slack", "D-ann"))


async def test_a_change_between_the_approval_and_the_start_is_refused_there(home: Path) -> None:
    async with people_in(home) as world:
        code = await asked(world)
        await write(world, f"/approve {code}", person="bob")
        newer = tuple(
            spec.model_copy(update={"version": "2"}) if spec.command == "harm" else spec for spec in CATALOGUE
        )
        world.hub.publish(CATALOGUE.model_copy(update={"automations": newer}))
        with pytest.raises(StartRefused, match="has changed since it was approved"):
            await start(world)
        await world.settled()
        assert "has changed since it was approved" in world.platforms.texts("slack", "D-ann")[-1]


async def test_other_parameters_or_another_requester_in_the_store_are_refused(home: Path) -> None:
    """Whoever can write to the database and not sign: what was approved is not what would start."""
    async with people_in(home, approvals=[{"automations": "change"}]) as world:
        code = await asked(world, "/change web1")
        await write(world, f"/approve {code}", person="bob")
        first = await request(world)
        await write(world, "/change web2", person="ann")
        other = await request(world)
        dan = await world.person("dan", Role.OWNER)
        forged = sa.update(schema.request).where(schema.request.c.id == first.id).values(actor_id=dan.id)
        await world.hub.store.write(lambda conn: conn.execute(forged))
        with pytest.raises(StartRefused, match="has changed"):
            await start(world)
        assert other.state == "awaiting-approval"


async def test_a_request_that_only_says_that_it_is_queued_does_not_start(home: Path) -> None:
    async with people_in(home, approvals=[{"automations": "harm", "needed": 0}]) as world:
        await write(world, "/harm", person="ann")
        assert (await request(world)).state == "queued"
        world.hub.configuration.file = world.hub.file.model_copy(update={"approvals": ()})
        with pytest.raises(StartRefused, match="needs an approval, and this request has none"):
            await start(world)


async def test_it_expires_visibly(home: Path) -> None:
    async with people_in(home) as world:
        code = await asked(world)
        await set_all(world, schema.approval, expires_at=now() - timedelta(seconds=1))
        await set_all(world, schema.request, expires_at=now() - timedelta(seconds=1))
        late = await write(world, f"/approve {code}", person="bob")
        assert "expired" in late[0].reply.text
        await eventually(
            lambda: any(
                "was not approved in time" in text for text in world.platforms.texts("slack", "D-ann")
            ),
            "ann is told",
        )
        assert ((await request(world)).state, (await approval(world)).state) == ("expired", "expired")
        assert any(call.edits and call.reply.text.startswith("**expired") for call in world.platforms.calls)
        assert ("approval:harm", "outcome", "-", "expired") in await trail(world, "approval:")
        assert await world.rows(schema.run) == []


async def test_who_asked_withdraws_it(home: Path) -> None:
    async with people_in(home, approvals=[TO_ROOM]) as world:
        code = await asked(world)
        await write(world, "/cancel", person="ann")
        assert ((await request(world)).state, (await approval(world)).state) == ("cancelled", "withdrawn")
        assert any("**withdrawn by ann" in text for text in world.platforms.texts("slack", "OPS"))
        late = await write(world, f"/approve {code}", person="bob")
        assert "withdrawn by ann" in late[0].reply.text
        assert await world.rows(schema.run) == []


async def test_the_only_owner_confirms_by_typing(home: Path) -> None:
    async with people_in(home) as world:
        (row,) = await world.rows(schema.principal, name="owner")
        await world.hub.store.write(lambda conn: principals.disable(conn, row.id))
        told, *more = await write(world, "/harm", person="bob")
        assert "There is nobody else who could approve this" in told.reply.text
        assert more == []
        assert told.reply.buttons == ()
        asking = await approval(world)
        route = Route(account="slack", conversation="D-bob", kind=ConversationKind.DIRECT)
        await world.platforms.hear(
            Action(
                account="slack",
                native_id=new_id(),
                sender=Sender(id="bob"),
                route=route,
                value=f"/approve {asking.code}",
            )
        )
        await world.settled()
        assert (await request(world)).state == "awaiting-approval"
        locks = await write(world, f"/approve {asking.code}", person="bob")
        assert "no second person" in locks[0].reply.text
        assert (await request(world)).state == "queued"
        (granted,) = [
            one
            for one in await world.rows(schema.audit)
            if one.action == "approval:harm" and one.phase == "outcome"
        ]
        assert granted.details["no_second_person"] is True
        await start(world)


async def test_what_nobody_could_approve_is_refused_at_once(home: Path) -> None:
    rule = {"automations": "harm", "needed": 3, "roles": "owner"}
    async with people_in(home, approvals=[rule]) as world:
        (told,) = await write(world, "/harm", person="ann")
        assert "nobody could give it: 3 wanted, 2 there" in told.reply.text
        assert (await request(world)).state == "refused"
        assert await world.rows(schema.approval) == []


async def test_a_question_does_not_drop_it_and_it_drops_no_question(home: Path) -> None:
    async with people_in(home) as world:
        code = await asked(world)
        await write(world, "/harm", person="ann")
        assert [row.state for row in await world.rows(schema.request)] == ["awaiting-approval"] * 2
        await write(world, "/change", person="ann")
        await write(world, "web1", person="ann")
        states = [row.state for row in await world.rows(schema.request)]
        assert states == ["awaiting-approval", "awaiting-approval", "queued"]
        await write(world, f"/approve {code}", person="bob")
        assert [row.state for row in await world.rows(schema.request)] == [
            "queued",
            "awaiting-approval",
            "queued",
        ]


async def test_an_edit_changes_nothing_of_what_was_approved(home: Path) -> None:
    async with people_in(home, approvals=[{"automations": "change"}]) as world:
        before = len(world.platforms.calls)
        native = await world.platforms.say(
            "slack:D-ann", "/change web1", person="ann", kind=ConversationKind.DIRECT, addressed=True
        )
        await world.settled()
        code = code_in(world.platforms.calls[before].reply.text)
        await world.platforms.change("slack:D-ann", native, "/change web2", person="ann")
        await world.settled()
        await write(world, f"/approve {code}", person="bob")
        assert (await start(world)).command == "change"
        assert len(await world.rows(schema.request)) == 1


async def test_a_sentence_is_confirmed_first_and_then_approved(home: Path) -> None:
    async with people_in(
        home, approvals=[{"automations": "change", "parameters": {"host": "web*"}}]
    ) as world:
        await write(world, "change web1", person="ann")
        assert (await request(world)).asking["kind"] == "confirm"
        said = await write(world, "yes", person="ann")
        assert "Waits for approval" in said[0].reply.text
        await write(world, f"/approve {code_in(said[0].reply.text)}", person="bob")
        assert (await request(world)).state == "queued"
        await start(world)


async def test_a_taken_offer_waits_for_a_second_person(home: Path) -> None:
    route = {
        "from": "forge.alert.#",
        "to": "slack:C1",
        "run": "change",
        "with": {"host": "{labels.host}"},
    }
    async with people_in(home, routes=[route], approvals=[{"automations": "change"}]) as world:
        data = {"labels": {"host": "web1"}}
        await world.platforms.notice("alert.firing", "down", data=data, severity="critical", key="web1")
        await world.settled()
        call = world.platforms.calls[0]
        told = await press(world, call.reply.buttons[0], person="ann", call=call)
        code = code_in(told[0].reply.text)
        assert [button.label for button in told[0].reply.buttons] == ["Approve", "Refuse"]
        assert (await request(world)).state == "awaiting-approval"
        await world.platforms.notice("alert.firing", "still", data=data, severity="critical", key="web1")
        await world.settled()
        offered = {
            button.value
            for one in world.platforms.calls
            for button in one.reply.buttons
            if button.value.startswith("/take")
        }
        assert len(offered) == 1, "what waits for its approval is not offered again"
        first = (await world.rows(schema.request))[0]
        await write(world, f"/approve {code}", person="bob")
        assert (await world.rows(schema.request, id=first.id))[0].state == "queued"


async def test_it_survives_a_restart(home: Path) -> None:
    async with people_in(home) as world:
        code = await asked(world)
    async with people_in(home) as world:
        await write(world, f"/approve {code}", person="bob")
        assert (await request(world)).state == "queued"
    async with people_in(home) as world:
        await start(world)
        assert [(row.state, row.decided_by) for row in await world.rows(schema.approval)] == [
            ("granted", "bob")
        ]
        assert await audit_is_whole(world)
        assert not await world.rows(schema.audit_open, action="approval:harm")


async def test_it_is_listed_for_whom_it_concerns(home: Path) -> None:
    async with people_in(home) as world:
        code = await asked(world)
        await world.person("otto", Role.OPERATOR)
        for person, last in (("bob", "yes"), ("ann", "no, yours")):
            (call,) = await write(world, "/approvals", person=person)
            assert call.reply.text.count(code) == 1
            assert last in call.reply.text
        (one,) = await world.hub.front.approvals(await who(world, "bob"))
        assert (one.code, one.actor, one.mine, one.may) == (code, "ann", False, True)
        assert one.what == "`/harm` - may do harm"
        (one,) = await world.hub.front.approvals(await who(world, "ann"))
        assert (one.code, one.mine, one.may) == (code, True, False)
        assert await world.hub.front.approvals(await who(world, "otto")) == []
        (call,) = await write(world, "/approvals", person="otto")
        assert "Nothing waits" in call.reply.text


async def test_a_secret_is_not_shown(home: Path) -> None:
    async with people_in(home, approvals=[{"effects": ["read"], "automations": "secret"}]) as world:
        said = await write(world, "/secret hunter2", person="ann")
        assert said
        assert not any("hunter2" in call.reply.text for call in said)
        assert "word=•••" in said[0].reply.text


async def test_a_file_role_approves_what_it_names(home: Path) -> None:
    roles = {"shift": {"may": ["read"], "approves": ["harm"]}}
    async with people_in(home, roles=roles) as world:
        cleo = await world.person("cleo", Role.USER)
        code = await asked(world)
        said = await write(world, f"/approve {code}", person="cleo")
        assert "You may not approve this" in said[0].reply.text
        await world.hub.store.write(lambda conn: principals.give_role(conn, cleo.id, "shift"))
        await write(world, f"/approve {code}", person="cleo")
        assert (await request(world)).state == "queued"


async def test_a_user_may_not_even_ask(home: Path) -> None:
    async with people_in(home) as world:
        await world.person("vera", Role.USER)
        (said,) = await write(world, "/harm", person="vera")
        assert "harm" in said.reply.text
        assert (await request(world)).state == "refused"
        assert await world.rows(schema.approval) == []


async def test_long_values_say_that_they_are_cut(home: Path) -> None:
    text = AutomationSpec(
        name="write-it",
        command="write-it",
        summary="Write.",
        deployment="w/parley",
        effect=Effect.DANGEROUS,
        version="1",
        parameters=(HOST.model_copy(update={"name": "text", "json_schema": {"type": "string"}}),),
    )
    async with people_in(home) as world:
        world.hub.publish(CATALOGUE.model_copy(update={"automations": (*CATALOGUE.automations, text)}))
        said = await write(world, f'/write-it "{"a" * 3000}\u202eb"', person="ann")
        assert "characters, the beginning is shown)" in said[0].reply.text


async def test_what_is_approved_and_was_interrupted_is_asked_for_again_even_where_it_may_be_repeated(
    home: Path,
) -> None:
    async with people_in(home) as world:
        again = [
            one.model_copy(update={"idempotent": True}) if one.name == "harm" else one for one in CATALOGUE
        ]
        world.hub.catalogue = CATALOGUE.model_copy(update={"automations": tuple(again)})
        code = await asked(world)
        await write(world, f"/approve {code}", person="bob")
        started = await start(world)
        await world.hub.ends.lost(started.run_id, "gone")
        await world.settled()
        assert [row.state for row in await world.rows(schema.run)] == ["lost"]
        assert (await request(world)).state == "failed"
        (letter,) = await world.hub.admin.run("dead_letters", {})
        assert letter["doubtful"]


async def test_nobody_has_another_persons_words_count_once_more(home: Path) -> None:
    """They came too late, and were told so; whoever may decide about dead letters does not decide for their writer."""
    async with people_in(home) as world:
        code = await asked(world)
        late = now() - timedelta(hours=9)
        for text in (f"/approve {code}", "/role add ann owner"):
            await write(world, text, person="bob", sent_at=late)
        letters = await world.hub.admin.run("dead_letters", {"kind": "expired"})
        assert len(letters) == 2
        for letter in letters:
            said = await write(world, f"/dlq replay {letter['code']}", person="ann")
            assert "in their name: only they can ask for that" in said[0].reply.text
        assert (await approval(world)).state == "open"
        assert (await who(world, "ann")).role is Role.OPERATOR
        letters = await world.hub.admin.run("dead_letters", {"kind": "expired"})
        assert len(letters) == 2, "they stay open for their writer"
        (vote,) = [one for one in letters if one["subject"] == letters[-1]["subject"]]
        await write(world, f"/dlq replay {vote['code']}", person="bob")
        await world.hub.backlog.take_up()
        await world.settled()
        assert len(await world.hub.admin.run("dead_letters", {"kind": "expired"})) == 1


async def test_what_a_role_denies_nobody_has_done_again_for_another(home: Path) -> None:
    roles = {"not-web2": {"deny": [{"automations": ["change"], "parameters": {"host": ["web2"]}}]}}
    async with people_in(home, roles=roles) as world:
        await write(world, "/role add ann not-web2", person="bob")
        await write(world, "/change web2", person="bob")
        await world.hub.ends.lost((await start(world)).run_id, "gone")
        await world.settled()
        (letter,) = await world.hub.admin.run("dead_letters", {})
        said = await write(world, f"/dlq replay {letter['code']} confirm", person="ann")
        assert len(await world.rows(schema.run)) == 1, said
        await write(world, f"/dlq replay {letter['code']} confirm", person="bob")
        assert len(await world.rows(schema.run)) == 2
