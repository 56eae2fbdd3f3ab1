"""`/repair restart-service host=web1`: run a registered script and report what came of it.

The scripts stand in parley.toml as `[scripts.NAME]`; the parameters of all of them are this flow's parameters, so that
help, questions and validation know them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field, WithJsonSchema

from flows import _scripts
from flows._scripts import Outcome
from parley import (
    AutomationError,
    File,
    Reply,
    Report,
    Subscription,
    automation,
    current_language,
    log_action,
    say,
    step,
)
from parley.language.characters import visible
from parley.runs.context import current_run
from parley.settings import Script

SHOWN = 1500
"""Characters of output in the answer; all of it comes as a file when there is more."""

_SCRIPTS = _scripts.registered()

_WORDS = {
    "en": {
        "starting": "Running `{line}` …",
        "for": "Running `{line}` for {who} …",
        "by-itself": "Running `{line}` by itself for {who} …",
        "instead": "Running `{line}` instead …",
        "done": "`{line}` succeeded after {seconds:.1f} s.",
        "ended": "`{line}` failed with exit code {code} after {seconds:.1f} s.",
        "timeout": "`{line}` was stopped: it took longer than {limit:g} s.",
        "processes": "`{line}` was stopped: it started too many processes.",
        "cancelled": "`{line}` was stopped.",
        "cut": "(The output was longer; the rest was not kept.)",
    },
    "zh": {
        "starting": "正在运行 `{line}` …",
        "for": "正在为 {who} 运行 `{line}` …",
        "by-itself": "{who} 触发，正在自动运行 `{line}` …",
        "instead": "改为运行备用脚本 `{line}` …",
        "done": "`{line}` 已成功，用时 {seconds:.1f} 秒。",
        "ended": "`{line}` 失败，退出码 {code}，用时 {seconds:.1f} 秒。",
        "timeout": "`{line}` 已停止：运行超过了 {limit:g} 秒。",
        "processes": "`{line}` 已停止：启动的进程过多。",
        "cancelled": "`{line}` 已停止。",
        "cut": "（输出过长，其余部分未保留。）",
    },
}


@step(retries=0)
def prepare(script: str, values: dict[str, Any]) -> list[str]:
    """The command line, with every value checked."""
    return _scripts.argv(_SCRIPTS[script], values)


@step(retries=0)
async def execute(script: str, arguments: list[str]) -> Outcome:
    """Run it within its limits. Never tried twice: nobody knows what half a repair has changed."""
    return await _scripts.run(_SCRIPTS[script], arguments)


@step(retries=0)
def describe(script: str, line: str, outcome: Outcome, language: str) -> Report:
    """What people read of it; `line` says what was run."""
    key = "done" if outcome.succeeded else outcome.how
    limit = _SCRIPTS[script].timeout
    text = _WORDS[language][key].format(line=line, seconds=outcome.seconds, code=outcome.code, limit=limit)
    shown = outcome.output.strip()[-SHOWN:].replace("```", "'''")
    parts = [text, f"```\n{shown}\n```" if shown else "", _WORDS[language]["cut"] if outcome.cut else ""]
    whole = File(name=f"{script}.txt", media_type="text/plain", content=outcome.output.encode())
    files = (whole,) if len(outcome.output.strip()) > SHOWN else ()
    return Report(text="\n".join(part for part in parts if part), key=f"repair-{script}", files=files)


async def _repair_alert(script: str, **values: Any) -> Report:
    """Run a registered repair script and report the outcome."""
    language = "zh" if current_language().startswith("zh") else "en"
    given = {name: value for name, value in values.items() if value is not None}
    succeeded, report = await _attempt(script, given, language, *_asked_by())
    fallback = _SCRIPTS[script].fallback
    if not succeeded and fallback:
        say(Reply(text=report.text, files=report.files))
        if run := current_run():
            run.took_alternative(f"`{fallback}`{'。' if language == 'zh' else '.'}")
        fitting = {name: value for name, value in given.items() if name in _SCRIPTS[fallback].parameters}
        succeeded, report = await _attempt(fallback, fitting, language, "instead")
    if not succeeded:
        # The answer says that it failed, and how: only what it printed is left to say before.
        failure, _, printed = report.text.partition("\n")
        if printed or report.files:
            say(Reply(text=printed, files=report.files))
        raise AutomationError(failure)
    return report


async def _attempt(
    script: str, given: Mapping[str, Any], language: str, how: str, who: str = ""
) -> tuple[bool, Report]:
    arguments = prepare(script, dict(given))
    log_action(f"script {script}", {"argv": repr(arguments)})
    line = " ".join([script, *(f"{name}={visible(str(value))}" for name, value in given.items())])
    say(_WORDS[language][how].format(line=line, who=who))
    outcome = await execute(script, arguments)
    return outcome.succeeded, describe(script, line, outcome, language)


def _asked_by() -> tuple[str, str]:
    """How the beginning is told, so that a room knows who did it, and who that is."""
    run = current_run()
    if run is None or not run.started.principal:
        return "starting", ""
    return ("by-itself" if run.started.origin == "service" else "for"), run.started.principal


def _longest(scripts: Mapping[str, Script]) -> float:
    """Seconds that a script and its fallback may take together."""
    return max(
        script.timeout + (scripts[script.fallback].timeout if script.fallback else 0)
        for script in scripts.values()
    )


def _subscriptions(scripts: Mapping[str, Script]) -> tuple[Subscription, ...]:
    """The alerts that each script is for."""
    return tuple(
        Subscription(
            pattern=pattern,
            where=dict(mended.where),
            parameters={"script": name, **mended.parameters},
            label=mended.label,
        )
        for name, script in scripts.items()
        for mended in script.mends
        for pattern in mended.patterns
    )


def _signature(scripts: Mapping[str, Script]) -> inspect.Signature:
    """`script` and every parameter of every script, as if they had been written down here."""
    names: Any = Literal[tuple(scripts)]
    own: dict[str, list[dict[str, Any]]] = {}
    for script in scripts.values():
        for name, schema in script.parameters.items():
            schemas = own.setdefault(name, [])
            if schema not in schemas:
                schemas.append(dict(schema))
    return inspect.Signature(
        [
            inspect.Parameter(
                "script",
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                annotation=Annotated[names, Field(description="Which script to run.")],
            ),
            *(_parameter(name, schemas) for name, schemas in own.items()),
        ],
        return_annotation=Report,
    )


def _parameter(name: str, schemas: list[dict[str, Any]]) -> inspect.Parameter:
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    # The value itself is checked against its own script's schema when the command line is made.
    annotation = Annotated[
        Any, WithJsonSchema(schema), Field(description=str(schemas[0].get("description", "")))
    ]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


setattr(_repair_alert, "__signature__", _signature(_SCRIPTS))  # noqa: B010 - functions have no such attribute for mypy

repair_alert = automation(
    command="repair",
    summary="Run a registered repair script and report the outcome.",
    examples=("repair with {script}", "run the script {script}", "运行修复脚本 {script}"),
    effect="dangerous",
    alert_after=1,
    lane="alerts",
    time_limit=_longest(_SCRIPTS) + 60,
    revision={"script": _scripts.revisions(_SCRIPTS)},
    on=_subscriptions(_SCRIPTS),
)(flow(name="repair_alert")(_repair_alert))
