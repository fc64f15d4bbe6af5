"""The toolbar of a session's tab, which JupyterLab's settings can change; the token for other extensions."""

from __future__ import annotations

import json

import httpx2
import pytest
from playwright.async_api import Page, expect

from tests.live_server import LiveServer

from .conftest import MakeSession
from .lab import open_lab, until, violations

pytestmark = [pytest.mark.browser, pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

SETTINGS = "/lab/api/settings/cambio-lab:toolbar"
# As another extension has it: the shared module of ours, and the service that its token names.
OPEN = """async id => {
  const { IAgents } = (await window._JUPYTERLAB['cambio-lab'].get('./index'))()
  const agents = await jupyterapp.resolveRequiredService(IAgents)
  return agents.open(id, 'chat').content.sessionId
}"""


async def test_a_tab_has_the_toolbar_of_the_settings_and_opens_through_the_token(
    page: Page, lab: LiveServer, make_session: MakeSession, client: httpx2.AsyncClient
) -> None:
    session_id = (await make_session("Equipped"))["id"]
    await open_lab(page, lab)
    assert await page.evaluate(OPEN, session_id) == session_id
    toolbar = page.locator(".jp-MainAreaWidget:has(.jp-Cambio-document) > .jp-Toolbar")
    await expect(toolbar.get_by_role("button", name="End session")).to_be_enabled()
    assert [name for name in await toolbar.locator(".jp-ToolbarButtonComponent-label").all_inner_texts() if name] == [
        "Open chat",
        "Insert code",
        "View run",
        "Download run",
        "End session…",
    ]
    box, tab = (
        await page.locator(".jp-Cambio-panel").bounding_box(),
        await page.locator("#jp-main-dock-panel").bounding_box(),
    )
    assert box is not None and tab is not None
    assert box["y"] + box["height"] <= tab["y"] + tab["height"], "the message box must stay in view below the toolbar"
    assert await violations(page, ".jp-MainAreaWidget:has(.jp-Cambio-document) > .jp-Toolbar") == []

    items = [{"name": "chat", "disabled": True}, {"name": "pause", "disabled": False}]
    try:
        await client.put(SETTINGS, json={"raw": json.dumps({"toolbar": items})})
        await open_lab(page, lab)
        await page.evaluate(OPEN, session_id)
        await expect(toolbar.get_by_role("button", name="Pause")).to_be_disabled()  # no turn is running
        await expect(toolbar.get_by_role("button", name="Open chat")).to_have_count(0)
    finally:
        await client.put(SETTINGS, json={"raw": "{}"})
    await toolbar.get_by_role("button", name="End session").click()
    await page.locator(".jp-Dialog").get_by_role("button", name="End session").click()
    await until(client, session_id, "ended")
    await expect(page.locator(".jp-Cambio-document")).to_have_count(0)
