"""Images in the message box: pasted, dropped, taken out again, and sent with a message."""

from __future__ import annotations

import httpx2
import pytest
from playwright.async_api import Page, expect

from cambio_lab.reports import Run
from tests.live_server import LiveServer

from .conftest import MakeSession
from .lab import LIVE, ask, command, idle, open_lab, violations

pytestmark = [pytest.mark.browser, pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]
BOX = ".jp-Cambio-panel .jp-Cambio-composer"
GIVE = """async ([box, kind]) => {
  const canvas = new OffscreenCanvas(40, 30)
  const context = canvas.getContext('2d')
  context.fillStyle = kind === 'paste' ? 'red' : 'blue'
  context.fillRect(0, 0, 40, 30)
  const data = new DataTransfer()
  data.items.add(new File([await canvas.convertToBlob()], `${kind}.png`, {type: 'image/png'}))
  const how = {bubbles: true, cancelable: true}
  const event = kind === 'paste' ? new ClipboardEvent(kind, {...how, clipboardData: data})
    : new DragEvent(kind, {...how, dataTransfer: data})
  document.querySelector(`${box} textarea`).dispatchEvent(event)
}"""


async def test_images_are_pasted_dropped_and_sent_with_a_message(
    page: Page, lab: LiveServer, make_session: MakeSession, client: httpx2.AsyncClient
) -> None:
    session = (await make_session("Images", approval="never"))["id"]
    await open_lab(page, lab)
    await command(page, "cambio-lab:open-desktop", id=session)
    await page.locator(LIVE).wait_for(timeout=30_000)
    attached = page.locator(".jp-Cambio-attachments img")
    await page.evaluate(GIVE, [BOX, "paste"])
    await expect(attached).to_have_count(1)
    await page.evaluate(GIVE, [BOX, "drop"])
    await expect(attached).to_have_count(2)
    assert await violations(page, BOX) == []
    await page.get_by_role("button", name="Remove paste.png").click()
    await expect(attached).to_have_count(1)
    await ask(page, "What is this?")
    await expect(attached).to_have_count(0)
    shown = page.locator(".jp-Cambio-user .jp-Cambio-attached img")
    await expect(shown).to_have_count(1)
    await page.wait_for_function("() => document.querySelector('.jp-Cambio-attached img').naturalWidth === 40")
    await idle(page)
    first = Run.load((await client.get(f"/sessions/{session}/run")).content).messages[0]["content"]
    assert sorted(block["type"] for block in first) == ["image", "text"]
