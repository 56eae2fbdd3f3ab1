"""Gitea, Forgejo and Gogs, as far as they call us: headers and signatures as in their source (services/webhook)."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from typing import Any, ClassVar, Literal
from urllib.parse import urlencode

from connectors.gitea import Gitea
from parley.messages import HookRequest
from tests.fakes import _forge as forge
from tests.fakes._caller import posted

SECRET, OLD_SECRET, WRONG_SECRET = "gitea-Secret-1a2b", "gitea-Old-3c4d", "gitea-Wrong-5e6f"
Family = Literal["gitea", "forgejo", "gogs"]


def delivery(
    event: str,
    payload: dict[str, Any],
    *,
    event_type: str = "",
    secret: str = SECRET,
    guid: str = "",
    form: bool = False,
    family: Family = "gitea",
) -> HookRequest:
    """One delivery; these sign the payload, which in a form is not the body."""
    text = json.dumps(payload, indent=2)
    signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest() if secret else ""
    guid = guid or str(uuid.uuid5(uuid.NAMESPACE_URL, event + event_type + text))
    names = {"gitea": ["Gitea", "Gogs"], "forgejo": ["Forgejo", "Gitea", "Gogs"], "gogs": ["Gogs"]}[family]
    headers: dict[str, str] = {}
    for name in names:
        headers |= {
            f"X-{name}-Delivery": guid,
            f"X-{name}-Event": event,
            f"X-{name}-Signature": signature,
        }
        if family != "gogs":
            headers[f"X-{name}-Event-Type"] = event_type or event
    if family != "gogs":
        headers |= {"X-GitHub-Delivery": guid, "X-GitHub-Event": event}
        headers["X-Hub-Signature-256"] = f"sha256={signature}"
    body = (urlencode({"payload": text}) if form else text).encode()
    return posted(body, headers, "application/x-www-form-urlencoded" if form else "application/json")


def push(**changes: Any) -> dict[str, Any]:
    """Gitea's push has `compare_url` and `total_commits`, and neither `created` nor `forced`."""
    github = forge.push()
    for name in ("created", "deleted", "forced", "base_ref", "compare"):
        del github[name]
    return {**github, "compare_url": f"{forge.PAGE}/compare/aaa...bbb", "total_commits": 2, **changes}


def review(kind: str, content: str) -> dict[str, Any]:
    return {**forge.pull_request("reviewed", actor="bob"), "review": {"type": kind, "content": content}}


def run(status: str) -> dict[str, Any]:
    """What Forgejo sends when a run of its Actions ended."""
    about = {
        "id": 41,
        "title": "Fix login",
        "repository": forge.common()["repository"],
        "workflow_id": "ci.yml",
        "index_in_repo": 8,
        "trigger_user": forge.user("alice"),
        "prettyref": "main",
        "commit_sha": forge.AFTER,
        "event": "push",
        "status": status,
        "html_url": f"{forge.PAGE}/actions/runs/8",
    }
    return {"action": status, "run": about, "prior_status": "running", "last_run": None}


class GiteaCaller:
    """Gitea for the contract suite, with what Forgejo has more."""

    name: ClassVar[str] = "gitea"
    cannot_age: ClassVar[str] = "Gitea signs no time"
    cannot_sign: ClassVar[str] = ""

    def connector(self, account: str) -> Gitea:
        return Gitea(account, secret=SECRET, old_secret=OLD_SECRET)

    def secrets(self) -> tuple[str, ...]:
        return (SECRET, OLD_SECRET)

    def calls(self) -> dict[str, HookRequest]:
        closed = {"state": "closed"}
        merged = {**closed, "merged": True, "merged_at": "2025-10-09T09:00:00Z"}
        return {
            "push": delivery("push", push()),
            "tag.created": delivery("create", {**forge.ref(), "sha": forge.AFTER}),
            "tag.deleted": delivery("delete", forge.ref()),
            "pull_request.opened": delivery("pull_request", forge.pull_request("opened")),
            "pull_request.updated": delivery(
                "pull_request", forge.pull_request("synchronized"), event_type="pull_request_sync"
            ),
            "pull_request.merged": delivery("pull_request", forge.pull_request("closed", about=merged)),
            "pull_request.closed": delivery("pull_request", forge.pull_request("closed", about=closed)),
            "pull_request.reopened": delivery("pull_request", forge.pull_request("reopened")),
            "pull_request.reviewed": delivery(
                "pull_request_approved",
                review("pull_request_review_approved", "Good."),
                event_type="pull_request_review_approved",
            ),
            "pull_request.commented": delivery(
                "issue_comment",
                {**forge.comment(), "is_pull": True, "pull_request": forge.pull_request("x")["pull_request"]},
                event_type="pull_request_comment",
            ),
            "issue.opened": delivery("issues", {**forge.issue("opened"), "number": 3}),
            "issue.closed": delivery("issues", forge.issue("closed", about=closed)),
            "issue.reopened": delivery("issues", forge.issue("reopened")),
            "issue.commented": delivery("issue_comment", {**forge.comment(), "is_pull": False}),
            "release.published": delivery("release", forge.release()),
            "pipeline.failed": delivery("action_run_failure", run("failure"), family="forgejo"),
            "pipeline.succeeded": delivery("workflow_run", forge.workflow_run("success")),
        }

    def aged(self, seconds: int) -> HookRequest:
        raise NotImplementedError(self.cannot_age)

    def again(self, topic: str) -> HookRequest:
        return self.calls()[topic]

    def idle(self) -> HookRequest:
        return delivery("fork", {"forkee": forge.common()["repository"], **forge.common()})

    def forged(self) -> dict[str, HookRequest]:
        return {
            "another secret": delivery("push", push(), secret=WRONG_SECRET),
            "no secret": delivery("push", push(), secret=""),
            "another secret, in a form": delivery("push", push(), secret=WRONG_SECRET, form=True),
        }


DRIVER = GiteaCaller
