"""What happens in repositories, in one form for all forges, so that one route and one automation fit all. Pure.

Topics: `push`, `tag.created|deleted`, `pull_request.opened|updated|ready|reviewed|commented|merged|closed|reopened`,
`issue.opened|closed|reopened|commented`, `release.published`, `pipeline.failed|succeeded|cancelled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from connectors._hook_json import Json, Unreadable, objects_of, text_of, url_of
from connectors._hook_source import scope, sender
from connectors._hook_text import CUT, line, link, passage, shortened
from parley.messages import Notice

MOST_COMMITS = 10
"""Commits of a push that are listed."""

EXCERPT = 600
"""Characters of a comment or a description that are shown."""

_SHORT_SHA = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened in a repository. `title` and `text` are markup; all else is as the forge has it."""

    topic: str
    repository: str
    text: str
    title: str = ""
    actor: str = ""
    action: str = ""
    number: int | None = None
    subject: str = ""
    branch: str = ""
    sha: str = ""
    url: str = ""
    key: str = ""
    closes: bool = False
    severity: Literal["info", "warning", "critical"] = "info"
    more: dict[str, Any] = field(default_factory=dict)

    def notice(self, service: str, account: str, native_id: str) -> Notice:
        """The notice of it. Raises `Unreadable` when the forge did not say in which repository it was."""
        if not self.repository:
            raise Unreadable("The payload names no repository.")
        return Notice(
            account=account,
            native_id=native_id,
            sender=sender(service),
            route=scope(account, self.repository),
            topic=self.topic,
            title=shortened(self.title, 500),
            text=shortened(self.text, 20_000),
            url=self.url,
            key=self.key[:500],
            closes=self.closes,
            severity=self.severity,
            data=self._data(),
        )

    def _data(self) -> dict[str, Any]:
        return {
            "repository": self.repository,
            "number": self.number,
            "actor": self.actor,
            "branch": self.branch,
            "title": self.subject,
            "url": self.url,
            "sha": self.sha,
            "action": self.action,
            **self.more,
        }


def head(repository: str, mark: str, subject: str, state: str, author: str) -> str:
    """The title of a pull request's or issue's thread: what it is and how it stands now."""
    by = f", by {line(author, 80)}" if author else ""
    return f"{line(repository, 120)} {mark} {line(subject)} — {state}{by}"


def discussed(found: Happening, kind: str, mark: str, state: str, author: str = "") -> Happening:
    """The same, as something about a pull request or an issue; `mark` stands before its number, `state` is now."""
    number = f"{mark}{found.number}"
    return replace(
        found,
        topic=f"{kind}.{found.topic}",
        title=head(found.repository, number, found.subject, state, author),
        key=f"{found.repository}{number}",
        more={"state": state, **found.more},
    )


def opened(actor: str, body: str, where: str = "") -> str:
    """That somebody opened it, and what they wrote."""
    return with_words(f"{someone(actor)} opened it{where}", ".", body)


def commented(actor: str, url: str, body: str) -> str:
    """That somebody wrote a comment, and what they wrote."""
    return with_words(f"{someone(actor)} {link('commented', url)}", ":", body)


def with_words(said: str, mark: str, body: str) -> str:
    """A sentence, and the beginning of what somebody wrote, after `mark`; without that it ends with a full stop."""
    quoted = passage(body, EXCERPT)
    return f"{said}{mark}\n\n{quoted}" if quoted else f"{said}."


def someone(actor: str) -> str:
    """Who did it, in a sentence."""
    return line(actor, 80) or "somebody"


def short(sha: str) -> str:
    """A commit's id as people write it."""
    return line(sha, 40)[:_SHORT_SHA]


def commit_list(commits: object, total: int) -> str:
    """The commits of a push, the first of them listed with who wrote them."""
    shown = [_commit(commit) for commit in objects_of(commits, MOST_COMMITS)]
    left = total - len(shown)
    return "\n".join([*shown, *([f"- {CUT} and {left} more"] if left > 0 and shown else [])])


def _commit(commit: Json) -> str:
    author = commit.get("author")
    about = author if isinstance(author, dict) else {}
    name = text_of(about.get("username")) or text_of(about.get("name"))
    first = text_of(commit.get("message"), 500).strip().partition("\n")[0]
    by = f" ({line(name, 60)})" if name else ""
    return f"- {link(short(text_of(commit.get('id'))), url_of(commit.get('url')))} {line(first, 120)}{by}"


