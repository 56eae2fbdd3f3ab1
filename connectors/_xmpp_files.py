"""Files over XMPP are addresses (XEP-0363, XEP-0066): ours are put on our server, others' come from there alone."""

from __future__ import annotations

import mimetypes
import ssl
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from connectors._file_names import bare_name
from connectors._tls import is_loopback
from connectors._xmpp_read import StanzaError
from connectors._xmpp_settings import XMPPSettings
from connectors._xmpp_write import DATA, DISCO_INFO, DISCO_ITEMS, UPLOAD, disco, slot
from parley.errors import Rejected, Unreachable
from parley.messages import MAX_FILE, File

if TYPE_CHECKING:
    import httpx

# The headers that a server may ask us to send with a file (XEP-0363, 5.2); any other is not.
_HEADERS = {"authorization", "cookie", "expires"}
MOST_SERVICES = 30

Request = Callable[[ET.Element], Awaitable[ET.Element]]
"""Asks the server. Raises `StanzaError` or `Unreachable`."""


class Uploads:
    """The upload service of our own server."""

    def __init__(self, settings: XMPPSettings) -> None:
        """Ask nothing yet."""
        self._settings = settings
        self._tls: ssl.SSLContext = settings.tls()
        self._service: str | None = None
        self._limit = MAX_FILE
        self._origin = ""

    async def put(self, file: File, request: Request) -> str:
        """Put one file there; returns its address. Raises `StanzaError`, `Rejected` or `Unreachable`."""
        import httpx

        service = await self._found(request)
        if not service:
            raise Rejected("The XMPP server has no place for files (XEP-0363).")
        if len(file.content) > self._limit:
            raise Rejected(f"The XMPP server takes files of at most {self._limit} bytes.")
        put, get, headers = await self._slot(service, file.name, len(file.content), file.media_type, request)
        try:
            async with self._http() as http:
                answer = await http.put(
                    put, content=file.content, headers={**headers, "Content-Type": file.media_type}
                )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(
                f"A file could not be put on the XMPP server ({type(error).__name__})."
            ) from None
        if answer.status_code not in {200, 201}:
            # Nobody knows the address yet: whatever became of it, it can be put again.
            kind = Unreachable if answer.status_code >= 500 or answer.status_code == 429 else Rejected
            raise kind(f"The XMPP server did not take a file ({answer.status_code}).")
        return get

    async def get(self, url: str, request: Request) -> File:
        """The file at an address of our own server. Raises `Rejected`, saying why it is left out, or `Unreachable`."""
        import httpx

        try:
            name = unquote(urlsplit(url).path.rpartition("/")[2])[-255:] or "file"
        except ValueError:
            raise Rejected("a file: its address cannot be read") from None
        if not await self._is_ours(url, request):
            raise Rejected(f"{bare_name(name)}: it is on another server than ours")
        content = bytearray()
        try:
            async with self._http() as http, http.stream("GET", url) as answer:
                if answer.status_code >= 500:
                    raise Unreachable(f"A file could not be had ({answer.status_code}).")
                if answer.status_code != 200:
                    raise Rejected(f"{bare_name(name)}: it is not there ({answer.status_code})")
                media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_FILE:
                        raise Rejected(f"{bare_name(name)}: it has more than {MAX_FILE} bytes")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(f"A file could not be had ({type(error).__name__}).") from None
        guessed = media_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        return File(name=bare_name(name), media_type=guessed, content=bytes(content))

    async def _is_ours(self, url: str, request: Request) -> bool:
        """Whether this address is where our server keeps files: it says so itself when it is asked for a place."""
        try:
            if not self._origin:
                service = await self._found(request)
                if not service:
                    return False
                _, get, _ = await self._slot(service, "probe.txt", 1, "text/plain", request)
                self._origin = _origin(get)
            return self._allowed(url) and _origin(url) == self._origin
        except (StanzaError, Rejected, ValueError):
            return False

    async def _found(self, request: Request) -> str:
        if self._service is None:
            items = await request(disco(self._settings.domain, DISCO_ITEMS))
            names = [one.get("jid", "") for one in items.iter(f"{{{DISCO_ITEMS}}}item")][:MOST_SERVICES]
            found = ""
            for name in (self._settings.domain, *names):
                if await self._offers(name, request):
                    found = name
                    break
            self._service = found
        return self._service

    async def _offers(self, service: str, request: Request) -> bool:
        try:
            info = await request(disco(service))
        except StanzaError:
            return False
        if all(one.get("var") != UPLOAD for one in info.iter(f"{{{DISCO_INFO}}}feature")):
            return False
        for field in info.iter(f"{{{DATA}}}field"):
            value = (field.findtext(f"{{{DATA}}}value") or "").strip()
            if field.get("var") == "max-file-size" and value.isdecimal():
                self._limit = min(self._limit, int(value))
        return True

    async def _slot(
        self, service: str, name: str, size: int, media_type: str, request: Request
    ) -> tuple[str, str, dict[str, str]]:
        answer = await request(slot(service, name, size, media_type))
        put = answer.find(f"{{{UPLOAD}}}slot/{{{UPLOAD}}}put")
        get = answer.find(f"{{{UPLOAD}}}slot/{{{UPLOAD}}}get")
        addresses = [one.get("url", "") if one is not None else "" for one in (put, get)]
        if put is None or not all(map(self._allowed, addresses)):
            raise Rejected("The XMPP server named a place for files that is not safe.")
        headers = {
            one.get("name", ""): (one.text or "").replace("\r", "").replace("\n", "")
            for one in put
            if one.get("name", "").lower() in _HEADERS
        }
        return addresses[0], addresses[1], headers

    def _allowed(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            plain = self._settings.allow_plain_on_loopback and is_loopback(parts.hostname or "")
            return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and plain))
        except ValueError:
            return False

    def _http(self) -> httpx.AsyncClient:
        import httpx

        # A redirect could lead anywhere: it is not followed.
        return httpx.AsyncClient(verify=self._tls, follow_redirects=False, timeout=30, trust_env=False)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"
