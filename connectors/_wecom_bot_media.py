"""Files of a WeCom bot: fetched and decrypted when they come, uploaded in pieces before they are sent."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from connectors._json import object_of, text_of
from connectors._wecom_bot_read import Media, bare, decrypt, name_of
from connectors._wecom_bot_write import CHUNK
from parley.errors import ConnectorError, Rejected
from parley.messages import MAX_FILE, File
from parley.web.guarded_http import PRIVATE, Guard, guarded_client

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    import httpx

WITHIN = 60.0
PADDING = 32  # bytes that the encryption adds at most


class NotToBeHad(Exception):
    """A file of a message cannot be read; the text says why."""


def client(ssl_context: ssl.SSLContext | None) -> httpx.AsyncClient:
    """The HTTP client that files are fetched with, from the Internet only: their addresses come with messages.

    A server with a certificate of its own (`ssl_context`) is one's own: its files may lie in one's own network.
    """
    import httpx

    guard = Guard(PRIVATE if ssl_context is not None else ())
    return guarded_client(guard, timeout=httpx.Timeout(20.0), verify=ssl_context)


async def fetch(http: httpx.AsyncClient, media: Media) -> File:
    """A file that a message points to. Raises `NotToBeHad`."""
    import httpx

    if urlsplit(media.url).scheme != "https":
        raise NotToBeHad("its address is not safe")
    try:
        async with http.stream("GET", media.url) as answer:
            if answer.status_code != 200:
                raise NotToBeHad(f"WeCom answered {answer.status_code}")
            content = await _read(answer)
            disposition = answer.headers.get("content-disposition", "")
    except (httpx.HTTPError, httpx.InvalidURL, ConnectorError) as error:
        raise NotToBeHad(f"it could not be fetched ({type(error).__name__})") from None
    try:
        plain = decrypt(content, media.key) if media.key else content
    except ValueError as error:
        raise NotToBeHad(str(error)) from None
    if len(plain) > MAX_FILE:
        raise NotToBeHad("it is too large")
    name, media_type = name_of(disposition, media, plain)
    return File(name=name, media_type=media_type, content=plain)


async def upload(file: File, kind: str, ask: Callable[[str, dict[str, Any]], Awaitable[Any]]) -> str:
    """The media id of an uploaded file, good for three days. `ask` sends a command and returns its answer's body."""
    # The vendor's Node SDK sends indices from 0; the comment in its types says 1.
    pieces = [file.content[at : at + CHUNK] for at in range(0, len(file.content), CHUNK)]
    about = {
        "type": kind,
        "filename": bare(file.name),
        "total_size": len(file.content),
        "total_chunks": len(pieces),
        "md5": hashlib.md5(file.content, usedforsecurity=False).hexdigest(),
    }
    begun = object_of(await ask("aibot_upload_media_init", about))
    upload_id = _id(begun.get("upload_id"))
    for index, piece in enumerate(pieces):
        data = base64.b64encode(piece).decode()
        await ask(
            "aibot_upload_media_chunk", {"upload_id": upload_id, "chunk_index": index, "base64_data": data}
        )
    done = object_of(await ask("aibot_upload_media_finish", {"upload_id": upload_id}))
    return _id(done.get("media_id"))


def _id(value: object) -> str:
    found = text_of(value)
    if not found:
        raise Rejected("WeCom took a file and did not say under which id.")
    return found


async def _read(answer: httpx.Response) -> bytes:
    said = answer.headers.get("content-length", "")
    if said.isdecimal() and len(said) < 20 and int(said) > MAX_FILE + PADDING:
        raise NotToBeHad("it is too large")
    content = bytearray()
    async for chunk in answer.aiter_bytes():
        content += chunk
        if len(content) > MAX_FILE + PADDING:
            raise NotToBeHad("it is too large")
    return bytes(content)
