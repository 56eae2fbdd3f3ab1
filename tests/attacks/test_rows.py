"""The table of attacks is true: every test that it names exists, and docs/security-tests.md shows the same rows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import connectors
from tests.attacks.rows import ROWS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("test", sorted({test for tests in ROWS.values() for test in tests}))
def test_it_exists(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        for node in ast.walk(tree)
    )


def test_a_row_without_tests_is_one_that_does_not_apply() -> None:
    assert [row for row, tests in ROWS.items() if not tests] == ["16 tokens of Teams"]
    assert "teams" not in connectors.names()


def test_the_page_names_every_row() -> None:
    page = (ROOT / "docs/security-tests.md").read_text(encoding="utf-8")
    for row, tests in ROWS.items():
        assert f"| {row} |" in page
        for test in tests:
            assert test.partition("::")[0].removeprefix("tests/") in page
