"""Makes a sealing key: `python -m deployments.new_key FILE`. One that is there stays as it is."""

from __future__ import annotations

import sys
from pathlib import Path

from parley.errors import ConfigurationError
from parley.people import key_file


def main(arguments: list[str] | None = None) -> int:
    """Make it, mode 0400; 2 when it cannot be made or what is there is no key."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        print("usage: python -m deployments.new_key FILE", file=sys.stderr)
        return 2
    path = Path(given[0]).absolute()
    try:
        # No store is looked at here: this is for a new installation.
        _ = key_file.load_or_create(path, home=path / "no such folder", sealed_rows=False)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{path}: keep a copy in another place than the data's")
    return 0


if __name__ == "__main__":
    sys.exit(main())
