"""exchangelib's protocol as this project needs it: no retries, no shared cache, no request nobody asked for.

exchangelib keeps protocols in a cache of the process, so that two accounts with the same login would close each
other's connections; replaces a failed session by a fresh one at once, which may fetch a token and fail in turn; and
renews tokens with a refresh token that an app does not have. Imported only when an account is used.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, NoReturn

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring
from exchangelib import (
    BASIC,
    DELEGATE,
    IMPERSONATION,
    NTLM,
    OAUTH2,
    UTC,
    Account,
    Build,
    Configuration,
    Credentials,
    FailFast,
    Identity,
    OAuth2Credentials,
    OAuth2LegacyCredentials,
)
from exchangelib.errors import SessionPoolMinSizeReached
from exchangelib.protocol import Protocol
from exchangelib.version import Version
from oauthlib.oauth2 import OAuth2Error  # type: ignore[import-untyped]
from requests.exceptions import RequestException  # noqa: TID251 - what exchangelib speaks through

from connectors._exchange_calls import current
from connectors._exchange_wire import Adapter
from parley.errors import AuthError, ConnectorError, RateLimited, Rejected, Unknown, Unreachable

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from connectors._exchange_settings import ExchangeSettings

DEFAULT_WAIT = 10.0
"""Seconds to wait when Exchange is busy and does not say for how long."""
LONGEST_WAIT = 3600.0

_ERRORS = "{http://schemas.microsoft.com/exchange/services/2006/errors}"
_TYPES = "{http://schemas.microsoft.com/exchange/services/2006/types}"
_TALKATIVE = ("exchangelib", "oauthlib", "requests_oauthlib", "requests_ntlm", "spnego")
_PASSING_OAUTH = ("server_error", "temporarily_unavailable")


def hush() -> None:
    """Silence what these packages log: whole mails, Authorization headers and tokens. Each failure is ours to tell."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class Policy(FailFast):  # type: ignore[misc]
    """Names what an HTTP answer means, before exchangelib guesses; nothing is tried twice here."""

    def raise_response_errors(self, response: Any) -> None:
        status: int = response.status_code
        if status == 200:
            return
        if status == 500 and (wait := _busy(response.content)) is not None:
            raise RateLimited("Exchange is busy.", wait)
        if status == 500 and b"Envelope" in response.content[:2000]:
            return  # a SOAP fault: exchangelib reads what it says
        _refused(status, response.headers)


def _refused(status: int, headers: Any) -> NoReturn:
    if status == 401:
        raise AuthError("Exchange refused the login: check username and password, or the app's secret.")
    if status == 403:
        # Exchange Online answers so to every app that its administrators have not put on the list, since October 2026.
        raise AuthError("Exchange does not let this account or app use Exchange Web Services.")
    if status in (429, 503) and headers.get("Retry-After"):
        raise RateLimited("Exchange asks us to wait.", bounded(headers["Retry-After"]))
    if status == 413:
        raise Rejected("Exchange takes no request of this size.")
    if status in (503, 404, 405) or 300 <= status < 400:
        raise Unreachable(
            f"The server does not offer Exchange Web Services there, or not now: HTTP {status}."
        )
    if status >= 500:
        raise Unknown(f"The server failed with HTTP {status}.")
    raise Rejected(f"The server refused the request: HTTP {status}.")


def bounded(seconds: object, *, unit: float = 1.0) -> float:
    """A wait that a server asks for, in seconds: never endless, and readable whatever it says."""
    try:
        wait = float(str(seconds)) / unit
    except ValueError:
        return DEFAULT_WAIT
    return min(wait, LONGEST_WAIT) if wait >= 0 else DEFAULT_WAIT  # not a number is neither


def _busy(content: bytes) -> float | None:
    """Seconds that a fault asks us to wait; None where it says something else. exchangelib fails on odd values."""
    if b"ErrorServerBusy" not in content[:20_000]:
        return None
    with suppress(ParseError, DefusedXmlException, ValueError):
        root = fromstring(content)
        if root.findtext(f".//{_ERRORS}ResponseCode", "").strip() == "ErrorServerBusy":
            values = root.findall(f".//{_TYPES}MessageXml/{_TYPES}Value")
            named = [value.text for value in values if value.get("Name") == "BackOffMilliseconds"]
            return bounded(named[0], unit=1000) if named else DEFAULT_WAIT
    return None


