"""GitLab: webhooks of projects and groups, proven by a signing token or by the older secret token.

By https://docs.gitlab.com/user/project/integrations/webhooks/ and its page of events: a secret token comes in
X-Gitlab-Token as it is; a signing token (`whsec_...`) signs as Standard Webhooks has it. `webhook-id` and
Idempotency-Key are the same over retries; X-Gitlab-Event-UUID, which older versions have alone, is shared by all that
one event set off, so that it is no id by itself. GitLab switches a hook off that answers 4xx several times.

Merge requests are told as pull requests: topics are the same for all forges. Their key is `<project>!<number>`, because
GitLab counts them apart from issues.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from connectors._hook_gitlab_form import happening
from connectors._hook_json import Json, json_body
from connectors._hook_proofs import prove_standard_webhook, prove_token, standard_key
from connectors._hook_source import HookSource, delivery_id, required
from parley.errors import ConfigurationError
from parley.messages import HookRequest, Notice, derived_id

__all__ = ["CONNECTOR", "GitLab", "parse"]


def parse(body: Json, account: str, native_id: str) -> tuple[Notice, ...]:
    """What a delivery reports; nothing for events without use here. Raises `Unreadable`."""
    found = happening(body)
    return (found.notice(GitLab.service, account, native_id),) if found else ()


class GitLab(HookSource):
    """One token of GitLab's webhooks, of as many projects and groups as use it."""

    name: ClassVar[str] = "gitlab"
    service: ClassVar[str] = "GitLab"

    def __init__(
        self,
        account: str,
        *,
        signing_token: str = "",
        old_signing_token: str = "",
        token: str = "",
        old_token: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """With a signing token every call must be signed, and the secret token counts no more.

        The old ones are still taken while a token is being changed. Raises `ConfigurationError`.
        """
        super().__init__(account, clock=clock)
        if not (signing_token or token):
            raise ConfigurationError(
                "Neither signing_token nor token is set: nobody's calls could be proven."
            )
        given = {"signing_token": signing_token, "old_signing_token": old_signing_token}
        signing = required(**given) if signing_token else ()
        self._keys = tuple(standard_key(secret, "signing_token") for secret in signing)
        self._tokens = required(token=token, old_token=old_token) if token else ()

    def prove(self, request: HookRequest, now: float) -> None:
        """The signature, or where none was agreed the secret token."""
        if self._keys:
            prove_standard_webhook(self._keys, request.headers, request.body, now)
        else:
            prove_token(self._tokens, request.headers.get("x-gitlab-token", ""))

    def events(self, request: HookRequest) -> tuple[Notice, ...]:
        """The notice in a delivery."""
        return parse(json_body(request), self.account, _native_id(request))


def _native_id(request: HookRequest) -> str:
    if request.headers.get("webhook-id") or request.headers.get("idempotency-key"):
        return delivery_id(request, "webhook-id", "idempotency-key")
    return derived_id(request.headers.get("x-gitlab-event-uuid", ""), request.body)


CONNECTOR = GitLab
