"""`parley doctor`: what can be seen without the hub first, then what the hub sees."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

from parley.errors import ConfigurationError, ParleyError

if TYPE_CHECKING:
    from parley.settings import Settings

_OPEN = stat.S_IRWXG | stat.S_IRWXO


def check() -> list[dict[str, Any]]:
    """One row a check: `check`, `ok`, `says`, `mend`."""
    from parley.cli.installation import Installation

    try:
        installation = Installation()
    except ConfigurationError as error:
        return [_row("settings", str(error), mend="change what it names, and ask again.")]
    rows = [
        _row("settings", f"{installation.settings.config} and the environment are in order."),
        *_files(installation.settings),
    ]
    try:
        return rows + list(installation.admin("doctor"))
    except ParleyError as error:
        return [
            *rows,
            _row("hub", str(error), mend="run `parley up`; its logs are in the home's `logs` folder."),
        ]


def _files(settings: Settings) -> list[dict[str, Any]]:
    rows = []
    for name, path in (("key file", settings.key_file), ("home", settings.home)):
        if not path.exists():
            rows.append(
                _row(name, f"{path} is not there yet.", mend="`parley up` makes it at the first start.")
            )
        elif path.stat().st_mode & _OPEN:
            rows.append(_row(name, f"{path} is open to others.", mend=f"chmod go= {path}"))
        else:
            rows.append(_row(name, f"{path} is closed to others."))
    if settings.key_file.is_relative_to(settings.home):
        rows.append(
            _row(
                "key file",
                "it lies beside the data it seals.",
                mend="move it, and say where with PARLEY_KEY_FILE.",
            )
        )
    return rows


def _row(name: str, says: str, *, mend: str | None = None) -> dict[str, Any]:
    return {"check": name, "ok": mend is None, "says": says, "mend": mend or "-"}
