"""Every error that this project raises on purpose.

::

    ParleyError
    ├── ConfigurationError          parley.toml, environment, key file: start-up is refused
    ├── ConnectorError              a platform, seen from us
    │   ├── AuthError               credentials refused: never retried by itself
    │   ├── Superseded              a newer connection took the account's place: never fought for
    │   ├── RateLimited             wait `retry_after` seconds, then again
    │   ├── Unreachable             never left this machine: safe to send again
    │   ├── Unknown                 may have arrived: sent again only with a token or a look-up
    │   ├── Rejected                the platform refused the content: never retried
    │   ├── Unsupported             the platform lacks it: render down first
    │   └── BadSignature            an incoming request that is not from the platform
    ├── CommandError                what a person typed
    │   ├── UnknownCommand
    │   ├── BadArguments
    │   └── NeedsConfirmation       it may have had effects already: said once more, it is done
    ├── PolicyError
    │   └── Denied
    ├── RunError                    an automation's run
    │   ├── StartRefused            the start guard said no: no right, no grant, ended, cancelled
    │   │   ├── AlreadyStarted      another process has the run: it goes on, this one leaves it alone
    │   │   └── StartedElsewhere    another flow run has the run: nothing is left for this one to do
    │   └── Lost                    the process that ran it is gone
    ├── SealError                   a sealed value does not open: wrong key, moved or altered
    ├── StoreUnavailable            nothing was committed; the sender should try again
    │   └── AuditUnavailable        what is privileged cannot be audited, so it is not done
    └── LinkError                   the hub cannot be reached, or refused the call
        └── TooLarge                more than one call can carry: never retried

`message` is written for the person who reads it in a chat or a terminal: no traceback, no secret, how to mend it.
"""

from __future__ import annotations


class ParleyError(Exception):
    """Base of all errors raised on purpose; `str()` of it may be shown to people."""

    retryable: bool = False


class ConfigurationError(ParleyError):
    """A setting is missing or wrong; the text names it and says how to mend it."""


class ConnectorError(ParleyError):
    """A platform could not do what was asked of it."""


class AuthError(ConnectorError):
    """The platform refused our credentials."""


class Superseded(ConnectorError):
    """Another process holds this account: its newer connection took the place of ours.

    For platforms that allow one connection. Connecting again at once would throw the other out, which would come back.
    """


class RateLimited(ConnectorError):
    """The platform wants us to wait.

    `retry_after` is in seconds, counted from now.
    """

    retryable = True

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = max(0.0, retry_after)


class Unreachable(ConnectorError):
    """The request never left, or was refused before it was read: sending it again cannot duplicate."""

    retryable = True


class Unknown(ConnectorError):
    """The request may have arrived: the answer was lost. Sending again may duplicate."""


class Rejected(ConnectorError):
    """The platform understood and refused: sending the same again is useless."""


class Unsupported(ConnectorError):
    """The platform cannot do this; `Capabilities` said so."""


class BadSignature(ConnectorError):
    """An incoming request is not from the platform: wrong, missing, old or repeated signature."""


class CommandError(ParleyError):
    """What a person typed cannot be carried out as it stands."""


class UnknownCommand(CommandError):
    """No automation or built-in has this name; the text offers the nearest ones."""


class BadArguments(CommandError):
    """A parameter is wrong, missing or not known; the text names it and what is allowed."""


class NeedsConfirmation(CommandError):
    """What is to be done again may have had effects, or may have arrived: it wants a second word."""


class PolicyError(ParleyError):
    """Rights."""


class Denied(PolicyError):
    """This principal may not do this here; the text says which right is missing."""


class RunError(ParleyError):
    """A run of an automation."""


class StartRefused(RunError):
    """The start guard did not grant this start."""


class AlreadyStarted(StartRefused):
    """Another process has this run; its state belongs to that one."""


class StartedElsewhere(StartRefused):
    """Another flow run has this run, or none needs it any more: the flow run that asked is to end with nothing done."""


class Lost(RunError):
    """The process that ran the automation is gone; whether it finished is not known."""


class SealError(ParleyError):
    """A sealed value does not open: wrong key, moved to another row, or altered."""


class StoreUnavailable(ParleyError):
    """Nothing was committed."""

    retryable = True


class AuditUnavailable(StoreUnavailable):
    """The audit takes no row: what is privileged is not done."""

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message
            or "Nothing was done: it could not be written in the audit first. Tell whoever runs this assistant."
        )


class LinkError(ParleyError):
    """The hub cannot be reached, or refused the call."""

    retryable = True


class TooLarge(LinkError):
    """More than one call of the link can carry: it was not sent, and never can be."""

    retryable = False
