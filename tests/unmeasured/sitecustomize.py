"""In PYTHONPATH of what tests/measuring.py says, while coverage is measured; Python imports it by itself, after that.

Prefect's own programs run hardly a line of ours, and would take half as much processor time again. What little we put
into its server is measured where it is the matter, in tests/deployments.
"""

from __future__ import annotations

import sys
from pathlib import Path

_MODULES = {"deployments.prefect_server", "prefect.runner._workspace_supervisor"}

if _MODULES & {*sys.orig_argv} or "prefect" in {Path(word).name for word in sys.orig_argv[:2]}:
    from coverage import Coverage

    _measuring = Coverage.current()
    if _measuring is not None:
        _measuring.stop()
