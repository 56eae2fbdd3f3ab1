"""Find secrets in what is committed, or about to be: exit 1 and their places. Run by scripts/security.sh.

What looks like one and is none stands in security/not-secrets.txt, with the reason. In tests made-up secrets are
everywhere: there only those are looked for that have a form of their own (keys of cloud providers, tokens of platforms,
private keys).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
KNOWN = ROOT / "security" / "not-secrets.txt"
LOCKS = (".lock", "npm-peers.txt")
GUESSES = ("KeywordDetector", "BasicAuthDetector", "HexHighEntropyString", "Base64HighEntropyString")


def main() -> int:
    """Print what is found and not known; 1 for any, also for a line that is no longer needed."""
    files = [name for name in _committed() if not name.endswith(LOCKS)]
    tests = [name for name in files if name.startswith("tests/")]
    rest = [name for name in files if not name.startswith("tests/")]
    found = {*_found(rest), *_found(tests, *GUESSES)}
    known = set(_known())
    for path, kind, digest, line in sorted(found):
        if (path, kind, digest) not in known:
            sys.stderr.write(f"{path}:{line}: {kind} ({path} | {kind} | {digest})\n")
    gone = known - {one[:3] for one in found}
    for path, kind, digest in sorted(gone):
        sys.stderr.write(f"{KNOWN.name}: nothing is found any more for {path} | {kind} | {digest}\n")
    return 1 if gone or {one[:3] for one in found} - known else 0


def _committed() -> list[str]:
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def _found(files: Sequence[str], *without: str) -> Iterator[tuple[str, str, str, int]]:
    scan = Path(sys.executable).with_name("detect-secrets")
    argv = [str(scan), "scan", "--no-verify", *_options(without), *files]
    output = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for path, secrets in json.loads(output)["results"].items():
        for one in secrets:
            yield path, one["type"], one["hashed_secret"], one["line_number"]


def _options(without: Iterable[str]) -> Iterator[str]:
    for plugin in without:
        yield from ("--disable-plugin", plugin)


def _known() -> Iterator[tuple[str, str, str]]:
    for line in KNOWN.read_text(encoding="utf-8").splitlines():
        words = line.partition("#")[0]
        if words.strip():
            path, kind, digest = (word.strip() for word in words.split("|"))
            yield path, kind, digest


if __name__ == "__main__":
    sys.exit(main())
