"""A KMS for tests: a program that keeps its keys in a folder and wraps with the newest, as docs/keys.md says.

`python kms.py FOLDER [MISHAP] wrap|unwrap`; each call is noted in `FOLDER/calls`. `new_key` makes it a new key.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MEETING = 4
"""So many that unwrap at the same time wait for one another, with the mishap `together`."""


def new_key(folder: Path) -> str:
    """One more key, the newest from now on; its id."""
    folder.mkdir(exist_ok=True)
    name = f"k{len(list(folder.glob('k*'))) + 1}"
    (folder / name).write_bytes(secrets.token_bytes(32))
    return name


def command(folder: Path, *mishap: str) -> tuple[str, ...]:
    """What parley.toml has as `[keys] command`."""
    from tests import measuring  # not there in the program itself

    return measuring.unmeasured(sys.executable, __file__, str(folder), *mishap)


def _wrap(folder: Path, asked: dict[str, Any]) -> dict[str, str]:
    name = max(one.name for one in folder.glob("k*"))
    nonce = secrets.token_bytes(12)
    cipher = AESGCM((folder / name).read_bytes())
    return {
        "key_id": name,
        "wrapped": base64.b64encode(
            nonce + cipher.encrypt(nonce, base64.b64decode(asked["key"]), None)
        ).decode(),
    }


def _unwrap(folder: Path, asked: dict[str, Any]) -> dict[str, str]:
    raw = base64.b64decode(asked["wrapped"])
    cipher = AESGCM((folder / asked["key_id"]).read_bytes())
    return {"key": base64.b64encode(cipher.decrypt(raw[:12], raw[12:], None)).decode()}


def _meet(folder: Path) -> None:
    """Go on once four were asked to unwrap, and note how many do at this moment; without the others, fail."""
    (folder / f"live-{os.getpid()}").touch()
    end = time.monotonic() + 15
    while (folder / "calls").read_text().count('"unwrap"') < MEETING:
        if time.monotonic() > end:
            sys.exit("the others did not come")
        time.sleep(0.01)
    with (folder / "together").open("a") as together:
        together.write(f"{len(list(folder.glob('live-*')))}\n")
    (folder / f"live-{os.getpid()}").unlink()


def _suffer(mishap: str, asked: dict[str, Any]) -> None:
    if mishap == "refuse":
        sys.stderr.write(f"no access; asked {json.dumps(asked)}\n\x1b[31m")
        sys.exit(3)
    if mishap == "hang":
        time.sleep(60)
    if mishap == "flood":
        sys.stdout.write("x" * 10_000_000)
    if mishap == "nonsense":
        sys.stdout.write("[1]")
    if mishap == "empty":
        sys.stdout.write("{}")
    if mishap == "short":
        sys.stdout.write(json.dumps({"key_id": "k1", "wrapped": "AA==", "key": "AA=="}))
    if mishap == "another":  # as the KMS of another region or account, under the same name
        wrapped = asked.get("key", "")
        other = base64.b64encode(bytes(48)).decode()
        sys.stdout.write(json.dumps({"key_id": "k1", "wrapped": wrapped, "key": other}))
    sys.exit(0)


def main() -> None:
    folder, *mishap, operation = sys.argv[1:]
    asked = json.loads(sys.stdin.readline())
    with (Path(folder) / "calls").open("a") as calls:
        ours = sorted(name for name in os.environ if name.startswith(("PARLEY_KEY", "PARLEY_DATABASE")))
        calls.write(
            json.dumps({"operation": operation, "context": asked["context"], "environment": ours}) + "\n"
        )
    if mishap == ["together"] and operation == "unwrap":
        _meet(Path(folder))
    elif mishap and mishap != ["together"]:
        _suffer(mishap[0], asked)
    act = {"wrap": _wrap, "unwrap": _unwrap}[operation]
    sys.stdout.write(json.dumps(act(Path(folder), asked)))


if __name__ == "__main__":
    main()
