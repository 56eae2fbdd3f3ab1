"""The house stands as drawn: which folder may import which, what a file may be called, what an import may cost."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]

PACKAGES = ("parley", "connectors", "blocks", "flows", "deployments")
"""In the order in which they may import: each one those before it."""

FOLDERS = (*PACKAGES, "tests", "benchmarks", "docs")

NAMELESS = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
"""Names that say nothing: whatever is put there has a better home."""


def modules(folder: str) -> Iterator[Path]:
    return (path for path in sorted((ROOT / folder).rglob("*.py")) if "__pycache__" not in path.parts)


def imported_packages(path: Path) -> Iterator[tuple[int, str]]:
    """Every top-level package that a file imports, wherever in the file it does so, with its line."""
    for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.partition(".")[0]


def loaded_after(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after `statement`; fails with its traceback if it raises."""
    script = f"import sys\n{statement}\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"`{statement}` does not work:\n{done.stderr}"
    return set(done.stdout.splitlines())


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_room_of_the_house_is_there(folder: str) -> None:
    assert (ROOT / folder).is_dir()


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_holds_every_import_package_with_its_types(package: str) -> None:
    assert package in pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert (ROOT / package / "__init__.py").is_file()
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    forbidden = {*PACKAGES[PACKAGES.index(package) + 1 :], "tests", "benchmarks"}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(package)
        for line, name in imported_packages(path)
        if name in forbidden
    ]
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_no_relative_import_hides_where_a_name_comes_from(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not wrong


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "benchmarks"])
def test_every_module_has_a_name_that_says_something(folder: str) -> None:
    assert not [str(path.relative_to(ROOT)) for path in modules(folder) if path.stem in NAMELESS]


def test_no_automation_shadows_another_module() -> None:
    """A path entrypoint puts flows/ first on sys.path: flows/email.py would then be everybody's `email`."""
    others = set(sys.stdlib_module_names) | set(packages_distributions())
    assert not [path.name for path in modules("flows") if path.stem in others]


def test_connectors_load_no_sdk_until_one_is_asked_for() -> None:
    project = pyproject()["project"]
    extras = {
        canonicalize_name(Requirement(line).name)
        for lines in project["optional-dependencies"].values()
        for line in lines
    } - {project["name"]}
    sdks = {
        module
        for module, distributions in packages_distributions().items()
        if extras & {canonicalize_name(name) for name in distributions}
    }
    assert {"slack_sdk", "discord", "exchangelib", "imapclient"} <= sdks, "the extras are not all installed"
    assert not sdks & loaded_after("import connectors")


def test_the_supervisor_never_loads_prefect() -> None:
    """It stays small and starts in no time; Prefect alone would cost it 110 MB and two seconds."""
    loaded = loaded_after("import parley.processes.supervisor")
    assert not {name for name in loaded if re.match(r"prefect(\.|$)", name)}


def test_prefect_finds_the_worker_and_the_blocks() -> None:
    """Prefect only prints a warning when a collection does not import; a missing worker type would show much later."""
    script = (
        "from prefect.plugins import load_prefect_collections as load\n"
        "loaded = load()\n"
        "failed = {name: loaded.get(name) for name in ('parley', 'parley_blocks')\n"
        "          if name not in loaded or isinstance(loaded[name], Exception)}\n"
        "assert not failed, failed"
    )
    loaded_after(script)
