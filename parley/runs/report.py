"""A report: an answer that is also kept as an artifact of its run in Prefect."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from parley.messages.model import File, Reply, Table


@dataclass(frozen=True)
class Report:
    """Return it from an automation: people get the text with its files, Prefect's pages show it as an artifact.

    `key` groups the reports of one kind in Prefect. A `sensitive` report is never given to Prefect.
    """

    text: str
    key: str
    table: Table | None = None
    files: tuple[File, ...] = field(default=())
    sensitive: bool = False

    def __reply__(self) -> Reply:
        """The answer."""
        return Reply(text=self.text, table=self.table, files=self.files, private=self.sensitive)

    @property
    def artifact_key(self) -> str:
        """The key in the form that Prefect takes."""
        return re.sub(r"[^a-z0-9]+", "-", self.key.lower()).strip("-") or "report"

    def markdown(self) -> str:
        """The whole report in one text."""
        return "\n\n".join(
            part for part in (self.text, _markdown_table(self.table) if self.table else "") if part
        )


def _markdown_table(table: Table) -> str:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
