"""People write on real platforms, and are answered in their threads: Slack's protocol, a real Dovecot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes._driver import eventually
from tests.fakes.mail import ASSISTANT, PASSWORD, MailDriver
from tests.fakes.slack import APP_TOKEN, BOT_TOKEN, SIGNING_SECRET, SlackDriver
from tests.stack import Stack

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A whole installation."""
    with Stack() as running:
        yield running


def connect(stack: Stack, platform: str, name: str, secrets: dict[str, str], **fields: Any) -> None:
    """What `parley connect` does: seal the secrets, save the Block, add the account."""
    slug = f"parley-{platform}-account"
    sealed = {
        field: stack.admin("seal", block_type=slug, block_name=name, field=field, value=value)["sealed"]
        for field, value in secrets.items()
    }
    done = subprocess.run(
        [sys.executable, "-m", "blocks.save", platform],
        input=json.dumps({"name": name, "fields": fields | sealed}) + "\n",
        env=stack.environment | stack.prefect_environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    saved = json.loads(done.stdout.splitlines()[-1])
    assert "block" in saved, saved
    stack.admin("add_account", name=name, platform=platform, block=saved["block"])


async def listening(stack: Stack, name: str) -> None:
    """Return once this account listens."""

    def listens() -> bool:
        return any(one["name"] == name and one["state"] == "listening" for one in stack.admin("accounts"))

    try:
        await eventually(listens, f"{name} listens", within=60)
    except AssertionError as error:
        raise AssertionError(f"{stack.admin('accounts')}\n{stack.logs('listeners')}") from error


async def test_a_slack_message_is_answered_in_its_thread(stack: Stack) -> None:
    """A question in a channel's thread gets the order and its report there; a button confirms a write."""
    async with SlackDriver() as slack:
        # The listeners are another process: they find their way by the system's own names.
        slack.fake.host = "127.0.0.1"
        secrets = {"bot_token": BOT_TOKEN, "app_token": APP_TOKEN, "signing_secret": SIGNING_SECRET}
        connect(stack, "slack", "office", secrets, base_url=slack.fake.base_url)
        stack.admin("person_link", name="owner", account="office", user_id="UALICE")
        await listening(stack, "office")
        asked = await slack.person_says("where is order 1024?", direct=False)
        answers = await slack.sent(1)
        text = "\n".join(one.text for one in answers)
        assert "1024" in text
        assert {one.thread for one in answers} == {asked.rpartition(":")[2]}
        await eventually(lambda: _files(slack), "the report")
        await slack.redeliver(asked)
        await slack.person_says("/help")
        await eventually(lambda: any("/order" in post for post in _texts(slack)), "the help")
        assert sum("in transit" in post for post in _texts(slack)) == 1


async def test_a_mail_is_answered_in_its_thread(stack: Stack) -> None:
    """A mail gets the order with the report attached, in its thread; it may not repair, and automatic mail is left."""
    async with MailDriver() as mail:
        fields = {
            "address": ASSISTANT,
            "username": ASSISTANT,
            "imap_host": "127.0.0.1",
            "imap_port": mail.dovecot.imap_port,
            "imap_security": "none",
            "smtp_host": "127.0.0.1",
            "smtp_port": mail.post.smtp_port,
            "smtp_security": "none",
        }
        connect(stack, "mail", "post", {"password": PASSWORD}, **fields)
        await listening(stack, "post")
        stranger = await mail.person_says("/order 1024", person="mallory")
        assert "do not know you" in (await mail.sent(1))[0].text
        stack.admin("person_link", name="owner", account="post", user_id="alice@example.org")
        asked = await mail.person_says("查一下订单 1024 的物流")
        answer = (await mail.sent(2))[1]
        assert (answer.thread, answer.conversation) == (asked, "alice@example.org")
        assert "1024" in answer.text
        assert [file.name for file in answer.files] == ["logistics-1024.csv"]
        await mail.person_says("/repair restart-service host=web1")
        assert "cannot prove who you are" in (await mail.sent(3))[2].text
        assert mail.acknowledged(stranger)


def _texts(slack: SlackDriver) -> list[str]:
    return [slack.as_seen(post).text for post in slack.fake.posts]


def _files(slack: SlackDriver) -> list[str]:
    return [file.name for post in slack.fake.posts for file in slack.as_seen(post).files]
