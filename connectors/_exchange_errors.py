"""What exchangelib raises, as the errors that the outbox and the listener act on. Imported only when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from exchangelib import errors
from exchangelib.errors import EWSError, ResponseMessageError
from requests.exceptions import RequestException  # noqa: TID251 - what exchangelib speaks through

from connectors._exchange_calls import current
from connectors._exchange_protocol import bounded
from parley.errors import AuthError, ConnectorError, ParleyError, RateLimited, Rejected, Unknown, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class NoSubscription(Unreachable):
    """Exchange knows this subscription no longer: a new one is needed."""


class TooManySubscriptions(RateLimited):
    """Exchange grants this account no further notifications for now."""


_AUTH = (
    errors.ErrorAccessDenied,
    errors.ErrorAccountDisabled,
    errors.ErrorCallerIsInvalidADAccount,
    errors.ErrorCreateItemAccessDenied,
    errors.ErrorFolderNotFound,
    errors.ErrorImpersonateUserDenied,
    errors.ErrorImpersonationDenied,
    errors.ErrorImpersonationFailed,
    errors.ErrorInvalidAuthorizationContext,
    errors.ErrorInvalidExchangeImpersonationHeaderData,
    errors.ErrorMailboxLogonFailed,
    errors.ErrorMissingEmailAddress,
    errors.ErrorNonExistentMailbox,
    errors.ErrorNonPrimarySmtpAddress,
    errors.ErrorPasswordChangeRequired,
    errors.ErrorPasswordExpired,
    errors.ErrorSendAsDenied,
    errors.ErrorSubscriptionAccessDenied,
    errors.ErrorSubscriptionDelegateAccessNotSupported,
    errors.ErrorSyncFolderNotFound,
    errors.UnauthorizedError,
)
_LATER = (
    errors.ErrorExceededConnectionCount,
    errors.ErrorExceededFindCountLimit,
    errors.ErrorServerBusy,
    errors.ErrorSubmissionQuotaExceeded,
    errors.ErrorTooManyObjectsOpened,
)
_NOT_NOW = (
    errors.ErrorADOperation,
    errors.ErrorADUnavailable,
    errors.ErrorMailboxMoveInProgress,
    errors.ErrorMailboxStoreUnavailable,
)
_LOST = (
    errors.ErrorExpiredSubscription,
    errors.ErrorInvalidSubscription,
    errors.ErrorInvalidWatermark,
    errors.ErrorReadEventsFailed,
    errors.ErrorSubscriptionNotFound,
    errors.ErrorSubscriptionUnsubsribed,
)
_PERHAPS = (
    errors.ErrorInternalServerError,
    errors.ErrorInternalServerTransientError,
    errors.ErrorMailboxFailover,
    errors.ErrorTimeoutExpired,
)
"""Exchange failed while it worked on it: what it had done by then, it does not say."""


def reading(work: Callable[[], _T]) -> _T:
    """Do this, which changes nothing that cannot be done again. Raises `AuthError`, `RateLimited`, `Unreachable`."""
    try:
        return _once_more(work)
    except (AuthError, RateLimited, Unreachable):
        raise
    except ConnectorError as error:
        raise Unreachable(str(error)) from None
    except (EWSError, RequestException, OSError, ValueError, LookupError) as error:
        what = named(error)
        raise (what if not isinstance(what, Rejected | Unknown) else Unreachable(str(what))) from None


def sending(work: Callable[[], _T]) -> _T:
    """Do this once. Raises what is known of it: `Unknown` when the server may have done it."""
    try:
        return _once_more(work)
    except ParleyError:
        raise
    except (EWSError, RequestException, OSError, ValueError, LookupError) as error:
        raise named(error) from None


def _once_more(work: Callable[[], _T]) -> _T:
    try:
        return work()
    except AuthError:
        # A token may be withdrawn before its time. The refused request was not read, so it may be sent again.
        if not current().had_token or current().fresh_token:
            raise
        return work()


def named(error: Exception) -> ConnectorError:
    """What an error of exchangelib means."""
    said = _said(error)
    if isinstance(error, _AUTH):
        return AuthError(f"Exchange refuses this account: {said}")
    if isinstance(error, errors.ErrorExceededSubscriptionCount):
        return TooManySubscriptions("Exchange grants this account no further subscription now.", 60)
    if isinstance(error, _LATER):
        wait = getattr(error, "back_off", None)
        return RateLimited("Exchange asks us to wait.", bounded(wait))
    if isinstance(error, _LOST):
        return NoSubscription(f"The subscription is gone: {said}")
    if isinstance(error, _NOT_NOW):
        return Unreachable(f"The mailbox cannot be reached now: {said}")
    if isinstance(error, ResponseMessageError) and not isinstance(error, _PERHAPS):
        return Rejected(f"Exchange refused it: {said}")
    if not current().begun:
        return Unreachable(f"The server cannot be reached: {said}")
    return Unknown(f"The server's answer was lost: {said}")


def _said(error: Exception) -> str:
    """What Exchange says, which is for administrators and holds no secret; of anything else only its kind."""
    if isinstance(error, ResponseMessageError) and not isinstance(error, errors.ErrorTimeoutExpired):
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    cause = error.__context__ if isinstance(error, EWSError) and error.__context__ else error
    return type(cause).__name__
