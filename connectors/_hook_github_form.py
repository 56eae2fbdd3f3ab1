"""Payloads of GitHub's form, which Gitea, Forgejo and Gogs share but for details: one function an event. Pure.

Each takes the payload and gives what happened, or None where it is of no use here.
"""

from __future__ import annotations

from typing import Literal

from connectors import _hook_forge as forge
from connectors._hook_forge import (
    Happening,
    Outcome,
    discussed,
    opened,
    pipeline,
    push,
    release,
    short,
    someone,
    tag,
    with_words,
)
from connectors._hook_json import Json, id_of, integer_of, object_of, objects_of, text_of, url_of
from connectors._hook_text import line, link

_PULL_REQUEST = {
    "opened": "opened",
    "reopened": "reopened",
    "closed": "closed",
    "synchronize": "updated",
    "synchronized": "updated",  # Gitea's word for the same
    "edited": "updated",
    "review_requested": "updated",
    "converted_to_draft": "updated",
    "ready_for_review": "ready",
}
_ISSUE = {"opened": "opened", "closed": "closed", "reopened": "reopened"}
_ENDS: dict[str, Outcome] = {
    "success": "succeeded",
    "failure": "failed",
    "timed_out": "failed",
    "startup_failure": "failed",
    "cancelled": "cancelled",
}
_MOST_LABELS = 20


def pushed(payload: Json) -> Happening | None:
    """`push`: of branches; that a branch went is no push, and tags have events of their own."""
    ref = text_of(payload.get("ref"), 500)
    after = text_of(payload.get("after"), 64)
    if not ref.startswith("refs/heads/") or not after.strip("0"):
        return None
    commits = payload.get("commits")
    listed = len(commits) if isinstance(commits, list) else 0
    return push(
        repository=repository_of(payload),
        actor=login(payload.get("sender")) or login(payload.get("pusher")),
        branch=ref.removeprefix("refs/heads/"),
        before=text_of(payload.get("before"), 64),
        after=after,
        commits=commits,
        total=max(listed, integer_of(payload.get("total_commits")) or 0),
        url=url_of(payload.get("compare")) or url_of(payload.get("compare_url")),
        forced=payload.get("forced") is True,
    )


def tagged(payload: Json, *, deleted: bool) -> Happening | None:
    """`create` and `delete`: of tags; branches show when something is pushed to them."""
    if payload.get("ref_type") != "tag":
        return None
    name = text_of(payload.get("ref"), 300).removeprefix("refs/tags/")
    return tag(
        repository=repository_of(payload),
        actor=login(payload.get("sender")),
        name=name,
        sha=text_of(payload.get("sha"), 64),
        url=url_of(f"{text_of(object_of(payload.get('repository')).get('html_url'))}/releases/tag/{name}"),
        deleted=deleted,
    )


def pull_request(payload: Json) -> Happening | None:
    """`pull_request`: those actions that change how it stands, or ask somebody for something."""
    action = text_of(payload.get("action"), 40)
    about = object_of(payload.get("pull_request"))
    merged = about.get("merged") is True or bool(about.get("merged_at"))
    topic = "merged" if action == "closed" and merged else _PULL_REQUEST.get(action)
    if topic is None or (action == "edited" and not object_of(payload.get("changes")).get("title")):
        return None
    closes = topic in ("merged", "closed")
    text = _pull_request_text(payload, about, action, topic)
    return about_pull_request(payload, about, topic=topic, text=text, action=action, closes=closes)


