"""The panel in a notebook: real JupyterLab, real Chromium, a Docker desktop, the demo model."""

from __future__ import annotations

import gzip
import itertools
import time
from pathlib import Path

import httpx2
import pytest
from playwright.async_api import Page, Response, expect

from tests.live_server import LiveServer

from .conftest import MakeSession
from .lab import (
    LIVE,
    ask,
    canvas,
    changed,
    command,
    idle,
    kernel_ready,
    notebook,
    notebook_7,
    open_lab,
    pixels,
    run_cell,
    until,
    violations,
)

pytestmark = [pytest.mark.browser, pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

ATTACH = "from cambio_lab import Workbench\nlab = Workbench()\nsession = await lab.session('{id}')\nsession"

TAKE_CONTROL_AT_WORK = """() => {
  const look = () => {
    const buttons = [...document.querySelectorAll('.jp-Cambio-bar button')]
    const button = buttons.find(one => one.textContent.includes('Take control'))
    if (document.querySelector('.jp-Cambio-driver')?.textContent !== 'The agent has control') return
    watch.disconnect()
    button.click()
  }
  const watch = new MutationObserver(look)
  watch.observe(document.body, {subtree: true, childList: true, characterData: true})
}"""
"""The demo model's turn is over in a second, which a test may sleep through."""


async def panel_of(page: Page, lab: LiveServer, notebooks: Path, session_id: str, *more: str) -> None:
    """A notebook with the session's panel as its first cell's value, live."""
    name = f"{session_id[:8]}.ipynb"
    notebook(notebooks / name, ATTACH.format(id=session_id), *more)
    await open_lab(page, lab, f"tree/{name}")
    await kernel_ready(page)
    await run_cell(page, 0)
    await page.locator(LIVE).first.wait_for(timeout=30_000)


async def test_a_session_of_a_cell_is_chatted_with_and_its_desktop_changes(
    page: Page, lab: LiveServer, notebooks: Path, client: httpx2.AsyncClient
) -> None:
    create = 'await Workbench().create_session("From a cell", model="demo", approval="never")'
    notebook(notebooks / "cell.ipynb", f"from cambio_lab import Workbench\n{create}")
    await open_lab(page, lab, "tree/cell.ipynb")
    await kernel_ready(page)
    await run_cell(page, 0)
    await page.locator(LIVE).wait_for()
    await expect(page.locator(".jp-Cambio-name")).to_have_text("From a cell")
    await expect(page.locator(".jp-Cambio-isolation")).to_have_text("docker (isolated)")
    await page.wait_for_timeout(500)
    before = await pixels(page)

    drafts: list[str] = []
    await page.expose_function("seen", lambda text: drafts.append(text))
    await page.evaluate(
        "() => new MutationObserver(() => { const d = document.querySelector('.jp-Cambio-draft');"
        " if (d) window.seen(d.textContent) })"
        ".observe(document.querySelector('.jp-Cambio-log'), {subtree: true, childList: true, characterData: true})"
    )
    await ask(page, "Wörter 漢字 🙂")
    await idle(page)
    growing = [len(text) for text in drafts]
    assert any(0 < a < b for a, b in itertools.pairwise(growing)), "the text came in one piece"
    assert await pixels(page) != before
    await expect(page.locator(".jp-Cambio-reply").last).to_contain_text("demo model")
    cards = page.locator(".jp-Cambio-timeline .jp-Cambio-card")
    # A fourth, a wait, where the terminal is slow. A look at the screen after an action is part of that action's card.
    await cards.nth(2).wait_for()
    assert (
        await page.locator(".jp-Cambio-timeline img").last.evaluate(
            "async i => { await i.decode(); return i.naturalWidth }"
        )
        > 0
    )
    await cards.filter(has_text="Type").first.click()
    await expect(page.locator(".jp-Cambio-detail")).to_contain_text("漢字")
    await page.get_by_role("button", name="Back to live").click()
    await expect(page.locator(".jp-Cambio-detail")).to_have_count(0)

    (row,) = [s for s in (await client.get("/sessions")).json()["sessions"] if s["name"] == "From a cell"]
    await client.delete(f"/sessions/{row['id']}")
    await until(client, row["id"], "ended")
    await expect(page.locator(".jp-Cambio-ended")).to_contain_text("ended")
    await expect(page.locator(".jp-Cambio-ended").get_by_role("button", name="Download run")).to_be_visible()


async def test_stop_reaches_the_agent_while_a_cell_runs(
    page: Page, lab: LiveServer, notebooks: Path, make_session: MakeSession, client: httpx2.AsyncClient
) -> None:
    session = await make_session("Busy kernel", approval="never")
    await panel_of(page, lab, notebooks, session["id"], "while True: pass")
    await run_cell(page, 1)
    await page.wait_for_timeout(300)
    took = []
    for _ in range(5):
        await ask(page, "work for a while")
        await expect(page.locator(".jp-Cambio-bar button[aria-label=Stop]")).to_be_enabled()
        await page.evaluate(
            "() => { window.stillAfter = null; const at = performance.now();"
            " document.querySelector('.jp-Cambio-bar button[aria-label=Stop]').click();"
            " const look = () => document.querySelector('.jp-Cambio-bar .jp-Cambio-status').dataset.status === 'idle'"
            " ? (window.stillAfter = performance.now() - at) : requestAnimationFrame(look); look() }"
        )
        await page.wait_for_function("() => window.stillAfter !== null")
        took.append(await page.evaluate("() => window.stillAfter"))
        await until(client, session["id"], "idle", 1)
    await expect(page.locator(".jp-Cambio-remark").last).to_have_text("Stopped")
    print(f"stop to stillness with a busy kernel: {sorted(took)} ms")
    assert min(took) <= 300, took  # the best: other processes on these cores are not what is measured
    await command(page, "notebook:interrupt-kernel")


async def test_the_mouse_is_taken_used_and_given_back_and_two_panels_agree(
    page: Page, lab: LiveServer, notebooks: Path, make_session: MakeSession, client: httpx2.AsyncClient
) -> None:
    session = await make_session("Two panels", approval="never")
    second = await page.context.new_page()
    await panel_of(page, lab, notebooks, session["id"])
    await second.goto(f"{lab.url}/vnc/{session['id']}?token={lab.token}")
    await second.locator(LIVE).wait_for()
    await page.bring_to_front()
    await page.evaluate(TAKE_CONTROL_AT_WORK)
    await ask(page, "take your time")
    await expect(page.locator(".jp-Cambio-driver")).to_contain_text("You have control")
    await expect(second.locator(".jp-Cambio-driver")).to_have_text("Another viewer has control")
    for view in (page, second):
        await expect(view.locator(".jp-Cambio-bar .jp-Cambio-status").first).to_have_attribute("data-status", "paused")
    box = await canvas(page).bounding_box()
    assert box is not None
    before = await pixels(second, ".jp-Cambio-viewer")
    await page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.9, button="right")
    await changed(second, before, ".jp-Cambio-viewer")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Give back").click()
    # What is left of the turn may be over before a page in the background draws that the agent had the mouse.
    await expect(second.get_by_text("Another viewer has control")).to_have_count(0)
    await idle(page)
    await expect(second.locator(".jp-Cambio-bar .jp-Cambio-status").first).to_have_attribute("data-status", "idle")
    assert (await client.get(f"/sessions/{session['id']}")).json()["control"] is None
    await second.close()


