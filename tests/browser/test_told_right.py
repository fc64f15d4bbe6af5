"""What waits for a person is shown whole, in order and within the keyboard's reach; numbers agree everywhere."""

from __future__ import annotations

import pytest
from playwright.async_api import Locator, Page, expect

from cambio_lab.reports import Run
from tests.live_server import LiveServer
from tests.messages_api import MessagesApi, Script, reply, tool

from .lab import command, idle, open_lab, session_of, state, until
from .test_agents import open_sidebar, row, say

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]
SHORT = "echo first"
LONG = "echo " + " ".join(f"word{number}" for number in range(60)) + " && echo the very end"
TWO = reply(tool("bash", command=SHORT), tool("bash", command=LONG))


async def press(page: Page, button: Locator, within: Locator) -> None:
    """Reach a button with Tab, from the first thing that takes the focus in ``within``, and press it with Enter."""
    await expect(button).to_be_enabled()
    await within.locator("button, [tabindex='0']").first.focus()
    for _ in range(30):
        if await button.evaluate("element => element === document.activeElement"):
            await page.keyboard.press("Enter")
            return
        await page.keyboard.press("Tab")
    raise AssertionError("Tab does not reach the button")


async def on_screen(page: Page, element: Locator) -> None:
    """Nothing needs to be scrolled to see the whole element, and nothing lies on it."""
    await expect(element).to_be_in_viewport(ratio=0.99)  # of rounded pixels
    await element.click(trial=True)  # waits until nothing lies on it


async def alone(server: LiveServer, **config: object) -> str:
    """The only live session of a server."""
    async with server.client() as client:
        for session in (await client.get("/sessions", params={"status": "active"})).json()["sessions"]:
            await client.delete(f"/sessions/{session['id']}")
    return await session_of(server, **config)


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (960, 600)])
async def test_two_calls_of_a_reply_are_answered_in_toast_sidebar_and_panel(
    page: Page, limited: LiveServer, service: MessagesApi, width: int, height: int
) -> None:
    service.policy = Script([TWO])
    session = await alone(limited, approval="always", tools=["bash"], max_cost_usd=1000)
    await page.set_viewport_size({"width": width, "height": height})
    await open_lab(page, limited)
    bar = page.locator(".jp-Cambio-statusbar")
    await bar.wait_for()

    await say(limited, session, "in the toast")
    toast = page.locator(".Toastify__toast:not([class*=exit])", has_text="asks for permission")
    await expect(toast).to_contain_text(SHORT)
    await expect(bar).to_contain_text("1 agent · 1 waiting · $")
    await expect(bar).not_to_contain_text("working")
    for name in ("Approve", "Deny"):
        await on_screen(page, toast.get_by_role("button", name=name))
    await press(page, toast.get_by_role("button", name="Approve"), toast)
    await expect(toast).to_contain_text("word0 word1")
    await expect(toast.get_by_role("button", name="Approve")).to_have_count(0)  # what is not seen whole is not approved
    await press(page, toast.get_by_role("button", name="Show request"), toast)

    panel = page.locator(".jp-Cambio-panel")
    card = panel.locator(".jp-Cambio-approval")
    shown = card.locator(".jp-Cambio-shown")
    await expect(shown).to_contain_text("the very end")
    await expect(toast).to_have_count(0)  # the panel asks, and nothing lies on it
    for name in ("Approve", "Deny"):
        await on_screen(page, card.get_by_role("button", name=name))
    await expect(panel.locator(".jp-Cambio-meter")).to_contain_text("1 step")
    await expect(panel.locator(".jp-Cambio-meter")).not_to_contain_text("1 steps")
    await press(page, card.get_by_role("button", name="Deny"), card)
    await idle(page)
    for what in (panel.locator(".jp-Cambio-card"), panel.locator(".jp-Cambio-action")):
        await expect(what.last).to_contain_text("denied")
        await expect(what.last).not_to_contain_text("failed")

    await say(limited, session, "in the panel")
    await expect(shown).to_contain_text(SHORT)
    await card.get_by_role("button", name="Approve").dblclick(delay=20)  # one answer, to the call that was shown
    await expect(shown).to_contain_text("the very end")
    await expect(card.get_by_role("button", name="Approve")).to_be_enabled()
    await press(page, card.get_by_role("button", name="Approve"), card)
    await idle(page)

    await open_sidebar(page)
    await command(page, "application:close-all")
    await say(limited, session, "in the sidebar")
    card = page.locator(f"{row(session)} .jp-Cambio-approval")
    shown = card.locator(".jp-Cambio-shown")
    await expect(shown).to_contain_text(SHORT)
    await press(page, card.get_by_role("button", name="Deny"), card)
    await expect(shown).to_contain_text("the very end")
    await on_screen(page, card.get_by_role("button", name="Deny"))
    await expect(toast).to_have_count(0)  # the list asks
    await press(page, card.get_by_role("button", name="Approve"), card)
    async with limited.client() as client:
        await until(client, session, "idle")
        steps = (await client.get(f"/sessions/{session}/steps")).json()["steps"]
    done, denied = "completed", "denied"
    assert {step["step"]: step["status"] for step in steps} == dict(
        enumerate((done, denied, done, done, denied, done), 1)
    )


async def test_tokens_and_money_are_the_same_in_panel_status_bar_history_and_run(
    page: Page, limited: LiveServer, service: MessagesApi
) -> None:
    service.policy = Script([TWO])
    session = await alone(limited, approval="always", tools=["bash"], max_cost_usd=1000)
    await open_lab(page, limited)
    await page.locator(".jp-Cambio-statusbar").wait_for()
    await command(page, "cambio-lab:open-desktop", id=session)
    await say(limited, session, "count")
    card = page.locator(".jp-Cambio-panel .jp-Cambio-approval")
    await expect(card).to_be_visible()
    await agree(page, limited, session)  # during the turn
    await card.get_by_role("button", name="Approve").click()
    await expect(card.locator(".jp-Cambio-shown")).to_contain_text("the very end")
    await card.get_by_role("button", name="Deny").click()
    await idle(page)
    await agree(page, limited, session)
    async with limited.client() as client:
        run = Run.load((await client.get(f"/sessions/{session}/run")).content)
        said = (await client.get(f"/sessions/{session}/history")).json()["messages"]
        usage = (await state(client, session))["usage"]
    assert run.usage.cost_usd == pytest.approx(usage["cost_usd"])
    assert run.usage.output_tokens == usage["output_tokens"]
    assert said[-1]["metadata"]["usage"]["cost_usd"] == pytest.approx(usage["cost_usd"])
    assert "denied" in run.to_markdown().lower() and "failed" not in run.to_markdown().lower()
    await page.reload()
    await page.locator(".jp-Cambio-panel .jp-Cambio-reply").last.wait_for(timeout=60_000)
    await agree(page, limited, session)


async def agree(page: Page, server: LiveServer, session: str) -> None:
    """Panel and status bar show what the server counts."""
    async with server.client() as client:
        usage = (await state(client, session))["usage"]
    cost = usage["cost_usd"]
    money = f"${cost:.4f}" if cost < 0.1 else f"${cost:.2f}"
    assert cost > 0
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    tokens = sum(usage[name] for name in names)
    await expect(page.locator(".jp-Cambio-panel .jp-Cambio-meter")).to_contain_text(money)
    await expect(page.locator(".jp-Cambio-panel .jp-Cambio-meter")).to_contain_text(f"{tokens} tok")
    await expect(page.locator(".jp-Cambio-statusbar")).to_contain_text(money)
