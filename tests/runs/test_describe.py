"""The catalogue: what is found, what is said of it, and that a broken module stops nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parley.runs.catalogue import AutomationSpec, Catalogue
from parley.runs.describe import find
from parley.settings import Automations

Package = Callable[..., Catalogue]

HEAD = """
from __future__ import annotations
from datetime import date
from enum import Enum
from typing import Annotated, Literal
from prefect import flow
from pydantic import BaseModel, Field
from parley import Sealed, automation
"""
PLAIN = HEAD + '@automation(command="{0}")\n@flow(name="{0}")\ndef run() -> str:\n    return "x"\n'

TYPED = (
    HEAD
    + '''
class Size(Enum):
    SMALL = "s"
    LARGE = "l"

class Point(BaseModel):
    x: int
    y: int = 0

@automation(command="typed", effect="write", time_limit=5, alert_after=2, lane="alerts")
@flow(name="typed")
async def run(
    number: Annotated[int, Field(gt=0, description="How many.", examples=[3])],
    colour: Literal["red", "blue"],
    size: Size = Size.SMALL,
    day: date | None = None,
    points: list[Point] = [],
    key: Sealed[str] = "k",
    old: int = Field(default=4, le=9),
) -> None:
    """Do it.

    Args:
        colour: Which one.
    """
'''
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Package:
    """Writes modules of a package of its own and returns the catalogue of them."""
    name = f"made_{abs(hash(request.node.nodeid))}"
    monkeypatch.syspath_prepend(tmp_path)

    def make(**modules: str) -> Catalogue:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
        for loaded in [loaded for loaded in sys.modules if loaded.startswith(name)]:
            del sys.modules[loaded]
        return find(Automations(modules=(name,), entry_points=False))[1]

    return make


def only(catalogue: Catalogue) -> AutomationSpec:
    assert catalogue.broken == ()
    (spec,) = catalogue.automations
    return spec


def test_each_module_of_a_package_is_read(package: Package) -> None:
    found = package(one=PLAIN.format("one"), two=PLAIN.format("two"), _three=PLAIN.format("three"))
    assert [spec.command for spec in found] == ["one", "two"]
    spec = found.automations[0]
    assert spec.deployment == "one/parley"
    assert spec.entrypoint.endswith(".one.run")


def test_a_broken_module_is_named_and_the_others_go_on(package: Package) -> None:
    found = package(
        good=PLAIN.format("good"),
        missing="import no_such_package",
        syntax="def (",
        leaving="raise SystemExit(3)",
        retried=HEAD + '@automation(command="r")\n@flow(retries=2)\ndef run() -> None: ...\n',
    )
    assert [spec.command for spec in found] == ["good"]
    reasons = {broken.source.rpartition(".")[2]: broken.reason for broken in found.broken}
    assert "no_such_package" in reasons["missing"]
    assert "missing.py line 1" in reasons["missing"]
    assert "syntax.py line 1" in reasons["syntax"]
    assert "SystemExit" in reasons["leaving"]
    assert "@step" in reasons["retried"]
    assert not any("\n" in reason for reason in reasons.values())


def test_a_module_that_is_not_there_is_broken() -> None:
    _, found = find(Automations(modules=("no_such_module_at_all",), entry_points=False))
    assert "no_such_module_at_all" in found.broken[0].reason


def test_a_command_belongs_to_the_first(package: Package) -> None:
    found = package(one=PLAIN.format("same"), two=PLAIN.format("same"))
    assert len(found.automations) == 1
    assert "taken by" in found.broken[0].reason


def test_an_automation_that_another_module_imports_is_there_once(package: Package) -> None:
    found = package(one=PLAIN.format("one"), two="from .one import run\n")
    assert len(found.automations) == 1


def test_type_hints_become_self_contained_schemas(package: Package) -> None:
    spec = only(package(typed=TYPED))
    by_name = {parameter.name: parameter for parameter in spec.parameters}
    assert by_name["number"].json_schema["exclusiveMinimum"] == 0
    assert by_name["number"].description == "How many."
    assert by_name["number"].examples == (3,)
    assert by_name["number"].required
    assert by_name["colour"].choices == ("red", "blue")
    assert by_name["colour"].description == "Which one."
    assert by_name["size"].default == "s"
    assert by_name["day"].default is None
    assert not by_name["day"].required
    assert "Point" in by_name["points"].json_schema["$defs"]
    assert by_name["old"].default == 4
    assert by_name["old"].json_schema["maximum"] == 9


def test_a_sealed_parameter_is_a_string_and_shows_no_default(package: Package) -> None:
    spec = only(package(typed=TYPED))
    key = spec.parameter("key")
    assert key is not None
    assert key.sealed
    assert key.default is None
    assert key.json_schema["type"] == "string"
    assert spec.sealed_names == {"key"}


def test_what_the_author_declared_is_in_the_entry(package: Package) -> None:
    spec = only(package(typed=TYPED))
    assert (spec.effect, spec.time_limit, spec.alert_after, spec.lane) == ("write", 5, 2, "alerts")
    assert spec.summary == "Do it."


def test_a_change_of_the_source_is_another_version(package: Package) -> None:
    first = only(package(one=PLAIN.format("one"))).version
    again = only(package(one=PLAIN.format("one"))).version
    changed = only(package(one=PLAIN.format("one") + "\nHELPER = 2\n")).version
    assert first == again != changed


def test_our_own_automations_are_found() -> None:
    flows, found = find(Automations(entry_points=False))
    assert found.broken == ()
    assert {"order", "repair", "report"} <= set(found.by_command())
    assert set(flows) == {spec.name for spec in found}


def test_the_flow_of_a_batch_takes_no_other_flows_name(package: Package) -> None:
    shared = HEAD + '@automation(command="{0}"{1})\n@flow(name="{2}")\ndef run(n: int) -> None: ...\n'
    found = package(
        one=shared.format("part", ', effect="read", batch=5', "part"),
        two=shared.format("other", "", "part-batch"),
    )
    assert [spec.command for spec in found] == ["part"]
    assert "'part-batch' answers several requests" in found.broken[0].reason
