"""Discord: its gateway in, its REST interface out.

One message is one event: its native id is Discord's own id of the message; a slash command or a press has that of its
interaction, an edit that of the message with the moment of the edit.

The gateway is spoken by discord.py (`_discord_gateway`), and Discord is told of an event only when it is stored. In
servers a message counts when it mentions us, answers us, or is in a thread of ours (`hear`); its answer goes into a
thread begun with it, or is a reply where there can be no thread. In a direct conversation every message counts. A
slash command is the command as it would have been typed (`_discord_commands`); with its option `private` only who asked
sees the answer.

Sending the same again is not safe for long: Discord finds doubles by nonce "in the past few minutes" and keeps no
nonce with a message. Each message has one all the same; after a lost answer `find_sent` looks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from connectors._discord_commands import Choices, menu, offered, same
from connectors._discord_find import Finder
from connectors._discord_gateway import Gateway, Session
from connectors._discord_known import Known
from connectors._discord_messages import LONGEST_PAUSE, Hear
from connectors._discord_read import parse
from connectors._discord_receive import Receiver
from connectors._discord_rest import API, Rest
from connectors._discord_send import Sender
from connectors._discord_write import MAX_BUTTONS, MAX_FILE, MAX_FILES, MAX_TEXT, render
from connectors._json import Json
from connectors._waiting import pause
from parley.errors import AuthError, ConfigurationError, ConnectorError, RateLimited, Unknown, Unreachable
from parley.messages import Accept, Capabilities, CommandEntry, Connector, Receipt, Reply, Route

if TYPE_CHECKING:
    import aiohttp

__all__ = ["API", "CONNECTOR", "Discord", "parse", "render"]

# Discord's bits of what the gateway tells: servers with their channels and threads, messages in servers and direct
# ones, and what people write in them.
_INTENTS = 1 << 0 | 1 << 9 | 1 << 12
_MESSAGE_CONTENT = 1 << 15

STEADY = 10.0  # seconds after which a connection counts as a good one
LONGEST_WAIT = 30.0
# A new session each time, at this pace, stays far below the thousand a day after which Discord resets a token.
LONGEST_WAIT_FOR_SESSION = 300.0
TRIES_TO_RESUME = 5

log = logging.getLogger(__name__)


class Discord(Connector):
    """One Discord bot."""

    name: ClassVar[str] = "discord"
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_text=MAX_TEXT,
        markup="markdown",
        threads=True,
        edits=True,
        typing=True,
        private=True,
        max_buttons=MAX_BUTTONS,
        max_file=MAX_FILE,
        max_files=MAX_FILES,
        slash_commands=True,
    )

    def __init__(
        self,
        account: str,
        *,
        bot_token: str,
        hear: Hear = "mentions",
        guild_ids: tuple[str, ...] = (),
        catch_up: timedelta = timedelta(minutes=15),
        base_url: str = API,
        identify_every: float = 5.0,
        longest_pause: float = LONGEST_PAUSE,
        session: Callable[[], aiohttp.ClientSession] | None = None,
    ) -> None:
        """Open nothing yet. Slash commands are registered in `guild_ids`, or everywhere.

        `catch_up`: how far back channels are read when listening begins. `identify_every`: seconds between two new
        sessions, five by Discord's rules. `longest_pause`: seconds between two attempts to store something, or to read
        it. `session` makes the HTTP client; the connector closes it. Raises
        `ConfigurationError`.
        """
        super().__init__(account)
        _require_sdk()
        self._hear, self._guild_ids, self._catch_up = hear, guild_ids, catch_up
        self._longest_pause = longest_pause
        self._rest = Rest(bot_token, base_url, session)
        self._known = Known()
        self._sender = Sender(account, self._rest, self._known)
        self._finder = Finder(self._rest, self._known)
        self._gateway = Gateway(bot_token, self._rest, self._told, identify_every=identify_every)
        self._receiver: Receiver | None = None
        self._choices: Choices = {}

    def __repr__(self) -> str:
        return f"Discord(account={self.account!r})"

    # -- receiving

    async def listen(self, accept: Accept) -> None:
        """Receive over the gateway; a session that Discord still knows goes on where it was."""
        self._receiver = Receiver(
            self.account,
            self._rest,
            self._known,
            accept,
            hear=self._hear,
            catch_up=self._catch_up,
            choices=lambda: self._choices,
            longest_pause=self._longest_pause,
        )
        try:
            await self._connections(self._receiver.room)
        finally:
            receiver, self._receiver = self._receiver, None
            await receiver.aclose()
            self._gateway.session.forget()
            if self._known.behind:
                self._gateway.session = Session()  # what was being read up would not be replayed

    async def _connections(self, room: asyncio.Event) -> None:
        failures = 0
        while True:
            wait, began = 0.0, time.monotonic()
            try:
                await self._connection(room)
                failures = 0 if time.monotonic() - began > STEADY else failures + 1
            except AuthError:
                raise
            except ConnectorError as error:
                log.warning("discord %s: %s", self.account, error)
                steady = time.monotonic() - began > STEADY
                wait, failures = getattr(error, "retry_after", 0.0), 1 if steady else failures + 1
            if failures >= TRIES_TO_RESUME:
                self._gateway.session = Session()
            longest = LONGEST_WAIT if self._gateway.session.id else LONGEST_WAIT_FOR_SESSION
            await asyncio.sleep(max(wait, pause(failures, longest=longest)))

    async def _connection(self, room: asyncio.Event) -> None:
        await self._known.who(self._rest)
        if not self._known.may_read and self._hear != "mentions":
            raise AuthError(
                "To hear what is not said to the bot, switch on the Message Content Intent in the Developer Portal,"
                " under Bot."
            )
        # Without the intent Discord still shows what mentions us, and direct messages.
        self._gateway.intents = _INTENTS | (_MESSAGE_CONTENT if self._known.may_read else 0)
        await self._gateway.connect(room)

    def _told(self, session: Session, number: int, name: str, data: Json) -> None:
        if self._receiver is not None:
            self._receiver.told(session, number, name, data)

    # -- sending

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        """Post one reply; several messages only where its files are too large for one.

        A private reply is shown to `route.private_to` alone: in place where they asked by a slash command or a button
        in the last minutes, else in their direct conversation.
        """
        return await self._sender.send(reply, route, token)

    async def edit_message(self, native_id: str, reply: Reply, route: Route) -> Receipt:
        """Replace text and buttons of a message that we posted here, and its files where the reply has some."""
        return await self._sender.edit(native_id, reply, route)

    async def find_sent(self, token: str, route: Route) -> Receipt | None:
        """Look whether the delivery with this token arrived: its receipt, or None when it is not there.

        What this process tried is looked for by its text among our messages. After a restart it can be told only
        where we wrote nothing for a day; else, and for answers that one person sees, raises `Unknown`.
        """
        return await self._finder.find(token, route)

    async def show_typing(self, route: Route) -> None:
        """Show that an answer is being made, for some seconds."""
        with suppress(ConnectorError):
            await self._sender.type(route)

    async def catalogue_changed(self, commands: tuple[CommandEntry, ...]) -> None:
        """Make these the bot's slash commands, where they are not already."""
        self._choices = offered(commands)
        wanted = menu(commands)
        try:
            me = await self._known.who(self._rest)
            # Commands of both kinds would stand in the menu twice.
            await self._register(
                wanted if not self._guild_ids else [], "/applications/{}/commands", me.application
            )
            for guild in self._guild_ids:
                await self._register(wanted, "/applications/{}/guilds/{}/commands", me.application, guild)
        except ConnectorError as error:
            log.warning("discord %s: the slash commands were not registered: %s", self.account, error)

    async def _register(self, wanted: Sequence[Json], path: str, *ids: str) -> None:
        there = (await self._rest.patiently("GET", path, *ids)).taken()
        if not (isinstance(there, list) and same(wanted, there)):
            (await self._rest.patiently("PUT", path, *ids, body=wanted)).taken()

    async def check(self) -> None:
        """Prove the token."""
        try:
            await self._known.who(self._rest, afresh=True)
        except (RateLimited, Unknown) as error:
            raise Unreachable(str(error)) from error

    async def aclose(self) -> None:
        """Close the HTTP client; it may be made anew."""
        await self._rest.aclose()


def _require_sdk() -> None:
    try:
        for module in ("aiohttp", "discord.gateway"):
            import_module(module)
    except ImportError as error:
        raise ConfigurationError('Discord needs its SDK: pip install "prefect-parley[discord]"') from error


CONNECTOR = Discord
