"""Worker type `parley`: for Prefect (`prefect worker start --type parley`) and as our own process (`-m`)."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Prefect reads its environment when it is imported, and the stem is forked before there is a thread: both come
    # before the worker's own class.
    from parley.runs.worker_process import main

    sys.exit(main())

from parley.runs.prefect_worker import ParleyWorker

__all__ = ["ParleyWorker"]
