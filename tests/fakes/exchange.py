"""Exchange on this machine: Web Services over HTTP(S), with one mailbox, its logins, its authority and its refusals.

What it cannot do as Exchange does is not pretended: a request that it does not know fails the test that made it.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.policy import SMTP as SMTP_POLICY
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import parse_qs

import spnego
from aiohttp import web
from defusedxml.ElementTree import fromstring

from connectors.exchange import Exchange, ExchangeSettings
from parley.messages import File
from tests.fakes import _ews_soap as soap
from tests.fakes._driver import Failure, Sent, eventually
from tests.fakes._ews_config import Configurations
from tests.fakes._ews_soap import Item, M, T
from tests.fakes._ews_sync import Changes
from tests.fakes.mail import ASSISTANT, DOMAIN, Arrived, as_sent, letter

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

PASSWORD = "correct-horse-battery-staple"
WRONG_PASSWORD = "Tr0ub4dor&3-is-wrong"
CLIENT_SECRET = "app~secret.0123456789abcdef"
TENANT = "6f1c0f5e-0000-4000-8000-000000000001"
USER = "EXAMPLE\\assistant"
TAKEN = ("2f6d7ad0-6d0c-4e0e-9a43-5b1f3a0c7e92", "ParleyTaken")
DELIVERY = (TAKEN[0], "ParleyDelivery")
FOLDERS = {
    "root": "",
    "msgfolderroot": "root",
    "inbox": "msgfolderroot",
    "sentitems": "msgfolderroot",
    "drafts": "msgfolderroot",
    "outbox": "msgfolderroot",
}

Fault = Failure | Literal["lost", "hang", "stale", "too_large", "send_as", "failover"]


@dataclass
class Asked:
    """One request as it came."""

    operation: str
    impersonated: str
    authorization: str
    body: bytes


@dataclass
class Subscription:
    """What one subscriber has not been told yet."""

    folder: str
    events: asyncio.Queue[str] = field(default_factory=asyncio.Queue)


class FakeExchange:
    """The server. `auth` is what it lets in with; `minute` the seconds that a minute of a stream lasts."""

    def __init__(self, *, auth: str = "basic", tls: ssl.SSLContext | None = None, minute: float = 60) -> None:
        self.auth, self.tls, self.minute = auth, tls, minute
        self.items: list[Item] = []
        self.asked: list[Asked] = []
        self.folders = dict(FOLDERS)
        self.made_anew: dict[str, int] = {}
        """How often a folder was deleted and made again, under another id."""
        self.tokens: set[str] = set()
        self.token_forms: list[dict[str, str]] = []
        self.subscriptions: dict[str, Subscription] = {}
        self.streams = 0
        self.changes = Changes()
        self.configurations = Configurations()
        self.refuse: dict[str, str] = {}
        """Response codes that operations end with, until taken away."""
        self.busy: dict[str, float] = {}
        """Seconds that operations ask us to wait for, once each."""
        self.discovered: Any = {"Protocol": "EWS"}
        """What Autodiscover tells; without a word on the URL, the true one."""
        self.hanging = asyncio.Event()
        self.writable = True
        self.forgetful = False
        """Whether changes are taken with thanks, and not kept."""
        self._ntlm: dict[Any, Any] = {}
        self._fault: tuple[Fault | int, float | str] | None = None
        self._numbers = 0
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=200_000_000)
        app.router.add_post("/EWS/Exchange.asmx", self._ews)
        app.router.add_post(f"/{TENANT}/oauth2/v2.0/token", self._token)
        app.router.add_get("/autodiscover/autodiscover.json", self._discover)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner
        self.cut()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def deliver(self, raw: bytes, *, folder: str = "inbox", **more: Any) -> Item:
        """A mail comes in."""
        item = Item(folder=folder, raw=raw, received=more.pop("received", datetime.now(UTC)), **more)
        self.items.append(item)
        self._tell(item, "CreatedEvent", "NewMailEvent")
        return item

    def move(self, item: Item, folder: str) -> None:
        """Somebody moves it: it has another id there, and keeps what it is."""
        item.id, item.folder = Item(folder, b"", item.received).id, folder
        self._tell(item, "MovedEvent")

    def fail_next(self, how: Fault | int, retry_after: float | str = 1) -> None:
        """Let the next mail that is sent fail so: a number is an HTTP status.

        `lost`: it is sent, and only the answer does not arrive. `stale`: no token that was given is good any more.
        """
        self._fault = (how, retry_after)

    def cut(self) -> None:
        """Reset every connection."""
        assert self._runner
        assert self._runner.server
        for connection in list(self._runner.server.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort()

    def operations(self) -> list[str]:
        return [asked.operation for asked in self.asked]

    def sent(self) -> list[Item]:
        return [item for item in self.items if item.folder == "sentitems"]

    # --- who is let in

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: values[0] for name, values in parse_qs((await request.read()).decode()).items()}
        self.token_forms.append(form)
        user = form.get("grant_type") != "password" or form.get("password") == PASSWORD
        if form.get("client_secret") != CLIENT_SECRET or not user:
            return web.json_response(
                {"error": "invalid_client", "error_description": "AADSTS7000215"}, status=401
            )
        token = f"ey.{os.urandom(16).hex()}"
        self.tokens.add(token)
        return web.json_response({"token_type": "Bearer", "expires_in": 3599, "access_token": token})

    async def _discover(self, request: web.Request) -> web.Response:
        if request.query.get("Protocol") != "EWS" or request.query.get("Email") != ASSISTANT:
            return web.json_response({"ErrorCode": "InvalidRequest"}, status=400)
        true = {"Protocol": "EWS", "Url": f"{self.url}/EWS/Exchange.asmx"}
        return web.json_response(true if self.discovered == {"Protocol": "EWS"} else self.discovered)

    async def _refused(self, request: web.Request) -> web.Response | None:
        said = request.headers.get("Authorization", "")
        scheme, _, value = said.partition(" ")
        if self.auth == "ntlm":
            return await self._refused_ntlm(request, scheme, value)
        if self.auth == "oauth2":
            good = scheme == "Bearer" and value in self.tokens
        else:
            good = said == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if good:
            return None
        challenge = 'Bearer client_id="x"' if self.auth == "oauth2" else 'Basic realm="mail"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async def _refused_ntlm(self, request: web.Request, scheme: str, value: str) -> web.Response | None:
        """NTLM logs in a connection, not a request: pyspnego plays the domain controller (its user file)."""
        context = self._ntlm.get(request.transport)
        if context is not None and context.complete and not value:
            return None
        if scheme.upper() not in ("NTLM", "NEGOTIATE") or not value:
            return web.Response(status=401, headers={"WWW-Authenticate": "NTLM"})
        if context is None or context.complete:
            context = self._ntlm[request.transport] = spnego.server(protocol="ntlm")
        try:
            challenge = context.step(base64.b64decode(value))
        except spnego.exceptions.SpnegoError:
            self._ntlm.pop(request.transport)
            return web.Response(status=401, headers={"WWW-Authenticate": "NTLM"})
        if context.complete:
            return None
        told = base64.b64encode(challenge or b"").decode()
        return web.Response(status=401, headers={"WWW-Authenticate": f"NTLM {told}"})

    # --- what is done

    async def _ews(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if (refused := await self._refused(request)) is not None:
            return refused
        root = fromstring(body)
        asked = soap.operation(root)
        operation = soap.name_of(asked)
        who = root.findtext(f".//{T}ConnectingSID/{T}PrimarySmtpAddress", "")
        self.asked.append(Asked(operation, who, request.headers.get("Authorization", ""), body))
        if operation == "GetStreamingEvents":
            return await self._stream(request, asked)
        if operation in self.busy:
            return _busy(self.busy.pop(operation))
        if operation in self.refuse:
            return _xml(soap.answer(operation, soap.error(operation, self.refuse[operation])))
        if operation == "CreateItem" and self._fault is not None:
            return await self._failed(request, asked)
        if operation == "SyncFolderItems":
            return _xml(*self.changes.answer(asked, self.items))
        done: bytes = getattr(self, f"_do_{operation}")(asked)
        return _xml(done)

    async def _failed(self, request: web.Request, asked: Element) -> web.StreamResponse:
        assert self._fault
        (how, wait), self._fault = self._fault, None
        match how:
            case int():
                return web.Response(status=how, headers={"Retry-After": str(wait), "Location": "/owa"})
            case "rate_limited":
                return _busy(wait)
            case "unreachable":
                return web.Response(status=503, text="The service is unavailable.")
            case "auth":
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="mail"'})
            case "stale":
                self.tokens.clear()
                return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
            case "hang":
                self.hanging.set()
                await asyncio.sleep(60)
            case "lost":
                self._do_CreateItem(asked)
        codes = {
            "rejected": "ErrorInvalidRecipients",
            "too_large": "ErrorMessageSizeExceeded",
            "send_as": "ErrorSendAsDenied",
            "failover": "ErrorMailboxFailover",
        }
        if how in codes:
            return _xml(soap.answer("CreateItem", soap.error("CreateItem", codes[how], more="<m:Items/>")))
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    def _do_GetFolder(self, asked: Element) -> bytes:  # noqa: N802 - EWS names it so, here and below
        ids = asked.find(f"{M}FolderIds")
        assert ids is not None
        return soap.answer("GetFolder", *(self._folder("GetFolder", soap.folder_of(each)) for each in ids))

    def _folder(self, operation: str, name: str) -> str:
        if name not in self.folders:
            return soap.error(operation, "ErrorFolderNotFound", more="<m:Folders/>")
        return soap.success(operation, f"<m:Folders>{self._folder_xml(name)}</m:Folders>")

    def _folder_xml(self, name: str) -> str:
        known = f"<t:DistinguishedFolderId>{name}</t:DistinguishedFolderId>" if name in FOLDERS else ""
        return (
            f'<t:Folder><t:FolderId Id="F:{name}#{self.made_anew.get(name, 0)}" ChangeKey="AQAA"/>'
            f'<t:ParentFolderId Id="F:{self.folders[name]}" ChangeKey="AQAA"/><t:FolderClass>IPF.Note</t:FolderClass>'
            f"<t:DisplayName>{name.rpartition('/')[2]}</t:DisplayName><t:TotalCount>0</t:TotalCount>"
            f"<t:ChildFolderCount>0</t:ChildFolderCount>{known}<t:UnreadCount>0</t:UnreadCount></t:Folder>"
        )

    def _do_FindFolder(self, asked: Element) -> bytes:  # noqa: N802
        parents = asked.find(f"{M}ParentFolderIds")
        constant = asked.find(f".//{T}Constant")
        assert parents is not None
        assert constant is not None
        parent, wanted = soap.folder_of(parents[0]), constant.get("Value", "")
        found = [
            name
            for name, above in self.folders.items()
            if above == parent and name.rpartition("/")[2].lower() == wanted.lower()
        ]
        inside = "".join(self._folder_xml(name) for name in found)
        root = (
            f'<m:RootFolder IndexedPagingOffset="{len(found)}" TotalItemsInView="{len(found)}"'
            f' IncludesLastItemInRange="true"><t:Folders>{inside}</t:Folders></m:RootFolder>'
        )
        return soap.answer("FindFolder", soap.success("FindFolder", root))

    def _do_FindItem(self, asked: Element) -> bytes:  # noqa: N802
        parents, page = asked.find(f"{M}ParentFolderIds"), asked.find(f"{M}IndexedPageItemView")
        shape = asked.find(f"{M}ItemShape")
        assert parents is not None
        assert page is not None
        assert shape is not None
        folder, fits = soap.folder_of(parents[0]), soap.wanted(asked.find(f"{M}Restriction"))
        found = sorted(
            (item for item in self.items if item.folder == folder and fits(item)), key=lambda i: i.received
        )
        begin = int(page.get("Offset", "0"))
        end = begin + int(page.get("MaxEntriesReturned", "100"))
        uris, named = soap.shape(shape)
        inside = "".join(soap.item_xml(item, uris, named) for item in found[begin:end])
        last = "true" if end >= len(found) else "false"
        root = (
            f'<m:RootFolder IndexedPagingOffset="{min(end, len(found))}" TotalItemsInView="{len(found)}"'
            f' IncludesLastItemInRange="{last}"><t:Items>{inside}</t:Items></m:RootFolder>'
        )
        return soap.answer("FindItem", soap.success("FindItem", root))

    def _do_GetItem(self, asked: Element) -> bytes:  # noqa: N802
        shape = asked.find(f"{M}ItemShape")
        assert shape is not None
        uris, named = soap.shape(shape)
        return soap.answer("GetItem", *(self._get(each, uris, named) for each in asked.iter(f"{T}ItemId")))

    def _get(self, asked: Element, uris: list[str], named: list[Any]) -> str:
        item = self._item(asked)
        if item is None:
            return soap.error("GetItem", "ErrorItemNotFound", more="<m:Items/>")
        if item.broken and (item.broken != "ErrorMimeContentConversionFailed" or "item:MimeContent" in uris):
            return soap.error("GetItem", item.broken, more="<m:Items/>")
        return soap.success("GetItem", f"<m:Items>{soap.item_xml(item, uris, named)}</m:Items>")

    def _do_GetUserConfiguration(self, asked: Element) -> bytes:  # noqa: N802
        return self.configurations.get(asked)

    def _do_CreateUserConfiguration(self, asked: Element) -> bytes:  # noqa: N802
        return self.configurations.create(asked)

    def _do_UpdateUserConfiguration(self, asked: Element) -> bytes:  # noqa: N802
        return self.configurations.update(asked)

    def _do_UpdateItem(self, asked: Element) -> bytes:  # noqa: N802
        assert asked.get("SuppressReadReceipts") == "true"
        return soap.answer("UpdateItem", *(self._update(each) for each in asked.iter(f"{T}ItemChange")))

    def _update(self, change: Element) -> str:
        wanted = change.find(f"{T}ItemId")
        item = None if wanted is None else self._item(wanted)
        if item is None:
            return soap.error("UpdateItem", "ErrorItemNotFound", more="<m:Items/>")
        if not self.writable:
            return soap.error("UpdateItem", "ErrorAccessDenied", more="<m:Items/>")
        for field_set in change.iter(f"{T}SetItemField"):
            uri, value = field_set.find(f"{T}ExtendedFieldURI"), field_set.findtext(f".//{T}Value", "")
            assert uri is not None, "only named properties are changed by us"
            if not self.forgetful:
                item.properties[soap.property_of(uri)] = (uri.get("PropertyType", ""), value)
        item.change += 1
        told = f"<m:Items><t:Message>{item.item_id()}</t:Message></m:Items>"
        return soap.success(
            "UpdateItem", f"{told}<m:ConflictResults><t:Count>0</t:Count></m:ConflictResults>"
        )

    def _do_CreateItem(self, asked: Element) -> bytes:  # noqa: N802
        assert asked.get("MessageDisposition") == "SendAndSaveCopy"
        saved = asked.find(f"{M}SavedItemFolderId")
        mime = asked.findtext(f".//{T}MimeContent")
        assert saved is not None
        assert mime, "only mails as MIME are sent by us"
        item = Item(folder=soap.folder_of(saved[0]), raw=base64.b64decode(mime), received=datetime.now(UTC))
        for extended in asked.iter(f"{T}ExtendedProperty"):
            uri = extended.find(f"{T}ExtendedFieldURI")
            assert uri is not None
            kind = uri.get("PropertyType", "")
            item.properties[soap.property_of(uri)] = (kind, extended.findtext(f"{T}Value", ""))
        if ASSISTANT not in str(item.headers["From"]):
            return soap.answer("CreateItem", soap.error("CreateItem", "ErrorSendAsDenied", more="<m:Items/>"))
        self.items.append(item)
        return soap.answer("CreateItem", soap.success("CreateItem", "<m:Items/>"))

    # --- notifications

    def _do_Subscribe(self, asked: Element) -> bytes:  # noqa: N802
        folder = asked.find(f".//{T}FolderIds")
        assert folder is not None
        self._numbers += 1
        number = f"JwBl{self._numbers:06d}"
        self.subscriptions[number] = Subscription(soap.folder_of(folder[0]))
        return soap.answer(
            "Subscribe", soap.success("Subscribe", f"<m:SubscriptionId>{number}</m:SubscriptionId>")
        )

    def _do_Unsubscribe(self, asked: Element) -> bytes:  # noqa: N802
        number = asked.findtext(f"{M}SubscriptionId", "")
        if self.subscriptions.pop(number, None) is None:
            return soap.answer("Unsubscribe", soap.error("Unsubscribe", "ErrorSubscriptionNotFound"))
        return soap.answer("Unsubscribe", soap.success("Unsubscribe"))

    async def _stream(self, request: web.Request, asked: Element) -> web.StreamResponse:
        number = asked.findtext(f".//{T}SubscriptionId", "")
        minutes = int(asked.findtext(f"{M}ConnectionTimeout", "0"))
        assert 1 <= minutes <= 30
        subscription = self.subscriptions.get(number)
        response = web.StreamResponse(headers={"Content-Type": "text/xml; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if subscription is None:
            lost = f"<m:ErrorSubscriptionIds><m:SubscriptionId>{number}</m:SubscriptionId></m:ErrorSubscriptionIds>"
            gone = soap.error("GetStreamingEvents", "ErrorSubscriptionNotFound", more=lost)
            await response.write(soap.answer("GetStreamingEvents", gone))
            return response
        self.streams += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(minutes * self.minute):
                    await response.write(_told("<m:ConnectionStatus>OK</m:ConnectionStatus>"))
                    while True:
                        event = await subscription.events.get()
                        await response.write(_told(_notification(number, event)))
            await response.write(_told("<m:ConnectionStatus>Closed</m:ConnectionStatus>"))
        finally:
            self.streams -= 1
        return response

    def _tell(self, item: Item, *kinds: str) -> None:
        for subscription in self.subscriptions.values():
            if subscription.folder == item.folder:
                for kind in kinds:
                    subscription.events.put_nowait(self._event(kind, item))

    def _event(self, kind: str, item: Item) -> str:
        return (
            f"<t:{kind}><t:TimeStamp>{soap.moment(item.received)}</t:TimeStamp>{item.item_id()}"
            f'<t:ParentFolderId Id="F:{item.folder}" ChangeKey="AQAA"/></t:{kind}>'
        )

    def _item(self, asked: Element) -> Item | None:
        return next((item for item in self.items if item.id == asked.get("Id")), None)


def _told(content: str) -> bytes:
    return soap.answer("GetStreamingEvents", soap.success("GetStreamingEvents", content))


def _notification(number: str, event: str) -> str:
    return (
        "<m:Notifications><m:Notification>"
        f"<t:SubscriptionId>{number}</t:SubscriptionId>{event}</m:Notification></m:Notifications>"
    )


def _busy(wait: float | str) -> web.Response:
    milliseconds = wait if isinstance(wait, str) else str(int(wait * 1000))
    told = "The server cannot service this request right now."
    return _xml(soap.fault("ErrorServerBusy", told, {"BackOffMilliseconds": milliseconds}), 500)


def _xml(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="text/xml", charset="utf-8")


class ExchangeDriver:
    """The contract suite's way to write to the assistant's mailbox and to read what it sends."""

    name: ClassVar[str] = "exchange"
    cannot_fail: ClassVar[Mapping[Failure, str]] = {}

    def __init__(self, **server: Any) -> None:
        self.server = FakeExchange(**server)
        self._mails: dict[str, bytes] = {}

    async def __aenter__(self) -> Self:
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.__aexit__()

    def settings(self, **changed: Any) -> ExchangeSettings:
        """Settings of the assistant's account here."""
        values: dict[str, Any] = {
            "address": ASSISTANT,
            "display_name": "Assistant 助手",
            "endpoint": f"{self.server.url}/EWS/Exchange.asmx",
            "auth": "basic",
            "username": USER,
            "password": PASSWORD,
            "since": datetime.now(UTC) - timedelta(hours=1),
            "connect_timeout": 5,
            "timeout": 5,
            "settle": 0,
        }
        return ExchangeSettings.model_validate(values | changed)

    def connector(self, account: str) -> Exchange:
        return Exchange(account, self.settings())

    def broken_connector(self, account: str) -> Exchange:
        return Exchange(account, self.settings(password=WRONG_PASSWORD))

    def secrets(self) -> tuple[str, ...]:
        pairs = [f"{USER}:{password}".encode() for password in (PASSWORD, WRONG_PASSWORD)]
        return (PASSWORD, WRONG_PASSWORD, *(base64.b64encode(pair).decode() for pair in pairs))

    async def person_says(
        self,
        text: str,
        *,
        person: str = "alice",
        thread: str | None = None,
        files: tuple[File, ...] = (),
        direct: bool = True,
    ) -> str:
        mail = letter(text, person=person, thread=thread, files=files)
        native_id = str(mail["Message-ID"])
        self._mails[native_id] = mail.as_bytes(policy=SMTP_POLICY)
        await self.redeliver(native_id)
        return native_id

    async def redeliver(self, native_id: str) -> None:
        self.server.deliver(self._mails[native_id])

    async def sent(self, n: int) -> list[Sent]:
        await eventually(lambda: len(self.server.sent()) >= n, f"{n} mails")
        return [as_sent(_arrived(item)) for item in self.server.sent()]

    def refuse_next(self, how: Failure, retry_after: float | str = 1) -> None:
        self.server.fail_next(how, retry_after)

    async def cut(self) -> None:
        self.server.cut()

    def acknowledged(self, native_id: str) -> bool:
        return any(TAKEN in item.properties for item in self.server.items if item.message_id == native_id)


def _arrived(item: Item) -> Arrived:
    """A sent mail as its reader gets it: Exchange sends to those that the MIME content names, and to nobody else."""
    assert not item.headers["Cc"]
    assert not item.headers["Bcc"]
    return Arrived(raw=item.raw, sender=ASSISTANT, recipients=(str(item.headers["To"]),))


DRIVER = ExchangeDriver

__all__ = ["DOMAIN", "DRIVER", "ExchangeDriver", "FakeExchange"]
