"""Agents in JupyterLab itself: sidebar, tabs, notifications, recorded runs; and in Notebook 7."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import httpx2
import pytest
import websockets
from playwright.async_api import Page, expect

from tests.live_server import LiveServer

from .conftest import MakeSession
from .lab import LIVE, ask, command, idle, notebook, open_lab, state, until, violations

pytestmark = [pytest.mark.browser, pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]


def row(session_id: str) -> str:
    return f".jp-Cambio-agent[data-session-id='{session_id}']"


async def say(lab: LiveServer, session_id: str, text: str) -> None:
    """A message from somewhere else: what another client of the same session would send."""
    headers = {"Authorization": f"token {lab.token}"}
    async with websockets.connect(f"{lab.ws_url}/ws/{session_id}", additional_headers=headers) as socket:
        await socket.send(json.dumps({"content": text}))
        async for frame in socket:
            if json.loads(frame)["metadata"].get("event") == "user_message":
                return


async def open_sidebar(page: Page) -> None:
    await page.locator('[data-id="cambio-lab-agents"]').click()
    await page.locator(".jp-Cambio-agents").wait_for()


async def test_a_desktop_is_made_from_the_launcher_and_ended_from_the_menu(
    page: Page, lab: LiveServer, client: httpx2.AsyncClient
) -> None:
    await open_lab(page, lab)
    await page.locator(".jp-LauncherCard", has_text="Agent desktop").click()
    dialog = page.locator(".jp-Dialog")
    await dialog.get_by_label("Name").fill("Launched")
    await expect(dialog.get_by_label("Model")).to_have_value("demo")
    await dialog.get_by_role("button", name="Create").click()
    await page.locator(LIVE).wait_for()
    session_id = str(await page.locator(".jp-Cambio-panel").get_attribute("data-session"))
    container = (await state(client, session_id))["container_id"]
    inspect = ["docker", "inspect", "--format", "{{.State.Running}}", container]
    assert (await asyncio.to_thread(subprocess.run, inspect, capture_output=True, text=True)).stdout == "true\n"

    await open_sidebar(page)
    assert await violations(page, ".jp-Cambio-agents") == []
    await page.locator(row(session_id)).click(button="right")
    await page.locator(".lm-Menu-itemLabel", has_text="End session").click()
    await page.locator(".jp-Dialog").get_by_role("button", name="End session").click()
    await until(client, session_id, "ended")
    await expect(page.locator(row(session_id))).to_have_count(0)
    await expect(page.locator(".jp-Cambio-panel")).to_have_count(0)
    for _ in range(100):
        gone = await asyncio.to_thread(subprocess.run, inspect, capture_output=True, text=True)
        if gone.returncode != 0:
            break
        await asyncio.sleep(0.1)
    assert gone.returncode != 0, "the container is still there"


async def test_two_agents_work_and_both_thumbnails_change(
    page: Page, lab: LiveServer, make_session: MakeSession
) -> None:
    sessions = [await make_session(name, approval="never") for name in ("One", "Two")]
    await open_lab(page, lab)
    await open_sidebar(page)
    images = [page.locator(f"{row(session['id'])} .jp-Cambio-thumb img") for session in sessions]
    before = [await image.get_attribute("src") for image in images]
    for session in sessions:
        await say(lab, session["id"], f"I am {session['name']}")
    for session, image, old in zip(sessions, images, before, strict=True):
        await expect(image).not_to_have_attribute("src", str(old))
        status = page.locator(f"{row(session['id'])} .jp-Cambio-status")
        await expect(status).to_have_attribute("data-status", "idle", timeout=60_000)
        await expect(page.locator(f"{row(session['id'])} .jp-Cambio-agent-facts")).not_to_contain_text("0 steps")
    await expect(page.locator(".jp-Cambio-statusbar")).to_contain_text("agents")
    await page.get_by_label("Search sessions").fill("two")
    await expect(page.locator(".jp-Cambio-agent")).to_have_count(1)


async def test_a_request_is_answered_from_notification_and_list(
    page: Page, lab: LiveServer, make_session: MakeSession, client: httpx2.AsyncClient
) -> None:
    session = await make_session("Asks", approval="always")
    await open_lab(page, lab)
    await page.locator(".jp-Cambio-statusbar").wait_for()
    await say(lab, session["id"], "hello")
    toast = page.locator(".Toastify__toast", has_text="Asks asks for permission")
    await expect(toast).to_contain_text("screenshot")
    await expect(toast.get_by_role("button", name="Deny")).to_be_visible()
    await toast.get_by_role("button", name="Approve").click()  # the whole call fits into it
    await open_sidebar(page)
    card = page.locator(f"{row(session['id'])} .jp-Cambio-approval")
    await expect(card.locator(".jp-Cambio-shown")).to_contain_text("ctrl+alt+t")
    await expect(card.get_by_role("button", name="Deny")).to_be_visible()
    assert await violations(page, ".jp-Cambio-agents") == []
    await card.get_by_role("button", name="Deny").click()
    await expect(card).to_have_count(0)
    assert (await state(client, session["id"]))["steps"] >= 1
    await command(page, "cambio-lab:stop-all")
    await until(client, session["id"], "idle")
    await expect(page.locator(".Toastify__toast", has_text="permission")).to_have_count(0)


async def test_a_desktop_lies_beside_a_notebook_and_a_reload_restores_the_tabs(
    page: Page, lab: LiveServer, notebooks: Path, make_session: MakeSession
) -> None:
    session = await make_session("Beside", approval="never")
    notebook(notebooks / "beside.ipynb", "1 + 1")
    await open_lab(page, lab, "tree/beside.ipynb")
    await open_sidebar(page)
    await page.locator(f"{row(session['id'])} .jp-Cambio-agent-open").click()
    await page.locator(LIVE).wait_for()
    tab = page.get_by_role("tab", name="Beside", exact=True)
    area = await page.locator("#jp-main-dock-panel").bounding_box()
    start = await tab.bounding_box()
    assert area is not None and start is not None
    await page.mouse.move(start["x"] + 30, start["y"] + 10)
    await page.mouse.down()
    await page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2, steps=8)
    await page.mouse.move(area["x"] + area["width"] - 30, area["y"] + area["height"] / 2, steps=8)
    await page.mouse.up()
    book, desk = page.locator(".jp-NotebookPanel"), page.locator(".jp-Cambio-document")
    await expect(book).to_be_visible()
    await expect(desk).to_be_visible()
    left, right = await book.bounding_box(), await desk.bounding_box()
    assert left is not None and right is not None
    assert right["x"] >= left["x"] + left["width"] - 5
    await page.locator(LIVE).wait_for()

    await page.wait_for_timeout(2500)  # JupyterLab saves its layout a while after it changed
    await page.goto(f"{lab.url}/lab")
    await page.locator(LIVE).wait_for(timeout=60_000)
    await expect(page.locator(".jp-Cambio-document")).to_have_count(1)
    await expect(page.locator(".jp-NotebookPanel")).to_be_visible()
    await expect(tab).to_have_count(1)


async def test_a_recorded_run_opens_in_lab_and_in_notebook(
    page: Page, lab: LiveServer, notebooks: Path, make_session: MakeSession, client: httpx2.AsyncClient
) -> None:
    session = await make_session("Recorded", approval="never")
    await say(lab, session["id"], "record this")
    await until(client, session["id"], "idle", 60)
    bundle = (await client.get(f"/sessions/{session['id']}/run")).raise_for_status().content
    (notebooks / "run.cambio").write_bytes(bundle)
    (notebooks / "other.cambio").write_bytes(bundle)
    (notebooks / "broken.cambio").write_bytes(b"not a zip")

    await open_lab(page, lab, "tree/run.cambio")
    run = page.locator(".jp-Cambio-run")
    await expect(run.locator(".jp-Cambio-name").first).to_have_text("Recorded")
    steps = await run.locator(".jp-Cambio-card").count()
    assert steps >= 5
    await run.locator("input[type=range]").fill(str(steps - 1))
    await expect(run.locator(".jp-Cambio-run-at")).to_have_text(f"{steps} / {steps}")
    await expect(run.locator(".jp-Cambio-shot")).to_contain_text("model")
    shown = run.locator(".jp-Cambio-shot img")
    assert await shown.evaluate("async i => { await i.decode(); return i.naturalWidth }") == 1280
    await expect(run.locator(".jp-Cambio-transcript")).to_contain_text("record this")
    assert await violations(page, ".jp-Cambio-run") == []
    await page.locator(".jp-Document > .jp-Toolbar").get_by_role("button", name="Compare").click()
    await page.locator(".jp-Dialog input").fill("other.cambio")
    await page.locator(".jp-Dialog").get_by_role("button", name="Ok").click()
    await expect(run.locator(".jp-Cambio-run-column")).to_have_count(2)
    await expect(run).to_contain_text("Same actions")
    await command(page, "docmanager:open", path="broken.cambio")
    await expect(page.locator(".jp-Cambio-run [role=alert]")).to_contain_text("damaged")

    await page.goto(f"{lab.url}/edit/run.cambio?factory=Recorded+run")
    await expect(page.locator(".jp-Cambio-run .jp-Cambio-name").first).to_have_text("Recorded", timeout=60_000)


async def test_the_palette_and_the_chat_of_one_session(
    page: Page, lab: LiveServer, make_session: MakeSession, client: httpx2.AsyncClient
) -> None:
    session = await make_session("Talk", approval="never")
    await open_lab(page, lab)
    await open_sidebar(page)
    await page.locator(row(session["id"])).wait_for()
    await command(page, "cambio-lab:open-chat", id=session["id"])
    await ask(page, "only words", ".jp-Cambio-document")
    await idle(page, ".jp-Cambio-document")
    await expect(page.locator(".jp-Cambio-document .jp-Cambio-screen")).to_have_count(0)
    await page.keyboard.press("Control+Shift+C")
    await page.locator(".lm-CommandPalette-input").fill("agent")
    for label in ("New agent desktop…", "Open agent session…", "Stop all agents"):
        await expect(page.locator(".lm-CommandPalette-itemLabel", has_text=label)).to_be_visible()

    await client.delete(f"/sessions/{session['id']}")  # what was said can still be read
    await open_lab(page, lab)
    await command(page, "cambio-lab:open-desktop", id=session["id"], mode="chat")
    await expect(page.locator(".jp-Cambio-document .jp-Cambio-user")).to_have_text("only words")
    await expect(page.locator(".jp-Cambio-document .jp-Cambio-bar .jp-Cambio-status")).to_have_attribute(
        "data-status", "ended"
    )
    await expect(page.locator(".jp-Cambio-document .jp-Cambio-notice")).to_have_count(0)


async def test_recorded_runs_are_compared_exported_and_deleted_from_the_sidebar(
    page: Page, lab: LiveServer, make_session: MakeSession, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    sessions = [await make_session(name, approval="never") for name in ("First run", "Second run")]
    for session in sessions:
        await say(lab, session["id"], f"Show {session['name']}")
        await until(client, session["id"], "idle")
        await client.delete(f"/sessions/{session['id']}")
    first, second = (row(session["id"]) for session in sessions)
    await open_lab(page, lab)
    await open_sidebar(page)
    await page.get_by_role("button", name="Ended", exact=True).click()
    await page.get_by_label("Search sessions").fill("run cost<1 demo")
    await expect(page.locator(f"{first}, {second}")).to_have_count(2)
    await page.get_by_label("Search sessions").fill("run cost>1")
    await expect(page.locator(f"{first}, {second}")).to_have_count(0)
    await page.get_by_label("Search sessions").fill("run")

    async def choose(place: str, label: str) -> None:
        await page.locator(place).click(button="right")
        await page.locator(".lm-Menu-itemLabel", has_text=label).click()

    await choose(first, "Select to compare")
    await choose(second, "Compare with First run")
    viewer = page.locator(".jp-Cambio-run")
    await expect(viewer).to_contain_text("First run")
    await expect(viewer).to_contain_text("Second run")
    await choose(first, "Export run")
    await page.locator(".jp-Dialog select").select_option(index=0)
    names = await page.locator(".jp-Dialog select option").all_text_contents()
    assert {"cambio", "html", "atif", "dataset", "inspect", "video"} <= {name.split()[0] for name in names}
    await page.locator(".jp-Dialog select").select_option(next(name for name in names if name.startswith("video ")))
    async with page.expect_download(timeout=60_000) as waiting:
        await page.locator(".jp-Dialog .jp-mod-accept").click()
    made = await waiting.value
    assert made.suggested_filename == "First run.mp4"
    await made.save_as(tmp_path / "first.mp4")
    assert (tmp_path / "first.mp4").read_bytes()[4:8] == b"ftyp"
    await choose(first, "Delete run")
    await page.locator(".jp-Dialog").get_by_role("button", name="Delete").click()
    await expect(page.locator(first)).to_have_count(0)
    assert (await client.get(f"/sessions/{sessions[0]['id']}")).status_code == 404