class OurProtocol(Protocol):  # type: ignore[misc]
    """One account's connections. A session is used by one thread at a time; a failed one is closed and not replaced."""

    def __init__(self, config: Configuration, settings: ExchangeSettings) -> None:
        super().__init__(config=config)
        # (connect, read): what requests takes in place of one number, and exchangelib hands on as it is.
        self.TIMEOUT = (settings.connect_timeout, settings.timeout)
        self._context = settings.tls()
        self._idle: list[Any] = []
        self._idle_lock = Lock()
        self._closed = False

    def get_session(self) -> Any:
        with self._idle_lock:
            session = self._idle.pop() if self._idle else None
        if session is None:
            session = self.create_session()
        if isinstance(self.credentials, OAuth2Credentials):
            current().had_token = True
        session.usage_count += 1
        return session

    def release_session(self, session: Any) -> None:
        with self._idle_lock:
            if not self._closed:
                self._idle.append(session)
                return
        self.close_session(session)

    def retire_session(self, session: Any) -> None:
        self.close_session(session)

    def refresh_credentials(self, session: Any) -> Any:
        if session.usage_count <= 1:
            raise AuthError(
                "The access token has expired as soon as it was given: check this machine's clock."
            )
        return self.renew_session(session)

    def close_session(self, session: Any) -> None:
        # With it goes the token: what was refused or has run out must not be used for the next session.
        if isinstance(self.credentials, OAuth2Credentials):
            with self.credentials.lock:
                self.credentials.access_token = None
        session.close()

    def decrease_poolsize(self) -> None:
        raise SessionPoolMinSizeReached("There is one session a thread.")

    def create_session(self) -> Any:
        call = current()
        token_before = getattr(self.credentials, "access_token", None)
        try:
            session = super().create_session()
        except ConnectorError:
            raise
        except OAuth2Error as error:
            if error.error in _PASSING_OAUTH:
                raise Unreachable("The authority cannot give an access token now.") from None
            raise AuthError(f"The authority gives no access token: {str(error.error)[:100]}.") from None
        except (RequestException, ValueError) as error:
            # Nothing of our request to Exchange has left yet: only a token was asked for.
            raise Unreachable(f"No access token could be fetched: {type(error).__name__}.") from None
        call.fresh_token = getattr(self.credentials, "access_token", None) is not token_before
        call.begun = False
        return session

    def raw_session(self, prefix: str, **more: Any) -> Any:
        session = super().raw_session(prefix, **more)
        # Instead of those that exchangelib made, for every address: the token's and the endpoint's.
        session.adapters.clear()
        session.mount("https://", Adapter(self._context))
        session.mount("http://", Adapter(self._context))
        return session

    def close(self) -> None:
        with self._idle_lock:
            idle, self._idle, self._closed = self._idle, [], True
        for session in idle:
            session.close()


class _OwnAuthority:
    """Tokens from the authority and for the server that the settings name; fetched anew when they have run out."""

    token_url = ""
    scope: tuple[str, ...] = ()

    def session_params(self) -> dict[str, Any]:
        return {"token": self.access_token}  # type: ignore[attr-defined]

    def at(self, authority: str, tenant: str, endpoint: SplitResult, right: str) -> None:
        self.token_url = f"{authority.rstrip('/')}/{tenant}/oauth2/v2.0/token"
        self.scope = (f"https://{endpoint.netloc}/{right}",)


class _App(_OwnAuthority, OAuth2Credentials):  # type: ignore[misc]
    pass


class _AppForUser(_OwnAuthority, OAuth2LegacyCredentials):  # type: ignore[misc]
    pass


def account(settings: ExchangeSettings, endpoint: str) -> Account:
    """The mailbox, with connections of its own. Connects to nothing yet."""
    hush()
    config = Configuration(
        service_endpoint=endpoint,
        credentials=_credentials(settings, endpoint),
        auth_type={"oauth2": OAUTH2, "ntlm": NTLM, "basic": BASIC}[settings.auth],
        # Asked for first, and corrected by what the server says with its first answer.
        version=Version(build=Build(15, 0, 847, 32), api_version="Exchange2013_SP1"),
        retry_policy=Policy(),
    )
    made = Account(
        primary_smtp_address=settings.address,
        access_type=IMPERSONATION if settings.impersonates() else DELEGATE,
        config=config,
        default_timezone=UTC,
        locale="en_US",
    )
    with suppress(KeyError):
        del Protocol[config]
    # Past the metaclass, whose cache is shared by all accounts of the process.
    made.protocol = type.__call__(OurProtocol, config, settings)
    return made


def _credentials(settings: ExchangeSettings, endpoint: str) -> Any:
    from urllib.parse import urlsplit

    password = settings.password.get_secret_value()
    if settings.auth != "oauth2":
        return Credentials(settings.username, password)
    app = {
        "client_id": settings.client_id,
        "client_secret": settings.client_secret.get_secret_value(),
        "tenant_id": settings.tenant_id,
    }
    where = urlsplit(endpoint)
    if settings.is_app():
        made = _App(**app, identity=Identity(primary_smtp_address=settings.address))
        made.at(settings.authority, settings.tenant_id, where, ".default")
        return made
    user = _AppForUser(username=settings.username, password=password, **app)
    user.at(settings.authority, settings.tenant_id, where, "EWS.AccessAsUser.All")
    return user
