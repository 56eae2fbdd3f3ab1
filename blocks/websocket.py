"""The login at a WebSocket service of your own, and how that service speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock

if TYPE_CHECKING:
    from parley.messages import Connector


class WebSocketAccount(ConnectorBlock):
    """A WebSocket service of your own: we connect to it, hear what it says, and answer.

    Example:
        Load the account and make its connector:
        ```python
        from blocks.websocket import WebSocketAccount

        account = WebSocketAccount.load("BLOCK_NAME")
        service = account.connector("my-service")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley WebSocket account"
    _block_type_slug: ClassVar[Any] = "parley-websocket-account"
    _description: ClassVar[str | None] = (
        "A WebSocket service of your own: we connect to it, hear what it says, and answer."
    )
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl("https://websockets.readthedocs.io/en/stable/")

    url: Annotated[str, Field(title="Address", description="wss://host/path of the service.")]
    secret: Annotated[
        SecretStr,
        Field(title="Secret", description="What the service lets us in with; empty only without a login."),
    ] = SecretStr("")
    login_by: Annotated[
        Literal["header", "line", "none"],
        Field(
            title="Login",
            description="By a header (Authorization: Bearer), by a line (see below), or none.",
        ),
    ] = "header"
    login: Annotated[
        str,
        Field(
            title="Line that logs in",
            description='The first frame, with {secret} in it, like {"login": "parley", "token": "{secret}"}.',
        ),
    ] = ""
    login_ok: Annotated[
        str,
        Field(
            title="Let in",
            description="What the answer to a good login has, like type=welcome; of text frames all of the text.",
        ),
    ] = ""
    login_refused: Annotated[
        str, Field(title="Not let in", description="The same of a login that is refused, like type=refused.")
    ] = ""
    frames: Annotated[
        Literal["json", "text"],
        Field(
            title="Frames",
            description="JSON objects, or plain text: then a whole frame is what the service says.",
        ),
    ] = "json"
    message_when: Annotated[
        str,
        Field(title="A message", description="What tells a message from other frames, like type=message."),
    ] = ""
    id_path: Annotated[
        str,
        Field(
            title="Where its id stands", description="A path like data.id; repeated messages have the same."
        ),
    ] = "id"
    sender_path: Annotated[
        str,
        Field(
            title="Where the sender stands",
            description="Their id, which rights are given to; empty: the service.",
        ),
    ] = "sender"
    name_path: Annotated[str, Field(title="Where their name stands", description="For display only.")] = ""
    room_path: Annotated[
        str,
        Field(
            title="Where the room stands", description="Empty, or the sender's id: they write to us alone."
        ),
    ] = ""
    thread_path: Annotated[
        str, Field(title="Where the thread stands", description="A path; empty: there are none.")
    ] = ""
    text_path: Annotated[str, Field(title="Where the text stands", description="A path like data.text.")] = (
        "text"
    )
    own_id: Annotated[
        str, Field(title="Our own id", description="What it says is left out, where the service repeats us.")
    ] = ""
    mention: Annotated[
        str,
        Field(
            title="How we are mentioned", description="Like @parley; taken off where a text begins with it."
        ),
    ] = ""
    hear: Annotated[
        Literal["mentions", "along", "all"],
        Field(
            title="What counts in rooms",
            description=(
                "All that the service sends us (all); what mentions us, is a command or in a thread that we "
                "answered in (mentions); the same, and the rest is handed on without being understood (along)."
            ),
        ),
    ] = "all"
    reply: Annotated[
        str,
        Field(
            title="An answer",
            description="JSON with {text} and, if wished, {room} {thread} {sender} {reply_to} {token} in its strings.",
        ),
    ] = '{"text": "{text}", "room": "{room}"}'
    ack: Annotated[
        str,
        Field(
            title="Acknowledgement",
            description='Sent when a message is stored, like {"ack": "{id}"}; empty for services that want none.',
        ),
    ] = ""
    answer_path: Annotated[
        str,
        Field(
            title="Where an answer is answered",
            description="The path at which the service repeats {token} when it has an answer; empty: it does not.",
        ),
    ] = ""
    answer_id_path: Annotated[
        str, Field(title="Where it names its own id of the answer", description="A path; empty: nowhere.")
    ] = ""
    answer_error: Annotated[
        str,
        Field(
            title="An answer refused",
            description="A condition like ok=false, or a path where an error stands.",
        ),
    ] = ""
    answer_wait_path: Annotated[
        str,
        Field(title="Where it asks to wait", description="Seconds after which an answer may be sent again."),
    ] = ""
    trusted_senders: Annotated[
        bool,
        Field(
            title="The service vouches for senders",
            description="Only if it authenticates who writes: otherwise they may only read.",
        ),
    ] = False
    allow_plain: Annotated[
        bool,
        Field(
            title="Allow ws://",
            description="Without encryption to another machine: anybody between reads along.",
        ),
    ] = False
    ca_certificates: Annotated[
        str,
        Field(
            title="CA certificates",
            description="Certificates (PEM) to trust in place of the usual ones, for servers with a private authority.",
        ),
    ] = ""
    max_frame: Annotated[
        int,
        Field(ge=1024, le=16 * 1024 * 1024, title="Largest frame", description="In bytes, both ways."),
    ] = 1024 * 1024

    def connector(self, account: str) -> Connector:
        """The connector of this login. Opens no connection. Raises `ConfigurationError`."""
        from connectors._tls import verified
        from connectors.websocket import Protocol, WebSocket

        protocol = Protocol(
            frames=self.frames,
            login=self.login,
            login_ok=self.login_ok,
            login_refused=self.login_refused,
            message_when=self.message_when,
            id=self.id_path,
            sender=self.sender_path,
            name=self.name_path,
            room=self.room_path,
            thread=self.thread_path,
            text=self.text_path,
            own_id=self.own_id,
            mention=self.mention,
            reply=self.reply,
            ack=self.ack,
            answer=self.answer_path,
            answer_id=self.answer_id_path,
            answer_error=self.answer_error,
            answer_wait=self.answer_wait_path,
        )
        authority = self.ca_certificates.strip()
        return WebSocket(
            account,
            url=self.url.strip(),
            protocol=protocol,
            secret=self._in_clear("secret"),
            login_by=self.login_by,
            hear=self.hear,
            trusted_senders=self.trusted_senders,
            allow_plain=self.allow_plain,
            max_frame=self.max_frame,
            ssl_context=verified("ca_certificates", data=authority) if authority else None,
        )
