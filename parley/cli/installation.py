"""This machine's installation: over the link as the person at the machine, over REST as the owner."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from parley.errors import ConfigurationError, Denied, LinkError
from parley.settings import RUNNING, Settings, load

if TYPE_CHECKING:
    from parley.web.client import AsyncClient

Result = TypeVar("Result")

TOKEN_DAYS = 30
ADMIN_SECONDS = 30.0
"""How long an administrative call waits for a hub that is restarting."""


class Installation:
    """The installation that the environment names. Raises `ConfigurationError` when its settings are wrong."""

    def __init__(self, settings: Settings | None = None) -> None:
        # A stack that runs can be asked what is wrong with its file.
        self.settings: Settings = settings or load({**os.environ, RUNNING: "1"})

    def admin(self, verb: str, **arguments: Any) -> Any:
        """Have the hub carry out an administrative verb. Raises `LinkError`, or what the hub raises."""
        return asyncio.run(self._admin(verb, arguments))

    def ask(self, question: Callable[[AsyncClient], Awaitable[Result]], *, patience: float = 60) -> Result:
        """Ask over REST, as the owner, with a token of the command line's own."""
        return asyncio.run(self._ask(question, patience))

    def supervisor(self) -> int | None:
        """The pid of the running supervisor; None when there is none."""
        from parley.processes import record

        entries = {entry.role: entry for entry in record.read(self.settings.home)}
        entry = entries.get("supervisor")
        return entry.pid if entry is not None and record.lives(entry) else None

    def must_run(self) -> None:
        """Raises `LinkError` at once when nothing runs here; a hub that is only restarting is waited for later."""
        from parley.link.client import default_address, has_socket

        address = default_address(self.settings)
        if self.supervisor() is None and not has_socket(address):
            raise LinkError(f"nothing is running in {self.settings.home}: start it with `parley up`.")

    async def _admin(self, verb: str, arguments: dict[str, Any]) -> Any:
        from parley.link.calls import AdminCall, Role
        from parley.link.client import HubClient, default_address, role_token

        self.must_run()
        address, token = default_address(self.settings), role_token(self.settings, Role.COMMAND_LINE)
        async with HubClient(address, Role.COMMAND_LINE, token, name="command line") as hub:
            return await hub.call("admin", AdminCall(verb=verb, arguments=arguments), timeout=ADMIN_SECONDS)

    async def _ask(self, question: Callable[[AsyncClient], Awaitable[Result]], patience: float) -> Result:
        token = _read_token(self._token_file)
        if token is not None:
            # A token that is no longer good is refused before anything is stored: asking again does nothing twice.
            with suppress(Denied):
                return await self._with(token, question, patience)
        issued = await self._admin("token", {"label": "command line", "days": TOKEN_DAYS})
        token = str(issued["token"])
        _write_token(self._token_file, token)
        return await self._with(token, question, patience)

    async def _with(
        self, token: str, question: Callable[[AsyncClient], Awaitable[Result]], patience: float
    ) -> Result:
        from parley.web.client import AsyncClient

        self.must_run()
        async with AsyncClient(self.url, token, patience=patience, verify=self._verify()) as client:
            return await question(client)

    @property
    def url(self) -> str:
        """The people's port."""
        host = self.settings.host("web")
        host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - read, not bound
        bracketed = f"[{host}]" if ":" in host else host
        return f"{self.settings.scheme('web')}://{bracketed}:{self.settings.port}"

    @property
    def _token_file(self) -> Path:
        return self.settings.run_folder / f"say-{self.settings.port}.token"

    def _verify(self) -> Any:
        pair = self.settings.pair("web")
        if pair is None:
            return True
        import ssl

        from parley.tls import pinned

        try:
            return pinned(pair.certificate)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"the certificate {pair.certificate} cannot be used: {error}.") from None


def wait_for_end(pid: int, seconds: float) -> bool:
    """Whether a process that is not our child has ended within this time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def _read_token(path: Path) -> str | None:
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return None
        return path.read_text("ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _write_token(path: Path, token: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    # It only saves a moment next time: without it, a new one is asked for.
    with suppress(OSError):
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(token)
        temporary.replace(path)
