"""The catalogue that the last worker published, kept in a file: a new hub understands before the worker is back."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from parley.runs.catalogue import Catalogue
from parley.settings import Settings


def read(settings: Settings) -> Catalogue:
    """What was kept; an empty one when there is none that can be read."""
    try:
        return Catalogue.model_validate_json(_file(settings).read_bytes())
    except (OSError, ValidationError):
        return Catalogue()


def keep(settings: Settings, catalogue: Catalogue) -> None:
    """Keep it, whole or not at all. Raises `OSError`."""
    path = _file(settings)
    fresh = path.with_suffix(".new")
    fresh.write_text(catalogue.model_dump_json())
    fresh.replace(path)


def _file(settings: Settings) -> Path:
    return settings.home / "catalogue.json"


__all__ = ["keep", "read"]
