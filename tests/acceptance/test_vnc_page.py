"""``vnc_url`` in a real browser: the pixels of ``screenshot``, and a click that moves the same desktop."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.async_api import Locator, Page, async_playwright, expect

from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.messages_api import Script, member, reply, screenshot

from .chat import chat
from .conftest import Bench, OpenBench

CURSOR = 40  # pixels round the pointer: the screenshot has the cursor drawn in, a viewer draws its own


def pixels(png: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def canvas(page: Page) -> Locator:
    """What noVNC draws on, within its sandboxed frame."""
    return page.frame_locator(".jp-Cambio-screen iframe").locator("canvas")


async def framebuffer(page: Page) -> np.ndarray[Any, Any]:
    """The framebuffer as noVNC holds it, whatever size it is shown at."""
    url = await canvas(page).evaluate("canvas => canvas.toDataURL('image/png')")
    return pixels(base64.b64decode(url.split(",")[1]))


async def pointer(b: Bench) -> tuple[int, int]:
    """Where the agent's own `cursor_position` says the pointer is."""
    b.api.policy = Script([reply(member("cursor_position"))])
    seen = await chat(b.server.ws_url, b.session["id"], "where?")
    text = next(m["result"]["text"] for m in seen if m["type"] == "tool_execution" and m["status"] == "completed")
    x, y = text.replace("X=", "").replace("Y=", "").split(",")
    return int(x), int(y)


@pytest.mark.browser
async def test_a_page_shows_the_same_pixels_and_its_click_moves_the_desktop(bench: OpenBench, desktop: str) -> None:
    async with bench(desktop) as b, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = await browser.new_page(viewport={"width": 1400, "height": 950})
        b.api.policy = Script([reply(member("mouse_move", coordinate=[640, 400]), screenshot())])
        await chat(b.server.ws_url, b.session["id"], "look")

        await page.goto(b.server.url + b.session["vnc_url"])
        await expect(canvas(page)).to_have_js_property("width", 1280)
        await expect(canvas(page)).to_have_js_property("height", 800)
        seen = np.zeros(0)
        for _ in range(50):
            seen = await framebuffer(page)
            shot = pixels((await b.client.get(f"{b.path}/screenshot")).content)
            different = (seen != shot).any(axis=2)
            different[400 - CURSOR : 400 + CURSOR, 640 - CURSOR : 640 + CURSOR] = False
            if not different.any():
                break
            await page.wait_for_timeout(100)
        assert seen.std() > 1, "the page is blank"
        rows, columns = different.nonzero()
        where = f"{columns.min()},{rows.min()} to {columns.max()},{rows.max()}" if len(rows) else "nowhere"
        worst = np.abs(seen.astype(int) - shot.astype(int)).max()
        assert not different.any(), f"{len(rows)} pixels differ, by up to {worst}, from {where}"

        box = await canvas(page).bounding_box()
        assert box is not None
        await page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.75)
        await page.wait_for_timeout(300)
        x, y = await pointer(b)
        assert abs(x - 320) <= 2, (x, y)
        assert abs(y - 600) <= 2, (x, y)
        await browser.close()
