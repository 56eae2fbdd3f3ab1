"""Payloads of GitHub's form, with the members that its documentation shows; the Gitea family shares them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

REPOSITORY = "octo/App"
BEFORE, AFTER, ZERO = "a" * 40, "b" * 40, "0" * 40
PAGE = f"https://forge.example/{REPOSITORY}"


def user(login: str, number: int = 1) -> Json:
    return {"id": number, "login": login, "type": "User", "html_url": f"https://forge.example/{login}"}


def common(actor: str = "alice") -> Json:
    owner, _, name = REPOSITORY.partition("/")
    repository = {
        "id": 7,
        "name": name,
        "full_name": REPOSITORY,
        "private": True,
        "owner": user(owner),
        "html_url": PAGE,
        "default_branch": "main",
    }
    return {"repository": repository, "sender": user(actor)}


def commit(number: int, message: str = "") -> Json:
    sha = f"{number:040x}"
    person = {"name": "Alice A.", "email": "alice@example.org", "username": "alice"}
    return {
        "id": sha,
        "tree_id": "c" * 40,
        "distinct": True,
        "message": message or f"Change {number}\n\nAt length.",
        "timestamp": "2025-10-09T08:00:00+02:00",
        "url": f"{PAGE}/commit/{sha}",
        "author": person,
        "committer": person,
        "added": [],
        "removed": [],
        "modified": ["README.md"],
    }


def push(ref: str = "refs/heads/main", commits: int = 2, **changes: Any) -> Json:
    made = [commit(number) for number in range(1, commits + 1)]
    return {
        "ref": ref,
        "before": BEFORE,
        "after": AFTER,
        "created": False,
        "deleted": False,
        "forced": False,
        "base_ref": None,
        "compare": f"{PAGE}/compare/aaa...bbb",
        "commits": made,
        "head_commit": made[-1] if made else None,
        "pusher": {"name": "alice", "email": "alice@example.org"},
        **common(),
        **changes,
    }


def pull_request(action: str, title: str = "Fix login", actor: str = "alice", **changes: Any) -> Json:
    about = {
        "id": 12_000,
        "number": 12,
        "state": "open",
        "locked": False,
        "title": title,
        "user": user("alice"),
        "body": "It was broken.",
        "html_url": f"{PAGE}/pull/12",
        "labels": [{"id": 1, "name": "bug", "color": "ff0000"}],
        "merged_at": None,
        "draft": False,
        "head": {"label": "alice:fix", "ref": "fix", "sha": AFTER},
        "base": {"label": "octo:main", "ref": "main", "sha": BEFORE},
        "merged": False,
        **changes.pop("about", {}),
    }
    return {"action": action, "number": 12, "pull_request": about, **common(actor), **changes}


def issue(action: str, title: str = "It fails", **changes: Any) -> Json:
    about = {
        "id": 3_000,
        "number": 3,
        "title": title,
        "user": user("bob", 2),
        "labels": [{"id": 1, "name": "bug"}],
        "state": "open",
        "body": "Always.",
        "html_url": f"{PAGE}/issues/3",
        **changes.pop("about", {}),
    }
    return {"action": action, "issue": about, **common(), **changes}


def comment(body: str = "I see.", *, action: str = "created", **changes: Any) -> Json:
    said = {
        "id": 55,
        "user": user("alice"),
        "body": body,
        "html_url": f"{PAGE}/issues/3#issuecomment-55",
    }
    return {**issue(action), "comment": said, **changes}


def release(action: str = "published", **changes: Any) -> Json:
    about = {
        "id": 9,
        "tag_name": "v1.0.0",
        "target_commitish": "main",
        "name": "One",
        "draft": False,
        "prerelease": False,
        "author": user("alice"),
        "body": "All is new.",
        "html_url": f"{PAGE}/releases/tag/v1.0.0",
        **changes.pop("about", {}),
    }
    return {"action": action, "release": about, **common(), **changes}


def ref(name: str = "v1.0.0", kind: str = "tag") -> Json:
    return {"ref": name, "ref_type": kind, "pusher_type": "user", "master_branch": "main", **common()}


def workflow_run(conclusion: str | None = "failure", action: str = "completed", **changes: Any) -> Json:
    run = {
        "id": 999,
        "name": "CI",
        "head_branch": "main",
        "head_sha": AFTER,
        "path": ".github/workflows/ci.yml",
        "display_title": "Fix login",
        "run_number": 163,
        "run_attempt": 1,
        "event": "push",
        "status": "completed",
        "conclusion": conclusion,
        "html_url": f"{PAGE}/actions/runs/999",
        "pull_requests": [],
        "actor": user("alice"),
        "triggering_actor": user("alice"),
        **changes.pop("run", {}),
    }
    return {"action": action, "workflow_run": run, "workflow": {"name": "CI"}, **common(), **changes}
