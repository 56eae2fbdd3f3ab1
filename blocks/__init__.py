"""One file a kind of credential: a Prefect Block that can make its connector.

Importing the package imports every Block module, which is what registers them: Prefect does so by the entry point
`prefect.collections` in its server, its workers and its command line. No platform's SDK is imported for it.
"""

from __future__ import annotations

import logging
import pkgutil
from importlib import import_module

_PROGRAMS = {"save"}
"""Modules that are run (`python -m blocks.save`), not imported: importing one first would have Python warn."""

logger = logging.getLogger(__name__)

__all__ = ["modules"]


def modules() -> tuple[str, ...]:
    """Names of the modules that hold a Block, sorted."""
    found = {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}
    return tuple(sorted(found - _PROGRAMS))


def _register() -> None:
    for name in modules():
        try:
            import_module(f"{__name__}.{name}")
        except Exception:  # one broken Block must not take the others, and their accounts, with it
            logger.exception("the Block module %s does not import; its accounts cannot be loaded", name)


_register()