def push(
    *,
    repository: str,
    actor: str,
    branch: str,
    before: str,
    after: str,
    commits: object,
    total: int,
    url: str,
    forced: bool = False,
) -> Happening:
    """Commits came to a branch, or a branch came to be."""
    how = "force-pushed" if forced else "pushed"
    who, counted = someone(actor), f"{total} commit{'' if total == 1 else 's'}"
    new = not after or not before.strip("0")
    where = line(branch, 120)
    if total:
        said = f"{who} {how} {link(counted, url)} to {'the new branch ' if new else ''}{where}"
    elif new:
        said = f"{who} created the branch {link(where, url)}"
    else:
        said = f"{who} {how} {where} to {link(short(after), url)}"
    listed = commit_list(commits, total)
    return Happening(
        topic="push",
        repository=repository,
        title=f"{line(repository, 120)} {where}: {counted if total else 'moved' if not new else 'new branch'}, "
        f"by {who}",
        text=f"{said}:\n{listed}" if listed else f"{said}.",
        actor=actor,
        action="push",
        branch=branch,
        sha=after,
        url=url,
        more={"before": before, "commits": total, "forced": forced, "messages": _messages(commits)},
    )


def _messages(commits: object) -> list[str]:
    return [
        text_of(commit.get("message"), 500).strip().partition("\n")[0]
        for commit in objects_of(commits, MOST_COMMITS)
    ]


def tag(*, repository: str, actor: str, name: str, sha: str, url: str, deleted: bool) -> Happening:
    """A tag came or went."""
    what, url = ("deleted", "") if deleted else ("created", url)
    shown = line(name, 120)
    return Happening(
        topic=f"tag.{what}",
        repository=repository,
        title=f"{line(repository, 120)} tag {shown} {what} by {someone(actor)}",
        text=f"{someone(actor)} {what} the tag {link(shown, url)}.",
        actor=actor,
        action=what,
        subject=name,
        sha=sha,
        url=url,
        more={"tag": name},
    )


def release(
    *, repository: str, actor: str, name: str, tag_name: str, notes: str, url: str, early: bool
) -> Happening:
    """A release was published; `early` marks what is no final one."""
    shown = line(name or tag_name, 120)
    kind = "pre-release" if early else "release"
    return Happening(
        topic="release.published",
        repository=repository,
        title=f"{line(repository, 120)} {kind} {shown}",
        text=with_words(f"{someone(actor)} published the {kind} {link(shown, url)}", ".", notes),
        actor=actor,
        action="published",
        subject=name or tag_name,
        branch="",
        url=url,
        more={"tag": tag_name, "prerelease": early},
    )


Outcome = Literal["failed", "succeeded", "cancelled"]


def pipeline(
    *,
    repository: str,
    actor: str,
    workflow: str,
    run: str,
    branch: str,
    sha: str,
    subject: str,
    outcome: Outcome,
    action: str,
    url: str,
    pull_request: int | None = None,
    failed_jobs: Sequence[str] = (),
) -> Happening:
    """A pipeline ended. The same workflow on the same branch is one thread: a success ends what a failure began."""
    name, where = line(workflow, 100) or "pipeline", line(branch, 120)
    numbered = f"{name} {run}".strip()
    on = f" on {where}" if where else ""
    of = f": {line(subject, 120)}" if subject else ""
    jobs = ", ".join(line(job, 60) for job in failed_jobs)
    blamed = f"\n\nFailed: {jobs}." if jobs else ""
    return Happening(
        topic=f"pipeline.{outcome}",
        repository=repository,
        title=f"{line(repository, 120)} {name}{on} — {outcome}",
        text=f"{link(numbered, url)} {outcome}{on} at {short(sha)}{of} ({someone(actor)}).{blamed}",
        actor=actor,
        action=action,
        number=pull_request,
        subject=subject,
        branch=branch,
        sha=sha,
        url=url,
        key=f"{repository} pipeline {workflow} {branch}",
        closes=outcome == "succeeded",
        severity="warning" if outcome == "failed" else "info",
        more={"workflow": workflow, "run": run, "conclusion": outcome, "failed_jobs": list(failed_jobs)},
    )
