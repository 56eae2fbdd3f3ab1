"""Payloads of GitLab's form, told apart by `object_kind`. Pure."""

from __future__ import annotations

from collections.abc import Callable

from connectors._hook_forge import (
    Happening,
    Outcome,
    commented,
    discussed,
    opened,
    pipeline,
    push,
    release,
    short,
    someone,
    tag,
)
from connectors._hook_json import Json, id_of, integer_of, object_of, objects_of, text_of, url_of
from connectors._hook_text import line

_MERGE_REQUEST = {
    "open": "opened",
    "reopen": "reopened",
    "close": "closed",
    "merge": "merged",
    "approved": "reviewed",
    "approval": "reviewed",
    "unapproved": "reviewed",
    "unapproval": "reviewed",
}
_APPROVALS = {
    "approved": "approved it",
    "approval": "approved it",
    "unapproved": "took the approval back",
    "unapproval": "took the approval back",
}
_ISSUE = {"open": "opened", "close": "closed", "reopen": "reopened"}
_ENDS: dict[str, Outcome] = {"success": "succeeded", "failed": "failed", "canceled": "cancelled"}
_MOST_LABELS = 20
_MOST_JOBS = 200
_MOST_NAMED = 10


def happening(payload: Json) -> Happening | None:
    """What happened, or None where it is of no use here."""
    read = _KINDS.get(text_of(payload.get("object_kind"), 40))
    return read(payload) if read else None


def _pushed(payload: Json) -> Happening | None:
    ref, after = text_of(payload.get("ref"), 500), text_of(payload.get("after"), 64)
    if not ref.startswith("refs/heads/") or not after.strip("0"):
        return None
    branch, commits = ref.removeprefix("refs/heads/"), payload.get("commits")
    listed = len(commits) if isinstance(commits, list) else 0
    before = text_of(payload.get("before"), 64)
    path = f"compare/{before}...{after}" if before.strip("0") else f"tree/{branch}"
    return push(
        repository=_project(payload),
        actor=_pusher(payload),
        branch=branch,
        before=before,
        after=after,
        commits=commits,
        total=max(listed, integer_of(payload.get("total_commits_count")) or 0),
        url=url_of(f"{_home(payload)}/-/{path}"),
    )


def _tagged(payload: Json) -> Happening | None:
    name, after = (
        text_of(payload.get("ref"), 500).removeprefix("refs/tags/"),
        text_of(payload.get("after"), 64),
    )
    deleted = not after.strip("0")
    return tag(
        repository=_project(payload),
        actor=_pusher(payload),
        name=name,
        sha=text_of(payload.get("checkout_sha"), 64) or ("" if deleted else after),
        url=url_of(f"{_home(payload)}/-/tags/{name}"),
        deleted=deleted,
    )


def _merge_request(payload: Json) -> Happening | None:
    about = object_of(payload.get("object_attributes"))
    action = text_of(about.get("action"), 40)
    topic, text = _MERGE_REQUEST.get(action), ""
    who, into = someone(_user(payload)), line(text_of(about.get("target_branch"), 300), 120)
    match action:
        case "update":
            topic, text = _merge_request_update(payload, about, who)
        case "open":
            where = f", from {line(text_of(about.get('source_branch'), 300), 120)} into {into}"
            text = opened(_user(payload), text_of(about.get("description"), 5000), where)
        case "merge":
            text = f"{who} merged it into {into}."
        case "close":
            text = f"{who} closed it without merging."
        case "reopen":
            text = f"{who} reopened it."
        case _:
            text = f"{who} {_APPROVALS.get(action, '')}."
    if not topic:
        return None
    review = (
        {"review": "approved" if action.startswith("appro") else "dismissed"} if topic == "reviewed" else {}
    )
    return _about_merge_request(
        payload,
        about,
        topic=topic,
        text=text,
        action=action,
        closes=action in ("merge", "close"),
        more=review,
    )


def _merge_request_update(payload: Json, about: Json, who: str) -> tuple[str | None, str]:
    """What changed, if it is one of the changes that are told."""
    changes = object_of(payload.get("changes"))
    draft = object_of(changes.get("draft"))
    if draft.get("current") is False:
        return "ready", f"{who} marked it ready for review."
    if draft.get("current") is True:
        return "updated", f"{who} made it a draft."
    if before := text_of(about.get("oldrev"), 64):
        after = text_of(object_of(about.get("last_commit")).get("id"), 64)
        return "updated", f"{who} pushed to it: {short(before)} → {short(after)}."
    if was := text_of(object_of(changes.get("title")).get("previous"), 500):
        return "updated", f"{who} changed the title, which was: {line(was)}"
    added = _added(object_of(changes.get("reviewers")))
    return ("updated", f"{who} asked {', '.join(added)} for a review.") if added else (None, "")


def _added(change: Json) -> list[str]:
    before = {_name(user) for user in objects_of(change.get("previous"), 50)}
    after = [_name(user) for user in objects_of(change.get("current"), 50)]
    return [line(name, 80) for name in after if name and name not in before][:_MOST_NAMED]


def _issue(payload: Json) -> Happening | None:
    about = object_of(payload.get("object_attributes"))
    action = text_of(about.get("action"), 40)
    topic = _ISSUE.get(action)
    if topic is None:
        return None
    text = f"{someone(_user(payload))} {topic} it."
    if topic == "opened":
        text = opened(_user(payload), text_of(about.get("description"), 5000))
    return _about_issue(payload, about, topic=topic, text=text, action=action, closes=topic == "closed")


