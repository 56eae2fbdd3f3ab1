"""The console page in a real browser, over a fake hub."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from parley.messages.model import Button, Reply
from parley.metrics import Metrics
from parley.settings import Settings
from parley.web.serve import serve
from tests.web.devtools import Page, browser, chromium
from tests.web.fake_front import REPORT, FakeFront

pytestmark = [
    pytest.mark.browser,
    pytest.mark.servers,
    pytest.mark.skipif(chromium() is None, reason="Chromium is not here: make test-servers"),
]

CONNECTED = "document.querySelector('#link')?.className === 'open'"
WIDER_THAN_A_PHONE = """[...document.querySelectorAll("body, body *")]
  .filter((node) => !node.closest("pre") && node.getBoundingClientRect().right > 320)
  .map((node) => `${node.tagName}.${node.className}`).join(" ")"""
NASTY = """**bold** `code` [link](https://example.org/a) [bad](javascript:alert(1))

- one
- <img src=x onerror="window.hurt = 1"> two

```
<script>window.hurt = 1</script>
```"""


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with browser("--lang=en-US", "--accept-lang=en-US") as opened:
        yield opened
        assert not opened.complaints


@pytest.fixture
async def entered(page: Page, front: FakeFront, configured: Settings) -> AsyncIterator[Page]:
    """Logged in by the link that `make up` prints."""
    async with serve(front, configured, metrics=Metrics()):
        await page.go(f"http://127.0.0.1:{configured.port}/login?code=code-ada")
        await page.until(CONNECTED)
        yield page
        await page.go("about:blank")


async def say(page: Page, text: str) -> None:
    await page.look("document.querySelector('#text').focus()")
    await page.type(text)
    await page.enter()


def answers(count: int) -> str:
    return f"document.querySelectorAll('.theirs').length === {count}"


async def test_a_message_is_answered_on_the_page(entered: Page, front: FakeFront) -> None:
    """Text, table, file, button, the state with its time, and the way to Prefect's page of the run."""
    assert await entered.look("document.querySelector('#name').textContent") == "ada"
    await say(entered, "/order 1024")
    await entered.until(answers(1))
    assert await entered.look("document.querySelector('.theirs strong').textContent") == "1024"
    assert await entered.look("document.querySelectorAll('.theirs tbody tr').length") == 2
    await entered.until("document.querySelector('.mine .note').textContent.includes('184 ms')")
    run = await entered.look("document.querySelector('.mine .note a').href")
    assert run == "http://127.0.0.1:4200/runs/flow-run/flow-m0000"
    content = "fetch(document.querySelector('.theirs a.file').href).then((answer) => answer.text())"
    assert await entered.look(content) == REPORT.content.decode()
    await entered.look("document.querySelector('.theirs .buttons button').click()")
    await entered.until(answers(2))
    assert [kept.said for kept in front.messages.values()] == ["/order 1024", "watch 1024"]


async def test_what_comes_from_elsewhere_is_text(entered: Page, front: FakeFront) -> None:
    front.tell("ada", Reply(text=NASTY, buttons=(Button(label="<i>x</i>", value="x"),)), "r-1")
    await entered.until(answers(1))
    assert await entered.look("window.hurt") is None
    assert (
        await entered.look("document.querySelectorAll('.theirs img, .theirs script, .theirs i').length") == 0
    )
    links = await entered.look(
        "JSON.stringify([...document.querySelectorAll('.theirs a')].map((a) => a.href))"
    )
    assert json.loads(links) == ["https://example.org/a"]
    assert await entered.look("document.querySelectorAll('.theirs .bubble > ul > li').length") == 2
    assert "window.hurt" in await entered.look("document.querySelector('.theirs pre').textContent")


async def test_commands_are_offered(entered: Page) -> None:
    await entered.until("commands.length > 5")
    await entered.look("document.querySelector('#text').focus()")
    await entered.type("/re")
    await entered.until("document.querySelectorAll('#suggestions li').length === 1")
    assert await entered.look("document.querySelector('#text').getAttribute('aria-expanded')") == "true"
    await entered.press("Tab", 9)
    assert await entered.look("document.querySelector('#text').value") == "/restart "


async def test_what_was_sent_while_the_hub_was_away_arrives_once(
    page: Page, front: FakeFront, configured: Settings
) -> None:
    """The page comes back by itself, sends what it has not got through, and shows nothing twice."""
    async with AsyncExitStack() as first:
        await first.enter_async_context(serve(front, configured, metrics=Metrics()))
        await page.go(f"http://127.0.0.1:{configured.port}/login?code=code-ada")
        await page.until(CONNECTED)
        await say(page, "/order 1")
        await page.until(answers(1))
    await page.until("document.querySelector('#link').className === 'waiting'")
    await say(page, "/order 2")
    await page.until("document.querySelector('.mine:last-child .note')?.textContent.includes('waiting')")
    async with serve(front, configured, metrics=Metrics()):
        await page.until(answers(2))
        await page.until(CONNECTED)
        await page.until(
            "document.querySelector('.mine:nth-of-type(3) .note').textContent.includes('184 ms')"
        )
        front.tell("ada", Reply(text="Last."), "r-1")
        await page.until(answers(3))
        assert await page.look("document.querySelectorAll('.mine').length") == 2
        # A reload brings the same conversation from the history.
        await page.command("Page.reload")
        await page.until(CONNECTED)
        await page.until("document.querySelectorAll('.mine').length === 2")
    assert [kept.said for kept in front.messages.values()] == ["/order 1", "/order 2"]
    page.complaints.clear()  # the browser notes every connection that failed


async def test_a_logged_out_page_goes_to_the_login(entered: Page) -> None:
    await entered.look("document.querySelector('#leave button').click()")
    await entered.until("location.pathname === '/login' && !!document.querySelector('#secret')")
    await entered.look("document.querySelector('#secret').focus()")
    await entered.type("token-ben")
    await entered.enter()
    await entered.until(CONNECTED)
    assert await entered.look("document.querySelector('#name').textContent") == "ben"


async def test_the_page_fits_a_phone(entered: Page, front: FakeFront) -> None:
    await entered.command(
        "Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=True
    )
    front.tell("ada", Reply(text="x" * 500 + "\n\n```\n" + "y" * 500 + "\n```"), "r-1")
    await say(entered, "/order 1024")
    await entered.until(answers(2))
    assert await entered.look(WIDER_THAN_A_PHONE) == ""
