"""Who may use what: each role with each built-in command, effect, REST route, page, hook and call of the link.

The rows come from the hub itself, so that what is added without saying whom it is for fails here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from parley.errors import CommandError, Denied, LinkError, PolicyError
from parley.language.decision import Speaker
from parley.language.grammar import parse_command
from parley.link.calls import Role as LinkRole
from parley.link.client import HubClient, role_token
from parley.messages.inbox import Received
from parley.messages.model import Assurance, ConversationKind, Message, Route, Sender, now
from parley.people import principals, tokens
from parley.people.principals import Principal, Role
from parley.people.tokens import TokenKind
from parley.processes.switchboard import Switchboard
from parley.runs import dead_letters
from parley.store import schema
from parley.store.ids import new_id
from parley.web.app import people_app
from parley.web.wire import API
from tests.hub.rooms import World, world_in

OWNER, OPERATOR, USER, AUDITOR, NONE = (role.value for role in Role)
SHIFT = "shift"
"""Somebody who is nothing but has a role of parley.toml."""

KNOWN = (OWNER, OPERATOR, USER, AUDITOR, NONE, SHIFT)
LEFT, NOBODY = "left", "nobody"
EVERYBODY = frozenset(KNOWN)
ROLES = {"web-shift": {"may": ["read", "write"], "automations": ["look", "change"]}}


@pytest.fixture
async def world(home: Path) -> AsyncIterator[World]:
    async with world_in(home, roles=ROLES) as living:
        yield living


async def people(world: World) -> dict[str, Principal]:
    """Somebody of each role, and somebody who has left."""

    async def make(conn: Any) -> dict[str, Principal]:
        found = {OWNER: await principals.get(conn, world.hub.owner_id)}
        for role in (OPERATOR, USER, AUDITOR, NONE):
            made = await principals.add_principal(conn, f"the-{role}", role=Role(role))
            found[role] = await principals.get(conn, made)
        made = await principals.add_principal(conn, "the-shift")
        await principals.give_role(conn, made, "web-shift")
        found[SHIFT] = await principals.get(conn, made)
        made = await principals.add_principal(conn, "the-left", role=Role.OWNER)
        found[LEFT] = await principals.get(conn, made)
        return found

    return await world.hub.store.write(make)


# -- built-in commands

COMMANDS: Mapping[str, tuple[str, frozenset[str], bool]] = {
    "help": ("/help", EVERYBODY, True),
    "start": ("/start", EVERYBODY, True),
    "status": ("/status", EVERYBODY, True),
    "runs": ("/runs all", frozenset({OWNER, AUDITOR}), False),
    "cancel": ("/cancel", EVERYBODY, True),
    "why": ("/why", EVERYBODY, True),
    "whoami": ("/whoami", EVERYBODY, True),
    "who": ("/who can change", EVERYBODY, False),
    "role": ("/role add owner web-shift", frozenset({OWNER}), False),
    "people": ("/people sync", frozenset({OWNER}), False),
    "link": ("/link", EVERYBODY, False),
    "invite": ("/invite Bea", frozenset({OWNER}), False),
    "yes": ("/yes 12345678", EVERYBODY, True),
    "no": ("/no 12345678", EVERYBODY, True),
    "answer": ("/answer 12345678", EVERYBODY, True),
    "take": ("/take 12345678", EVERYBODY, True),
    "ack": ("/ack change", frozenset({OWNER, OPERATOR}), False),
    "silence": ("/silence change", frozenset({OWNER, OPERATOR}), False),
    "standing": ("/standing allow change host=* for=x", frozenset({OWNER}), False),
    "dlq": ("/dlq list", frozenset({OWNER, OPERATOR, AUDITOR}), False),
    "follow": ("/follow octo/app", frozenset({OWNER, OPERATOR, USER}), False),
    "unfollow": ("/unfollow octo/app", frozenset({OWNER, OPERATOR, USER}), False),
    "following": ("/following", frozenset({OWNER, OPERATOR, USER}), True),
    "approvals": ("/approvals", EVERYBODY, True),
    "lock": ("/lock change because", frozenset({OWNER, OPERATOR, SHIFT}), False),
    # What these lead to is decided as it is written: `test_every_role_with_what_is_decided_as_it_is_written`.
    "approve": ("/approve ABCD", EVERYBODY, True),
    "refuse": ("/refuse ABCD", EVERYBODY, True),
    "delegate": ("/delegate the-user 1h", EVERYBODY, False),
    "unlock": ("/unlock change", EVERYBODY, False),
    "sessions": ("/sessions", EVERYBODY, False),
}
"""What is typed, whom it is for, and whether it is for those too whom the platform only claims to know."""


async def is_denied(world: World, text: str, who: Principal, assurance: Assurance) -> bool:
    route = Route(account="slack", conversation="D1", kind=ConversationKind.DIRECT)
    message = Message(
        account="slack", native_id="1", sender=Sender(id="1", assurance=assurance), route=route, text=text
    )
    received = Received(
        id="1",
        event=message,
        conversation_id="1",
        principal_id=None,
        acting_for_id=None,
        received_at=now(),
        expires_at=now(),
    )
    command = parse_command(text)
    assert command is not None
    try:
        await world.hub.reception._builtins.run(command, received, Speaker(who, assurance, "en", "slack:D1"))
    except Denied:
        return True
    except (CommandError, PolicyError):
        return False
    return False


async def test_every_role_with_every_built_in_command(world: World) -> None:
    verbs = set(world.hub.reception._builtins._verbs)
    assert verbs == set(COMMANDS), "a built-in command says here whom it is for"
    who = await people(world)
    wrong = []
    for name, (text, whose, claimed) in COMMANDS.items():
        for role in KNOWN:
            for assurance in Assurance:
                free = role in whose and (claimed or assurance is Assurance.VERIFIED)
                if await is_denied(world, text, who[role], assurance) == free:
                    wrong.append((name, role, assurance.value, "allowed" if not free else "denied"))
    assert not wrong, "\n".join(map(str, wrong))


async def told(world: World, who: Principal, text: str, *, claimed: bool = False) -> None:
    """Somebody says it, at the console or where nobody vouches for who writes, and all of it is done."""
    if claimed:
        place = f"post:{who.name}"
        await world.platforms.say(
            place, text, person=who.name, addressed=True, claimed=True, kind=ConversationKind.MAIL
        )
    else:
        await world.hub.front.say(who, text)
    await world.settled()


async def test_every_role_with_what_is_decided_as_it_is_written(world: World) -> None:
    """Only the owner, and only where it is proven: approves, refuses, lends that right, and ends others' locks."""
    who = await people(world)
    asker = await world.person("asker", Role.OPERATOR)
    for role in KNOWN:
        await world.link_claimed(who[role], "post", who[role].name)

    async def newest(table: sa.Table) -> Any:
        return (await world.rows(table))[-1]

    wrong = []
    for role, claimed in [(role, claimed) for role in reversed(KNOWN) for claimed in (True, False)]:
        free = role == OWNER and not claimed
        for verb, state in (("approve", "granted"), ("refuse", "refused")):
            await told(world, asker, "/harm")
            asked = await newest(schema.approval)
            await told(world, who[role], f"/{verb} {asked.code}", claimed=claimed)
            if (await newest(schema.approval)).state != (state if free else "open"):
                wrong.append((verb, role, claimed))
            if not free:
                await told(world, who[OWNER], f"/refuse {asked.code}")
        before = len(await world.rows(schema.delegation))
        await told(world, who[role], f"/delegate {who[NONE].name} 1h", claimed=claimed)
        if (len(await world.rows(schema.delegation)) > before) != free:
            wrong.append(("delegate", role, claimed))
        await told(world, who[OWNER], "/lock change because")
        await told(world, who[role], "/unlock change", claimed=claimed)
        if ((await newest(schema.freeze)).ended_at is not None) != free:
            wrong.append(("unlock", role, claimed))
        await told(world, who[OWNER], "/unlock change")
    assert not wrong


