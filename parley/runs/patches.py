"""Functions of Prefect replaced in place, each only where it is, letter for letter, the one that is known.

Otherwise Prefect's plain path stays, with a warning: as correct as ever, and slower.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import prefect
from prefect.logging import get_logger


@dataclass(frozen=True, slots=True)
class Patch:
    """One function of Prefect's and what takes its place where its source has one of the known digests.

    `owner` is the module or class that holds it; `replace` is given the function and returns the other.
    """

    owner: Any
    name: str
    known: frozenset[str]
    replace: Callable[[Any], Any]

    @property
    def target(self) -> str:
        """Return the function's full name, for messages."""
        module = getattr(self.owner, "__module__", "")
        return f"{module}.{self.owner.__name__}.{self.name}".lstrip(".")

    @property
    def present(self) -> Any:
        """Return what is there now; None where Prefect has no such function any more."""
        return getattr(self.owner, self.name, None)

    def fits(self) -> bool:
        """Return whether the installed Prefect has the function that this patch was written against."""
        return self.present is not None and source_digest(self.present) in self.known


def source_digest(function: Any) -> str:
    """Return a short digest of a function's source, decorators included; empty where the source cannot be read."""
    try:
        source = inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def install(patches: Iterable[Patch]) -> list[str]:
    """Put every patch that fits into this process and return the names of those that do not, each warned about.

    A second call changes nothing.
    """
    missing = []
    for patch in patches:
        present = patch.present
        if present is not None and hasattr(present, "__parley_lean__"):
            continue
        if patch.fits():
            replacement = patch.replace(present)
            replacement.__parley_lean__ = present
            setattr(patch.owner, patch.name, replacement)
        else:
            missing.append(patch.target)
    if missing:
        get_logger("parley").warning(
            "Prefect %s is not the one that the lean engine was written against: %s as Prefect has it. "
            "Runs are as correct as ever, and slower.",
            prefect.__version__,
            ", ".join(missing),
        )
    return missing


def uninstall(patches: Iterable[Patch]) -> None:
    """Put Prefect's own functions back."""
    for patch in patches:
        original = getattr(patch.present, "__parley_lean__", None)
        if original is not None:
            setattr(patch.owner, patch.name, original)