def _pull_request_text(payload: Json, about: Json, action: str, topic: str) -> str:
    who = someone(login(payload.get("sender")))
    into = line(_branch(about, "base"), 120)
    match action:
        case "opened":
            where = f", from {line(_branch(about, 'head'), 120)} into {into}"
            return opened(login(payload.get("sender")), text_of(about.get("body"), 5000), where)
        case "closed":
            return (
                f"{who} merged it into {into}." if topic == "merged" else f"{who} closed it without merging."
            )
        case "synchronize" | "synchronized":
            before, after = text_of(payload.get("before"), 64), text_of(payload.get("after"), 64)
            to = after or text_of(object_of(about.get("head")).get("sha"), 64)
            return f"{who} pushed to it: {f'{short(before)} → ' if before else ''}{short(to)}."
        case "edited":
            was = text_of(object_of(object_of(payload.get("changes")).get("title")).get("from"), 500)
            return f"{who} changed the title, which was: {line(was)}"
        case "review_requested":
            reviewer = login(payload.get("requested_reviewer")) or text_of(
                object_of(payload.get("requested_team")).get("name"), 100
            )
            return f"{who} asked {someone(reviewer)} for a review."
        case "converted_to_draft":
            return f"{who} made it a draft."
        case "ready_for_review":
            return f"{who} marked it ready for review."
        case _:
            return f"{who} {action} it."


Review = Literal["approved", "changes_requested", "commented", "dismissed"]
_REVIEWED: dict[Review, str] = {
    "approved": "approved it",
    "changes_requested": "asked for changes",
    "commented": "reviewed it",
    "dismissed": "dismissed a review",
}


def reviewed(payload: Json, review: Review, body: str, url: str) -> Happening:
    """A review of a pull request: what it came to, and its words."""
    about = object_of(payload.get("pull_request"))
    said = f"{someone(login(payload.get('sender')))} {link(_REVIEWED[review], url)}"
    return about_pull_request(
        payload,
        about,
        topic="reviewed",
        text=with_words(said, ":", body),
        action=text_of(payload.get("action"), 40),
        more={"review": review, "comment": text_of(body, 2000)},
    )


def commented(payload: Json) -> Happening | None:
    """A new comment on an issue or a pull request; what is edited or taken back is not told."""
    action = text_of(payload.get("action"), 40)
    if action != "created":
        return None
    comment, issue = object_of(payload.get("comment")), object_of(payload.get("issue"))
    url, body = url_of(comment.get("html_url")), text_of(comment.get("body"), 5000)
    text = forge.commented(login(payload.get("sender")), url, body)
    more = {"comment": text_of(body, 2000), "comment_url": url}
    about = object_of(payload.get("pull_request"))
    if about or issue.get("pull_request") or payload.get("is_pull") is True:
        # Of a comment's pull request GitHub sends an issue, with what it has more under `pull_request`.
        whole = about or {**object_of(issue.get("pull_request")), **issue}
        return about_pull_request(payload, whole, topic="commented", text=text, action=action, more=more)
    return about_issue(payload, issue, topic="commented", text=text, action=action, more=more)


def issue(payload: Json) -> Happening | None:
    """`issues`: opened, closed, reopened."""
    action = text_of(payload.get("action"), 40)
    topic = _ISSUE.get(action)
    if topic is None:
        return None
    about = object_of(payload.get("issue"))
    actor = login(payload.get("sender"))
    text = f"{someone(actor)} {topic} it."
    if topic == "opened":
        text = opened(actor, text_of(about.get("body"), 5000))
    return about_issue(payload, about, topic=topic, text=text, action=action, closes=topic == "closed")


def released(payload: Json) -> Happening | None:
    """`release`: published; GitHub tells of the same release three times, as published, released and created."""
    about = object_of(payload.get("release"))
    if payload.get("action") != "published" or about.get("draft") is True:
        return None
    return release(
        repository=repository_of(payload),
        actor=login(payload.get("sender")) or login(about.get("author")),
        name=text_of(about.get("name"), 300),
        tag_name=text_of(about.get("tag_name"), 300),
        notes=text_of(about.get("body"), 5000),
        url=url_of(about.get("html_url")),
        early=about.get("prerelease") is True,
    )