# -- effects, as they are asked for in the chat

LINES = {"look": "/look n=1", "change": "/change host=web1", "harm": "/harm"}
MAY = {
    "look": {OWNER, OPERATOR, USER, SHIFT},
    "change": {OWNER, OPERATOR, SHIFT},
    "harm": {OWNER, OPERATOR},
}
"""Who may ask for it; for what is dangerous it waits for somebody's approval."""


async def test_every_role_with_every_effect(world: World) -> None:
    catalogue = world.hub.catalogue
    assert {spec.effect for name in MAY if (spec := catalogue.find(name))} == {
        spec.effect for spec in catalogue
    }
    who = await people(world)
    for name, allowed in MAY.items():
        for role in KNOWN:
            shown = {spec.command for spec in world.hub.front.automations(who[role])}
            assert (name in shown) == (role in allowed), (name, role)

            accepted = await world.hub.front.say(who[role], LINES[name])
            await world.hub.intake_is_empty()
            (row,) = await world.rows(schema.request, message_id=accepted.id)
            asked = "awaiting-approval" if name == "harm" else "queued"
            assert row.state == (asked if role in allowed else "refused"), (name, role)


# -- REST, pages and hooks

LOGGED_IN = {NOBODY: 401, LEFT: 401}
"""For everybody who is logged in, and for nobody else."""

