"""Gitea, Forgejo and Gogs: webhooks of their own form, which is GitHub's with a few words changed.

By their source (services/webhook/deliver.go of Gitea and Forgejo, internal/database/webhook.go of Gogs): the signature
is the hexadecimal HMAC-SHA256 of the payload, which in a form is the field `payload` and not the body. Forgejo sends
every header under its own name as well as under Gitea's and Gogs's. None of them sends anything again by itself; a
delivery sent again by hand has a new id, so that it is told again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

from connectors import _hook_github_form as form
from connectors._hook_forge import Happening, Outcome, pipeline
from connectors._hook_json import (
    Json,
    Unreadable,
    id_of,
    json_object,
    object_of,
    payload_bytes,
    text_of,
    url_of,
)
from connectors._hook_proofs import prove_hex_hmac
from connectors._hook_source import SignedSource, delivery_id
from parley.errors import BadSignature
from parley.messages import HookRequest, Notice

__all__ = ["CONNECTOR", "Gitea", "parse"]

_FAMILY = ("forgejo", "gitea", "gogs")
_PREFIX = "sha256="


def parse(headers: Mapping[str, str], body: Json, account: str, native_id: str) -> tuple[Notice, ...]:
    """What a delivery reports; nothing for events without use here. Raises `Unreadable`."""
    read = _EVENTS.get(_event(headers))
    happening = read(body) if read else None
    return (happening.notice(Gitea.service, account, native_id),) if happening else ()


def _event(headers: Mapping[str, str]) -> str:
    # The type is the finer of the two: the event of a comment on a pull request is `issue_comment`.
    names = [f"x-{one}-event{suffix}" for suffix in ("-type", "") for one in _FAMILY]
    return next((found for name in names if (found := headers.get(name))), "")


_REVIEWS: dict[str, form.Review] = {
    "pull_request_review_approved": "approved",
    "pull_request_review_rejected": "changes_requested",
    "pull_request_review_comment": "commented",
}


def _pull_request(payload: Json) -> Happening | None:
    """Anything of a pull request: of its comments and reviews it depends on the version under which event they come."""
    if payload.get("comment"):
        return form.commented(payload)
    review = object_of(payload.get("review"))
    if payload.get("action") == "reviewed" or review:
        verdict = _REVIEWS.get(text_of(review.get("type"), 60))
        return form.reviewed(payload, verdict, text_of(review.get("content"), 5000), "") if verdict else None
    return form.pull_request(payload)


def _run_ended(payload: Json, outcome: Outcome) -> Happening | None:
    """Forgejo's `action_run_failure`, `action_run_recover` and `action_run_success`."""
    run = object_of(payload.get("run"))
    whole = {"repository": object_of(run.get("repository")), **payload}
    number = id_of(run.get("index_in_repo"))
    return pipeline(
        repository=form.repository_of(whole),
        actor=form.login(run.get("trigger_user")),
        workflow=text_of(run.get("workflow_id"), 200),
        run=f"#{number}" if number else "",
        branch=text_of(run.get("prettyref"), 300),
        sha=text_of(run.get("commit_sha"), 64),
        subject=text_of(run.get("title"), 500),
        outcome=outcome,
        action=text_of(payload.get("action"), 40),
        url=url_of(run.get("html_url")),
    )


_EVENTS: dict[str, Callable[[Json], Happening | None]] = {
    "push": form.pushed,
    "create": partial(form.tagged, deleted=False),
    "delete": partial(form.tagged, deleted=True),
    "pull_request": _pull_request,
    "pull_request_sync": _pull_request,
    "pull_request_review_request": _pull_request,
    "pull_request_comment": _pull_request,
    "pull_request_approved": _pull_request,
    "pull_request_rejected": _pull_request,
    "pull_request_review_approved": _pull_request,
    "pull_request_review_rejected": _pull_request,
    "pull_request_review_comment": _pull_request,
    "issue_comment": form.commented,
    "issues": form.issue,
    "release": form.released,
    "workflow_run": form.workflow_ended,
    "action_run_failure": partial(_run_ended, outcome="failed"),
    "action_run_recover": partial(_run_ended, outcome="succeeded"),
    "action_run_success": partial(_run_ended, outcome="succeeded"),
}


class Gitea(SignedSource):
    """One webhook secret on a Gitea, Forgejo or Gogs server, of as many repositories as use it."""

    name: ClassVar[str] = "gitea"
    service: ClassVar[str] = "Gitea"

    def prove(self, request: HookRequest, now: float) -> None:
        """The signature, under whichever name it comes, over the payload."""
        names = [f"x-{one}-signature" for one in _FAMILY]
        given = next((found for name in names if (found := request.headers.get(name))), "")
        given = given or request.headers.get("x-hub-signature-256", "").removeprefix(_PREFIX)
        if not given:
            raise BadSignature("The request has no signature: set a secret at the webhook.")
        try:
            signed = payload_bytes(request, forms=True)
        except Unreadable:
            signed = request.body
        prove_hex_hmac(self._secrets, signed, given)

    def events(self, request: HookRequest) -> tuple[Notice, ...]:
        """The notice in a delivery of JSON or of a form."""
        native_id = delivery_id(request, *[f"x-{one}-delivery" for one in _FAMILY])
        body = json_object(payload_bytes(request, forms=True))
        return parse(request.headers, body, self.account, native_id)


CONNECTOR = Gitea
