"""Automations to talk about: made from type hints, as the catalogue makes them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from inspect import signature
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from parley.runs.catalogue import AutomationSpec, Effect, Parameter


class Script(StrEnum):
    NGINX = "restart-nginx"
    TMP = "clean_tmp"
    DATABASE = "restart-db"


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sku: str
    count: Annotated[int, Field(gt=0)] = 1


def spec_of(function: Callable[..., None], command: str, **more: Any) -> AutomationSpec:
    """The catalogue entry of a function with type hints."""
    hints = get_type_hints(function, include_extras=True)
    parameters = tuple(
        Parameter(
            name=name,
            json_schema=TypeAdapter(hints[name]).json_schema(),
            required=given.default is given.empty,
            default=None if given.default is given.empty else given.default,
            **more.get("about", {}).get(name, {}),
        )
        for name, given in signature(function).parameters.items()
    )
    told = {"summary": "Does it.", **{key: value for key, value in more.items() if key != "about"}}
    return AutomationSpec(
        name=function.__name__, command=command, deployment=f"{command}/x", parameters=parameters, **told
    )


def order_status(order_id: Annotated[int, Field(gt=0)]) -> None: ...


def repair_alert(script: Script, host: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]) -> None: ...


def daily_report(day: date | None = None) -> None: ...


def anything(
    whole: int = 0,
    real: float = 0,
    sure: bool = False,
    script: Script = Script.NGINX,
    mixed: Literal[1, 2, "x"] = 1,
    day: date | None = None,
    moment: datetime | None = None,
    clock: time | None = None,
    period: timedelta | None = None,
    key: uuid.UUID | None = None,
    tags: list[str] | None = None,
    numbers: Annotated[list[int], Field(max_length=3)] | None = None,
    unique: set[str] | None = None,
    pair: tuple[int, str] | None = None,
    item: Item | None = None,
    free: Any = None,
    either: int | str = 0,
    code: Annotated[str, Field(pattern="^[A-Z]{2}$")] = "AA",
    note: str = "",
) -> None: ...


def remember(subject: str, note: str) -> None: ...


def unlock(password: Annotated[str, Field(min_length=4)]) -> None: ...


ORDER = spec_of(
    order_status,
    "order",
    summary="Show where an order is.",
    about={"order_id": {"description": "Order number.", "examples": (1024,)}},
    examples=(
        "where is order {order_id}",
        "what is the status of order {order_id}",
        "track order {order_id}",
        "查一下订单 {order_id} 的物流",
        "订单 {order_id} 到哪了",
        "我的订单 {order_id} 发货了吗",
    ),
)
REPAIR = spec_of(
    repair_alert,
    "repair",
    summary="Run a registered repair script on a host.",
    effect=Effect.DANGEROUS,
    examples=(
        "run {script} on {host}",
        "repair {host} with {script}",
        "在 {host} 上运行 {script}",
        "用 {script} 修复 {host}",
    ),
)
REPORT = spec_of(
    daily_report,
    "report",
    summary="Make the daily report.",
    examples=(
        "make the daily report",
        "show the report of {day}",
        "生成日报",
        "今天的日报",
        "生成 {day} 的日报",
    ),
)
CATALOGUE = (ORDER, REPAIR, REPORT)
ANYTHING = spec_of(anything, "anything")
REMEMBER = spec_of(remember, "remember", effect=Effect.WRITE)
UNLOCK = spec_of(unlock, "unlock", about={"password": {"sealed": True}})
