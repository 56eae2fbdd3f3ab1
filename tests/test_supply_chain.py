"""No version with a known hole: not in the lock, not installed, and not allowed by what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
_ADVISORY = re.compile(r"(CVE-\d{4}-\d{4,7}|GHSA(-[0-9a-z]{4}){3})(, |$)")
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?==(?P<version>[^ ;\\]+)", re.MULTILINE)


def mended() -> dict[str, Requirement]:
    """By package, the oldest version that is good."""
    lines = (ROOT / "security/minimum-versions.txt").read_text().splitlines()
    found = [Requirement(line.partition("#")[0]) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(one.name): one for one in found}


def locked(name: str) -> dict[str, list[Version]]:
    """By package, the versions of a lock: one, or one for each of several systems."""
    versions: dict[str, list[Version]] = {}
    for pin in _PIN.finditer((ROOT / name).read_text()):
        versions.setdefault(canonicalize_name(pin["name"]), []).append(Version(pin["version"]))
    return versions


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-security.lock"])
def test_the_lock_is_above_each(lock: str) -> None:
    versions = locked(lock)
    assert len(versions) > 40
    old = [
        f"{name} {version}: {floor.specifier}"
        for name, floor in mended().items()
        for version in versions.get(name, [])
        if not floor.specifier.contains(version, prereleases=True)
    ]
    assert old == []


def test_a_line_is_about_something_that_we_have_and_says_why() -> None:
    lines = [
        line
        for line in (ROOT / "security/minimum-versions.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines == sorted(lines)
    known = locked("requirements.lock").keys() | locked("requirements-security.lock").keys()
    for line in lines:
        floor, _, why = line.partition("  # ")
        assert re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", floor), line
        assert "".join(found.group() for found in _ADVISORY.finditer(why)) == why, line
        assert why, line
        assert canonicalize_name(Requirement(floor).name) in known, line


def test_what_is_installed_is_above_each() -> None:
    old = []
    for name, floor in mended().items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if not floor.specifier.contains(version, prereleases=True):
            old.append(f"{name} {version}")
    assert old == []


def test_what_we_ask_for_cannot_be_below() -> None:
    """A floor of ours with which an old version could be chosen is too low."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    low = []
    for requirement in map(Requirement, asked):
        if not requirement.specifier:
            continue  # certificates of authorities: the newest are taken, whatever they are
        floor = mended().get(canonicalize_name(requirement.name))
        lowest = [Version(one.version) for one in requirement.specifier if one.operator in (">=", "==", "~=")]
        if floor is not None and not (lowest and floor.specifier.contains(max(lowest))):
            low.append(f"{requirement}: {floor.specifier}")
    assert low == []


def test_every_pin_has_a_hash() -> None:
    for name in ("requirements.lock", "requirements-security.lock"):
        blocks = re.split(r"\n(?=\S)", (ROOT / name).read_text().strip())
        pins = [block for block in blocks if _PIN.match(block)]
        assert pins
        assert [block.splitlines()[0] for block in pins if "--hash=sha256:" not in block] == []


def test_the_actions_of_others_are_pinned_by_commit() -> None:
    """A tag can be moved to other code; the comment says which one it was."""
    used = [
        line.strip()
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    assert len(used) >= 8
    pinned = re.compile(r"- uses: [\w.-]+/[\w./-]+@[0-9a-f]{40}  # v\d+(\.\d+)+")
    assert [line for line in used if not pinned.fullmatch(line)] == []
