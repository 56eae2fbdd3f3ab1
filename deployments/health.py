"""Whether this installation lives, as an exit code: `python -m deployments.health`, for images and units."""

from __future__ import annotations

import sys

from parley.errors import ConfigurationError
from parley.processes import table
from parley.processes.health import status
from parley.settings import load


def main() -> int:
    """Ask the hub; 0 when it says that it is well, 1 otherwise."""
    try:
        probe = table.hub_probe(load())
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    answer = status(probe)
    print(f"{probe.host}:{probe.port}{probe.path}: {answer or 'no answer'}")
    return 0 if answer == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
