"""Roles of parley.toml: what each may ask for, where and when, and what it may not. Values only; policy.py decides.

Everything that a line names has to fit; what it does not name is free. So a line without any condition fits always.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from parley.people.patterns import matches, may_match
from parley.runs.catalogue import AutomationSpec, Effect

MOST_ROLES: Final = 200
"""Roles in one file."""

BUILT_IN: Final = ("owner", "operator", "user", "auditor", "none")
"""The roles that are there without a file, as `parley.people.principals.Role` has them."""

_CLOCK: Final = re.compile(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)", re.ASCII)
_DAY: Final = timedelta(days=1)


class Day(StrEnum):
    """A day of the week, the first one Monday."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


_DAYS: Final = tuple(Day)


def listed(value: Any) -> Any:
    """One value as a list of one; for values of parley.toml that may be either."""
    return value if isinstance(value, list | tuple) else (value,)


def _written(value: Any) -> Any:
    # TOML has numbers and truth values; they are compared as JSON writes them.
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _hours(text: str) -> str:
    found = _CLOCK.fullmatch(text)
    begin, end = text.split("-") if found else ("", "")
    if found is None or begin == end or begin >= "24:00" or end > "24:00":
        raise ValueError(f"{text!r} are no hours: write 08:00-18:00, or 22:00-06:00 for a night.")
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, ZoneInfoNotFoundError):
        raise ValueError(f"{name!r} is no time zone: write one such as Europe/Berlin.") from None
    return name


def _place(text: str) -> str:
    account, _, conversation = text.partition(":")
    if not account or not conversation:
        raise ValueError(f"{text!r} is no conversation: write account:conversation, as in wecom:ops.")
    return text


def _free(name: str) -> str:
    if name in BUILT_IN:
        raise ValueError(f"{name!r} is a role of ours already: call it otherwise.")
    return name


_Text = Annotated[str, BeforeValidator(_written), Field(min_length=1, max_length=1000)]
_Globs = Annotated[tuple[_Text, ...], BeforeValidator(listed), Field(max_length=1000)]
_Needed = Annotated[tuple[_Text, ...], BeforeValidator(listed), Field(min_length=1, max_length=1000)]

RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$"), AfterValidator(_free)]
"""How a role of parley.toml may be called."""


