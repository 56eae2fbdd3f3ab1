"""GitHub: webhooks of repositories, organisations and apps, signed with X-Hub-Signature-256.

By https://docs.github.com/en/webhooks/webhook-events-and-payloads: the signature is the HMAC-SHA256 of the body as it
came, also where that is a form; X-GitHub-Delivery stays the same when a delivery is sent again by hand. GitHub sends
nothing again by itself, and waits ten seconds for an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

from connectors import _hook_github_form as form
from connectors._hook_forge import Happening
from connectors._hook_json import Json, json_body, object_of, text_of, url_of
from connectors._hook_proofs import prove_hex_hmac
from connectors._hook_source import SignedSource, delivery_id
from parley.messages import HookRequest, Notice

__all__ = ["CONNECTOR", "GitHub", "parse"]

_PREFIX = "sha256="


def parse(headers: Mapping[str, str], body: Json, account: str, native_id: str) -> tuple[Notice, ...]:
    """What a delivery reports; nothing for events without use here. Raises `Unreadable`."""
    read = _EVENTS.get(headers.get("x-github-event", ""))
    happening = read(body) if read else None
    return (happening.notice(GitHub.service, account, native_id),) if happening else ()


def _review(payload: Json) -> Happening | None:
    action, review = payload.get("action"), object_of(payload.get("review"))
    state, body = text_of(review.get("state"), 40).lower(), text_of(review.get("body"), 5000)
    url = url_of(review.get("html_url"))
    if action == "dismissed":
        return form.reviewed(payload, "dismissed", body, url)
    # A review of comments on lines alone has no words of its own: those comments come by themselves.
    if action != "submitted" or (state == "commented" and not body):
        return None
    match state:
        case "approved" | "changes_requested" | "commented":
            return form.reviewed(payload, state, body, url)
        case _:
            return None


_EVENTS: dict[str, Callable[[Json], Happening | None]] = {
    "push": form.pushed,
    "create": partial(form.tagged, deleted=False),
    "delete": partial(form.tagged, deleted=True),
    "pull_request": form.pull_request,
    "pull_request_review": _review,
    "pull_request_review_comment": form.commented,
    "issue_comment": form.commented,
    "issues": form.issue,
    "release": form.released,
    "workflow_run": form.workflow_ended,
}


class GitHub(SignedSource):
    """One webhook secret on GitHub, of as many repositories as use it."""

    name: ClassVar[str] = "github"
    service: ClassVar[str] = "GitHub"

    def prove(self, request: HookRequest, now: float) -> None:
        """X-Hub-Signature-256 over the body."""
        given = request.headers.get("x-hub-signature-256", "")
        prove_hex_hmac(self._secrets, request.body, given.removeprefix(_PREFIX))

    def events(self, request: HookRequest) -> tuple[Notice, ...]:
        """The notice in a delivery of JSON or of a form."""
        native_id = delivery_id(request, "x-github-delivery")
        return parse(request.headers, json_body(request, forms=True), self.account, native_id)


CONNECTOR = GitHub
