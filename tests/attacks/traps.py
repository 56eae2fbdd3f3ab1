"""Automations that attacks aim at: each leaves a line in the file that `EFFECTS_FILE` names.

A stack finds them by `[automations] modules = ["tests.attacks.traps"]` in its parley.toml.
"""

from __future__ import annotations

from prefect import flow

from parley import automation
from tests.system.effects import leave


@automation(command="peek", summary="Look at a host.", examples=["look at {host}", "看一下 {host}"])
@flow
def peek(host: str) -> str:
    leave(f"peek:{host[:40]!a}".replace(" ", "_"))
    return host


@automation(command="mark", summary="Mark a host.", examples=["mark {host}", "标记 {host}"], effect="write")
@flow
def mark(host: str) -> str:
    leave(f"mark:{host[:40]!a}".replace(" ", "_"))
    return host


@automation(
    command="wipe",
    summary="Wipe a host.",
    examples=["wipe {host}", "wipe {host} now", "清空 {host}"],
    effect="dangerous",
)
@flow
def wipe(host: str) -> str:
    leave(f"wipe:{host[:40]!a}".replace(" ", "_"))
    return host


@automation(command="complain", summary="Fail with a text.")
@flow
def complain(text: str) -> str:
    raise ValueError(text)
