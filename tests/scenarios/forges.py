"""Repositories on GitHub and GitLab, as the people of a page use them: what they do there is told to our hook."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from parley.messages import HookRequest
from tests.fakes import _forge as form
from tests.fakes import github, gitlab
from tests.fakes._driver import Sent

Made = tuple[str, dict[str, Any]]
"""The event's name, and its payload."""

WITHIN = 60.0

_runs = itertools.count(900)


class ForgeRoom:
    """One repository with its webhook at `address`. Nothing is ever written there by us."""

    does: Mapping[str, Callable[[str], Made]]

    def __init__(self, address: str, secret: Path) -> None:
        self._address = address
        self._secret = secret
        self.calls: list[HookRequest] = []

    async def says(self, who: str, text: str, *, in_thread: bool = False) -> None:
        """Somebody does something; the forge calls, and is told that it was taken."""
        call = self.call(who, text)
        self.calls.append(call)
        status = await self.post(call)
        assert status in {200, 204}, f"{text}: the forge was told {status}"

    def call(self, who: str, text: str) -> HookRequest:
        """The call that the forge makes of this."""
        raise NotImplementedError

    async def post(self, call: HookRequest) -> int:
        """Call over HTTP; somebody who sees that a call was refused for now has it made again."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            end = time.monotonic() + WITHIN
            while True:
                try:
                    answer = await client.post(self._address, content=call.body, headers=dict(call.headers))
                except httpx.TransportError:
                    answer = httpx.Response(503)
                if answer.status_code != 503 or time.monotonic() > end:
                    return answer.status_code

    async def presses(self, who: str, label: str) -> None:
        raise AssertionError("nothing of ours is shown there")

    async def next(self) -> Sent:
        raise AssertionError("nothing is written there")

    async def changed(self) -> Sent:
        raise AssertionError("nothing is written there")

    @property
    def secret(self) -> str:
        """What the page's reader entered there."""
        return self._secret.read_text().strip()


class GitHubRoom(ForgeRoom):
    """A repository on GitHub, with the payloads and the signature of its documentation."""

    def call(self, who: str, text: str) -> HookRequest:
        event, payload = _ON_GITHUB[text](who)
        return github.delivery(event, payload, secret=self.secret)


class GitLabRoom(ForgeRoom):
    """A project on GitLab 18, which signs its calls."""

    def call(self, who: str, text: str) -> HookRequest:
        event, payload = _ON_GITLAB[text](who)
        return gitlab.delivery(event, payload, signing=self.secret, at=int(time.time()))


def _pull_request(action: str, title: str = "Fix login", **about: Any) -> Callable[[str], Made]:
    changes = {"changes": {"title": {"from": "Fix login"}}} if action == "edited" else {}
    return lambda who: (
        "pull_request",
        form.pull_request(action, title, who, about={"user": form.user("alice"), **about}, **changes),
    )


def _ping(who: str) -> Made:
    return "ping", {"zen": "Keep it logically awesome.", "hook_id": 1, **form.common(who)}


def _approval(who: str) -> Made:
    return "pull_request_review", json.loads(json.dumps(github.review("approved", None)).replace("bob", who))


def _run(conclusion: str) -> Callable[[str], Made]:
    def made(who: str) -> Made:
        number = next(_runs)
        run = {"id": number, "run_number": number, "html_url": f"{form.PAGE}/actions/runs/{number}"}
        return "workflow_run", form.workflow_run(conclusion, run=run)

    return made


_ON_GITHUB: Mapping[str, Callable[[str], Made]] = {
    "adds the webhook": _ping,
    "pushes two commits to main": lambda _: ("push", form.push()),
    "opens pull request 12": _pull_request("opened"),
    "approves pull request 12": _approval,
    "pushes to pull request 12": _pull_request("synchronize"),
    "renames pull request 12": _pull_request("edited", "Fix login with umlauts"),
    "merges pull request 12": _pull_request(
        "closed", "Fix login with umlauts", state="closed", merged=True, merged_at="2026-11-20T09:00:00Z"
    ),
    "publishes release v1.0.0": lambda _: ("release", form.release()),
    "publishes release v1.1.0": lambda _: (
        "release",
        form.release(about={"id": 10, "tag_name": "v1.1.0", "name": "v1.1.0"}),
    ),
    "breaks the workflow CI on main": _run("failure"),
    "mends the workflow CI on main": _run("success"),
}
_ON_GITLAB: Mapping[str, Callable[[str], Made]] = {
    "adds the webhook": lambda _: ("Job Hook", {**gitlab.common("build"), "build_status": "created"}),
    "publishes release v1.0.0": lambda _: ("Release Hook", gitlab.release()),
    "opens merge request 12": lambda _: ("Merge Request Hook", gitlab.merge_request("open")),
}