Row = tuple[dict[str, Any], dict[str, int], int]
"""What is sent; answers by role where they differ; the answer for the others."""

OWN_ONLY = {**LOGGED_IN, OWNER: 200, AUDITOR: 200}
REST: Mapping[tuple[str, str], Row] = {
    ("POST", "/messages"): ({"json": {"text": "/help"}}, LOGGED_IN, 202),
    ("POST", "/actions"): ({"json": {"value": "/no 12345678"}}, LOGGED_IN, 202),
    ("GET", "/messages/{message_id}"): ({}, OWN_ONLY, 404),
    ("GET", "/messages/{message_id}/replies/{reply_id}/files/{index}"): ({}, LOGGED_IN, 404),
    ("GET", "/console/replies/{reply_id}/files/{index}"): ({}, LOGGED_IN, 404),
    ("GET", "/automations"): ({}, LOGGED_IN, 200),
    ("POST", "/automations/{name}/runs"): (
        {"json": {"host": "web1"}},
        {**LOGGED_IN, OWNER: 202, OPERATOR: 202, SHIFT: 202},
        404,
    ),
    ("GET", "/runs"): ({}, LOGGED_IN, 200),
    ("POST", "/runs/{request_id}/cancel"): ({}, {**LOGGED_IN, OWNER: 202}, 404),
    ("POST", "/events"): (
        {"json": {"topic": "shop.sold", "title": "sold"}},
        {**LOGGED_IN, OWNER: 204, OPERATOR: 204},
        403,
    ),
    ("GET", "/events"): ({"params": {"topic": "shop.#"}}, {**LOGGED_IN, OWNER: 200, OPERATOR: 200}, 403),
    ("GET", "/dead-letters"): ({}, {**LOGGED_IN, OWNER: 200, OPERATOR: 200, AUDITOR: 200}, 403),
    ("GET", "/dead-letters/{letter_id}"): (
        {},
        {**LOGGED_IN, OWNER: 200, OPERATOR: 200, AUDITOR: 200},
        403,
    ),
    ("POST", "/dead-letters/{letter_id}/replay"): (
        {"json": {}},
        {**LOGGED_IN, OWNER: 400, OPERATOR: 400},
        403,
    ),
    ("POST", "/dead-letters/{letter_id}/discard"): ({}, {**LOGGED_IN, OWNER: 200, OPERATOR: 200}, 403),
    ("GET", "/audit"): ({}, {**LOGGED_IN, OWNER: 200, AUDITOR: 200}, 403),
    ("GET", "/approvals"): ({}, LOGGED_IN, 200),
    ("GET", "/sessions"): ({}, LOGGED_IN, 200),
    ("DELETE", "/sessions/{session_id}"): ({}, LOGGED_IN, 404),
    ("GET", "/status"): ({}, {**LOGGED_IN, OWNER: 200, OPERATOR: 200, AUDITOR: 200}, 403),
    ("GET", "/me"): ({}, LOGGED_IN, 200),
}
PAGES: Mapping[tuple[str, str], int] = {
    ("GET", f"{API}/openapi.json"): 200,
    ("GET", "/healthz"): 200,
    ("GET", "/readyz"): 503,
    ("GET", "/"): 303,
    ("GET", "/login"): 200,
    ("POST", "/login"): 403,
    ("POST", "/logout"): 403,
    ("POST", "/login/passkey/options"): 403,
    ("POST", "/login/passkey"): 403,
    ("POST", "/login/provider/{name}"): 403,
    ("GET", "/login/provider/{name}/callback"): 303,
    ("POST", "/login/provider/{name}/logout"): 400,
    ("POST", "/account/providers/{name}"): 403,
    ("DELETE", "/account/providers/{name}"): 403,
    ("GET", "/account"): 303,
    ("GET", "/account/state"): 401,
    ("POST", "/account/password"): 403,
    ("DELETE", "/account/password"): 403,
    ("POST", "/account/passkeys/options"): 403,
    ("POST", "/account/passkeys"): 403,
    ("DELETE", "/account/passkeys/{passkey_id}"): 403,
    ("GET", "/ws"): 404,
    ("GET", "/static"): 307,
}
"""What a bearer token makes no difference to: pages go by the browser's session, and only from our own page."""


