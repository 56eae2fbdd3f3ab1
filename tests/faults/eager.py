"""`parley up`, but what ends soon after its start begins again at once: `python -m tests.faults.eager`.

A test that kills one process some hundred times would else wait for each successor longer than for all it does.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from parley.processes import record, table
from parley.processes.supervisor import Supervisor, end_leftovers, on_signals, show
from parley.settings import keep, load


def main() -> int:
    """Run the stack until SIGTERM."""
    os.umask(0o077)
    settings = load()
    record.make_home(settings.home)
    held = record.lock(settings.home)
    end_leftovers(settings.home)
    programs = [replace(one, longest_wait=0.1) for one in table.programs(settings)]
    keep(settings)
    supervisor = Supervisor(settings.home, programs, say=show)
    on_signals(supervisor.stop, wake=supervisor.wake)
    code = supervisor.run()
    supervisor.close()
    os.close(held)
    return code


if __name__ == "__main__":
    sys.exit(main())
