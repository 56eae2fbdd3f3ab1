"""Built-in commands: those that need no automation and no run."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied
from parley.language.builtin_menu import by_place
from parley.language.characters import visible
from parley.language.dead_letter_commands import DeadLetterCommands
from parley.language.decision import Decision, Speaker
from parley.language.dialogue import Dialogue
from parley.language.following import FollowCommands
from parley.language.grammar import Command
from parley.language.help import MOST_LISTED, about, help_one, help_overview
from parley.language.linking_commands import LinkingCommands
from parley.language.names import unknown_command
from parley.language.offered import Offered
from parley.language.role_commands import RoleCommands
from parley.language.run_list import runs_table
from parley.language.standing_commands import StandingCommands
from parley.language.status_text import status_text
from parley.messages.inbox import Received
from parley.messages.model import Assurance, ConversationKind, Reply, now
from parley.messages.published import place_of
from parley.people import principals
from parley.people.audit import Audit
from parley.people.principals import Role
from parley.people.rights import Rights
from parley.runs import failures
from parley.runs.catalogue import Catalogue
from parley.runs.requests import OPEN, QueuedRun, short
from parley.runs.sentences import sentence
from parley.store import schema
from parley.store.engine import Store

Verb = Callable[[Command, Received, Speaker], Awaitable[Decision]]

_SUMMARIES = {
    "help": ("This list; `/help NAME` tells more about one.", "本列表；`/help 名称` 有更多说明。"),
    "status": ("How this installation is.", "本系统的状态。"),
    "runs": (
        "What you asked for lately; `/runs all`: everybody.",
        "您最近的请求；`/runs all` 显示所有人的。",
    ),
    "cancel": ("End a run of yours.", "结束您的一次运行。"),
    "why": ("Why something was refused or failed.", "某个请求为何被拒绝或失败。"),
    "whoami": ("Who you are here.", "您在这里的身份。"),
    "who": ("`/who can NAME`: who may run it.", "`/who can 名称`：谁可以运行。"),
    "link": ("Be known from another account of yours.", "关联您的另一个账号。"),
    "invite": ("Let somebody in.", "邀请他人加入。"),
    "role": ("Give somebody a role, or take it.", "授予或收回角色。"),
    "people": ("`/people sync`: ask the directory now.", "`/people sync`：立即同步目录。"),
    "follow": ("Be told here what happens in a repository.", "在此接收某个仓库的动态。"),
    "unfollow": ("Be told no more of a repository.", "不再接收某个仓库的动态。"),
    "following": ("Which repositories are followed here.", "此处关注的仓库。"),
    "dlq": ("What was not carried out or delivered.", "未能执行或送达的内容。"),
    "standing": ("What may run by itself, for how long.", "哪些操作可自动运行，有效多久。"),
    "approvals": ("What waits for you to approve, or for others.", "等待您或他人批准的请求。"),
    "delegate": ("Let somebody approve in your place.", "委托他人代您批准。"),
    "lock": ("Keep something from being started.", "锁定某些操作，使其不会启动。"),
    "unlock": ("Let it be started again.", "解除锁定。"),
    "sessions": (
        "Where you are signed in; `/sessions end all` ends it.",
        "您的登录会话；`/sessions end all` 全部结束。",
    ),
}

_FOR = {
    "dlq": (Role.OWNER, Role.OPERATOR, Role.AUDITOR),
    "standing": (Role.OWNER, Role.OPERATOR, Role.AUDITOR),
    "invite": (Role.OWNER,),
    "role": (Role.OWNER,),
    "people": (Role.OWNER,),
}
"""Built-in commands that are not for everybody, and whom they are for where the platform vouches for them."""

_LOOKS_AFTER = ("owner", "operator", "auditor")
"""Roles that `/status` tells how long things take."""

MOST_LOOKED_AT = 200
"""Of a person's own requests, the newest first, in which `/why` looks."""

_DURATION = re.compile(r"(\d{1,4})\s*(m|min|h|d)?", re.ASCII)


