"""The public names of the packages named are typed, as a user of the wheel sees them: `pyright --verifytypes`.

pyright judges installed packages only, so the wheel is built and unpacked first; a py.typed that the wheel lacks shows
too. One of its verdicts is let through: a variable without annotation whose value says its type (a logger, a table).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build/verify-types"
BIN = Path(sys.executable).parent

LET_THROUGH = "Type is missing type annotation and could be inferred differently by type checkers"


def main(packages: list[str]) -> int:
    """Print what is not typed in these packages; 1 when there is anything."""
    site = installed_wheel()
    wrong = [line for package in packages for line in untyped(package, site)]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"verify-types: {len(wrong)} public names not fully typed in {', '.join(packages)}")
    return 1 if wrong else 0


def installed_wheel() -> Path:
    """Build the wheel with the locked builder and unpack it; return the folder to import from."""
    shutil.rmtree(BUILD, ignore_errors=True)
    (BUILD / "elsewhere").mkdir(parents=True)
    uv("build", "--wheel", "--no-build-isolation", "--out-dir", BUILD, ROOT)
    uv("pip", "install", "--no-deps", "--target", BUILD / "site", *BUILD.glob("*.whl"))
    return BUILD / "site"


def uv(*arguments: str | Path) -> None:
    """Run uv for this Python."""
    command, *rest = arguments
    subcommand = [command, rest.pop(0)] if command == "pip" else [command]
    subprocess.run([BIN / "uv", *subcommand, "--quiet", "--python", sys.executable, *rest], check=True)


def untyped(package: str, site: Path) -> Iterator[str]:
    """One line a name whose type is unknown, or partly so; also when pyright cannot judge the package at all."""
    # --pythonpath has no effect on --verifytypes: it asks the first `python` in PATH where packages are.
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(site),
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",  # the lock chooses the version: no look for a newer one
    }
    done = subprocess.run(
        [BIN / "pyright", "--outputjson", "--ignoreexternal", "--verifytypes", package],
        cwd=BUILD / "elsewhere",  # in the project's folder it would judge the tree instead
        env=environment,
        stdout=subprocess.PIPE,
        check=False,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    yield from (f"{package}: {problem['message']}" for problem in report["generalDiagnostics"])
    for symbol in report["typeCompleteness"]["symbols"]:
        for problem in symbol["diagnostics"]:
            # What is no error says that a docstring is missing, which ruff judges.
            if problem["severity"] == "error" and LET_THROUGH not in problem["message"].splitlines()[0]:
                yield f"{symbol['name']}: {problem['message']}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