def _note(payload: Json) -> Happening | None:
    """A new comment of a person on a merge request or an issue; those on commits and snippets are not told."""
    note = object_of(payload.get("object_attributes"))
    action = text_of(note.get("action"), 40) or "create"
    if action != "create" or note.get("system") is True:
        return None
    url, body = url_of(note.get("url")), text_of(note.get("note"), 5000)
    text = commented(_user(payload), url, body)
    more = {"comment": text_of(body, 2000), "comment_url": url}
    if merge_request := object_of(payload.get("merge_request")):
        about = {"url": url.partition("#")[0], **merge_request}
        return _about_merge_request(payload, about, topic="commented", text=text, action=action, more=more)
    if issue := object_of(payload.get("issue")):
        about = {"url": url.partition("#")[0], **issue}
        return _about_issue(payload, about, topic="commented", text=text, action=action, more=more)
    return None


def _released(payload: Json) -> Happening | None:
    if payload.get("action") != "create":
        return None
    author = object_of(object_of(payload.get("commit")).get("author"))
    return release(
        repository=_project(payload),
        actor=text_of(author.get("name"), 100),
        name=text_of(payload.get("name"), 300),
        tag_name=text_of(payload.get("tag"), 300),
        notes=text_of(payload.get("description"), 5000),
        url=url_of(payload.get("url")),
        early=False,
    )


def _pipeline(payload: Json) -> Happening | None:
    about = object_of(payload.get("object_attributes"))
    status = text_of(about.get("status"), 40)
    outcome = _ENDS.get(status)
    if outcome is None:
        return None
    merge_request = object_of(payload.get("merge_request"))
    jobs = [
        text_of(job.get("name"), 100)
        for job in objects_of(payload.get("builds"), _MOST_JOBS)
        if job.get("status") == "failed" and job.get("allow_failure") is not True
    ]
    number = id_of(about.get("id"))
    return pipeline(
        repository=_project(payload),
        actor=_user(payload),
        # Its own name (`workflow:name`) may hold anything, a commit's title too: one thread is one branch.
        workflow="pipeline",
        run=f"#{number}" if number else "",
        branch=text_of(about.get("ref"), 300),
        sha=text_of(about.get("sha"), 64),
        subject=text_of(object_of(payload.get("commit")).get("message"), 500).strip().partition("\n")[0],
        outcome=outcome,
        action=status,
        url=url_of(about.get("url")) or url_of(f"{_home(payload)}/-/pipelines/{number}"),
        pull_request=integer_of(merge_request.get("iid")),
        failed_jobs=jobs[:_MOST_NAMED] if outcome == "failed" else (),
    )


_KINDS: dict[str, Callable[[Json], Happening | None]] = {
    "push": _pushed,
    "tag_push": _tagged,
    "merge_request": _merge_request,
    "issue": _issue,
    "note": _note,
    "release": _released,
    "pipeline": _pipeline,
}


# --- what they have in common ----------------------------------------------------------------------------------------


def _about_merge_request(
    payload: Json,
    about: Json,
    *,
    topic: str,
    text: str,
    action: str,
    closes: bool = False,
    more: Json | None = None,
) -> Happening:
    found = Happening(
        repository=_project(payload),
        number=integer_of(about.get("iid")) or 0,
        subject=text_of(about.get("title"), 500),
        actor=_user(payload),
        url=url_of(about.get("url")),
        branch=text_of(about.get("source_branch"), 300),
        sha=text_of(object_of(about.get("last_commit")).get("id"), 64),
        topic=topic,
        text=text,
        action=action,
        closes=closes,
        more={
            "base": text_of(about.get("target_branch"), 300),
            "labels": _labels(about) or _labels(payload),
            **(more or {}),
        },
    )
    return discussed(found, "pull_request", "!", _merge_request_state(about))


def _merge_request_state(about: Json) -> str:
    state = text_of(about.get("state"), 40)
    if state in ("merged", "closed"):
        return state
    return "draft" if about.get("draft") is True or about.get("work_in_progress") is True else "open"


def _about_issue(
    payload: Json,
    about: Json,
    *,
    topic: str,
    text: str,
    action: str,
    closes: bool = False,
    more: Json | None = None,
) -> Happening:
    found = Happening(
        repository=_project(payload),
        number=integer_of(about.get("iid")) or 0,
        subject=text_of(about.get("title"), 500),
        actor=_user(payload),
        url=url_of(about.get("url")),
        topic=topic,
        text=text,
        action=action,
        closes=closes,
        more={"labels": _labels(about) or _labels(payload), **(more or {})},
    )
    return discussed(found, "issue", "#", "closed" if about.get("state") == "closed" else "open")


def _project(payload: Json) -> str:
    return text_of(object_of(payload.get("project")).get("path_with_namespace"), 400)


def _home(payload: Json) -> str:
    return text_of(object_of(payload.get("project")).get("web_url"), 1000)


def _user(payload: Json) -> str:
    return _name(payload.get("user"))


def _name(user: object) -> str:
    about = object_of(user)
    return text_of(about.get("username"), 100) or text_of(about.get("name"), 100)


def _pusher(payload: Json) -> str:
    return text_of(payload.get("user_username"), 100) or text_of(payload.get("user_name"), 100)


def _labels(about: Json) -> list[str]:
    return [text_of(label.get("title"), 100) for label in objects_of(about.get("labels"), _MOST_LABELS)]
