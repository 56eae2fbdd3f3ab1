"""What a speaker may run, worked out once for each sort of speaker: their number grows, the sorts do not.

The same question to `parley.people.rights` a thousand times a message would cost more than all the rest of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from parley.language.decision import Speaker
from parley.language.names import NameIndex
from parley.people.rights import Origin, Rights
from parley.runs.catalogue import AutomationSpec, Catalogue

MOST_SORTS: Final = 256
"""Sorts of speakers that are remembered; beyond it those that asked longest ago are worked out again."""


class Offer:
    """The automations that one sort of speaker may run, by command, sorted."""

    def __init__(self, specs: Mapping[str, AutomationSpec]) -> None:
        self.specs: Mapping[str, AutomationSpec] = specs
        self._names: NameIndex | None = None

    @property
    def names(self) -> NameIndex:
        """Their commands, for names that nearly fit."""
        if self._names is None:
            self._names = NameIndex(self.specs)
        return self._names

    def __contains__(self, command: object) -> bool:
        return command in self.specs


class Offered:
    """Remembers offers for as long as the catalogue is the same. `asked` hears whether one was remembered."""

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        rights: Rights,
        asked: Callable[[bool], None] = lambda _hit: None,
    ) -> None:
        self._catalogue = catalogue
        self._rights = rights
        self._asked = asked
        self._of: Catalogue | None = None
        self._offers: OrderedDict[tuple[object, ...], Offer] = OrderedDict()

    def to(self, speaker: Speaker) -> Offer:
        """What this speaker may run by a command, where they are and now."""
        catalogue = self._catalogue()
        if catalogue is not self._of:
            self._of = catalogue
            self._offers.clear()
        # All that `allows` looks at.
        sort = self._rights.sort(speaker.principal, speaker.assurance, speaker.place)
        found = self._offers.get(sort)
        self._asked(found is not None)
        if found is None:
            found = self._offers[sort] = Offer(self._allowed(catalogue, speaker))
            if len(self._offers) > MOST_SORTS:
                self._offers.popitem(last=False)
        else:
            self._offers.move_to_end(sort)
        return found

    def _allowed(self, catalogue: Catalogue, speaker: Speaker) -> dict[str, AutomationSpec]:
        # Of a thousand automations most are alike to the policy: each kind of them is one question.
        answers: dict[tuple[object, ...], bool] = {}
        found = {}
        for command, spec in catalogue.by_command().items():
            kind = (spec.effect, self._rights.kind(speaker.principal, command))
            if kind not in answers:
                answers[kind] = self._rights.allows(
                    speaker.principal,
                    spec.effect,
                    command,
                    Origin.COMMAND,
                    speaker.assurance,
                    place=speaker.place,
                    approvals=True,
                ).allowed
            if answers[kind]:
                found[command] = spec
        return found