async def test_a_risky_action_waits_and_is_approved_or_denied(
    page: Page, lab: LiveServer, notebooks: Path, make_session: MakeSession
) -> None:
    session = await make_session("Careful", approval="always")
    await panel_of(page, lab, notebooks, session["id"])
    await ask(page, "hello")
    card = page.locator(".jp-Cambio-approval")
    await expect(card.locator(".jp-Cambio-shown")).to_contain_text("screenshot")
    await card.get_by_role("button", name="Approve").click()
    await expect(card.locator(".jp-Cambio-shown")).to_contain_text("key")
    assert await violations(page, ".jp-Cambio-panel") == []
    await card.get_by_role("button", name="Deny").click()
    await expect(page.locator(".jp-Cambio-note").filter(has_text="Denied").first).to_be_visible()
    await idle(page)
    await expect(card).to_have_count(0)
    await expect(page.locator(".jp-Cambio-card[data-status=denied]").first).to_contain_text("denied")
    told = await page.locator(".jp-Cambio-note").all_inner_texts()
    assert {"Approved", "Denied"} <= set(told), told
    await expect(page.locator(".jp-Cambio-policy")).to_have_text("Approval: always")
    await open_lab(page, lab)
    await command(page, "cambio-lab:open-desktop", id=session["id"])
    panel = page.locator(".jp-Cambio-document .jp-Cambio-panel")
    await expect(panel.locator(".jp-Cambio-reply").last).to_be_visible()
    assert await panel.locator(".jp-Cambio-note").all_inner_texts() == told  # after a reload, too