class Builtins:
    """`/help`, `/status`, `/runs`, `/cancel`, `/why`, `/whoami`, `/who`, `/link`, `/invite`, `/role`.

    Also `/ack`, `/silence`, `/standing`, `/dlq`, `/follow`, `/unfollow`, `/following`, and what buttons say: `/yes`,
    `/no`, `/answer` and `/take`.
    """

    def __init__(
        self,
        store: Store,
        dialogue: Dialogue,
        audit: Audit,
        following: FollowCommands,
        dead_letters: DeadLetterCommands,
        rights: Rights,
        linking: LinkingCommands,
        *,
        catalogue: Callable[[], Catalogue],
        status: Callable[[], Awaitable[dict[str, Any]]],
        ask_for_end: Callable[[AsyncConnection, str, str], Awaitable[None]],
        bring_to_end: Callable[[str, str], Awaitable[None]],
        more: Mapping[str, Verb],
    ) -> None:
        self._store = store
        self._dialogue = dialogue
        self._audit = audit
        self._catalogue = catalogue
        self._offered = Offered(catalogue, rights)
        roles = RoleCommands(store, audit, rights, self._offered, catalogue=catalogue)
        self._status = status
        self._ask_for_end = ask_for_end
        self._bring_to_end = bring_to_end
        self._verbs: dict[str, Verb] = {
            "help": self._help,
            "start": self._help,
            "status": self._show_status,
            "runs": self._runs,
            "cancel": self._cancel_run,
            "why": self._why,
            "whoami": self._whoami,
            "who": roles.who,
            "role": roles.role,
            "link": linking.link,
            "invite": linking.invite,
            "yes": self._yes,
            "no": self._no,
            "answer": self._answer,
            "take": self._take,
            "ack": self._ack,
            "silence": self._silence,
            "standing": StandingCommands(store, audit, catalogue).run,
            "dlq": dead_letters.run,
            "follow": following.follow,
            "unfollow": following.unfollow,
            "following": following.following,
            **more,
        }

    def has(self, name: str) -> bool:
        """Whether this is a built-in command."""
        return name in self._verbs

    async def run(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """Carry out a built-in command. Raises `CommandError`."""
        return await self._verbs[command.name](by_place(command), received, speaker)

    async def _help(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        offer = self._offered.to(speaker)
        if not command.positional:
            overview = help_overview(
                offer.specs.values(), speaker.language, _summaries(speaker), most=MOST_LISTED
            )
            return Decision(replies=[overview])
        name = command.positional[0].lstrip("/")
        spec = offer.specs.get(name.replace("_", "-")) or offer.specs.get(name)
        if spec is not None:
            return Decision(replies=[help_one(spec, speaker.language)])
        found = about(" ".join(command.positional), offer.specs.values(), most=MOST_LISTED)
        if not found:
            raise unknown_command(name, offer.names, speaker.language)
        return Decision(replies=[help_overview(found, speaker.language)])

    async def _show_status(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        details = speaker.principal.role in _LOOKS_AFTER and speaker.assurance is Assurance.VERIFIED
        lines = [status_text(await self._status(), speaker.language, details=details)]
        broken = self._catalogue().broken
        if broken and speaker.principal.role == "owner":
            lines += [f"{one.source}: {one.reason}" for one in broken]
        return Decision.answer("\n".join(lines))

    async def _runs(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        everybody = command.positional[:1] in (("all",), ("全部",))
        if everybody and not _sees_all(speaker):
            raise Denied(sentence("runs-all", speaker.language))
        table, who = schema.request, schema.principal
        query = (
            sa.select(table, who.c.name.label("actor"))
            .outerjoin(who, who.c.id == table.c.actor_id)
            .order_by(table.c.id.desc())
            .limit(10)
        )
        if not everybody:
            query = query.where(table.c.actor_id == speaker.principal.id)
        rows = await self._store.read(lambda conn: _all(conn, query))
        if not rows:
            return Decision.answer(sentence("no-runs", speaker.language))
        return Decision(replies=[Reply(table=runs_table(rows, speaker.language, actors=everybody))])

    async def _cancel_run(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        row = await self._mine(command, received, speaker)
        if row is None:
            key = "no-such-run" if command.positional else "nothing-to-cancel"
            return Decision.answer(sentence(key, speaker.language, id=" ".join(command.positional)))

        async def ask_for_end(conn: AsyncConnection) -> list[QueuedRun]:
            await self._ask_for_end(conn, row.id, speaker.principal.name)
            return []

        async def bring_to_end() -> None:
            await self._bring_to_end(row.id, speaker.principal.name)

        text = sentence("cancel-requested", speaker.language, command=row.automation)
        return Decision(replies=[Reply(text=text)], changes=[ask_for_end], afterwards=[bring_to_end])

    async def _mine(self, command: Command, received: Received, speaker: Speaker) -> Any:
        table = schema.request
        query = sa.select(table).where(table.c.state.in_(OPEN)).order_by(table.c.created_at.desc()).limit(1)
        if command.positional:
            wanted = command.positional[0].lower().replace("-", "")
            if not wanted.isalnum() or len(wanted) < 4:
                return None
            query = query.where(table.c.id.like(f"%{wanted}"))
        verified = speaker.assurance is Assurance.VERIFIED
        if not (verified and command.positional and speaker.principal.role == "owner"):
            query = query.where(table.c.actor_id == speaker.principal.id)
        if not (verified and command.positional):
            # Whoever only claims to be this person reaches no further than this very thread.
            query = query.where(table.c.conversation_id == received.conversation_id)
        return await self._store.read(lambda conn: _first(conn, query))

    async def _why(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        table = _newest_of(speaker.principal.id)
        query = sa.select(table).order_by(table.c.id.desc()).limit(1)
        if command.positional:
            wanted = command.positional[0].lower().replace("-", "")
            if not wanted.isalnum():
                return Decision.answer(sentence("no-such-run", speaker.language, id=command.positional[0]))
            query = query.where(table.c.id.like(f"%{wanted}"))
        else:
            here = table.c.conversation_id == received.conversation_id
            query = query.where(here, table.c.state.in_(("refused", "failed", "cancelled", "expired")))
        row = await self._store.read(lambda conn: _first(conn, query))
        if row is None:
            return Decision.answer(sentence("nothing-refused", speaker.language))
        return Decision.answer(
            sentence(
                "why",
                speaker.language,
                command=row.automation,
                id=short(row.id),
                state=row.state,
                reason=row.reason or "-",
            )
        )

    async def _whoami(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        event, person = received.event, speaker.principal
        who = f"{person.name} ({', '.join((person.role, *person.roles))})"
        place = f"{event.account}:{event.sender.id}"
        here = "此处" if speaker.language == "zh" else "here"
        lines = [f"{who} · `{place}` ({speaker.assurance}) · {here}: `{place_of(event.route)}`"]
        if speaker.assurance is Assurance.VERIFIED and event.route.kind == ConversationKind.DIRECT:
            # In a room the others would read it.
            known = await self._store.read(lambda conn: principals.identities(conn, person.id))
            lines += [f"- `{visible(f'{account}:{user}', 200)}`" for account, user, _verified in known]
        return Decision.answer("\n".join(lines))

    async def _yes(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        return await self._confirm(command, received, speaker, yes=True)

    async def _no(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        return await self._confirm(command, received, speaker, yes=False)

    async def _confirm(
        self, command: Command, received: Received, speaker: Speaker, *, yes: bool
    ) -> Decision:
        if not command.positional:
            word = "yes" if yes else "no"
            answered = await self._dialogue.answer(received, speaker, word)
            return answered or Decision.answer(sentence("nothing-open", speaker.language))
        return await self._dialogue.confirm_by_id(command.positional[0], received, speaker, yes=yes)

    async def _answer(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        if not command.positional:
            return Decision.answer(sentence("nothing-open", speaker.language))
        return await self._dialogue.answer_by_id(command.positional[0], command.named, received, speaker)

    async def _take(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        if not command.positional:
            return Decision.answer(sentence("nothing-open", speaker.language))
        return await self._dialogue.take(command.positional[0], received, speaker)

    async def _ack(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        name = self._alerted(command, speaker)
        text = sentence("acknowledged", speaker.language, command=name, name=speaker.principal.name)

        async def acknowledge(conn: AsyncConnection) -> list[QueuedRun]:
            if await failures.acknowledge(conn, name, speaker.principal.name):
                await self._note(conn, "alert-acknowledged", name, speaker)
            return []

        open_ones = await self._store.read(failures.alerting)
        if name not in {row.automation for row in open_ones}:
            return Decision.answer(sentence("no-alert", speaker.language, command=name))
        return Decision(replies=[Reply(text=text)], changes=[acknowledge])

    async def _silence(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        name = self._alerted(command, speaker)
        until = now() + _duration(command.positional[1] if len(command.positional) > 1 else "1h")

        async def silence(conn: AsyncConnection) -> list[QueuedRun]:
            await failures.silence(conn, name, until)
            await self._note(conn, "alert-silenced", name, speaker, until=f"{until:%Y-%m-%dT%H:%MZ}")
            return []

        text = sentence("silenced", speaker.language, command=name, until=f"{until:%Y-%m-%d %H:%M}")
        return Decision(replies=[Reply(text=text)], changes=[silence])

    def _alerted(self, command: Command, speaker: Speaker) -> str:
        if not command.positional:
            raise BadArguments(f"Write which one: `/{command.name} NAME`.")
        if speaker.principal.role not in ("owner", "operator") or speaker.assurance is not Assurance.VERIFIED:
            raise Denied("Alerts are handled by operators and the owner.")
        name = command.positional[0].lstrip("/")
        spec = self._catalogue().find(name)
        if spec is None:
            raise unknown_command(name, self._catalogue().by_command(), speaker.language)
        return spec.command

    async def _note(
        self, conn: AsyncConnection, action: str, name: str, speaker: Speaker, **details: str
    ) -> None:
        await self._audit.record(
            conn,
            action=action,
            actor=speaker.principal.name,
            subject=f"automation:{name}",
            details=details,
        )


def _newest_of(actor_id: str) -> Any:
    # Ids grow with time. Whoever asked for more than these does not have them all looked through for one answer.
    table = schema.request
    newest = (
        sa.select(table).where(table.c.actor_id == actor_id).order_by(table.c.id.desc()).limit(MOST_LOOKED_AT)
    )
    return newest.subquery()


def _summaries(speaker: Speaker) -> dict[str, str]:
    return {
        name: texts[speaker.language == "zh"] for name, texts in _SUMMARIES.items() if _is_for(speaker, name)
    }


def _is_for(speaker: Speaker, name: str) -> bool:
    if name not in _FOR:
        return True
    return speaker.principal.role in _FOR[name] and speaker.assurance is Assurance.VERIFIED


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise BadArguments(f"`{text[:20]}` is not a duration: write 30m, 2h or 1d.")
    amount, unit = int(found[1]), found[2] or "m"
    return min(
        timedelta(days=30),
        {
            "m": timedelta(minutes=1),
            "min": timedelta(minutes=1),
            "h": timedelta(hours=1),
            "d": timedelta(days=1),
        }[unit]
        * amount,
    )


def _sees_all(speaker: Speaker) -> bool:
    return speaker.principal.role in ("owner", "auditor") and speaker.assurance is Assurance.VERIFIED


async def _first(conn: AsyncConnection, query: Any) -> Any:
    return (await conn.execute(query)).first()


async def _all(conn: AsyncConnection, query: Any) -> Any:
    return (await conn.execute(query)).all()


__all__ = ["Builtins"]