def workflow_ended(payload: Json) -> Happening | None:
    """`workflow_run`: completed, as a success, a failure or cancelled."""
    run = object_of(payload.get("workflow_run"))
    outcome = _ENDS.get(text_of(run.get("conclusion"), 40))
    if payload.get("action") != "completed" or outcome is None:
        return None
    first = next(objects_of(run.get("pull_requests"), 1), {})
    number = id_of(run.get("run_number"))
    return pipeline(
        repository=repository_of(payload),
        actor=login(run.get("triggering_actor")) or login(run.get("actor")) or login(payload.get("sender")),
        workflow=text_of(run.get("name"), 200)
        or text_of(object_of(payload.get("workflow")).get("name"), 200)
        or text_of(run.get("path"), 200),
        run=f"#{number}" if number else "",
        branch=text_of(run.get("head_branch"), 300),
        sha=text_of(run.get("head_sha"), 64),
        subject=text_of(run.get("display_title"), 500),
        outcome=outcome,
        action=text_of(run.get("conclusion"), 40),
        url=url_of(run.get("html_url")),
        pull_request=integer_of(first.get("number")),
    )


# --- what they have in common ----------------------------------------------------------------------------------------


def repository_of(payload: Json) -> str:
    """The repository's full name, as it is written there."""
    return text_of(object_of(payload.get("repository")).get("full_name"), 400)


def login(user: object) -> str:
    """A user's name on the forge."""
    about = object_of(user)
    return (
        text_of(about.get("login"), 100)
        or text_of(about.get("username"), 100)
        or text_of(about.get("name"), 100)
    )


def about_pull_request(
    payload: Json,
    about: Json,
    *,
    topic: str,
    text: str,
    action: str,
    closes: bool = False,
    more: Json | None = None,
) -> Happening:
    """Something about a pull request, with how it stands now."""
    author = login(about.get("user"))
    found = Happening(
        repository=repository_of(payload),
        number=_number(payload, about),
        subject=text_of(about.get("title"), 500),
        actor=login(payload.get("sender")),
        url=url_of(about.get("html_url")),
        branch=_branch(about, "head"),
        sha=text_of(object_of(about.get("head")).get("sha"), 64),
        topic=topic,
        text=text,
        action=action,
        closes=closes,
        more={"author": author, "base": _branch(about, "base"), "labels": _labels(about), **(more or {})},
    )
    return discussed(found, "pull_request", "#", _state(about), author)


def about_issue(
    payload: Json,
    about: Json,
    *,
    topic: str,
    text: str,
    action: str,
    closes: bool = False,
    more: Json | None = None,
) -> Happening:
    """Something about an issue, with how it stands now."""
    author = login(about.get("user"))
    found = Happening(
        repository=repository_of(payload),
        number=_number(payload, about),
        subject=text_of(about.get("title"), 500),
        actor=login(payload.get("sender")),
        url=url_of(about.get("html_url")),
        topic=topic,
        text=text,
        action=action,
        closes=closes,
        more={"author": author, "labels": _labels(about), **(more or {})},
    )
    return discussed(found, "issue", "#", "closed" if about.get("state") == "closed" else "open", author)


def _number(payload: Json, about: Json) -> int:
    return integer_of(about.get("number")) or integer_of(payload.get("number")) or 0


def _state(about: Json) -> str:
    if about.get("merged") is True or about.get("merged_at"):
        return "merged"
    if about.get("state") == "closed":
        return "closed"
    return "draft" if about.get("draft") is True else "open"


def _branch(about: Json, side: Literal["head", "base"]) -> str:
    # Gogs has no `head` and `base` but `head_branch` and `base_branch`.
    return text_of(object_of(about.get(side)).get("ref"), 300) or text_of(about.get(f"{side}_branch"), 300)


def _labels(about: Json) -> list[str]:
    return [text_of(label.get("name"), 100) for label in objects_of(about.get("labels"), _MOST_LABELS)]