async def test_a_reload_a_kernel_restart_and_a_lost_network_are_recovered_from(
    page: Page, lab: LiveServer, notebooks: Path, make_session: MakeSession
) -> None:
    session = await make_session("Sturdy", approval="never")
    await panel_of(page, lab, notebooks, session["id"])
    await ask(page, "before everything")
    await idle(page)

    await page.context.set_offline(True)
    await expect(page.locator(".jp-Cambio-notice").first).to_contain_text("offline")
    await expect(page.locator(".jp-Cambio-veil")).to_contain_text("offline")
    await page.context.set_offline(False)
    await page.locator(LIVE).wait_for()
    await expect(page.locator(".jp-Cambio-notice")).to_have_count(0)
    await ask(page, "after the network")
    await idle(page)

    await command(page, "docmanager:save")
    await page.reload()  # the kernel lives, so the panel comes back by itself
    await page.locator(LIVE).wait_for(timeout=60_000)
    log = page.locator(".jp-Cambio-log")
    for words in ("before everything", "after the network"):
        await expect(log.locator(".jp-Cambio-user").filter(has_text=words)).to_have_count(1)
    said = log.locator(".jp-Cambio-reply")
    await expect(said.first).to_contain_text("First I look")  # what came between two actions, too

    await page.evaluate(
        "async () => { const { currentWidget } = jupyterapp.shell;"
        " await currentWidget.sessionContext.session.kernel.restart() }"
    )
    await page.wait_for_timeout(1500)
    await expect(page.locator(LIVE)).to_have_count(1)
    await ask(page, "after the restart")
    await expect(page.locator(".jp-Cambio-bar .jp-Cambio-status")).not_to_have_attribute("data-status", "idle")
    await page.get_by_role("button", name="Stop").first.click()
    await idle(page)


async def test_the_same_panel_in_notebook_7(
    page: Page, lab: LiveServer, notebooks: Path, make_session: MakeSession
) -> None:
    session = await make_session("Notebook 7", approval="never")
    notebook(notebooks / "seven.ipynb", ATTACH.format(id=session["id"]))
    await notebook_7(page, lab, "seven.ipynb")
    await page.locator(LIVE).wait_for()
    before = await pixels(page)
    await ask(page, "in the other one")
    await changed(page, before, seconds=20)
    await page.get_by_role("button", name="Stop").first.click()
    await idle(page)
    await expect(page.locator(".jp-Cambio-remark").last).to_have_text("Stopped")


@pytest.mark.timing
async def test_a_panel_is_live_within_a_second_and_a_half(
    page: Page, lab: LiveServer, notebooks: Path, make_session: MakeSession
) -> None:
    session = await make_session("Quick", approval="never")
    sizes: dict[str, int] = {}

    async def measure(response: Response) -> None:
        if "/cambio/static/" in response.url and response.url.endswith(".js") and response.status == 200:
            sizes[response.url.rsplit("/", 1)[1]] = len(gzip.compress(await response.body()))

    page.on("response", measure)
    setup = f"from cambio_lab import Workbench\nlab = Workbench()\nsession = await lab.session('{session['id']}')"
    notebook(notebooks / "quick.ipynb", setup, "session")
    took = []
    for _ in range(3):
        await open_lab(page, lab, "tree/quick.ipynb")
        await kernel_ready(page)
        await run_cell(page, 0)
        await page.wait_for_timeout(1500)
        await page.locator(".jp-Notebook .jp-CodeCell").nth(1).locator(".cm-content").click()
        begin = time.perf_counter()
        await page.keyboard.press("Shift+Enter")
        await page.locator(LIVE).wait_for()
        took.append(round(time.perf_counter() - begin, 3))
        if took[-1] <= 1.5:
            break
    print(f"panel to live desktop: {took} s; scripts, gzipped: {sizes}, sum {sum(sizes.values())}")
    assert min(took) <= 1.5, took
    assert 10_000 < sum(sizes.values()) <= 60_000
