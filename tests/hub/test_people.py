"""People in the chat: roles given and taken, what they may here and now, accounts linked by a code, and who leaves."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from parley.errors import ConfigurationError, PolicyError, StartRefused
from parley.link.calls import StartCall
from parley.messages.model import ConversationKind, now
from parley.people import principals
from parley.people.principals import Principal, Role
from parley.people.standing import Terms, give
from parley.people.tokens import TokenKind, issue, resolve
from parley.runs import grants
from parley.runs.catalogue import Lane
from parley.runs.requests import NewRequest, insert_request, insert_run, run_token
from parley.store import schema
from parley.store.ids import new_id
from tests.fakes._driver import eventually
from tests.hub.rooms import World, world_in

ROLES = {
    "web-shift": {"may": ["read", "write"], "parameters": {"host": ["web1"]}},
    "chat-only": {"may": ["write"], "accounts": ["chat"]},
    "never": {"may": ["write"], "days": ["mon"], "hours": "00:00-00:01", "time_zone": "UTC"},
    "trainee": {"deny": [{"automations": ["change"]}]},
    "signs": {"approves": ["harm"]},
}
DIRECT = ConversationKind.DIRECT
CODE = re.compile(r"/link ([A-Z0-9-]{14})")


@pytest.fixture
async def world(home: Path) -> AsyncIterator[World]:
    """A hub with roles, an owner known as `boss` on slack, and ann, who has no right yet."""
    async with world_in(home, roles=ROLES) as living:
        hub = living.hub
        await hub.store.write(
            lambda conn: principals.link_identity(conn, hub.owner_id, "slack", "boss", verified=True)
        )
        await living.person("ann", Role.NONE)
        yield living


async def ask(world: World, text: str, person: str, place: str = "", **more: Any) -> str:
    """What is answered to somebody who writes to us alone."""
    before = len(world.platforms.calls)
    await world.platforms.say(
        place or f"slack:D-{person}", text, person=person, addressed=True, **{"kind": DIRECT, **more}
    )
    await world.settled()
    return "\n".join(call.reply.text for call in world.platforms.calls[before:])


async def named(world: World, name: str) -> Principal:
    return await world.hub.store.read(lambda conn: principals.get_by_name(conn, name))


async def requests(world: World) -> list[tuple[str, str]]:
    return [(row.automation, row.state) for row in await world.rows(schema.request)]


async def audited(world: World, *actions: str) -> list[tuple[str, str, str, str | None]]:
    rows = await world.rows(schema.audit)
    return [(row.action, row.phase, row.actor, row.subject) for row in rows if row.action in actions]


async def start_of_newest(world: World) -> None:
    """A worker asks for the start of the newest run. Raises `StartRefused`."""
    run = (await world.rows(schema.run))[-1]
    call = StartCall(
        token=run_token(world.hub.keyring, run.id),
        flow_run_id=new_id(),
        run_id=run.id,
        holder="x",
        automation="change",
    )
    await world.hub.ledger.start(call)


# -- roles


async def test_the_owner_gives_a_role_and_takes_it(world: World) -> None:
    assert "may not run anything" in await ask(world, "/change web1", "ann")
    assert await ask(world, "/role add ann web-shift", "boss") == "ann has the role web-shift now."
    assert await ask(world, "/role add ann web-shift", "boss") == "ann has the role web-shift already."
    assert (await named(world, "ann")).roles == ("web-shift",)
    await ask(world, "/change web1", "ann")
    assert await ask(world, "/role remove ann web-shift", "boss") == "ann has the role web-shift no more."
    assert "may not run anything" in await ask(world, "/change web1", "ann")
    assert await requests(world) == [("change", "refused"), ("change", "queued"), ("change", "refused")]
    assert await audited(world, "role-given", "role-taken") == [
        (action, phase, "owner", "person:ann")
        for action in ("role-given", "role-taken")
        for phase in ("intent", "outcome")
    ]


async def test_our_own_roles_are_given_the_same_way_and_the_last_owner_stays(world: World) -> None:
    assert "ann has the role operator now" in await ask(world, "/role add ann operator", "boss")
    assert (await named(world, "ann")).role is Role.OPERATOR
    assert "ann has the role operator no more" in await ask(world, "/role remove ann operator", "boss")
    assert (await named(world, "ann")).role is Role.NONE
    assert "last owner" in await ask(world, "/role remove owner owner", "boss")
    assert (await named(world, "owner")).role is Role.OWNER


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("/role add ann nothing", "no role nothing"),
        ("/role add nobody web-shift", "nobody of that name"),
        ("/role add ann", "Write `/role add NAME ROLE`"),
        ("/role", "web-shift"),
        ("/role remove ann nothing", "does not have the role"),
    ],
)
async def test_what_cannot_be_given_is_told(world: World, text: str, answer: str) -> None:
    assert answer in await ask(world, text, "boss")
    assert await audited(world, "role-given", "role-taken") == []


async def test_nobody_but_the_owner_gives_roles(world: World) -> None:
    await world.person("olga", Role.OPERATOR)
    assert "Only the owner" in await ask(world, "/role add olga owner", "olga")
    owner = await world.principal(world.hub.owner_id)
    await world.link_claimed(owner, "post", "boss@example.com")
    said = await ask(world, "/role add ann owner", "boss@example.com", "post:boss@example.com", claimed=True)
    assert "Only the owner" in said
    assert [(await named(world, name)).role for name in ("olga", "ann")] == [Role.OPERATOR, Role.NONE]
    assert await audited(world, "role-given") == []


async def test_a_role_that_the_file_has_no_more_gives_nothing(home: Path) -> None:
    async with world_in(home, roles=ROLES) as world:
        ann = await world.person("ann", Role.NONE)
        await world.hub.store.write(lambda conn: principals.give_role(conn, ann.id, "web-shift"))
        await ask(world, "/change web1", "ann")
    async with world_in(home) as world:
        assert (await named(world, "ann")).roles == ("web-shift",)
        assert "may not run anything" in await ask(world, "/change web1", "ann")
        with pytest.raises(StartRefused, match="may not run anything"):
            await start_of_newest(world)


async def test_the_values_are_looked_at_when_they_are_known(world: World) -> None:
    await ask(world, "/role add ann web-shift", "boss")
    wrong = await ask(world, "/change web2", "ann")
    assert wrong == "change: the role web-shift allows only these values: host = web1."
    assert "needs `host`" in await ask(world, "/change", "ann")
    assert await ask(world, "web2", "ann") == wrong
    assert await requests(world) == [("change", "refused"), ("change", "refused")]
    assert wrong in await ask(world, "/why", "ann")
    await ask(world, "/change", "ann")
    await ask(world, "web1", "ann")
    assert (await requests(world))[-1] == ("change", "queued")


async def test_a_role_counts_where_and_when_it_says(world: World) -> None:
    ann = await named(world, "ann")
    await world.hub.store.write(
        lambda conn: principals.link_identity(conn, ann.id, "chat", "ann", verified=True)
    )
    await ask(world, "/role add ann chat-only", "boss")
    await ask(world, "/role add ann never", "boss")
    refused = await ask(world, "/change web1", "ann")
    assert "the role chat-only counts only in chat" in refused or "the role never counts only" in refused
    await ask(world, "/change web1", "ann", "chat:D-ann")
    assert await requests(world) == [("change", "refused"), ("change", "queued")]
    assert "`/change" not in await ask(world, "/help", "ann")
    assert "`/change" in await ask(world, "/help", "ann", "chat:D-ann")


async def test_what_denies_wins_over_what_somebody_is(world: World) -> None:
    await world.person("olga", Role.OPERATOR)
    assert "`/change" in await ask(world, "/help", "olga")
    await ask(world, "/role add olga trainee", "boss")
    assert "the role trainee forbids this (deny 1)" in await ask(world, "/change web1", "olga")
    assert "`/change" not in await ask(world, "/help", "olga")
    await ask(world, "/role add owner trainee", "boss")
    await ask(world, "/change web1", "boss")
    assert await requests(world) == [("change", "refused"), ("change", "queued")]


async def test_a_right_that_is_gone_at_the_start_starts_nothing(world: World) -> None:
    await ask(world, "/role add ann web-shift", "boss")
    await ask(world, "/change web1", "ann")
    await ask(world, "/role remove ann web-shift", "boss")
    with pytest.raises(StartRefused, match="may not run anything"):
        await start_of_newest(world)
    await world.settled()
    assert await requests(world) == [("change", "refused")]


async def test_what_is_started_is_asked_for_with_its_values(world: World) -> None:
    """What was queued under a wider right is looked at with the values that it was queued with."""
    await world.give_role("ann", Role.OPERATOR)
    await ask(world, "/change web2", "ann")
    await world.give_role("ann", Role.NONE)
    await ask(world, "/role add ann web-shift", "boss")
    with pytest.raises(StartRefused, match="host = web1"):
        await start_of_newest(world)


# -- schedules


async def scheduled(world: World, service_id: str) -> None:
    spec = world.hub.catalogue.find("change")
    assert spec is not None
    new = NewRequest(
        spec=spec,
        values={"host": "web1"},
        origin="schedule",
        actor_id=service_id,
        state="queued",
        lane=Lane.SCHEDULES,
        expires_at=now() + timedelta(hours=1),
    )

    async def insert(conn: Any) -> None:
        await insert_run(conn, await insert_request(conn, world.hub.keyring, new))

    await world.hub.store.write(insert)


async def test_a_schedule_runs_for_as_long_as_who_made_it_may(world: World) -> None:
    olga = await world.person("olga", Role.OPERATOR)
    service = await world.person("nightly", Role.USER)
    row = {
        "id": new_id(),
        "automation": "change",
        "principal_id": service.id,
        "granted_by_id": olga.id,
        "created_at": now(),
    }
    await world.hub.store.write(lambda conn: conn.execute(sa.insert(schema.grant).values(row)))
    spec = world.hub.catalogue.find("change")
    assert spec is not None

    async def granted(host: str) -> bool:
        return await world.hub.store.read(
            lambda conn: grants.has_grant(conn, world.hub.rights, spec, service.id, {"host": host})
        )

    assert await granted("web1")
    await scheduled(world, service.id)
    await start_of_newest(world)
    await world.hub.people.grant("nightly", "trainee")
    assert not await granted("web1"), "what denies wins over what was granted"
    await world.hub.people.revoke("nightly", "trainee")
    await world.give_role("olga", Role.NONE)
    assert not await granted("web1")
    await scheduled(world, service.id)
    with pytest.raises(StartRefused, match="may only look things up"):
        await start_of_newest(world)
    await ask(world, "/role add olga web-shift", "boss")
    assert await granted("web1")
    assert not await granted("web2")
    await world.hub.store.write(lambda conn: principals.disable(conn, olga.id))
    assert not await granted("web1")


async def test_what_denies_wins_over_a_standing_approval(home: Path) -> None:
    mend = {"from": "forge.alert.#", "to": "slack:C1", "run": "change", "with": {"host": "web1"}}
    async with world_in(home, routes=[mend], roles=ROLES) as world:
        await world.platforms.notice("push", "makes the service known")
        await world.settled()
        service = await named(world, "forge")
        terms = Terms(
            automation="change",
            version="1",
            principal_id=service.id,
            patterns={"host": "web*"},
            most=9,
            per=timedelta(hours=1),
            expires_at=now() + timedelta(days=1),
        )
        await world.hub.store.write(lambda conn: give(conn, terms, world.hub.owner_id, new_id()))
        await world.platforms.notice("alert.firing", "down", key="one")
        await world.settled()
        await world.hub.people.grant("forge", "trainee")
        with pytest.raises(StartRefused, match="the role trainee forbids this"):
            await start_of_newest(world)
        await world.platforms.notice("alert.firing", "down", key="two")
        await world.settled()
        assert [row.state for row in await world.rows(schema.request)] == ["refused", "awaiting-approval"]


# -- linking


async def code_of(world: World, person: str = "ann", text: str = "/link") -> str:
    found = CODE.search(await ask(world, text, person))
    assert found is not None
    return found[1]


async def test_another_account_is_linked_by_a_code(world: World) -> None:
    code = await code_of(world)
    told = await ask(world, f"/link {code}", "ann2", "chat:D-ann2")
    assert told == "You are ann here, too. `/whoami` tells what I know of you."
    assert (await ask(world, "/whoami", "ann2", "chat:D-ann2")).startswith(
        "ann (none) · `chat:ann2` (verified)"
    )
    assert code not in await ask(world, f"/link {code}", "ann3", "chat:D-ann3")
    assert await world.rows(schema.identity, native_user_id="ann3") == []
    rows = [
        row for row in await world.rows(schema.audit) if row.action.startswith(("link-", "person-linked"))
    ]
    assert [(row.action, row.phase) for row in rows] == [
        ("link-code-issued", "intent"),
        ("link-code-issued", "outcome"),
        ("person-linked", "intent"),
        ("person-linked", "outcome"),
    ]
    assert "ann2" not in str([(row.subject, row.details, row.actor) for row in rows])
    assert code not in str(rows)


async def test_what_a_platform_only_claims_stays_claimed(world: World) -> None:
    await world.give_role("ann", Role.OPERATOR)
    code = await code_of(world)
    mail: dict[str, Any] = {"place": "post:ann@example.com", "kind": ConversationKind.MAIL, "claimed": True}
    told = await ask(world, f"/link {code}", "ann@example.com", **mail)
    assert "You are ann here, too" in told
    assert "cannot prove who writes" in told
    (link,) = await world.rows(schema.identity, account="post")
    assert link.source == principals.BY_CODE
    await ask(world, f"/link {await code_of(world)}", "ann-chat", "chat:D-ann-chat")
    (link,) = await world.rows(schema.identity, account="chat", native_user_id="ann-chat")
    assert link.source is None
    assert "cannot prove who you are" in await ask(world, "/change web1", "ann@example.com", **mail)
    await ask(world, "/look 1", "ann@example.com", **mail)
    assert await requests(world) == [("change", "refused"), ("look", "queued")]
    assert "direct conversation only" in await ask(world, "/link", "ann@example.com", **mail)


async def test_a_code_is_said_alone(world: World) -> None:
    code = await code_of(world)
    for person in ("ann2", "ann"):
        said = await ask(world, f"/link {code}", person, "slack:C1", kind=ConversationKind.CHANNEL)
        assert "it is void" in said or "do not know you" in said
    again = await ask(world, f"/link {code}", "ann3", "chat:D-ann3")
    assert "You are ann" not in again
    assert "direct conversation only" in await ask(
        world, "/link", "ann", "slack:C1", kind=ConversationKind.CHANNEL
    )
    assert await world.rows(schema.identity, native_user_id="ann3") == []


async def test_a_stranger_learns_nothing_by_guessing(world: World) -> None:
    code = await code_of(world)
    wrong = code[:-1] + ("A" if code[-1] != "A" else "C")
    first = await ask(world, f"/link {wrong}", "eve", "chat:D-eve")
    assert "I do not know you yet" in first
    for _ in range(3):
        assert await ask(world, f"/link {wrong}", "eve", "chat:D-eve") == ""
    assert (await world.rows(schema.link_code))[0].tries == 4
    assert await ask(world, f"/link {wrong}", "eve", "chat:D-eve") == ""
    assert await ask(world, f"/link {code}", "ann2", "chat:D-ann2") == first.replace("eve", "ann2")


async def test_somebody_who_is_known_cannot_become_another(world: World) -> None:
    await world.person("bob", Role.USER, account="chat")
    code = await code_of(world)
    assert "You are bob here already" in await ask(world, f"/link {code}", "bob", "chat:D-bob")
    assert "You are ann here, too" in await ask(world, f"/link {code}", "ann2", "chat:D-ann2")


async def test_an_invitation_makes_somebody_of_a_stranger(world: World) -> None:
    code = await code_of(world, "boss", "/invite Bea operator")
    assert (await named(world, "Bea")).role is Role.OPERATOR
    assert "You are Bea here, too" in await ask(world, f"/link {code}", "U77", "chat:D-U77")
    await ask(world, "/change web1", "U77", "chat:D-U77")
    assert await requests(world) == [("change", "queued")]
    assert "already somebody called Bea" in await ask(world, "/invite Bea operator", "boss")
    second = await code_of(world, "boss", "/invite Bea")
    assert "You are Bea here, too" in await ask(world, f"/link {second}", "U78", "slack:D-U78")
    assert [row[:3] for row in await audited(world, "person-invited")][:2] == [
        ("person-invited", "intent", "owner"),
        ("person-invited", "outcome", "owner"),
    ]


@pytest.mark.parametrize("text", ["/invite", "/invite Bea owner", "/invite Bea king", "/invite a b c"])
async def test_what_cannot_be_invited_is_told(world: World, text: str) -> None:
    assert "Write `/invite NAME`" in await ask(world, text, "boss")
    assert "Only the owner" in await ask(world, text, "ann")
    room = await ask(world, "/invite Bea", "boss", "slack:C1", kind=ConversationKind.CHANNEL)
    assert "Only the owner invites people, in a direct conversation" in room


# -- who


async def test_whoami_tells_accounts_where_nobody_else_reads(world: World) -> None:
    ann = await named(world, "ann")
    await world.link_claimed(ann, "post", "ann@example.com")
    await ask(world, "/role add ann web-shift", "boss")
    alone = await ask(world, "/whoami", "ann")
    assert alone.splitlines()[0] == "ann (none, web-shift) · `slack:ann` (verified) · here: `slack:D-ann`"
    assert "- `post:ann@example.com`" in alone
    assert "ann@example" not in await ask(world, "/whoami", "ann", "slack:C1", kind=ConversationKind.CHANNEL)


async def test_who_can(world: World) -> None:
    await world.person("olga", Role.OPERATOR)
    await world.person("uma", Role.USER)
    await ask(world, "/role add ann web-shift", "boss")
    await ask(world, "/role add uma never", "boss")

    async def who(text: str, person: str = "olga") -> dict[str, tuple[str, str]]:
        shown = (await ask(world, text, person)).splitlines()[3:-1]
        rows = [re.split(r"\s{2,}", line) for line in shown]
        return {name: (roles, how) for name, roles, how in rows}

    can = await who("/who can change")
    assert set(can) == {"ann", "olga", "owner", "uma"}
    assert can["ann"] == ("none, web-shift", "runs it")
    assert can["uma"][1].startswith("at certain times")
    assert (await who("/who can harm"))["olga"][1] == "may ask; it waits for an approval"
    assert set(await who("/who look", "uma")) == {"ann", "olga", "owner", "uma"}
    assert "no command" in await ask(world, "/who can nothing", "uma")
    assert "Write `/who can" in await ask(world, "/who", "uma")


async def test_who_can_tells_nobody_of_what_they_may_not_see(world: World) -> None:
    await world.person("uma", Role.USER)
    await world.person("nil", Role.NONE)
    await world.person("ida", Role.AUDITOR)
    zoe = await world.person("zoe", Role.NONE)
    await ask(world, "/role add zoe signs", "boss")
    assert "signs" in (await world.principal(zoe.id)).roles
    seen = {"nil": (), "ann": (), "uma": ("look",), "zoe": ("harm",), "ida": ("look", "change", "harm")}
    for person, commands in seen.items():
        for command in ("look", "change", "harm"):
            told = await ask(world, f"/who can {command}", person)
            assert ("owner" in told) is (command in commands), (person, command)
            assert ("no command" in told) is (command not in commands), (person, command)


async def test_help_names_the_commands_that_are_for_the_asker(world: World) -> None:
    await world.person("olga", Role.OPERATOR)
    for_boss, for_olga, for_ann = [await ask(world, "/help", name) for name in ("boss", "olga", "ann")]
    assert [name in for_boss for name in ("`/role`", "`/invite`", "`/dlq`", "`/standing`")] == [True] * 4
    assert [name in for_olga for name in ("`/role`", "`/invite`", "`/dlq`", "`/standing`")] == [False] * 2 + [
        True
    ] * 2
    assert [name in for_ann for name in ("`/role`", "`/invite`", "`/dlq`", "`/standing`")] == [False] * 4


# -- leaving


async def test_who_leaves_loses_everything_at_once(world: World) -> None:
    olga = await world.person("olga", Role.OPERATOR)
    store, people = world.hub.store, world.hub.people
    secrets = [await store.write(lambda conn, kind=kind: issue(conn, olga.id, kind)) for kind in TokenKind]  # type: ignore[misc]
    await people.grant("olga", "web-shift")
    await ask(world, "/change", "olga")
    code = await code_of(world, "olga")
    await ask(world, "/change web1", "olga", "slack:C1", kind=ConversationKind.CHANNEL)
    await people.remove("olga")
    gone = await named(world, "olga")
    assert (gone.enabled, gone.role, gone.roles) == (False, Role.NONE, ())
    for secret in secrets:
        assert await store.read(lambda conn, secret=secret: resolve(conn, secret, set(TokenKind))) is None  # type: ignore[misc]
    assert await world.rows(schema.identity, principal_id=olga.id) == []
    assert await requests(world) == [("change", "cancelled"), ("change", "queued")]
    assert "I do not know you yet" in await ask(world, f"/link {code}", "olga2", "chat:D-olga2")
    assert "I do not know you yet" in await ask(world, "/change web1", "olga")
    with pytest.raises(StartRefused, match="switched off"):
        await start_of_newest(world)
    assert [row[:2] for row in await audited(world, "person-removed")] == [
        ("person-removed", "intent"),
        ("person-removed", "outcome"),
    ]
    assert "was removed" in await ask(world, "/invite olga", "boss")
    with pytest.raises(ConfigurationError, match="disabled"):
        await people.invite("olga")


async def test_the_last_owner_does_not_leave(world: World) -> None:
    with pytest.raises(PolicyError, match="last owner"):
        await world.hub.people.remove("owner")
    assert (await named(world, "owner")).enabled
    assert await audited(world, "person-removed") == []


async def test_the_command_line_gives_roles_of_the_file_only(world: World) -> None:
    people = world.hub.people
    assert await people.grant("ann", "web-shift")
    assert not await people.grant("ann", "web-shift")
    for role in ("owner", "operator"):
        with pytest.raises(ConfigurationError, match="parley people role ann"):
            await people.grant("ann", role)
    with pytest.raises(ConfigurationError, match=r"no role 'king'"):
        await people.grant("ann", "king")
    assert await people.revoke("ann", "web-shift")
    assert not await people.revoke("ann", "web-shift")
    assert [row[1:3] for row in await audited(world, "role-given")] == [
        ("intent", "command line"),
        ("outcome", "command line"),
    ]


async def test_doctor_names_roles_that_the_file_has_no_more(home: Path) -> None:
    shift = {"may": ["write"]}
    async with world_in(home, roles={"day-shift": shift, "night-shift": shift}) as world:
        for name in ("ann", "bea"):
            await world.person(name, Role.USER)
        await world.hub.people.grant("bea", "night-shift")
        await world.hub.people.grant("ann", "night-shift")
        await world.hub.people.grant("ann", "day-shift")
        assert [row for row in await world.hub.vitals.doctor() if row["check"].startswith("role ")] == []
    async with world_in(home, roles={"day-shift": shift}) as world:
        (row,) = [row for row in await world.hub.vitals.doctor() if row["check"].startswith("role ")]
        assert (row["check"], row["ok"]) == ("role 'night-shift'", False)
        assert row["says"].endswith("it gives nothing to ann, bea")
        assert "parley people revoke NAME night-shift" in row["mend"]
        for name in ("ann", "bea"):
            await world.hub.people.revoke(name, "night-shift")
        assert [row for row in await world.hub.vitals.doctor() if row["check"].startswith("role ")] == []


async def test_it_is_said_in_chinese_too(world: World) -> None:
    def chinese(conn: Any) -> Any:
        return conn.execute(sa.update(schema.principal).values(language="zh"))

    await world.hub.store.write(chinese)
    assert await ask(world, "/role add ann web-shift", "boss") == "ann 现在拥有角色 web-shift。"
    assert "只允许这些参数值：host = web1" in await ask(world, "/change web2", "ann")
    assert "请在十分钟内" in await ask(world, "/link", "ann")


async def test_what_the_machine_does_as_the_owner_outlives_an_owner(world: World) -> None:
    await world.hub.admin.run("person_add", {"name": "Olof", "role": "owner"})
    await world.hub.admin.run("person_remove", {"name": "owner"})
    await world.hub.admin.run("grant", {"automation": "change"})
    (grant,) = await world.rows(schema.grant)
    assert grant.granted_by_id == (await named(world, "Olof")).id
    secret = (await world.hub.admin.run("token", {}))["token"]
    holder = await world.hub.store.read(lambda conn: resolve(conn, secret, {TokenKind.BEARER}))
    assert holder is not None
    assert holder.name == "Olof"


async def test_a_changed_file_counts_at_once_and_a_broken_one_changes_nothing(world: World) -> None:
    ann = await named(world, "ann")
    await world.hub.people.grant("ann", "web-shift")
    config = world.hub.settings.config

    async def state_of(text: str) -> str:
        accepted = await world.hub.front.say(await world.principal(ann.id), text)
        await world.hub.intake_is_empty()
        (row,) = await world.rows(schema.request, message_id=accepted.id)
        return str(row.state)

    assert await state_of("/change web2") == "refused"
    config.write_text('[roles.web-shift]\nmay = ["write"]\nhours = "late"\n')
    await eventually(lambda: world.hub.configuration.refused is not None, "the broken file is seen")
    assert await state_of("/change web2") == "refused"
    assert await state_of("/change web1") == "queued"
    config.write_text('[roles.web-shift]\nmay = ["write"]\n')
    before = world.hub.policy
    await eventually(lambda: world.hub.policy is not before, "the new file is in force")
    assert await state_of("/change web2") == "queued"
    config.write_text("")
    changed = world.hub.policy
    await eventually(lambda: world.hub.policy is not changed, "the empty file is in force")
    assert await state_of("/change web1") == "refused"
