"""What docs/scenario-support.md is followed with, wherever the installation runs: a workspace of Slack."""

from __future__ import annotations

from typing import Final

from tests.fakes.slack import APP_TOKEN, BOT_TOKEN, SlackDriver
from tests.scenarios.page import Page
from tests.scenarios.rooms_slack import SlackRoom

NAME: Final = "scenario-support.md"
DOWN: Final = "When the order database is down"
"""The heading from which on there has to be a database that can be stopped."""

PEOPLE: Final = {"ann": "U0ANN", "bea": "U0BEA", "lin": "U0LIN"}
SECRETS: Final = {"bot-token": BOT_TOKEN, "app-token": APP_TOKEN}
"""The files that the page's reader has."""


def enter(page: Page, slack: SlackDriver) -> SlackRoom:
    """Let the page be held in this workspace; returns its #support."""
    page.more = {"parley connect slack": f"--field base_url={slack.fake.base_url}"}
    support = SlackRoom(slack, "C0SUPPORT", PEOPLE)
    page.rooms = {"Slack, #support": support} | {
        f"Slack, {who} and parley": SlackRoom.alone_with(slack, who, PEOPLE) for who in PEOPLE
    }
    return support


def nothing_else_was_said(slack: SlackDriver, support: SlackRoom) -> None:
    """Nobody but who asked sees what is private; nothing was said that the page does not tell."""
    private = [post for post in slack.fake.posts if "user_only" in post]
    assert {post["user_only"] for post in private} == {PEOPLE["bea"], PEOPLE["lin"]}
    assert slack.fake.unseen == []
    assert support.read_all
