"""Runs as a table that people read in a chat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from parley.language.characters import Language
from parley.messages.model import Table, now
from parley.runs.requests import short

_COLUMNS: Final[Mapping[Language, tuple[str, ...]]] = {
    "en": ("id", "who", "command", "state", "when"),
    "zh": ("编号", "发起者", "命令", "状态", "多久前"),
}
_STATES: Final[Mapping[str, str]] = {
    "needs-input": "等待输入",
    "awaiting-approval": "等待确认",
    "refused": "已拒绝",
    "queued": "排队中",
    "running": "运行中",
    "done": "已完成",
    "failed": "失败",
    "expired": "已过期",
    "cancelled": "已取消",
}


def runs_table(rows: Iterable[Any], language: Language, *, actors: bool) -> Table:
    """A table of requests, each with `id`, `actor` (shown if `actors`), `automation`, `state` and `created_at`."""
    cells = [
        (
            short(row.id),
            row.actor or "-",
            f"/{row.automation}",
            state_word(row.state, language),
            ago(row.created_at),
        )
        for row in rows
    ]
    shown = [at for at in range(len(_COLUMNS["en"])) if actors or at != 1]
    return Table(
        columns=tuple(_COLUMNS[language][at] for at in shown),
        rows=tuple(tuple(row[at] for at in shown) for row in cells),
    )


def state_word(state: str, language: Language) -> str:
    """A request's state as people read it."""
    return _STATES.get(state, state) if language == "zh" else state


def ago(when: Any) -> str:
    """How long ago this was, as people read it."""
    seconds = int((now() - when).total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
