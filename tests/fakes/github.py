"""GitHub, as far as it calls us: deliveries as its documentation has them, signed as it has it there."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from typing import Any, ClassVar
from urllib.parse import urlencode

from connectors.github import GitHub
from parley.messages import HookRequest
from tests.fakes import _forge as forge
from tests.fakes._caller import posted

SECRET, OLD_SECRET, WRONG_SECRET = "github-Secret-1a2b", "github-Old-3c4d", "github-Wrong-5e6f"


def delivery(
    event: str, payload: dict[str, Any], *, secret: str = SECRET, guid: str = "", form: bool = False
) -> HookRequest:
    """One delivery; GitHub signs the body as it goes over the wire, in a form too."""
    text = json.dumps(payload)
    body = (urlencode({"payload": text}) if form else text).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "User-Agent": "GitHub-Hookshot/044aadd",
        "X-GitHub-Delivery": guid or str(uuid.uuid5(uuid.NAMESPACE_URL, event + text)),
        "X-GitHub-Event": event,
        "X-GitHub-Hook-ID": "292430182",
        "X-GitHub-Hook-Installation-Target-ID": "79929171",
        "X-GitHub-Hook-Installation-Target-Type": "repository",
        "X-Hub-Signature": "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest(),
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    return posted(body, headers, "application/x-www-form-urlencoded" if form else "application/json")


def review(state: str, body: str | None, action: str = "submitted") -> dict[str, Any]:
    about = {
        "id": 77,
        "user": forge.user("bob", 2),
        "body": body,
        "state": state,
        "html_url": f"{forge.PAGE}/pull/12#pullrequestreview-77",
    }
    return {**forge.pull_request(action, actor="bob"), "review": about}


class GitHubCaller:
    """GitHub for the contract suite."""

    name: ClassVar[str] = "github"
    cannot_age: ClassVar[str] = "GitHub signs no time"
    cannot_sign: ClassVar[str] = ""

    def connector(self, account: str) -> GitHub:
        return GitHub(account, secret=SECRET, old_secret=OLD_SECRET)

    def secrets(self) -> tuple[str, ...]:
        return (SECRET, OLD_SECRET)

    def calls(self) -> dict[str, HookRequest]:
        closed = {"state": "closed"}
        merged = {**closed, "merged": True, "merged_at": "2025-10-09T09:00:00Z"}
        draft = {"draft": True}
        return {
            "push": delivery("push", forge.push()),
            "tag.created": delivery("create", forge.ref()),
            "tag.deleted": delivery("delete", forge.ref()),
            "pull_request.opened": delivery("pull_request", forge.pull_request("opened")),
            "pull_request.updated": delivery(
                "pull_request", forge.pull_request("converted_to_draft", about=draft)
            ),
            "pull_request.ready": delivery("pull_request", forge.pull_request("ready_for_review")),
            "pull_request.merged": delivery("pull_request", forge.pull_request("closed", about=merged)),
            "pull_request.closed": delivery("pull_request", forge.pull_request("closed", about=closed)),
            "pull_request.reopened": delivery("pull_request", forge.pull_request("reopened")),
            "pull_request.reviewed": delivery("pull_request_review", review("approved", None)),
            "pull_request.commented": delivery(
                "issue_comment",
                forge.comment()
                | {"issue": {**forge.issue("created")["issue"], "pull_request": {"merged_at": None}}},
            ),
            "issue.opened": delivery("issues", forge.issue("opened")),
            "issue.closed": delivery("issues", forge.issue("closed", about=closed)),
            "issue.reopened": delivery("issues", forge.issue("reopened")),
            "issue.commented": delivery("issue_comment", forge.comment()),
            "release.published": delivery("release", forge.release()),
            "pipeline.failed": delivery("workflow_run", forge.workflow_run("failure")),
            "pipeline.succeeded": delivery("workflow_run", forge.workflow_run("success")),
            "pipeline.cancelled": delivery("workflow_run", forge.workflow_run("cancelled")),
        }

    def aged(self, seconds: int) -> HookRequest:
        raise NotImplementedError(self.cannot_age)

    def again(self, topic: str) -> HookRequest:
        """Sent again from "Recent deliveries": the same id, the same body."""
        return self.calls()[topic]

    def idle(self) -> HookRequest:
        zen = {
            "zen": "Keep it logically awesome.",
            "hook_id": 1,
            "hook": {"type": "Repository"},
            **forge.common(),
        }
        return delivery("ping", zen)

    def forged(self) -> dict[str, HookRequest]:
        good = delivery("push", forge.push())
        sha1_only = {name: value for name, value in good.headers.items() if name != "x-hub-signature-256"}
        return {
            "another secret": delivery("push", forge.push(), secret=WRONG_SECRET),
            "SHA-1 alone": good.model_copy(update={"headers": sha1_only}),
            "no hexadecimal": good.model_copy(
                update={"headers": {**good.headers, "x-hub-signature-256": "sha256=ünsinn\udcff"}}
            ),
        }


DRIVER = GitHubCaller
