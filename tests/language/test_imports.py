"""Understanding a message needs no Prefect: the hub stays small, and text is judged without I/O."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_language_loads_no_prefect() -> None:
    script = "import sys, parley.language; assert not [name for name in sys.modules if name.split('.')[0] == 'prefect']"
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