def declared(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for route in routes:
        path = getattr(route, "path", None)
        if path is None:
            # A router that was included: FastAPI keeps it as it was, with what it was included under.
            inner = route.original_router
            yield from declared(inner.routes, prefix + route.include_context.prefix)
        else:
            methods = getattr(route, "methods", None) or {"GET"}
            yield from ((method, prefix + path) for method in methods if method != "HEAD")


@pytest.fixture
async def web(world: World) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, str]]]:
    """The people's port, and everybody's token."""
    who = await people(world)

    async def issue(conn: Any) -> dict[str, str]:
        found = {role: await tokens.issue(conn, one.id, TokenKind.BEARER) for role, one in who.items()}
        await principals.disable(conn, who[LEFT].id)
        return found

    secrets = await world.hub.store.write(issue)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{world.hub.settings.port}", timeout=20
    ) as client:
        yield client, secrets


async def dead_letter(world: World) -> str:
    """One more, of a message that is gone: it can be looked at and closed, and not be handled again."""
    subject = f"message:{new_id()}"
    await world.hub.store.write(lambda conn: dead_letters.record(conn, "message", subject, "gone"))
    (row,) = await world.rows(schema.dead_letter, subject=subject)
    return str(row.id)


async def test_every_role_with_every_route(
    world: World, web: tuple[httpx.AsyncClient, dict[str, str]]
) -> None:
    client, secrets = web
    routes = set(declared(people_app(world.hub.front, world.hub.settings).routes))
    assert routes == {(method, f"{API}{path}") for method, path in REST} | set(PAGES)
    owner = await world.principal(world.hub.owner_id)
    accepted = await world.hub.front.say(owner, "/change web1")
    await world.hub.intake_is_empty()
    (asked,) = await world.rows(schema.request)
    place = {
        "message_id": accepted.id,
        "name": "change",
        "index": "0",
        "request_id": asked.id,
        "session_id": new_id(),
    }
    wrong = []
    for (method, path), (sent, answers, others) in REST.items():
        # The owner last: what they end nobody else could have ended.
        for role in (NOBODY, LEFT, *reversed(KNOWN)):
            headers = {"authorization": f"Bearer {secrets.get(role, 'parley_wrong')}"}
            names = {"reply_id": "12345678", "letter_id": await dead_letter(world)} | place
            said = await client.request(method, f"{API}{path.format(**names)}", headers=headers, **sent)
            if said.status_code != answers.get(role, others):
                wrong.append((method, path, role, said.status_code, said.text[:80]))
    assert not wrong, "\n".join(map(str, wrong))


