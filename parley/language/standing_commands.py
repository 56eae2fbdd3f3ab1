"""`/standing`: what the owner allows beforehand, given, listed and revoked in the chat.

/standing
/standing allow repair script=restart-service host="web*" for=alertmanager rate=3/h until=30d
/standing revoke 1a2b3c4d
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied
from parley.language.characters import Language
from parley.language.decision import Decision, Speaker
from parley.language.grammar import Command
from parley.language.names import unknown_command
from parley.messages.inbox import Received
from parley.messages.model import Assurance, Reply, Table, now
from parley.people import standing
from parley.people.audit import Audit
from parley.people.principals import PrincipalKind, Role
from parley.runs.catalogue import AutomationSpec, Catalogue
from parley.runs.requests import QueuedRun, short
from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import new_id

LONGEST: Final = timedelta(days=365)
"""A standing approval ends: whoever gave it looks at it again at least once a year."""

LONGEST_RATE: Final = timedelta(days=90)
"""Starts are counted as long as requests are kept, which is no less than this (`[retention] keys_days`)."""

_RESERVED: Final = ("for", "rate", "until")
_DURATION: Final = re.compile(r"(\d{1,4})?\s*(m|h|d)", re.ASCII)
_UNITS: Final[Mapping[str, timedelta]] = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_IN_CHINESE: Final[Mapping[str, str]] = {"m": "分钟", "h": "小时", "d": "天"}
_GLOB: Final = re.compile(r"[*?\[]")

_COLUMNS: Final[Mapping[Language, tuple[str, ...]]] = {
    "en": ("id", "who", "may run", "rate", "until (UTC)", "given by"),
    "zh": ("编号", "对象", "可运行", "频率", "有效期至（UTC）", "批准人"),
}

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "none": ("There is no standing approval in force.", "当前没有有效的长期批准。"),
    "given": (
        (
            "Standing approval `{id}`: {principal} may run {what} by itself, {rate}, until {until}. "
            "A change of what it runs ends it; `/standing revoke {id}` does so at once."
        ),
        (
            "长期批准 `{id}`：{principal} 可自动运行 {what}，{rate}，有效期至 {until}。"
            "所运行的内容一旦变更即失效；`/standing revoke {id}` 可立即撤销。"
        ),
    ),
    "rate": ("at most {most} times in {per}", "每 {per}最多 {most} 次"),
    "revoked": ("Standing approval `{id}` is revoked.", "长期批准 `{id}` 已撤销。"),
    "unknown": ("There is no standing approval `{id}` in force.", "没有有效的长期批准 `{id}`。"),
    "owner": (
        "Only the owner gives and revokes standing approvals, where the platform vouches for who is writing.",
        "只有所有者可以给予或撤销长期批准，且须在能够证明身份的渠道中进行。",
    ),
    "usage": (
        (
            "Write `/standing`, `/standing allow COMMAND parameter=pattern … for=NAME rate=3/h until=30d` "
            "or `/standing revoke ID`."
        ),
        "请写 `/standing`、`/standing allow 命令 参数=模式 … for=名称 rate=3/h until=30d` 或 `/standing revoke 编号`。",
    ),
    "for": (
        "Say for which service: `for=NAME`, as its account is called. There is no service {name}.",
        "请说明对象服务：`for=名称`（即其账号名）。没有名为 {name} 的服务。",
    ),
    "pattern": (
        "{name}: give it a pattern, as in `{name}=…`; what has none is not covered.",
        "{name}：请给出模式，例如 `{name}=…`；没有模式的参数不在批准范围内。",
    ),
    "unmatched": (
        "{name}: nothing that it may be fits `{pattern}`.",
        "{name}：没有任何可选值符合 `{pattern}`。",
    ),
    "exact": (
        "{name}: name one of {choices}. Its version is part of the approval, so a pattern will not do.",
        "{name}：请指定 {choices} 之一。批准与其版本绑定，因此不能使用模式。",
    ),
    "parameter": ("/{command} has no parameter {name}.", "/{command} 没有参数 {name}。"),
    "sealed": (
        "{name} is a secret, and a pattern is kept readable: `{name}=*` or nothing.",
        "{name} 是机密，而模式会以明文保存：请写 `{name}=*` 或不写。",
    ),
    "bad-rate": (
        "`{text}` is no rate: write 3/h or 10/2d, at most 90 days.",
        "`{text}` 不是频率：请写 3/h 或 10/2d，最长 90 天。",
    ),
    "bad-until": (
        "`{text}` is no time: write 12h or 30d, at most a year.",
        "`{text}` 不是时长：请写 12h 或 30d，最长一年。",
    ),
}


class StandingCommands:
    """The built-in `/standing`."""

    def __init__(self, store: Store, audit: Audit, catalogue: Callable[[], Catalogue]) -> None:
        self._store = store
        self._audit = audit
        self._catalogue = catalogue

    async def run(self, command: Command, received: Received, speaker: Speaker) -> Decision:
        """Carry it out. Raises `CommandError` or `PolicyError`."""
        match command.positional:
            case ():
                return await self._list(speaker)
            case ("allow" | "grant", name):
                self._owner_alone(received, speaker)
                return await self._allow(name, command.named, speaker)
            case ("revoke" | "end", wanted):
                self._owner_alone(received, speaker)
                return await self._revoke(wanted, speaker)
        raise BadArguments(_text("usage", speaker.language))

    @staticmethod
    def _owner_alone(received: Received, speaker: Speaker) -> None:
        proven = speaker.assurance is Assurance.VERIFIED and received.acting_for_id is None
        if speaker.principal.role is not Role.OWNER or not proven:
            raise Denied(_text("owner", speaker.language))

    async def _list(self, speaker: Speaker) -> Decision:
        if speaker.principal.role not in (Role.OWNER, Role.OPERATOR, Role.AUDITOR):
            raise Denied(_text("owner", speaker.language))
        found = await self._store.read(standing.in_force)
        if not found:
            return Decision.answer(_text("none", speaker.language))
        rows = tuple(
            (
                short(one.id),
                one.principal,
                _what(one.terms),
                _rate(one.terms, speaker.language),
                f"{one.terms.expires_at:%Y-%m-%d %H:%M}",
                one.given_by,
            )
            for one in found
        )
        columns = _COLUMNS[speaker.language]
        return Decision(replies=[Reply(table=Table(columns=columns, rows=rows))])

    async def _allow(self, name: str, named: Mapping[str, str], speaker: Speaker) -> Decision:
        language = speaker.language
        spec = self._catalogue().find(name.lstrip("/"))
        if spec is None:
            raise unknown_command(name, self._catalogue().by_command(), language)
        patterns = {key: value for key, value in named.items() if key not in _RESERVED}
        _check_patterns(spec, patterns, language)
        most, per = _read_rate(named.get("rate", "3/h"), language)
        who = await self._principal(named.get("for", ""), language)
        terms = standing.Terms(
            automation=spec.command,
            version=spec.version_for(patterns),
            principal_id=who.id,
            patterns=patterns,
            most=most,
            per=per,
            expires_at=now() + _read_until(named.get("until", "30d"), language),
        )
        approval_id = new_id()

        async def give(conn: AsyncConnection) -> list[QueuedRun]:
            await standing.give(conn, terms, speaker.principal.id, approval_id)
            await self._note(conn, "standing-approval-given", approval_id, speaker, terms, who.name)
            return []

        values = {"id": short(approval_id), "principal": who.name, "what": _what(terms)}
        rate, until = _rate(terms, language), f"{terms.expires_at:%Y-%m-%d %H:%M} UTC"
        text = _text("given", language, rate=rate, until=until, **values)
        return Decision(replies=[Reply(text=text)], changes=[give])

    async def _revoke(self, wanted: str, speaker: Speaker) -> Decision:
        wanted = wanted.lower().strip("`").replace("-", "")
        found = await self._store.read(standing.in_force)
        one = next(
            (one for one in found if len(wanted) >= 8 and one.id.replace("-", "").endswith(wanted)), None
        )
        if one is None:
            return Decision.answer(_text("unknown", speaker.language, id=wanted[:36]))

        async def revoke(conn: AsyncConnection) -> list[QueuedRun]:
            if await standing.revoke(conn, one.id, speaker.principal.id):
                await self._note(conn, "standing-approval-revoked", one.id, speaker, one.terms, one.principal)
            return []

        text = _text("revoked", speaker.language, id=short(one.id))
        return Decision(replies=[Reply(text=text)], changes=[revoke])

    async def _principal(self, name: str, language: Language) -> sa.Row[tuple[str, str]]:
        table = schema.principal
        # People are asked, by an offer or by themselves; only what a service reports runs with nobody there.
        service = sa.and_(table.c.enabled, table.c.kind == PrincipalKind.SERVICE)
        query = sa.select(table.c.id, table.c.name).where(table.c.name == name, service)

        async def find(conn: AsyncConnection) -> sa.Row[tuple[str, str]] | None:
            return (await conn.execute(query)).first()

        found = await self._store.read(find)
        if found is None:
            raise BadArguments(_text("for", language, name=name or "-"))
        return found

    async def _note(
        self,
        conn: AsyncConnection,
        action: str,
        approval_id: str,
        speaker: Speaker,
        terms: standing.Terms,
        principal: str,
    ) -> None:
        details = {
            "for": principal,
            "automation": terms.automation,
            "version": terms.version,
            "rate": f"{terms.most}/{_duration_text(terms.per)}",
            "until": f"{terms.expires_at:%Y-%m-%dT%H:%MZ}",
        }
        await self._audit.record(
            conn,
            action=action,
            actor=speaker.principal.name,
            subject=f"standing:{approval_id}",
            details=details,
        )


def _check_patterns(spec: AutomationSpec, patterns: Mapping[str, str], language: Language) -> None:
    unknown = next((name for name in patterns if spec.parameter(name) is None), None)
    if unknown:
        raise BadArguments(_text("parameter", language, command=spec.command, name=unknown))
    for name, known in spec.revisions.items():
        if patterns.get(name) not in known:
            raise BadArguments(_text("exact", language, name=name, choices=", ".join(sorted(known))))
    for parameter in spec.parameters:
        pattern = patterns.get(parameter.name)
        if pattern is None and parameter.required:
            raise BadArguments(_text("pattern", language, name=parameter.name))
        if parameter.sealed and pattern not in (None, standing.ANYTHING):
            raise BadArguments(_text("sealed", language, name=parameter.name))
        choices = [str(choice) for choice in parameter.choices]
        if pattern and choices and not any(fnmatchcase(choice, pattern) for choice in choices):
            raise BadArguments(_text("unmatched", language, name=parameter.name, pattern=pattern))


def _read_rate(text: str, language: Language) -> tuple[int, timedelta]:
    most, _, per = text.strip().partition("/")
    found = _DURATION.fullmatch(per.strip())
    length = _UNITS[found[2]] * max(1, int(found[1] or 1)) if found else timedelta(0)
    times = int(most) if most.isascii() and most.isdigit() and len(most) < 6 else 0
    if not (0 < times <= 10_000 and timedelta(0) < length <= LONGEST_RATE):
        raise BadArguments(_text("bad-rate", language, text=text[:20]))
    return times, length


def _read_until(text: str, language: Language) -> timedelta:
    found = _DURATION.fullmatch(text.strip())
    length = _UNITS[found[2]] * int(found[1] or 1) if found else timedelta(0)
    if not timedelta(0) < length <= LONGEST:
        raise BadArguments(_text("bad-until", language, text=text[:20]))
    return length


def _what(terms: standing.Terms) -> str:
    given = " ".join(f"{name}={pattern}" for name, pattern in terms.patterns.items())
    return f"`/{terms.automation} {given}`".replace(" `", "`")


def _rate(terms: standing.Terms, language: Language) -> str:
    return _text("rate", language, most=terms.most, per=_duration_text(terms.per, language))


def _duration_text(length: timedelta, language: Language = "en") -> str:
    unit = next(unit for unit in ("d", "h", "m") if not length % _UNITS[unit])
    return f"{length // _UNITS[unit]} {_IN_CHINESE[unit] if language == 'zh' else unit}"


def _text(key: str, language: str, **values: object) -> str:
    return _TEXTS[key][language == "zh"].format(**values)
