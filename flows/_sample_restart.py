"""The sample script: `python -m flows._sample_restart FOLDER HOST SERVICE` writes down a restart and says so."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path


def main(folder: str, host: str, service: str) -> None:
    """Write one line to `<folder>/restarts.log`."""
    line = f"{datetime.now(UTC).isoformat(timespec='seconds')} {service} on {host}"
    Path(folder).mkdir(parents=True, exist_ok=True)
    with (Path(folder) / "restarts.log").open("a", encoding="utf-8") as log:
        log.write(line + "\n")
    print(f"{service} on {host} was restarted.")  # noqa: T201 - a script says what it did


if __name__ == "__main__":
    main(*sys.argv[1:4])
