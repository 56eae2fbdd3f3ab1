"""Every example in README and docs/ does what the page says: it runs, it is taken, it exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from parley.settings import File

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "README.zh-CN.md", *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def blocks(kind: str) -> Iterator[object]:
    """Each fenced block of this kind, named by page and line."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in _BLOCK.finditer(text):
            if found[1] == kind:
                line = text.count("\n", 0, found.start()) + 1
                yield pytest.param(found[2], id=f"{page.name}:{line}")


@pytest.mark.parametrize("code", list(blocks("python")))
def test_python_runs(code: str, tmp_path: Path) -> None:
    """An example is a whole module: it imports, and what it declares is accepted."""
    module = tmp_path / "example.py"
    module.write_text(code, encoding="utf-8")
    check = "import runpy, sys; runpy.run_path(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", check, str(module)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("toml", list(blocks("toml")))
def test_settings_are_taken(toml: str) -> None:
    """An example of parley.toml is one."""
    File.model_validate(tomllib.loads(toml))


@pytest.mark.parametrize("session", list(blocks("console")))
def test_commands_exist(session: str) -> None:
    """Every `parley ...` line names a command and options that there are."""
    for line in session.replace("\\\n", " ").splitlines():
        words = shlex.split(line.partition("  #")[0].removeprefix("$ ")) if line.startswith("$ ") else []
        if words and Path(words[0]).name == "parley":
            _exists(words[1:])


def _exists(words: list[str]) -> None:
    names = [word for word in words if not word.startswith("-")]
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    groups = {"people", "audit", "keys", "dlq", "certs", "tokens"}
    path = names[:2] if names[0] in groups else names[:1]
    done = subprocess.run(
        [sys.executable, "-m", "parley.cli", *path, "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    missing = {option for option in options if option not in done.stdout}
    assert not missing, f"parley {' '.join(path)} has no {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of ours names one."""
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
