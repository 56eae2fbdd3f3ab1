"""GitHub, GitLab and the Gitea family: what each of their events says, and in the same words for all of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from connectors._hook_json import Json, Unreadable
from connectors._hook_source import HookSource
from connectors.gitea import Gitea
from connectors.github import GitHub
from connectors.gitlab import GitLab
from parley.errors import BadSignature, ConfigurationError
from parley.messages import Accepted, Event, HookRequest, Notice, derived_id
from tests.fakes import _forge as forge
from tests.fakes import gitea, github, gitlab

FORGES = ("github", "gitea", "gitlab")
CLOSED: Json = {"state": "closed"}
MERGED: Json = {**CLOSED, "merged": True, "merged_at": "2025-10-09T09:00:00Z"}
LEAST = {"repository", "number", "actor", "branch", "title", "url", "sha", "action"}


def told(connector: HookSource, request: HookRequest) -> Notice:
    """The one notice of a genuine call."""
    connector.prove(request, connector._clock())
    (event,) = connector.events(request)
    assert isinstance(event, Notice)
    return event


def of_github(event: str, payload: Json) -> Notice:
    return told(GitHub("a", secret=github.SECRET), github.delivery(event, payload))


def nothing(event: str, payload: Json) -> bool:
    return not GitHub("a", secret=github.SECRET).events(github.delivery(event, payload))


def of_gitlab(event: str, payload: Json) -> Notice:
    return told(gitlab.GitLabCaller().connector("a"), gitlab.delivery(event, payload))


def calls(name: str) -> tuple[HookSource, dict[str, HookRequest]]:
    caller = import_module(f"tests.fakes.{name}").DRIVER()
    return caller.connector("a"), caller.calls()


# --- the same for all ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORGES)
def test_every_notice_has_the_same_fields(name: str) -> None:
    connector, requests = calls(name)
    for topic, request in requests.items():
        notice = told(connector, request)
        assert notice.data.keys() >= LEAST, topic
        repository = gitlab.PROJECT if name == "gitlab" else forge.REPOSITORY
        assert notice.data["repository"] == notice.route.conversation == repository
        assert notice.data["actor"], topic
        assert notice.url.startswith("https://") or topic == "tag.deleted", topic


@pytest.mark.parametrize("name", FORGES)
def test_what_belongs_together_has_one_key_and_an_end(name: str) -> None:
    connector, requests = calls(name)
    notices = {topic: told(connector, request) for topic, request in requests.items()}
    mark = "!" if name == "gitlab" else "#"
    repository = gitlab.PROJECT if name == "gitlab" else forge.REPOSITORY
    for topic, notice in notices.items():
        match topic.partition(".")[0]:
            case "pull_request":
                # A comment of GitHub's form hangs on the number of its issue.
                assert notice.key in (f"{repository}{mark}12", f"{repository}#3")
            case "issue":
                assert notice.key == f"{repository}#3"
            case "pipeline":
                assert notice.key
                assert notice.severity == ("warning" if topic == "pipeline.failed" else "info")
            case _:
                assert notice.key == ""
        ends = {"pull_request.merged", "pull_request.closed", "issue.closed", "pipeline.succeeded"}
        assert notice.closes is (topic in ends), topic


@pytest.mark.parametrize("name", FORGES)
def test_a_payload_without_a_repository_is_refused(name: str) -> None:
    connector, requests = calls(name)
    push = requests["push"]
    body = push.body.replace(b'"repository"', b'"nothing"').replace(b'"project"', b'"nothing"')
    with pytest.raises(Unreadable, match="no repository"):
        connector.events(push.model_copy(update={"body": body}))


@pytest.mark.parametrize("name", ["github", "gitea"])
def test_both_secrets_are_taken_while_one_is_changed(name: str) -> None:
    fake: Any = import_module(f"tests.fakes.{name}")
    connector = fake.DRIVER().connector("a")
    told(connector, fake.delivery("push", forge.push(), secret=fake.OLD_SECRET))
    alone = type(connector)("a", secret=fake.SECRET)
    with pytest.raises(BadSignature):
        told(alone, fake.delivery("push", forge.push(), secret=fake.OLD_SECRET))


@pytest.mark.parametrize("name", ["github", "gitea"])
def test_a_form_says_the_same_as_json(name: str) -> None:
    fake: Any = import_module(f"tests.fakes.{name}")
    connector = fake.DRIVER().connector("a")
    payload = forge.pull_request("opened", "100% + & = ü")
    one = told(connector, fake.delivery("pull_request", payload))
    two = told(connector, fake.delivery("pull_request", payload, form=True))
    assert one.model_dump(exclude={"sent_at"}) == two.model_dump(exclude={"sent_at"})


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: GitHub("a", secret=""), "secret"),
        (lambda: Gitea("a", secret="", old_secret="x"), "secret"),
        (lambda: GitLab("a"), "signing_token"),
        (lambda: GitLab("a", old_token="x"), "token"),
        (lambda: GitLab("a", signing_token="plain"), "signing_token"),
    ],
)
def test_without_a_secret_there_is_no_account(make: Any, field: str) -> None:
    with pytest.raises(ConfigurationError, match=field):
        make()


# --- GitHub ----------------------------------------------------------------------------------------------------------


def test_a_push() -> None:
    notice = of_github("push", forge.push())
    assert notice.title == "octo/App main: 2 commits, by alice"
    assert notice.text == (
        f"alice pushed [2 commits]({forge.PAGE}/compare/aaa...bbb) to main:\n"
        f"- [00000000]({forge.PAGE}/commit/{1:040x}) Change 1 (alice)\n"
        f"- [00000000]({forge.PAGE}/commit/{2:040x}) Change 2 (alice)"
    )
    assert notice.data["messages"] == ["Change 1", "Change 2"]
    assert (notice.data["branch"], notice.data["sha"], notice.data["before"]) == (
        "main",
        forge.AFTER,
        forge.BEFORE,
    )
    assert (notice.data["commits"], notice.data["forced"]) == (2, False)


def test_a_push_of_many_commits_names_the_first() -> None:
    notice = of_github("push", forge.push(commits=30, forced=True))
    assert notice.text.count("\n- ") == 11
    assert notice.text.endswith("- … and 20 more")
    assert "alice force-pushed [30 commits]" in notice.text


def test_a_new_branch_without_commits() -> None:
    notice = of_github("push", forge.push("refs/heads/new", commits=0, before=forge.ZERO, created=True))
    assert notice.text == f"alice created the branch [new]({forge.PAGE}/compare/aaa...bbb)."


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("push", forge.push("refs/tags/v1")),
        ("push", forge.push(after=forge.ZERO, deleted=True, commits=0)),
        ("create", forge.ref("fix", "branch")),
        ("delete", forge.ref("fix", "branch")),
        ("pull_request", forge.pull_request("labeled")),
        ("pull_request", forge.pull_request("edited", changes={"body": {"from": "x"}})),
        ("pull_request_review", github.review("commented", None)),
        ("pull_request_review", github.review("approved", "x", "edited")),
        ("pull_request_review", github.review("pending", "x")),
        ("issue_comment", forge.comment(action="deleted")),
        ("issues", forge.issue("pinned")),
        ("release", forge.release("created")),
        ("release", forge.release("published", about={"draft": True})),
        ("workflow_run", forge.workflow_run(None, "requested")),
        ("workflow_run", forge.workflow_run("skipped")),
        ("check_suite", {"action": "completed", **forge.common()}),
        ("", forge.push()),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.get("action") or value.get("ref")),
)
def test_what_is_not_told(event: str, payload: Json) -> None:
    assert nothing(event, payload)


@pytest.mark.parametrize(
    ("payload", "topic", "title", "text"),
    [
        (
            forge.pull_request("opened"),
            "pull_request.opened",
            "octo/App #12 Fix login — open, by alice",
            "alice opened it, from fix into main.\n\nIt was broken.",
        ),
        (
            forge.pull_request("opened", about={"draft": True, "body": None}),
            "pull_request.opened",
            "octo/App #12 Fix login — draft, by alice",
            "alice opened it, from fix into main.",
        ),
        (
            forge.pull_request("closed", actor="bob", about=MERGED),
            "pull_request.merged",
            "octo/App #12 Fix login — merged, by alice",
            "bob merged it into main.",
        ),
        (
            forge.pull_request("closed", actor="bob", about=CLOSED),
            "pull_request.closed",
            "octo/App #12 Fix login — closed, by alice",
            "bob closed it without merging.",
        ),
        (
            forge.pull_request("synchronize", before=forge.BEFORE, after=forge.AFTER),
            "pull_request.updated",
            "octo/App #12 Fix login — open, by alice",
            "alice pushed to it: aaaaaaaa → bbbbbbbb.",
        ),
        (
            forge.pull_request("edited", "Mend login", changes={"title": {"from": "Fix `login`"}}),
            "pull_request.updated",
            "octo/App #12 Mend login — open, by alice",
            "alice changed the title, which was: Fix ˋloginˋ",
        ),
        (
            forge.pull_request("review_requested", requested_reviewer=forge.user("carol")),
            "pull_request.updated",
            "octo/App #12 Fix login — open, by alice",
            "alice asked carol for a review.",
        ),
        (
            forge.pull_request("review_requested", requested_team={"name": "Core"}),
            "pull_request.updated",
            "octo/App #12 Fix login — open, by alice",
            "alice asked Core for a review.",
        ),
    ],
)
def test_a_pull_request(payload: Json, topic: str, title: str, text: str) -> None:
    notice = of_github("pull_request", payload)
    assert (notice.topic, notice.title, notice.text) == (topic, title, text)
    assert (notice.key, notice.data["number"], notice.data["base"]) == ("octo/App#12", 12, "main")
    assert notice.data["labels"] == ["bug"]


@pytest.mark.parametrize(
    ("state", "body", "said"),
    [
        ("approved", None, "bob [approved it]"),
        ("changes_requested", "Not yet.", "bob [asked for changes]"),
        ("commented", "Hm.", "bob [reviewed it]"),
    ],
)
def test_a_review(state: str, body: str | None, said: str) -> None:
    notice = of_github("pull_request_review", github.review(state, body))
    assert notice.text.startswith(said)
    assert (notice.data["review"], notice.data["comment"]) == (state, body or "")
    assert (body or "") in notice.text


def test_a_dismissed_review() -> None:
    notice = of_github("pull_request_review", github.review("dismissed", None, "dismissed"))
    assert (notice.topic, notice.data["review"]) == ("pull_request.reviewed", "dismissed")


def test_a_comment_on_a_pull_request_shows_how_that_stands() -> None:
    commented = forge.comment("Well done.")
    commented["issue"] |= {"state": "closed", "pull_request": {"merged_at": "2025-10-09T09:00:00Z"}}
    notice = of_github("issue_comment", commented)
    assert (notice.topic, notice.title) == ("pull_request.commented", "octo/App #3 It fails — merged, by bob")
    assert notice.text == f"alice [commented]({forge.PAGE}/issues/3#issuecomment-55):\n\nWell done."


def test_a_long_comment_is_cut() -> None:
    notice = of_github("issue_comment", forge.comment("word " * 5000))
    assert len(notice.text) < 800
    assert len(notice.data["comment"]) == 2000


def test_a_failed_workflow_and_its_mending_are_one_thread() -> None:
    failed = of_github(
        "workflow_run", forge.workflow_run("timed_out", run={"pull_requests": [{"number": 12}]})
    )
    mended = of_github("workflow_run", forge.workflow_run("success"))
    assert failed.key == mended.key
    assert (failed.title, mended.title) == ("octo/App CI on main — failed", "octo/App CI on main — succeeded")
    assert failed.text.startswith(
        f"[CI #163]({forge.PAGE}/actions/runs/999) failed on main at bbbbbbbb: Fix login"
    )
    assert (failed.data["number"], failed.data["workflow"]) == (12, "CI")
    assert (failed.data["conclusion"], failed.data["action"]) == ("failed", "timed_out")


def test_the_delivery_is_the_id() -> None:
    request = github.delivery("push", forge.push(), guid="72d3162e-cc78-11e3-81ab-4c9367dc0958")
    assert (
        told(GitHub("a", secret=github.SECRET), request).native_id == "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    )


# --- Gitea, Forgejo, Gogs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gitea", "forgejo", "gogs"])
@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
def test_each_of_the_family_is_understood(family: gitea.Family, form: bool) -> None:
    request = gitea.delivery("push", gitea.push(), family=family, form=form)
    notice = told(Gitea("a", secret=gitea.SECRET), request)
    assert notice.title == "octo/App main: 2 commits, by alice"
    assert notice.url == f"{forge.PAGE}/compare/aaa...bbb"


def test_a_signature_under_githubs_name_alone_is_proven() -> None:
    request = gitea.delivery("push", gitea.push())
    kept = {k: v for k, v in request.headers.items() if k not in ("x-gitea-signature", "x-gogs-signature")}
    told(Gitea("a", secret=gitea.SECRET), request.model_copy(update={"headers": kept}))


def test_a_pull_request_of_gogs_names_its_branches_otherwise() -> None:
    about = {"head_branch": "fix", "base_branch": "main", "head": None, "base": None}
    request = gitea.delivery("pull_request", forge.pull_request("opened", about=about), family="gogs")
    notice = told(Gitea("a", secret=gitea.SECRET), request)
    assert (notice.data["branch"], notice.data["base"]) == ("fix", "main")


@pytest.mark.parametrize(
    ("event", "kind", "review"),
    [
        ("pull_request_approved", "pull_request_review_approved", "approved"),
        ("pull_request_rejected", "pull_request_review_rejected", "changes_requested"),
        ("pull_request_comment", "pull_request_review_comment", "commented"),
    ],
)
def test_reviews_of_gitea(event: str, kind: str, review: str) -> None:
    request = gitea.delivery(event, gitea.review(kind, "Hm."), event_type=kind)
    notice = told(Gitea("a", secret=gitea.SECRET), request)
    assert (notice.topic, notice.data["review"]) == ("pull_request.reviewed", review)
    assert "Hm." in notice.text


@pytest.mark.parametrize(
    ("event", "topic"),
    [
        ("action_run_failure", "pipeline.failed"),
        ("action_run_recover", "pipeline.succeeded"),
        ("action_run_success", "pipeline.succeeded"),
    ],
)
def test_runs_of_forgejo(event: str, topic: str) -> None:
    request = gitea.delivery(event, gitea.run(event.rpartition("_")[2]), family="forgejo")
    notice = told(Gitea("a", secret=gitea.SECRET), request)
    assert (notice.topic, notice.data["workflow"], notice.data["run"]) == (topic, "ci.yml", "#8")
    assert notice.key == "octo/App pipeline ci.yml main"


# --- GitLab ----------------------------------------------------------------------------------------------------------


def test_a_push_to_gitlab() -> None:
    notice = of_gitlab("Push Hook", gitlab.push(total_commits_count=25))
    assert notice.title == "octo/sub/App main: 25 commits, by alice"
    assert f"({gitlab.PAGE}/-/compare/{gitlab.BEFORE}...{gitlab.AFTER}) to main:" in notice.text
    assert notice.text.endswith("- … and 24 more")


@pytest.mark.parametrize(
    ("request_body", "topic", "text"),
    [
        (
            gitlab.merge_request("open"),
            "opened",
            "alice opened it, from fix into main.\n\nIt was broken.",
        ),
        (gitlab.merge_request("merge", state="merged"), "merged", "alice merged it into main."),
        (gitlab.merge_request("approval"), "reviewed", "alice approved it."),
        (gitlab.merge_request("unapproved"), "reviewed", "alice took the approval back."),
        (
            gitlab.merge_request("update", oldrev=gitlab.BEFORE),
            "updated",
            "alice pushed to it: aaaaaaaa → bbbbbbbb.",
        ),
        (
            gitlab.merge_request("update", changes={"title": {"previous": "Old", "current": "Fix login"}}),
            "updated",
            "alice changed the title, which was: Old",
        ),
        (
            gitlab.merge_request(
                "update",
                changes={
                    "reviewers": {
                        "previous": [gitlab.person("bob")],
                        "current": [gitlab.person("bob"), gitlab.person("carol")],
                    }
                },
            ),
            "updated",
            "alice asked carol for a review.",
        ),
    ],
)
def test_a_merge_request_is_a_pull_request(request_body: Json, topic: str, text: str) -> None:
    notice = of_gitlab("Merge Request Hook", request_body)
    assert (notice.topic, notice.text) == (f"pull_request.{topic}", text)
    assert (notice.key, notice.data["base"], notice.data["branch"]) == ("octo/sub/App!12", "main", "fix")


@pytest.mark.parametrize(
    "payload",
    [
        gitlab.merge_request("update", changes={"labels": {"previous": [], "current": [{"title": "x"}]}}),
        gitlab.merge_request("update"),
        gitlab.note("Issue", system=True),
        gitlab.note("Issue", action="update"),
        gitlab.note("Commit"),
        gitlab.issue("update"),
        gitlab.release("update"),
        gitlab.pipeline("running"),
        gitlab.push(after=gitlab.ZERO),
        {"object_kind": "wiki_page"},
        {},
    ],
    ids=str,
)
def test_what_gitlab_is_not_told_for(payload: Json) -> None:
    assert not gitlab.GitLabCaller().connector("a").events(gitlab.delivery("X", payload))


def test_a_failed_pipeline_names_the_jobs_that_failed() -> None:
    notice = of_gitlab("Pipeline Hook", gitlab.pipeline("failed"))
    assert notice.data["failed_jobs"] == ["unit"]
    assert notice.text.endswith("(alice).\n\nFailed: unit.")
    assert of_gitlab("Pipeline Hook", gitlab.pipeline("success")).data["failed_jobs"] == []


def test_a_comment_on_a_merge_request_leads_to_it() -> None:
    notice = of_gitlab("Note Hook", gitlab.note("MergeRequest"))
    assert notice.url == f"{gitlab.PAGE}/-/merge_requests/12"
    assert notice.data["comment_url"] == f"{gitlab.PAGE}/-/merge_requests/12#note_1241"


def test_the_secret_token_of_an_older_gitlab() -> None:
    connector = GitLab("a", token=gitlab.TOKEN, old_token=gitlab.OLD_TOKEN)
    for token in (gitlab.TOKEN, gitlab.OLD_TOKEN):
        told(connector, gitlab.delivery("Push Hook", gitlab.push(), token=token, signed=False))
    for token in (gitlab.WRONG_TOKEN, "", f"{gitlab.TOKEN}x"):
        with pytest.raises(BadSignature):
            told(connector, gitlab.delivery("Push Hook", gitlab.push(), token=token, signed=False))


def test_a_signing_token_that_is_being_changed() -> None:
    connector = gitlab.GitLabCaller().connector("a")
    told(connector, gitlab.delivery("Push Hook", gitlab.push(), signing=gitlab.OLD_SIGNING))


def test_a_gitlab_without_idempotency_keys_is_known_by_event_and_body() -> None:
    request = gitlab.delivery("Push Hook", gitlab.push(), token=gitlab.TOKEN, signed=False)
    kept = {name: value for name, value in request.headers.items() if name != "idempotency-key"}
    notice = told(GitLab("a", token=gitlab.TOKEN), request.model_copy(update={"headers": kept}))
    # All that one event set off shares the event's id: the body tells them apart.
    assert notice.native_id == derived_id("9cebe914-4827-408f-b014-cfa23a47a35f", request.body)


# --- through the door ------------------------------------------------------------------------------------------------


async def test_a_call_that_cannot_be_read_is_answered_and_not_stored() -> None:
    stored: list[Event] = []

    async def accept(event: Event) -> Accepted:
        stored.append(event)
        return Accepted(id=event.native_id, new=True)

    connector = GitHub("a", secret=github.SECRET)
    answer = await connector.handle_hook(
        github.delivery("push", {"ref": "refs/heads/x", "after": "b"}), accept
    )
    assert (answer.status, stored) == (422, [])
    assert answer.body == b"The payload names no repository.\n"
