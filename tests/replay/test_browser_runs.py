"""Whole turns with the browser toolset: a real Chromium, the strict stand-in, and the run replayed without either."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cambio_lab.desktop.base import Desktop
from cambio_lab.events import ApprovalRequested
from cambio_lab.sessions.session import Session
from tests.messages_api import Reply, Script, View, browse, member, reply, screenshot
from tests.recording.parts import Workshop

SITE = Path(__file__).parents[1] / "desktop" / "browser" / "site.py"
TOOLS = ["computer", "browser", "bash", "editor", "javascript_exec"]


async def serve(desktop: Desktop) -> str:
    """Start the test site inside the desktop; its address."""
    port = random.randrange(20_000, 32_000)
    await desktop.write_file("site.py", SITE.read_bytes())
    await desktop.execute(["bash", "-c", f"setsid nohup python3 site.py {port} >/dev/null 2>&1 </dev/null &"])
    up = f"until curl -s http://127.0.0.1:{port}/form >/dev/null; do sleep 0.05; done"
    await desktop.execute(["bash", "-c", up])
    return f"http://127.0.0.1:{port}"


def ref(view: View, description: str) -> dict[str, str]:
    found = re.search(rf"{re.escape(description)}.*?\[(ref_\d+)\]", view.result_text())
    assert found, view.result_text()
    return {"type": "ref", "ref": found[1]}


def form_script(base: str) -> Script:
    """Fill in the form by reference, send it, and check the page by script."""

    def fill(view: View) -> Reply:
        return reply(
            browse("form_input", target=ref(view, 'textbox "Name"'), value="Ada"),
            browse("form_input", target=ref(view, 'combobox "Wood"'), value="Beech"),
            browse("left_click", target=ref(view, 'button "Send order"')),
            browse("screenshot"),
        )

    return Script(
        [
            reply(browse("navigate", url=f"{base}/form"), browse("read_page", filter="all")),
            fill,
            reply(
                browse("javascript_exec", text="JSON.stringify(window.sent)"), browse("new_tab"), browse("list_tabs")
            ),
            lambda view: reply(browse("find", query="nothing like this"), screenshot()),
        ],
        end="Sent.",
    )


async def run_form(workshop: Workshop, **config: Any) -> tuple[Session, str]:
    session = await workshop.start(tools=TOOLS, **config)
    base = await serve(session.desktop)
    workshop.api.policy = form_script(base)
    await workshop.send(session, "Order beech chairs for Ada.")
    return session, base


async def test_a_browser_turn_is_accepted_recorded_and_replayed_without_a_browser(workshop: Workshop) -> None:
    session, base = await run_form(workshop)
    await workshop.registry.end(session.id)
    run = await _load(workshop, session)
    steps = {row["action"]: row["text"] for row in run.rows}
    assert steps["navigate"].startswith(f"Navigated to {base}/form")
    assert 'button "Send order"' in steps["left_click"]
    assert '"wood":"b"' in steps["javascript_exec"]
    assert {row["status"] for row in run.rows} == {"completed"}
    assert workshop.api.refusals == []
    path = workshop.directory / "browser.cambio"
    run.save(path)
    replayed = await type(run).load(path).replay()
    assert replayed.identical, replayed


async def test_a_failed_call_halts_the_later_browser_calls_in_the_services_words(workshop: Workshop) -> None:
    session = await workshop.start(tools=TOOLS)
    base = await serve(session.desktop)
    workshop.api.policy = Script(
        [
            reply(
                browse("navigate", url="javascript:alert(1)"),
                browse("navigate", url=f"{base}/form"),
                member("wait", duration=0),
                screenshot(),
            )
        ],
        end="Done.",
    )
    await workshop.send(session, "Go.")
    await workshop.registry.end(session.id)
    rows = (await _load(workshop, session)).rows
    assert [row["status"] for row in rows] == ["failed", "skipped", "completed", "completed"]
    assert rows[1]["text"] == "Not executed: an earlier action in this turn failed."
    assert workshop.api.refusals == []


async def test_approval_shows_the_page_and_secrets_reach_it_only_as_values(workshop: Workshop) -> None:
    session = await workshop.start(tools=TOOLS, approval="risky", secrets={"WORD": "open-sesame"})
    base = await serve(session.desktop)

    def secret(view: View) -> Reply:
        return reply(browse("form_input", target=ref(view, 'textbox "Name"'), value="{{WORD}}"), browse("read_page"))

    workshop.api.policy = Script(
        [
            reply(browse("navigate", url=f"{base}/form"), browse("read_page", filter="all")),
            secret,
            reply(browse("javascript_exec", text="document.forms[0].name.value.length")),
        ],
        end="Done.",
    )
    shown = []

    async def approve() -> None:
        while True:
            pending = session.gate.pending
            if isinstance(pending, ApprovalRequested) and pending.shown not in shown:
                shown.append(pending.shown)
                await session.approve(pending.tool_use_id)
            await asyncio.sleep(0.02)

    approving = asyncio.create_task(approve())
    try:
        await workshop.send(session, "Go.")
    finally:
        approving.cancel()
    assert shown[0].startswith('form_input {"target"') and shown[0].endswith(f' on "{base}/form"')
    await workshop.registry.end(session.id)
    rows = (await _load(workshop, session)).rows
    assert rows[-1]["text"] == str(len("open-sesame"))
    assert "open-sesame" not in str(workshop.api.requests)


async def test_a_changed_page_is_found_when_the_run_is_repeated_on_a_desktop(
    workshop: Workshop, open_workshop: Callable[..., Any]
) -> None:
    session, base = await run_form(workshop)
    await workshop.registry.end(session.id)
    run = await _load(workshop, session)
    other = await workshop.start("other")
    changed = SITE.read_bytes().replace(b"<h1>Order</h1>", b"<h1>Offer</h1>")
    await other.desktop.write_file("site.py", changed)
    port = base.rpartition(":")[2]
    await other.desktop.execute(["pkill", "-f", f"site.py {port}"])  # local desktops share the machine's ports
    await other.desktop.execute(["bash", "-c", f"setsid nohup python3 site.py {port} >/dev/null 2>&1 </dev/null &"])
    up = f"until curl -s {base}/form >/dev/null; do sleep 0.05; done"
    await other.desktop.execute(["bash", "-c", up])
    from cambio_lab.replay.desktop_replay import replay_on

    replay = await replay_on(run.contents, other.desktop, stop_at_first=True)
    assert replay.failure is not None and "read_page differs at line 1" in replay.failure
    assert "Order" in replay.failure and "Offer" in replay.failure


async def _load(workshop: Workshop, session: Session) -> Any:
    from cambio_lab.reports import Run

    return await Run.from_store(workshop.store, session.id)


async def test_what_the_model_was_not_shown_is_recorded_on_request(workshop: Workshop) -> None:
    session, _ = await run_form(workshop, observe=["screenshot", "ax"])
    await workshop.registry.end(session.id)
    run = await _load(workshop, session)
    rows = {row["action"]: row for row in run.rows}
    assert all(rows[name]["unseen_screenshot"] for name in ("navigate", "read_page", "left_click", "list_tabs"))
    assert not any(rows[name]["unseen_tree"] for name in ("navigate", "read_page", "left_click", "list_tabs"))
    last = run.rows[-1]  # the screen: its page's tree beside it
    assert last["action"] == "screenshot" and not last["unseen_screenshot"] and last["unseen_tree"]
    assert run.screenshot(rows["left_click"]["unseen_screenshot"]).startswith(b"\x89PNG")
    path = workshop.directory / "observed.cambio"
    run.save(path)
    replayed = await type(run).load(path).replay()
    assert replayed.identical and type(run).load(path).rows == run.rows
    assert workshop.api.refusals == []