class Conditions(BaseModel):
    """What a line is about. `parameters`: globs by name, that every value given has to fit, or the default else.

    `accounts` and `conversations` are where it was asked; `hours` and `days` when, in `time_zone`. A night that begins
    on one of the days counts to its end.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    automations: _Globs = ()
    parameters: Annotated[Mapping[str, _Needed], Field(max_length=100)] = Field(default_factory=dict)
    accounts: _Globs = ()
    conversations: Annotated[
        tuple[Annotated[str, AfterValidator(_place)], ...], BeforeValidator(listed), Field(max_length=1000)
    ] = ()
    hours: Annotated[
        tuple[Annotated[str, AfterValidator(_hours)], ...], BeforeValidator(listed), Field(max_length=50)
    ] = ()
    days: Annotated[tuple[Day, ...], BeforeValidator(listed)] = ()
    time_zone: Annotated[str, AfterValidator(_zone)] | None = None

    def covers(self, automation: str) -> bool:
        """Whether the automation of this command is meant."""
        return not self.automations or any(fnmatchcase(automation, glob) for glob in self.automations)

    def is_here(self, place: str | None) -> bool:
        """Whether this place, `account:conversation`, is meant; what was asked nowhere is in no place that is named."""
        if not self.accounts and not self.conversations:
            return True
        if place is None:
            return False
        account = place.partition(":")[0]
        named = not self.accounts or any(fnmatchcase(account, glob) for glob in self.accounts)
        return named and (not self.conversations or place in self.conversations)

    def is_now(self, at: datetime, time_zone: str) -> bool:
        """Whether this moment is meant, by the clock of `time_zone` where the line names none."""
        if not self.hours and not self.days:
            return True
        local = at.astimezone(ZoneInfo(self.time_zone or time_zone))
        return any(self._is_within(local, window) for window in self.hours or ("00:00-24:00",))

    def _is_within(self, local: datetime, window: str) -> bool:
        begin, end = (_clock(text) for text in window.split("-"))
        moment = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second)
        if begin < end:
            return begin <= moment < end and self._is_on(local)
        # Over midnight: what is left of the night belongs to the day on which it began.
        return (begin <= moment and self._is_on(local)) or (moment < end and self._is_on(local - _DAY))

    def _is_on(self, local: datetime) -> bool:
        return not self.days or _DAYS[local.weekday()] in self.days

    def fits(self, values: Mapping[str, Any] | None) -> bool:
        """Whether the values are meant, as `meant` gives them; what is not known yet may still fit.

        A list fits when all that is in it does. An automation without such a parameter has nothing that could fit ill.
        """
        if values is None:
            return True
        return all(_fits(globs, values[name]) for name, globs in self.parameters.items() if name in values)


class Deny(Conditions):
    """What nobody with the role may do, whatever else they are; the owner may. `effects`: all, where none is named."""

    effects: Annotated[tuple[Effect, ...], BeforeValidator(listed)] = ()

    def concerns(self, effect: Effect) -> bool:
        """Whether this effect is meant."""
        return not self.effects or effect in self.effects

    def fits(self, values: Mapping[str, Any] | None) -> bool:
        """Whether the values may be meant; of a list one is enough. A default that is not known may be anything.

        What is still asked for is not meant yet: it is looked at when it is there.
        """
        if not self.parameters:
            return True
        if values is None or not self.parameters.keys() <= values.keys():
            return False
        return all(_touches(globs, values[name]) for name, globs in self.parameters.items())


class RoleTable(Conditions):
    """`[roles.NAME]`: `may` are effects; who may `dangerous` may ask for it. `approves`: globs over automations."""

    may: Annotated[tuple[Effect, ...], BeforeValidator(listed)] = ()
    approves: _Globs = ()
    deny: Annotated[tuple[Deny, ...], Field(max_length=100)] = ()

    def concerns(self, effect: Effect) -> bool:
        """Whether this effect is allowed."""
        return effect in self.may


Roles = Annotated[Mapping[RoleName, RoleTable], Field(max_length=MOST_ROLES)]
"""`[roles]` of parley.toml."""


def meant(spec: AutomationSpec, values: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """What a run would be given: the values, and defaults where there is none; None where that is not known.

    `whole`: nothing will be added any more. Otherwise a parameter that is still asked for is left out.
    """
    known = {**spec.defaults, **{name: value for name, value in values.items() if value is not None}}
    absent = {one.name: None for one in spec.parameters if whole or not one.required}
    return {**absent, **known}


def check_clocks(roles: Mapping[str, RoleTable], time_zone: str) -> None:
    """Raise `ValueError` where a role goes by the clock of `time_zone` and there is no such zone."""
    for name, table in roles.items():
        lines = (
            table,
            *(
                line.model_copy(update={"time_zone": line.time_zone or table.time_zone})
                for line in table.deny
            ),
        )
        if any((line.hours or line.days) and line.time_zone is None for line in lines):
            try:
                _zone(time_zone)
            except ValueError as error:
                raise ValueError(f"the role {name} needs a time_zone: [owner] has none, {error}") from None


def _fits(globs: Iterable[str], value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_fits(globs, one) for one in value) if value else _fits(globs, None)
    return any(matches(glob, value) for glob in globs)


def _touches(globs: Iterable[str], value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return any(_touches(globs, one) for one in value)
    return any(may_match(glob, value) for glob in globs)


def _clock(text: str) -> timedelta:
    hours, minutes = text.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes))


__all__ = ["Conditions", "Day", "Deny", "RoleName", "RoleTable", "Roles", "check_clocks", "listed", "meant"]
