"""All regular expressions of the project, and text made to be slow for each.

The expressions are found in the source (what is given to `re.compile`, `re.search` ... as a text) and, where they are
put together, among the names of the modules. The text is made from the expression itself: whatever may repeat is
repeated, behind what leads to it, before what then does not fit.
"""

from __future__ import annotations

import ast
import importlib
import re
import re._constants as op  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("parley", "connectors", "blocks", "flows", "deployments")

LENGTH: Final = 100_000
"""Characters of the text."""

_FUNCTIONS: Final = {"compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}
_SCANNING: Final = {"search", "sub", "subn", "split", "findall", "finditer"}
_ENDS: Final = ("", "\x00", "\n", "!", "é")
_ALWAYS: Final = (
    "a", " ", "\n", "<", "(", '"', "\\", "`", "*", "_", "[", "{", "@", "#", ":", "/", "-", "1", "=", ">", "a ", "a@",
    "a.", "1:", "\t ", "**a", "``", "http://", "字", ".", ",", "~", "|", "a\n", "\r\n", "_a*", "<a>",
)  # fmt: skip
_HELD: Final = {"parley.language.validation": "its `_matching` uses `fullmatch` alone"}
"""Modules that hand their expressions to a function that holds them to the whole text."""

_MANY: Final = 20
"""A part that may come so often is one that repeats."""


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression; `scans` where it looks for its place (`search`, `sub`)."""

    place: str
    pattern: str | bytes
    flags: int
    scans: bool


def expressions() -> list[Expression]:
    """All of them. Imports the modules that have put-together ones."""
    found: dict[tuple[str | bytes, int], Expression] = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for one in _of_file(path):
            found.setdefault((one.pattern, one.flags), one)
    return list(found.values())


def _of_file(path: Path) -> Iterator[Expression]:
    source = path.read_text(encoding="utf-8")
    if "re." not in source:
        return
    place = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    tree = ast.parse(source)
    imported = False
    for node in ast.walk(tree):
        if not _is_re_call(node):
            continue
        given = node.args[0] if node.args else None  # type: ignore[attr-defined]
        if isinstance(given, ast.Constant) and isinstance(given.value, str | bytes):
            flags = _flags(node)
            name = node.func.attr  # type: ignore[attr-defined]
            scans = (
                name in _SCANNING if name != "compile" else place not in _HELD and _scans(tree, node, source)
            )
            yield Expression(f"{place}:{node.lineno}", given.value, flags, scans)  # type: ignore[attr-defined]
        else:
            imported = True
    if imported:
        yield from _of_module(place, source)


def _is_re_call(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and node.func.attr in _FUNCTIONS
    )


def _flags(call: Any) -> int:
    given = (*call.args[1:], *(word.value for word in call.keywords))
    inner = (node for argument in given for node in ast.walk(argument))
    names = {node.attr for node in inner if isinstance(node, ast.Attribute)}
    return sum(int(getattr(re, name)) for name in names if isinstance(getattr(re, name, None), re.RegexFlag))


def _scans(tree: ast.AST, call: ast.AST, source: str) -> bool:
    """Whether the compiled one is used to look for a place; where that cannot be told, it is."""
    names = [
        target.id
        for node in ast.walk(tree)
        for target in _targets(node)
        if getattr(node, "value", None) is call
    ]
    if not names:
        return True
    uses = set(re.findall(rf"\b{re.escape(names[0])}\.(\w+)\(", source))
    return not uses or bool(uses & _SCANNING)


def _targets(node: ast.AST) -> list[ast.Name]:
    if isinstance(node, ast.Assign):
        return [target for target in node.targets if isinstance(target, ast.Name)]
    return [node.target] if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else []


def _of_module(name: str, source: str) -> Iterator[Expression]:
    module = importlib.import_module(name)
    for variable, value in vars(module).items():
        for one in (
            value
            if isinstance(value, tuple | list)
            else value.values()
            if isinstance(value, dict)
            else (value,)
        ):
            for pattern in one if isinstance(one, tuple) else (one,):
                if isinstance(pattern, re.Pattern):
                    uses = set(re.findall(rf"\b{re.escape(variable)}\.(\w+)\(", source))
                    scans = not uses or bool(uses & _SCANNING)
                    yield Expression(
                        f"{name}.{variable}", pattern.pattern, pattern.flags & ~re.UNICODE.value, scans
                    )


# -- text that is slow


def slow_texts(expression: Expression, length: int = LENGTH) -> list[str | bytes]:
    """Texts of this length that could make matching slow."""
    pattern, flags = expression.pattern, expression.flags
    tree = parser.parse(pattern, flags)
    pumps = dict.fromkeys(
        [
            *((before, body) for before, body in _pumps(list(tree), "") if body),
            *(("", one) for one in _ALWAYS),
        ]
    )
    texts = dict.fromkeys(
        (before + body * (length // len(body)))[:length] + end
        for before, body in pumps
        for end in _ends(before, body)
    )
    if isinstance(pattern, bytes):
        return [text.encode("latin-1", "replace") for text in texts]
    return list(texts)


def _ends(before: str, body: str) -> tuple[str, ...]:
    return _ENDS if before or body not in _ALWAYS else ("", "\x00")


def _pumps(nodes: list[Any], before: str) -> Iterator[tuple[str, str]]:
    """What leads to a part that repeats, and what it repeats, for all such parts."""
    for kind, value in nodes:
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            _, most, inner = value
            if most >= _MANY:
                samples = list(dict.fromkeys(_samples(list(inner))))[:6]
                yield from ((start, one) for one in samples for start in ({before, ""} if before else {""}))
                if len(samples) > 1:
                    yield before, "".join(samples[:3])
            yield from _pumps(list(inner), before)
        elif kind is op.SUBPATTERN:
            yield from _pumps(list(value[-1]), before)
        elif kind is op.BRANCH:
            for branch in value[1]:
                yield from _pumps(list(branch), before)
        elif kind in (op.ASSERT, op.ASSERT_NOT, op.ATOMIC_GROUP):
            yield from _pumps(list(value[1] if kind is not op.ATOMIC_GROUP else value), before)
        before += next(_samples([(kind, value)]), "")


def _samples(nodes: list[Any]) -> Iterator[str]:
    """Short texts that these parts match, or nearly match."""
    texts = [""]
    for kind, value in nodes:
        ways = _ways(kind, value)
        texts = [text + way for text in texts for way in ways][:12]
    yield from texts


def _ways(kind: Any, value: Any) -> list[str]:
    if kind is op.LITERAL:
        return [chr(value)]
    if kind is op.NOT_LITERAL:
        return [other for other in ("a", " ", "\n", "/") if ord(other) != value][:2]
    if kind is op.ANY:
        return ["a", " "]
    if kind is op.IN:
        return _members(value)
    if kind is op.BRANCH:
        return [text for branch in value[1] for text in list(_samples(list(branch)))[:1]][:6] or [""]
    if kind is op.SUBPATTERN:
        return list(_samples(list(value[-1])))[:3] or [""]
    if kind is op.ATOMIC_GROUP:
        return list(_samples(list(value)))[:3] or [""]
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        least, _, inner = value
        return [text * max(1, min(least, 50)) for text in list(_samples(list(inner)))[:2]] or [""]
    return [""]


_CATEGORIES: Final = {
    op.CATEGORY_DIGIT: "1", op.CATEGORY_NOT_DIGIT: "a", op.CATEGORY_SPACE: " ", op.CATEGORY_NOT_SPACE: "a",
    op.CATEGORY_WORD: "a", op.CATEGORY_NOT_WORD: "-",
}  # fmt: skip


def _members(items: list[Any]) -> list[str]:
    if items and items[0][0] is op.NEGATE:
        banned = set(_plain_members(items[1:]))
        return [one for one in ("a", " ", "\n", "1", "/", "é") if one not in banned][:3] or ["\u4e00"]
    return _plain_members(items)[:5] or [""]


def _plain_members(items: list[Any]) -> list[str]:
    found: list[str] = []
    for kind, value in items:
        if kind is op.LITERAL:
            found.append(chr(value))
        elif kind is op.RANGE:
            found.append(chr(value[0]))
        elif kind is op.CATEGORY:
            found.append(_CATEGORIES.get(value, "a"))
    return found