async def test_everybody_sees_their_own_runs_and_some_see_all(
    world: World, web: tuple[httpx.AsyncClient, dict[str, str]]
) -> None:
    client, secrets = web
    owner = await world.principal(world.hub.owner_id)
    await world.hub.front.say(owner, "/look 1")
    await world.hub.intake_is_empty()
    for role in KNOWN:
        said = await client.get(f"{API}/runs", headers={"authorization": f"Bearer {secrets[role]}"})
        assert bool(said.json()["items"]) == (role in (OWNER, AUDITOR)), role


async def test_a_token_makes_no_difference_to_pages(
    world: World, web: tuple[httpx.AsyncClient, dict[str, str]]
) -> None:
    client, secrets = web
    for role in (NOBODY, *secrets):
        headers = {} if role == NOBODY else {"authorization": f"Bearer {secrets[role]}"}
        for (method, path), status in PAGES.items():
            if role == NOBODY or method == "GET":
                said = await client.request(method, path, headers=headers)
                assert said.status_code == status, (method, path, role)


async def test_no_role_opens_a_hook(world: World, web: tuple[httpx.AsyncClient, dict[str, str]]) -> None:
    """The account's own connector decides about a hook, by its signature; who calls is nobody to us."""
    _, secrets = web
    base = f"http://127.0.0.1:{world.hub.settings.hooks_port}"
    async with httpx.AsyncClient(base_url=base, timeout=20) as client:
        for role in (NOBODY, *secrets):
            headers = {} if role == NOBODY else {"authorization": f"Bearer {secrets[role]}"}
            for method in ("GET", "POST"):
                said = await client.request(method, "/hooks/nothing", headers=headers)
                assert said.status_code == 404, (method, role)
            for path in ("/", f"{API}/me", f"{API}/runs", "/login", "/ws"):
                assert (await client.get(path, headers=headers)).status_code == 404, (path, role)


# -- the link

RUN_CALLS = {"prove", "start", "beat", "say", "ask", "finish", "log_action", "publish", "open_run_secret"}
CALLS: Mapping[LinkRole, set[str]] = {
    LinkRole.RUN: RUN_CALLS,
    LinkRole.WORKER: RUN_CALLS | {"publish_catalogue", "run_ended", "holding", "register"},
    LinkRole.CONTAINERS: {"register", "run_ended"},
    LinkRole.LISTENERS: {"accept", "held_accounts", "open_secret", "seal_secret", "account_state"},
    LinkRole.COMMAND_LINE: {"admin"},
}


class _Peer:
    """All that the switchboard asks a peer."""

    def __init__(self, role: LinkRole) -> None:
        self.role = role


async def test_every_kind_of_process_with_every_call(world: World) -> None:
    board = Switchboard(world.hub)
    assert {role: set(board.handlers(_Peer(role))) for role in LinkRole} == CALLS  # type: ignore[arg-type]
    every = sorted(set().union(*CALLS.values()))
    for role, calls in CALLS.items():
        secret = "" if role is LinkRole.RUN else role_token(world.hub.settings, role)
        async with HubClient(f"unix:{world.hub.settings.socket}", role, secret) as client:
            for name in every:
                if name not in calls:
                    with pytest.raises(LinkError, match="no call"):
                        await client.call(name, {}, timeout=10)


async def test_nobody_is_a_process_without_its_token(world: World) -> None:
    for role in LinkRole:
        if role is not LinkRole.RUN:
            other = next(one for one in LinkRole if one not in (role, LinkRole.RUN))
            with pytest.raises((LinkError, Denied)):
                async with HubClient(
                    f"unix:{world.hub.settings.socket}", role, role_token(world.hub.settings, other)
                ) as client:
                    await client.call("admin", {}, timeout=10)
    query = sa.select(sa.func.count()).select_from(schema.audit).where(schema.audit.c.actor == "command line")

    async def count(conn: Any) -> int:
        return int((await conn.execute(query)).scalar_one())

    assert await world.hub.store.read(count) == 0
