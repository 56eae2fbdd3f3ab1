"""GitLab, as far as it calls us: payloads with the members of its documentation, signed by standardwebhooks."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

from standardwebhooks.webhooks import Webhook as Signer

from connectors.gitlab import GitLab
from parley.messages import HookRequest
from tests.fakes._caller import NOW, posted

Json = dict[str, Any]


def _token(word: bytes) -> str:
    return "whsec_" + base64.b64encode(word.ljust(32, b"x")).decode()


SIGNING, OLD_SIGNING, WRONG_SIGNING = _token(b"signing"), _token(b"old"), _token(b"wrong")
TOKEN, OLD_TOKEN, WRONG_TOKEN = "gitlab-Token-1a2b", "gitlab-Old-3c4d", "gitlab-Wrong-5e6f"

PROJECT = "octo/sub/App"
PAGE = f"https://gitlab.example/{PROJECT}"
BEFORE, AFTER, ZERO = "a" * 40, "b" * 40, "0" * 40


def delivery(
    event: str,
    payload: Json,
    *,
    signing: str = SIGNING,
    token: str = "",
    at: int = NOW,
    guid: str = "",
    signed: bool = True,
) -> HookRequest:
    """One delivery; without `signed` as GitLab before 18 sends it, with the secret token alone."""
    text = json.dumps(payload)
    guid = guid or str(uuid.uuid5(uuid.NAMESPACE_URL, event + text))
    headers = {
        "User-Agent": "GitLab/18.6.0",
        "Idempotency-Key": guid,
        "X-Gitlab-Event": event,
        "X-Gitlab-Webhook-UUID": "3c5c0404-c866-44bc-a5f6-452bb1bfc76e",
        "X-Gitlab-Instance": "https://gitlab.example",
        "X-Gitlab-Event-UUID": "9cebe914-4827-408f-b014-cfa23a47a35f",
    }
    if token:
        headers["X-Gitlab-Token"] = token
    if signed:
        headers["webhook-id"] = guid
        headers["webhook-timestamp"] = str(at)
        headers["webhook-signature"] = Signer(signing).sign(guid, datetime.fromtimestamp(at, UTC), text)
    return posted(text.encode(), headers)


def person(username: str = "alice") -> Json:
    return {"id": 1, "name": username.title(), "username": username, "email": "[REDACTED]"}


def common(kind: str) -> Json:
    project = {
        "id": 15,
        "name": "App",
        "web_url": PAGE,
        "git_http_url": f"{PAGE}.git",
        "namespace": "Sub",
        "path_with_namespace": PROJECT,
        "default_branch": "main",
    }
    return {"object_kind": kind, "event_type": kind, "user": person(), "project": project}


def push(ref: str = "refs/heads/main", kind: str = "push", **changes: Any) -> Json:
    made = {
        "id": AFTER,
        "message": "Fix login\n\nAt length.",
        "title": "Fix login",
        "timestamp": "2025-10-09T08:00:00+02:00",
        "url": f"{PAGE}/-/commit/{AFTER}",
        "author": {"name": "Alice A.", "email": "[REDACTED]"},
        "added": [],
        "modified": ["README.md"],
        "removed": [],
    }
    whole = common(kind)
    del whole["user"], whole["event_type"]
    return {
        **whole,
        "event_name": kind,
        "before": BEFORE,
        "after": AFTER,
        "ref": ref,
        "checkout_sha": AFTER,
        "user_id": 1,
        "user_name": "Alice A.",
        "user_username": "alice",
        "commits": [made],
        "total_commits_count": 1,
        **changes,
    }


def merge_request(action: str, *, changes: Json | None = None, **about: Any) -> Json:
    attributes = {
        "id": 99,
        "iid": 12,
        "title": "Fix login",
        "description": "It was broken.",
        "state": "opened",
        "draft": False,
        "work_in_progress": False,
        "source_branch": "fix",
        "target_branch": "main",
        "author_id": 1,
        "url": f"{PAGE}/-/merge_requests/12",
        "last_commit": {"id": AFTER, "message": "Fix login"},
        "labels": [{"id": 1, "title": "bug"}],
        "action": action,
        **about,
    }
    return {**common("merge_request"), "object_attributes": attributes, "changes": changes or {}}


def issue(action: str, state: str = "opened") -> Json:
    attributes = {
        "id": 301,
        "iid": 3,
        "title": "It fails",
        "description": "Always.",
        "state": state,
        "url": f"{PAGE}/-/issues/3",
        "action": action,
        "labels": [{"id": 1, "title": "bug"}],
    }
    return {**common("issue"), "object_attributes": attributes, "changes": {}}


def note(on: str, body: str = "I see.", **about: Any) -> Json:
    attributes = {
        "id": 1241,
        "note": body,
        "noteable_type": on,
        "system": False,
        "action": "create",
        "url": f"{PAGE}/-/issues/3#note_1241",
        **about,
    }
    whole = {**common("note"), "object_attributes": attributes}
    if on == "MergeRequest":
        attributes["url"] = f"{PAGE}/-/merge_requests/12#note_1241"
        about_it = merge_request("x")["object_attributes"]
        return {**whole, "merge_request": {k: v for k, v in about_it.items() if k not in ("url", "action")}}
    if on == "Issue":
        about_it = issue("x")["object_attributes"]
        return {**whole, "issue": {k: v for k, v in about_it.items() if k not in ("url", "action")}}
    return {**whole, "commit": {"id": AFTER, "message": "Fix login"}}


def release(action: str = "create") -> Json:
    whole = common("release")
    del whole["user"], whole["event_type"]
    return {
        **whole,
        "id": 1,
        "name": "One",
        "tag": "v1.0.0",
        "description": "All is new.",
        "url": f"{PAGE}/-/releases/v1.0.0",
        "action": action,
        "commit": {"id": AFTER, "author": {"name": "Alice A.", "email": "[REDACTED]"}},
    }


def pipeline(status: str, **about: Any) -> Json:
    attributes = {
        "id": 31,
        "iid": 3,
        "ref": "main",
        "tag": False,
        "sha": AFTER,
        "source": "push",
        "status": status,
        "stages": ["build", "test"],
        "url": f"{PAGE}/-/pipelines/31",
        **about,
    }
    builds = [
        {"id": 1, "stage": "build", "name": "compile", "status": "success", "allow_failure": False},
        {"id": 2, "stage": "test", "name": "unit", "status": "failed", "allow_failure": False},
        {"id": 3, "stage": "test", "name": "lint", "status": "failed", "allow_failure": True},
    ]
    made = {"id": AFTER, "message": "Fix login\n", "author": {"name": "Alice A."}}
    return {**common("pipeline"), "object_attributes": attributes, "commit": made, "builds": builds}


class GitLabCaller:
    """GitLab, which signs, for the contract suite."""

    name: ClassVar[str] = "gitlab"
    cannot_age: ClassVar[str] = ""
    cannot_sign: ClassVar[str] = ""

    def connector(self, account: str) -> GitLab:
        return GitLab(account, signing_token=SIGNING, old_signing_token=OLD_SIGNING, clock=lambda: NOW)

    def secrets(self) -> tuple[str, ...]:
        return (SIGNING, OLD_SIGNING)

    def calls(self) -> dict[str, HookRequest]:
        drafted = {"draft": {"previous": False, "current": True}}
        ready = {"draft": {"previous": True, "current": False}}
        hook = "Merge Request Hook"
        return {
            "push": delivery("Push Hook", push()),
            "tag.created": delivery(
                "Tag Push Hook", push("refs/tags/v1", "tag_push", before=ZERO, commits=[])
            ),
            "tag.deleted": delivery(
                "Tag Push Hook", push("refs/tags/v1", "tag_push", after=ZERO, commits=[])
            ),
            "pull_request.opened": delivery(hook, merge_request("open")),
            "pull_request.updated": delivery(hook, merge_request("update", changes=drafted, draft=True)),
            "pull_request.ready": delivery(hook, merge_request("update", changes=ready)),
            "pull_request.merged": delivery(hook, merge_request("merge", state="merged")),
            "pull_request.closed": delivery(hook, merge_request("close", state="closed")),
            "pull_request.reopened": delivery(hook, merge_request("reopen")),
            "pull_request.reviewed": delivery(hook, merge_request("approved")),
            "pull_request.commented": delivery("Note Hook", note("MergeRequest")),
            "issue.opened": delivery("Issue Hook", issue("open")),
            "issue.closed": delivery("Issue Hook", issue("close", "closed")),
            "issue.reopened": delivery("Issue Hook", issue("reopen")),
            "issue.commented": delivery("Note Hook", note("Issue")),
            "release.published": delivery("Release Hook", release()),
            "pipeline.failed": delivery("Pipeline Hook", pipeline("failed")),
            "pipeline.succeeded": delivery("Pipeline Hook", pipeline("success")),
            "pipeline.cancelled": delivery("Pipeline Hook", pipeline("canceled")),
        }

    def aged(self, seconds: int) -> HookRequest:
        return delivery("Push Hook", push(), at=NOW - seconds)

    def again(self, topic: str) -> HookRequest:
        """A retry: signed anew, with the same id."""
        first = self.calls()[topic]
        payload, event = json.loads(first.body), first.headers["x-gitlab-event"]
        return delivery(event, payload, guid=first.headers["webhook-id"], at=NOW + 30)

    def idle(self) -> HookRequest:
        return delivery("Job Hook", {**common("build"), "build_status": "created"})

    def forged(self) -> dict[str, HookRequest]:
        good = delivery("Push Hook", push())
        other_id = {**good.headers, "webhook-id": "another"}
        return {
            "another token": delivery("Push Hook", push(), signing=WRONG_SIGNING),
            "the secret token alone": delivery("Push Hook", push(), token=TOKEN, signed=False),
            "another id": good.model_copy(update={"headers": other_id}),
            "no base64": good.model_copy(
                update={"headers": {**good.headers, "webhook-signature": "v1,ünsinn\udcff v1"}}
            ),
        }


DRIVER = GitLabCaller
