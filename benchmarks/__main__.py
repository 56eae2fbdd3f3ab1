"""`python -m benchmarks [--only answer,runs] [--out build/bench.json]`: measure, write the rows, print a table.

Ends with 1 when a benchmark could not be measured; the rows of the others are written all the same.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks import (
    accept,
    answer,
    burst,
    case,
    connector,
    flat,
    imports,
    memory,
    readers,
    rows,
    runs,
    stacks,
    start,
    store,
    trust,
)
from benchmarks.rows import Row

BENCHMARKS: Final[Mapping[str, Callable[[float], list[Row]]]] = {
    "answer": answer.measure,
    "runs": runs.measure,
    "readers": readers.measure,
    "start": start.measure,
    "memory": memory.measure,
    "accept": accept.measure,
    "store": store.measure,
    "import": imports.measure,
    "connector": connector.measure,
    "case": case.measure,
    "burst": burst.measure,
    "flat": flat.measure,
    "trust": trust.measure,
}
"""By the first word of their rows' names."""


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    with stacks.dry_run():
        return _measure(options)


def _measure(options: argparse.Namespace) -> int:
    measured: list[Row] = []
    failed: list[str] = []
    for name in options.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            measured += BENCHMARKS[name](options.effort)
        except Exception:  # noqa: BLE001 - shown; the other benchmarks go on
            traceback.print_exc()
            failed.append(name)
        rows.write(measured, options.out)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(rows.table(measured))
    if failed:
        print(f"could not be measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure parley beside its peers."
    )
    parser.add_argument("--only", type=_names, default=list(BENCHMARKS), help=f"of: {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench.json"), help="where the rows are written"
    )
    parser.add_argument(
        "--effort",
        type=float,
        default=1.0,
        help="share of the usual number of measurements; 0 for a dry run on one shared stack",
    )
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise argparse.ArgumentTypeError(
            f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}"
        )
    return names or list(BENCHMARKS)


if __name__ == "__main__":
    sys.exit(main())
