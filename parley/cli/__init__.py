"""The command line: `parley`. Starts in no time: what a command needs is imported when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from parley.errors import ParleyError

FAILED = 1
"""Exit code: it was understood and did not come out well."""

UNABLE = 2
"""Exit code: used wrongly, or nothing could be reached."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0, 1 when it did not come out well, 2 when it could not be tried."""
    from parley.cli.commands import app
    from parley.cli.terminal import complain, leave_quietly

    try:
        app(args=None if arguments is None else list(arguments), prog_name="parley")
    except ParleyError as error:
        complain(str(error))
        sys.exit(UNABLE)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        leave_quietly()
        sys.exit(141)


__all__ = ["FAILED", "UNABLE", "main"]
