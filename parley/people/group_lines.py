"""`[[groups]]` of parley.toml: which group, of which source, gives which roles. Values only; groups.py applies them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from parley.people.distinguished_names import canonical
from parley.people.roles import BUILT_IN, listed

Source = Literal["directory", "oidc"]
"""Who says what groups somebody is in: the directory of `[directory]`, or the provider of a sign-in."""

MOST_GROUPS: Final = 10_000
"""Groups of one person that are looked at; of a source that names more nothing is taken."""

MOST_LINES: Final = 2000
"""Lines of `[[groups]]`."""


class GroupLine(BaseModel):
    """`[[groups]]`: whom `source` knows in `group` has these `roles`, ours or of parley.toml.

    A group of a directory is called by its distinguished name; one of a claim is compared as it is. The role `owner`
    is given by a group only where the line says `allow_owner = true` as well.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    source: Source
    group: Annotated[str, Field(min_length=1, max_length=1000)]
    roles: Annotated[
        tuple[Annotated[str, Field(max_length=64)], ...],
        BeforeValidator(listed),
        Field(min_length=1, max_length=100),
    ]
    allow_owner: bool = False

    @model_validator(mode="after")
    def _is_meant(self) -> GroupLine:
        if "none" in self.roles:
            raise ValueError("`none` is what somebody is without a role: a group cannot give it.")
        if "owner" in self.roles and not self.allow_owner:
            raise ValueError("a group that makes owners has to say `allow_owner = true`, too.")
        if self.source == "directory":
            canonical(self.group)
        return self


GroupLines = Annotated[tuple[GroupLine, ...], Field(max_length=MOST_LINES)]
"""`[[groups]]` of parley.toml."""


def check_roles(lines: Iterable[GroupLine], known: Collection[str]) -> None:
    """Raise `ValueError` where a group gives a role that is neither ours nor one of `known`, those of parley.toml."""
    for line in lines:
        for role in line.roles:
            if role not in BUILT_IN and role not in known:
                raise ValueError(
                    f"the group {line.group[:100]!r} gives the role {role!r}, which there is not in [roles]."
                )


def roles_by(lines: Iterable[GroupLine], source: Source, groups: Collection[str]) -> frozenset[str]:
    """The roles that this source's groups give. Raises ValueError for more than `MOST_GROUPS` groups."""
    if len(groups) > MOST_GROUPS:
        raise ValueError(f"more than {MOST_GROUPS} groups are said of one person.")
    said = {_comparable(source, group) for group in groups}
    return frozenset(
        role
        for line in lines
        if line.source == source and _comparable(source, line.group) in said
        for role in line.roles
    )


@lru_cache(maxsize=20_000)
def _comparable(source: Source, group: str) -> str:
    if source != "directory":
        return group
    try:
        return canonical(group)
    except ValueError:
        return ""  # no group can be called so in parley.toml


__all__ = ["MOST_GROUPS", "GroupLine", "GroupLines", "Source", "check_roles", "roles_by"]
