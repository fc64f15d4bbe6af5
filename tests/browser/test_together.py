"""One session that a person and the agent share: steering, a question, a denial, a hand-over, a person's clicks."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.async_api import Browser, Page, expect

from cambio_lab.reports import Run
from tests.live_server import LiveServer

from .conftest import MakeSession
from .lab import (
    LIVE,
    PATIENCE,
    ask,
    canvas,
    command,
    idle,
    kernel_ready,
    notebook,
    open_lab,
    run_cell,
    until,
    violations,
)
from .test_agents import say

pytestmark = [pytest.mark.browser, pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

QUESTION = {"question": "Which rate shall I use?", "choices": ["of the day", "of today"]}
LAST = {"question": "And which day?"}
SAID = "Your message names the function ask_user, so I call it."
TOLD = ("Which rate shall I use?", "of the day", "Be brief", "Please log in", "Thank you")
CELL = "from cambio_lab import Workbench\nsession = await Workbench().session({!r})\nsession"


async def story(page: Page) -> list[str]:
    """The conversation as the panel tells it, a text for each line of it."""
    lines: list[str] = await page.locator(".jp-Cambio-panel .jp-Cambio-log > *").all_inner_texts()
    return [line for text in lines for line in text.splitlines() if line]


async def open_panel(page: Page, lab: LiveServer, session_id: str) -> None:
    await open_lab(page, lab)
    await command(page, "cambio-lab:open-desktop", id=session_id)
    await page.locator(LIVE).wait_for(timeout=30_000)


async def test_a_shared_run_is_told_alike_everywhere(
    page: Page, lab: LiveServer, make_session: MakeSession, client: httpx2.AsyncClient, notebooks: Path
) -> None:
    session = (await make_session("Expenses", ask_user=True, approval=["type"]))["id"]
    await open_panel(page, lab, session)
    panel = page.locator(".jp-Cambio-panel")
    card = panel.locator(".jp-Cambio-asks")

    await ask(page, f"ask_user {json.dumps(QUESTION)}")
    await expect(card).to_contain_text("Which rate shall I use?")
    assert await violations(page, ".jp-Cambio-asks") == []
    await panel.locator(".jp-Cambio-composer textarea").fill("Be brief")
    await panel.locator(".jp-Cambio-composer textarea").press("Enter")
    await panel.locator(".jp-Cambio-queued").wait_for()
    await card.get_by_role("button", name="of the day").click()
    await expect(card).to_have_count(0)
    await panel.get_by_role("button", name="Deny").click(timeout=60_000)
    await idle(page)

    await ask(page, 'hand_over {"reason": "Please log in"}')
    await expect(card).to_contain_text("Please log in")
    await expect(panel.locator(".jp-Cambio-driver")).to_have_text("The desktop is yours until you hand it back")
    await canvas(page).click(position={"x": 100, "y": 100})
    await canvas(page).click(position={"x": 200, "y": 150}, delay=50)
    await card.get_by_role("textbox").fill("Thank you")
    await card.get_by_role("button", name="Hand back").click()
    await panel.get_by_role("button", name="Deny").click(timeout=60_000)
    await idle(page)

    await stop_while_it_asks(page)
    before = await story(page)
    assert before.count(SAID) == 2, "in the first turn, and in the one that was stopped"
    text = "\n".join(before)
    for words in (*TOLD, "Denied", "A person: Click at", "The agent is told: While you were paused the user clicked"):
        assert words in text, text
    await open_panel(page, lab, session)
    await idle(page)
    await expect(panel.locator(".jp-Cambio-log")).to_contain_text("Thank you")
    assert await story(page) == before, "a reloaded page tells the same story in the same order"

    steps = (await client.get(f"/sessions/{session}/steps?limit=100")).json()["steps"]
    assert [row["step"] for row in steps] == list(range(1, len(steps) + 1))
    people = [row for row in steps if row["actor"] == "human"]
    assert len(people) == 2 and people[-1]["result"]["image_path"]
    history = [row["content"] for row in (await client.get(f"/sessions/{session}/history?limit=100")).json()["data"]]
    assert [words for words in history if words in TOLD] == [*TOLD[:3], *TOLD[3:]]
    await check_record(client, session)
    await check_viewer(page, session)
    await check_saved_notebook(page, lab, session, notebooks)


async def stop_while_it_asks(page: Page) -> None:
    await ask(page, f"ask_user {json.dumps(LAST)}")
    await expect(page.locator(".jp-Cambio-panel .jp-Cambio-asks")).to_contain_text(LAST["question"])
    await page.locator(".jp-Cambio-panel .jp-Cambio-bar").get_by_role("button", name="Stop").click()
    await idle(page)


async def check_record(client: httpx2.AsyncClient, session: str) -> None:
    """The run: replayed offline without a question, and told by Markdown and HTML."""
    run = Run.load((await client.get(f"/sessions/{session}/run")).content)
    replayed = await run.replay()
    assert replayed.identical
    kinds = [type(event).__name__ for event in replayed.events]
    assert kinds.count("QuestionAsked") == kinds.count("QuestionAnswered") == 3
    assert len(run.human_steps) == 2
    for text in (run.to_markdown(), run.to_html()):
        for words in (*TOLD, "left_click", "person"):
            assert words in text.replace("\\", ""), words
        assert text[max(0, text.find("Transcript")) :].replace("\\", "").count(SAID) == 2


async def check_viewer(page: Page, session: str) -> None:
    await command(page, "cambio-lab:view-run", id=session)
    transcript = page.locator(".jp-Cambio-transcript")
    await transcript.get_by_text("And which day?").last.wait_for()
    assert (await transcript.inner_text()).count(SAID) == 2


async def check_saved_notebook(page: Page, lab: LiveServer, session: str, notebooks: Path) -> None:
    name = f"together-{session[:8]}.ipynb"
    notebook(notebooks / name, CELL.format(session))
    await open_lab(page, lab, f"tree/{name}")
    await kernel_ready(page)
    await run_cell(page, 0)
    await page.locator(LIVE).first.wait_for(timeout=30_000)
    await page.get_by_text("a person: left_click").first.wait_for(state="attached")  # the record reads step by step
    await command(page, "docmanager:save")
    saved: dict[str, Any] = json.loads((notebooks / name).read_text())
    output = json.dumps(saved["cells"][0]["outputs"], ensure_ascii=False)
    for words in ("Which rate shall I use?", "of the day", "Please log in", "a person: left_click"):
        assert words in output, words
    assert output.count(f"Agent: {SAID}") == 2


ASKING = """import json
turn = await session.send("ask_user " + json.dumps(%r), show=False)
next(step.text for step in turn.steps if step.tool == "ask_user")"""
CONTROL = "(await session.refresh())['control']"
DRIVER = ".jp-Cambio-driver"


@pytest.mark.slow
async def test_two_browsers_and_a_notebook_agree_also_after_a_lost_network(
    page: Page,
    browser: Browser,
    lab: LiveServer,
    make_session: MakeSession,
    client: httpx2.AsyncClient,
    notebooks: Path,
) -> None:
    """Who asked, who answered, who has control; 20 s without a network during a question lose nothing."""
    session = (await make_session("Shared", ask_user=True, approval=["type"]))["id"]
    name = f"three-{session[:8]}.ipynb"
    notebook(notebooks / name, CELL.format(session).rpartition("\n")[0], ASKING % QUESTION, CONTROL)
    contexts = [page.context, *[await browser.new_context(viewport={"width": 1280, "height": 800}) for _ in range(2)]]
    anna, bert, book = page, *[await context.new_page() for context in contexts[1:]]
    for one in (anna, bert):
        one.set_default_timeout(PATIENCE)
        await open_panel(one, lab, session)
    await open_lab(book, lab, f"tree/{name}")
    await kernel_ready(book)
    outputs = book.locator(".jp-OutputArea-output")
    await run_cell(book, 0)

    # The notebook asks, Bert answers, Anna denies.
    await run_cell(book, 1)
    for one in (anna, bert):
        await expect(one.locator(".jp-Cambio-asks")).to_contain_text("Which rate shall I use?")
    await bert.locator(".jp-Cambio-asks").get_by_role("button", name="of the day").click()
    await expect(bert.locator(".jp-Cambio-log")).to_contain_text("of the day")
    await expect(anna.locator(".jp-Cambio-log")).to_contain_text("Answered by another client")
    await expect(bert.locator(".jp-Cambio-log")).not_to_contain_text("Answered by another client")
    await anna.locator(".jp-Cambio-approval").get_by_role("button", name="Deny").click(timeout=60_000)
    await expect(anna.locator(".jp-Cambio-note").filter(has_text="Denied")).to_have_text("Denied")
    await expect(bert.locator(".jp-Cambio-note").filter(has_text="Denied")).to_have_text("Denied by another client")
    await expect(outputs.last).to_contain_text("The user answered: of the day", timeout=60_000)

    # Bert has control: all three say so.
    await bert.get_by_role("button", name="Take control").click()
    await expect(bert.locator(DRIVER)).to_contain_text("You have control")
    await expect(anna.locator(DRIVER)).to_have_text("Another viewer has control")
    await run_cell(book, 2)
    holder = await bert.evaluate("sessionStorage.getItem('cambio-lab-viewer')")
    await expect(outputs.last).to_have_text(f"'{holder}'")
    await bert.get_by_role("button", name="Give back").click()
    await expect(anna.locator(DRIVER)).to_have_count(0)  # no viewer has it, and the agent is idle

    # Anna's network is lost for 20 s while the agent asks.
    await ask(bert, f"ask_user {json.dumps(QUESTION)}")
    await expect(anna.locator(".jp-Cambio-asks")).to_be_visible()
    lost = anna.locator(".jp-Dialog[aria-label^='Server Connection Error']")  # JupyterLab's own
    await anna.add_locator_handler(lost, lambda: lost.get_by_role("button").last.click())
    await anna.context.set_offline(True)
    began = time.monotonic()
    await anna.locator(".jp-Cambio-bar").get_by_role("button", name="Stop").click()
    await expect(anna.locator(".jp-Cambio-notice", has_text="Not stopped")).to_contain_text("the agent goes on")
    await anna.locator(".jp-Cambio-composer textarea").fill("Written without a network")
    await anna.locator(".jp-Cambio-composer textarea").press("Enter")
    await anna.locator(".jp-Cambio-outgoing", has_text="Waiting for the connection").wait_for()
    await expect(anna.locator(".jp-Cambio-composer textarea")).to_have_value(
        "Written without a network", timeout=30_000
    )
    assert time.monotonic() - began >= 19
    await anna.context.set_offline(False)
    await expect(anna.locator(".jp-Cambio-notice[data-phase]")).to_have_count(0, timeout=30_000)
    await expect(anna.locator(".jp-Cambio-notice")).to_contain_text("Not sent")  # said until something is sent
    assert (await client.get(f"/sessions/{session}")).json()["state"] == "waiting", "nothing was stopped or sent late"
    await anna.locator(".jp-Cambio-asks").get_by_role("button", name="of today").click()
    await anna.locator(".jp-Cambio-approval").get_by_role("button", name="Deny").click(timeout=60_000)
    for one in (anna, bert):
        await idle(one)
    told = [
        [
            line
            for line in await story(one)
            if "another client" not in line and line != "Denied" and "control" not in line
        ]
        for one in (anna, bert)
    ]
    assert told[0] == told[1] and "of today" in told[0] and "Written without a network" not in told[0]
    for context in contexts[1:]:
        await context.close()


HIDE = """hidden => {  // as a browser does it, which a headless one cannot: no frame is drawn until the tab is shown
  globalThis.drawLater ??= requestAnimationFrame.bind(globalThis);
  globalThis.waiting ??= [];
  const state = { hidden, visibilityState: hidden ? 'hidden' : 'visible' };
  for (const [name, value] of Object.entries(state))
    Object.defineProperty(document, name, { configurable: true, value });
  globalThis.requestAnimationFrame = hidden ? draw => waiting.push(draw) : drawLater;
  if (!hidden) for (const draw of waiting.splice(0)) drawLater(draw);
  document.dispatchEvent(new Event('visibilitychange'));
}"""
BUSY = "import time\ntime.sleep(80)"


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_busy_kernel_a_hidden_tab_and_a_lost_network_lose_nothing(
    page: Page, lab: LiveServer, make_session: MakeSession, client: httpx2.AsyncClient, notebooks: Path
) -> None:
    """The panel of a cell while the next cell keeps the kernel busy; then its tab is hidden and offline for 20 s."""
    session = (await make_session("Busy", ask_user=True, approval="never"))["id"]
    name = f"busy-{session[:8]}.ipynb"
    notebook(notebooks / name, CELL.format(session), BUSY)
    await open_lab(page, lab, f"tree/{name}")
    await kernel_ready(page)
    await run_cell(page, 0)
    await page.locator(LIVE).first.wait_for(timeout=30_000)
    await run_cell(page, 1)
    busy = page.locator(".jp-Cell").nth(1).locator(".jp-InputPrompt")
    await expect(busy).to_have_text("[*]:")
    card = page.locator(".jp-Cambio-asks")

    # Stop works at once, whatever the kernel does.
    await ask(page, f"ask_user {json.dumps(QUESTION)}")
    await expect(card).to_contain_text("Which rate shall I use?", timeout=30_000)
    began = time.monotonic()
    await page.locator(".jp-Cambio-bar").get_by_role("button", name="Stop").click()
    await until(client, session, "idle", 5)
    print(f"Stop with a busy kernel: {time.monotonic() - began:.2f} s")
    await idle(page)

    # While the tab is hidden and has no network, another client answers and sends a message.
    await ask(page, f"ask_user {json.dumps(LAST)}")
    await expect(card).to_contain_text(LAST["question"], timeout=30_000)
    await page.context.set_offline(True)
    await page.evaluate(HIDE, True)
    began = time.monotonic()
    (await client.post(f"/sessions/{session}/answer", json={"text": "On Friday"})).raise_for_status()
    await until(client, session, "idle", 60)
    await say(lab, session, "Said meanwhile")
    await until(client, session, "idle", 60)
    await asyncio.sleep(max(0.0, 20 - (time.monotonic() - began)))
    await page.context.set_offline(False)
    await page.evaluate(HIDE, False)
    log = page.locator(".jp-Cambio-log").first
    await expect(log.get_by_text("Said meanwhile", exact=True)).to_have_count(1, timeout=60_000)
    await idle(page)
    await expect(card).to_have_count(0)
    await expect(page.locator(".jp-Cambio-outgoing")).to_have_count(0)
    told = await log.locator(":scope > *").all_inner_texts()
    assert told.index("On Friday\n\nAnswered by another client") < told.index("Said meanwhile")
    await expect(busy).to_have_text("[*]:")  # all of this without the kernel

    # The kernel's record has it as well, and a page that comes later tells the same.
    await expect(busy).to_have_text("[2]:", timeout=120_000)
    record = page.locator(".jp-OutputArea").first
    await expect(record).to_contain_text("Said meanwhile", timeout=30_000)
    await open_panel(page, lab, session)
    await expect(log.get_by_text("Said meanwhile", exact=True)).to_have_count(1)
    assert await log.locator(":scope > *").all_inner_texts() == told


async def test_an_ended_session_goes_on_in_a_new_one(
    page: Page, lab: LiveServer, make_session: MakeSession, client: httpx2.AsyncClient
) -> None:
    session = (await make_session("Ended"))["id"]
    await open_panel(page, lab, session)
    await ask(page, "Show me the desktop")
    await idle(page)
    await client.delete(f"/sessions/{session}")
    ended = page.locator(".jp-Cambio-ended")
    await expect(ended).to_contain_text("It was ended on request")
    await ended.get_by_role("img", name="The last screenshot").wait_for()
    await ended.get_by_role("button", name="Open run").click()
    await page.locator(".jp-Cambio-transcript").get_by_text("Show me the desktop").first.wait_for()
    await command(page, "cambio-lab:open-desktop", id=session)
    await ended.get_by_role("button", name="Continue in a new session").click()
    fresh = page.locator(f".jp-Cambio-panel:not([data-session='{session}'])")
    await fresh.locator(".jp-Cambio-desktop[data-phase=open]").wait_for(timeout=60_000)
    made = await fresh.get_attribute("data-session") or ""
    await client.post(f"/sessions/{made}/stop", json={})
    await fresh.locator(".jp-Cambio-composer textarea").fill("And now?")
    await fresh.locator(".jp-Cambio-composer textarea").press("Enter")
    await fresh.locator(".jp-Cambio-reply").last.wait_for()
    await until(client, made, "idle")
    messages = Run.load((await client.get(f"/sessions/{made}/run")).content).messages
    said = [block["text"] for one in messages for block in one["content"] if block["type"] == "text"]
    assert said[0] == "Show me the desktop" and any("goes on in a new session" in words for words in said)
    await client.delete(f"/sessions/{made}")
