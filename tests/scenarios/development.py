"""What docs/scenario-development.md is followed with, wherever the installation runs: a Discord, two repositories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.fakes.discord import GENERAL, OTHER, TOKEN, DiscordDriver
from tests.fakes.gitlab import SIGNING
from tests.scenarios.forges import GitHubRoom, GitLabRoom
from tests.scenarios.page import Page
from tests.scenarios.rooms_discord import DiscordRoom

NAME: Final = "scenario-development.md"
SECRETS: Final = {"discord-token": TOKEN, "gitlab-signing-token": SIGNING}
"""The files that the page's reader has."""


@dataclass
class Places:
    """Where the page's people are."""

    discord: DiscordDriver
    dev: DiscordRoom
    announcements: DiscordRoom
    github: GitHubRoom

    async def nothing_else_was_said(self) -> None:
        """Calls that are made again say nothing new; nothing was said that the page does not tell."""
        for call in self.github.calls:
            assert await self.github.post(call) in {200, 204}
        await self.github.says("alice", "publishes release v1.1.0")
        for room in (self.dev, self.announcements):
            assert "v1.1.0" in (await room.next()).text
            assert room.read_all
        threads = [one["name"] for one in self.discord.fake.channels.values() if "thread_metadata" in one]
        assert "octo/App #12 Fix login — open, by alice" in threads


def enter(page: Page, discord: DiscordDriver, hooks: str) -> Places:
    """Let the page be held in this Discord; `hooks` is where the repositories reach the hooks' port."""
    places = Places(
        discord,
        DiscordRoom(discord, GENERAL),
        DiscordRoom(discord, OTHER),
        GitHubRoom(f"{hooks}/github", page.folder / "github-secret"),
    )
    page.more = {"parley connect discord": f"--field base_url={discord.fake.base_url}"}
    page.rooms = {
        "Discord, #dev": places.dev,
        "Discord, #announcements": places.announcements,
        "GitHub, octo/App": places.github,
        "GitLab, octo/sub/App": GitLabRoom(f"{hooks}/gitlab", page.folder / "gitlab-signing-token"),
    }
    return places
