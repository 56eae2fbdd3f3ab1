"""`parley say`: one message, its answer, its files."""

from __future__ import annotations

import mimetypes
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parley.cli import FAILED
from parley.cli.terminal import complain, print_json, say, size, without_marks
from parley.errors import BadArguments

if TYPE_CHECKING:
    from parley.cli.installation import Installation
    from parley.messages.model import File
    from parley.web.client import AsyncClient
    from parley.web.wire import FileOut, MessageOut, ReplyOut


def say_and_print(
    installation: Installation,
    text: str,
    *,
    acting_as: str | None,
    thread: str | None,
    wait: float,
    paths: Sequence[Path],
    save: Path | None,
    as_json: bool,
) -> int:
    """Say it, print the answer; the exit code: 0 when it came out well."""
    files = [_read(path) for path in paths]

    async def ask(client: AsyncClient) -> tuple[MessageOut, dict[str, bytes]]:
        message = await client.say(text, wait=wait, files=files, thread=thread, acting_as=acting_as)
        wanted = [file for reply in message.replies for file in reply.files] if save else []
        return message, {file.url: await client.file(file) for file in wanted}

    message, contents = installation.ask(ask)
    saved = _save(save, message, contents) if save else {}
    if as_json:
        print_json(_with_paths(message, saved))
    else:
        _print(message, saved)
    return 0 if message.state == "done" else FAILED


def read_text(text: str) -> str:
    """What is to be said: `-` means what comes on standard input. Raises `BadArguments`."""
    if text != "-":
        return text
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadArguments(f"standard input is not UTF-8 ({error.reason} at byte {error.start}).") from None


def _print(message: MessageOut, saved: dict[str, Path]) -> None:
    for reply in message.replies:
        _print_reply(reply, saved)
    if not message.final:
        complain(f"no final answer yet: it is {message.state}. `parley runs` shows how it goes on.")
    elif message.state != "done" and not message.replies:
        complain(f"{message.state}: {message.reason or 'no reason was given.'}")


def _print_reply(reply: ReplyOut, saved: dict[str, Path]) -> None:
    if reply.text:
        say(without_marks(reply.text))
    for file in reply.files:
        say(f"[file] {_described(file, saved.get(file.url))}")
    for button in reply.buttons:
        say(f"[{button.label}] {button.value}")


def _described(file: FileOut, path: Path | None) -> str:
    return f"{file.name} ({size(file.size)})" + (f" -> {path}" if path else "")


def _with_paths(message: MessageOut, saved: dict[str, Path]) -> dict[str, Any]:
    data = message.model_dump(mode="json")
    for reply in data["replies"]:
        for file in reply["files"]:
            if file["url"] in saved:
                file["path"] = str(saved[file["url"]])
    return data


def _save(folder: Path, message: MessageOut, contents: dict[str, bytes]) -> dict[str, Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [file for reply in message.replies for file in reply.files]
        return {file.url: _write(folder, file.name, contents[file.url]) for file in files}
    except OSError as error:
        raise BadArguments(f"{error.filename or folder} cannot be written: {error.strerror}.") from None


def _write(folder: Path, name: str, content: bytes) -> Path:
    """Write beside what is there already; a name from outside stays inside the folder."""
    bare = (
        "".join(char for char in Path(name.replace("\\", "/")).name if char.isprintable()).lstrip(".")
        or "file"
    )
    stem, suffix = Path(bare).stem, Path(bare).suffix
    number = 0
    while True:
        path = folder / (f"{stem}-{number}{suffix}" if number else bare)
        try:
            with path.open("xb") as file:
                file.write(content)
            return path
        except FileExistsError:
            number += 1


def _read(path: Path) -> File:
    from pydantic import ValidationError

    from parley.messages.model import MAX_FILE, File

    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    try:
        return File(name=path.name, media_type=kind, content=path.read_bytes())
    except OSError as error:
        raise BadArguments(f"{path} cannot be read: {error.strerror}.") from None
    except ValidationError:
        raise BadArguments(f"{path} is larger than {size(MAX_FILE)}, or its name cannot be sent.") from None
