"""prefect-parley: a message becomes a Prefect flow run, its result the answer.

The names that authors of automations use. Those that need Prefect are loaded when they are first used: supervisor and
hub import this package and never Prefect.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parley.errors import ParleyError
    from parley.messages.model import Button, File, Message, Reply, Table
    from parley.runs.automation import automation
    from parley.runs.cached import Aged, cached
    from parley.runs.catalogue import Subscription
    from parley.runs.context import (
        AutomationError,
        Question,
        ask,
        current_language,
        current_message,
        log_action,
        publish,
        say,
    )
    from parley.runs.report import Report
    from parley.runs.sealed import Sealed
    from parley.runs.step import step

__all__ = [
    "Aged",
    "AutomationError",
    "Button",
    "File",
    "Message",
    "ParleyError",
    "Question",
    "Reply",
    "Report",
    "Sealed",
    "Subscription",
    "Table",
    "ask",
    "automation",
    "cached",
    "current_language",
    "current_message",
    "log_action",
    "publish",
    "say",
    "step",
]

_HOMES = {
    "Aged": "parley.runs.cached",
    "AutomationError": "parley.runs.context",
    "Button": "parley.messages.model",
    "File": "parley.messages.model",
    "Message": "parley.messages.model",
    "ParleyError": "parley.errors",
    "Question": "parley.runs.context",
    "Reply": "parley.messages.model",
    "Report": "parley.runs.report",
    "Sealed": "parley.runs.sealed",
    "Subscription": "parley.runs.catalogue",
    "Table": "parley.messages.model",
    "ask": "parley.runs.context",
    "automation": "parley.runs.automation",
    "cached": "parley.runs.cached",
    "current_language": "parley.runs.context",
    "current_message": "parley.runs.context",
    "log_action": "parley.runs.context",
    "publish": "parley.runs.context",
    "say": "parley.runs.context",
    "step": "parley.runs.step",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'parley' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
