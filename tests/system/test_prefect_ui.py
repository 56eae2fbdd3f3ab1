"""What a person sees in the browser: the console, and Prefect's own pages of what it started."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.stack import Stack
from tests.system import world_flows, worlds
from tests.web.devtools import Page, browser, chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.servers,
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(chromium() is None, reason="Chromium is not here: make test-servers"),
]

STATISTICS = "amplitude.com"
"""Where Prefect's pages send who does what: it is to be refused."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything launched by us."""
    effects = tmp_path_factory.mktemp("ui") / "effects"
    with Stack(toml=worlds.toml("parley"), extra={world_flows.FILE: str(effects)}) as running:
        yield running


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A browser that nobody has used; its pages are refused nothing but to tell others what is done here."""
    async with browser("--lang=en-US", "--accept-lang=en-US", "--window-size=1400,1000") as opened:
        yield opened
        refused = [text for text in opened.complaints if "Content Security Policy" in text]
        assert not [text for text in refused if STATISTICS not in text]


async def shows(page: Page, *texts: str) -> None:
    """Wait until the page shows all of these."""
    for text in texts:
        await page.until(f"document.body.innerText.includes({json.dumps(text)})")


async def click(page: Page, selector: str, text: str) -> None:
    """Click on the visible element that holds this text."""
    every = f"[...document.querySelectorAll({json.dumps(selector)})]"
    spot = await page.until(
        f"(() => {{ const e = {every}.find((one) => one.innerText.includes({json.dumps(text)}));"
        " e?.scrollIntoView({block: 'center'}); const r = e?.getBoundingClientRect();"
        " return r?.width ? {x: r.x + r.width / 2, y: r.y + r.height / 2} : null; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        await page.command("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **spot)


async def said(stack: Stack, text: str, wait: float = 60) -> dict[str, Any]:
    return await asyncio.to_thread(stack.say, text, wait=wait)


def logged(stack: Stack, flow_run_id: str) -> None:
    """Wait for a run's logs: the page of one that has ended shows those that were there when it was opened."""

    def found() -> bool:
        body = {"logs": {"flow_run_id": {"any_": [flow_run_id]}}}
        with stack.prefect() as client:
            return bool(client.post("logs/filter", json=body).raise_for_status().json())

    stack.until(found, 20, "its logs")


async def open_run(page: Page, stack: Stack, message: dict[str, Any]) -> None:
    """Follow the link that came with the answer, and give the password when it is asked for."""
    await page.go(message["flow_run_url"])
    await page.until("!!document.querySelector('input[type=password]')")
    await page.look("document.querySelector('input[type=password]').focus()")
    await page.type(stack.prefect_environment["PREFECT_API_AUTH_STRING"])
    await page.enter()
    await page.until(f"location.pathname.endsWith({json.dumps(message['flow_run_id'])})")


async def test_a_link_to_a_run_leads_there_once_the_password_is_given(page: Page, stack: Stack) -> None:
    """State, tags, tasks and logs of what a message started; the picture of its tasks is drawn."""
    answer = await said(stack, "/order 1024")
    await asyncio.to_thread(logged, stack, answer["flow_run_id"])
    await open_run(page, stack, answer)
    await shows(page, "Completed", "parley", "order_status", "2 Task runs", "Beginning flow run")
    tags = await page.look("document.body.innerText")
    assert any(tag in tags for tag in ("command:order", "by:owner"))
    await page.until("document.querySelector('canvas')?.width > 300")


async def test_a_report_can_be_read_in_prefect(page: Page, stack: Stack) -> None:
    """It is an artifact of its run, found from the run's page."""
    await open_run(page, stack, await said(stack, "/daily"))
    await shows(page, "Completed", "daily_report", "9 Task runs")
    await click(page, "[role=tab]", "Artifacts")
    await click(page, "[role=tabpanel] a", "daily-report")
    await shows(page, "Flow run: daily-")
    await page.go(await page.until("document.querySelector('a[href*=\"/artifacts/artifact/\"]')?.href"))
    await shows(page, "Orders from", "revenue (EUR)")


async def test_a_run_is_cancelled_with_the_button_of_its_page(page: Page, stack: Stack) -> None:
    """Its process ends, and the person who had asked for it is told."""
    message = await said(stack, "/lasting button", wait=0)
    address = f"/api/v1/messages/{message['id']}"

    def view() -> dict[str, Any]:
        seen: dict[str, Any] = stack.client.get(address).raise_for_status().json()
        return seen

    stack.until(lambda: view()["state"] == "running", 30, "it runs")
    await open_run(page, stack, view())
    await shows(page, "Running")
    await click(page, "button", "Open menu")
    await click(page, "[role=menuitem]", "Cancel")
    await click(page, "[role=dialog] button, [role=alertdialog] button", "Cancel Flow Run")
    stack.until(lambda: view()["state"] == "cancelled", 30, "it is cancelled")
    assert "cancelled" in view()["replies"][-1]["text"]
    await page.go(message["flow_run_url"] or view()["flow_run_url"])
    await shows(page, "Cancelled")


async def test_the_console_answers(page: Page, stack: Stack) -> None:
    """Entered by the link that `parley up` prints: a message, its answer, its file, its run in Prefect."""
    link = await asyncio.to_thread(stack.admin, "login_link")
    await page.go(link["url"])
    await shows(page, "Connected", "owner")
    await page.look("document.querySelector('#text').focus()")
    await page.type("/order 1024")
    await page.enter()
    await shows(page, "Order 1024", "logistics-1024.csv", "done")
    file = "[...document.querySelectorAll('a')].find((a) => a.innerText.includes('logistics-1024.csv')).href"
    content = await page.look(f"fetch({file}).then((answer) => answer.text())")
    assert content.startswith("time (UTC),place,event")
    run = await page.look(
        "[...document.querySelectorAll('a')].find((a) => a.href.includes('/runs/flow-run/')).href"
    )
    assert str(stack.settings.prefect_port) in run
    assert not page.complaints
