"""One task of each kind done three ways: with the computer toolset, with the browser toolset, with both.

    python -m benchmarks.eyes [--observe]

A real Chromium on a real (local) desktop, the real agent, and the strict stand-in, whose policies act on what they are
sent alone: pixels for the computer toolset, references and text for the browser's. Every answer is checked against the
page. Tokens are those of the stand-in, which counts images and text as documented; the tools' definitions are left out,
because no page says what the browser toolset's cost. Chromium's start is measured beside it: the first ``navigate``.
``--observe`` records what the model is not shown as well, and says what that costs at each step.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cambio_lab.desktop import make_provider
from cambio_lab.desktop.base import Desktop
from cambio_lab.settings import Settings
from tests.messages_api import MessagesApi, Reply, View, browse, click, member, reply, screenshot
from tests.messages_api.policies import find_color
from tests.messages_api.prompt import tool_tokens
from tests.recording.parts import Workshop

STYLE = "<meta charset=utf-8><style>body{font:20px sans-serif;margin:30px}td{padding:6px}</style>"
FORM = f"""{STYLE}<title>Order</title><form onsubmit="event.preventDefault();document.title='sent '+who.value">
<label>Name <input id=who style="background:#ffd54f"></label>
<button style="background:#00c853">Send order</button></form>"""
BAR = '<span style="display:inline-block;height:24px;background:#d500f9;width:%dpx"></span>'
WAYS = {"computer": ["computer"], "browser": ["browser"], "both": ["computer", "browser"]}
PRICE = {"Birch": 210, "left": 130, "right": 290}


def table() -> str:
    rows = [f"<tr><td>Wood {number}<td>Price {90 + number}" for number in range(60)]
    rows.insert(45, f'<tr style="background:#00e5ff"><td>Birch<td>Price {PRICE["Birch"]}<td>{BAR % PRICE["Birch"]}')
    return f"{STYLE}<title>Prices</title><table>{''.join(rows)}</table>"


def shop(name: str) -> str:
    return f"{STYLE}<title>{name}</title><h1>{name}</h1><p>Price {PRICE[name]} {BAR % PRICE[name]}"


def width(view: View) -> int | None:
    """The length of the coloured bar in the newest screenshot, in pixels."""
    image = view.last_screenshot()
    if image is None:
        return None
    near = (np.abs(image.astype(np.int16) - np.array([0xD5, 0, 0xF9], dtype=np.int16)) <= 12).all(axis=2)
    rows, columns = np.nonzero(near)
    return int(columns.max() - columns.min() + 1) if len(rows) > 60 else None


def price(view: View) -> int | None:
    found = re.search(r"Birch\s+Price (\d+)", view.result_text())
    return int(found[1]) if found else None


def form_by_pixels(view: View) -> Reply:
    image = view.last_screenshot()
    names = [call["name"] for call in view.calls]
    if names.count("left_click") == 2:
        return reply("Sent.")
    place = None if image is None else find_color(image, "#00c853" if "type" in names else "#ffd54f")
    if place is None:  # not drawn yet
        return reply(screenshot())
    return reply(click(*place), *([] if "type" in names else [member("type", text="Ada")]), screenshot())


def form_by_reference(view: View) -> Reply:
    if not view.calls:
        return reply(browse("read_page", filter="interactive"))
    if view.replies == 1:
        references = dict(re.findall(r'(textbox|button) ".*?\[(ref_\d+)\]', view.result_text()))
        fill = browse("form_input", target={"type": "ref", "ref": references["textbox"]}, value="Ada")
        return reply(fill, browse("left_click", target={"type": "ref", "ref": references["button"]}))
    return reply("Sent.")


def table_by_pixels(view: View) -> Reply:
    found = width(view)
    if found is not None:
        return reply(str(found))
    scroll = member("scroll", coordinate=[640, 500], scroll_direction="down", scroll_amount=10)
    return reply(*([scroll] if view.calls else []), screenshot())


def table_by_reference(view: View) -> Reply:
    return reply(browse("get_page_text")) if not view.calls else reply(str(price(view)))


def tabs_by_pixels(view: View) -> Reply:
    found, blocks = width(view), [block for message in view.turn for block in message["content"]]
    said = [block["text"] for block in blocks if block["type"] == "text"]
    if found is None:  # not drawn yet
        return reply(screenshot())
    if not any(call["name"] == "key" for call in view.calls):
        return reply(f"{found}", member("key", text="ctrl+Tab"), screenshot())
    return reply(str(max(int(said[-1]), found)))


def tabs_by_reference(view: View) -> Reply:
    if not view.calls:
        return reply(browse("list_tabs"))
    if view.replies == 1:
        tabs = [tab["tab_id"] for block in view.results[0]["content"] for tab in block.get("tabs", ())]
        return reply(*[browse("get_page_text", tab_id=tab) for tab in tabs])
    return reply(str(max(map(int, re.findall(r"Price (\d+)", view.result_text())))))


def checked(policy: Callable[[View], Reply]) -> Callable[[View], Reply]:
    """Both toolsets: the browser's for the work, then a look at the screen before the answer."""

    def both(view: View) -> Reply:
        said = policy(view)
        if said.reason() == "tool_use" or any(call["name"] == "screenshot" for call in view.calls):
            return said
        return reply(*said.blocks, screenshot())

    def answered(view: View) -> Reply:
        if view.calls and view.calls[-1]["name"] == "screenshot":
            return reply(next(block["text"] for block in view.turn[-2]["content"] if block["type"] == "text"))
        return both(view)

    return answered


TASKS: dict[str, tuple[Any, Any, str]] = {
    "form": (form_by_pixels, form_by_reference, "Sent."),
    "table lookup": (table_by_pixels, table_by_reference, str(PRICE["Birch"])),
    "multi-tab": (tabs_by_pixels, tabs_by_reference, str(PRICE["right"])),
}


async def serve(desktop: Desktop) -> str:
    """Serve the pages inside the desktop; return their address."""
    pages = {"form.html": FORM, "table.html": table(), "left.html": shop("left"), "right.html": shop("right")}
    for name, page in pages.items():
        await desktop.write_file(f"site/{name}", page.encode())
    port = random.randrange(20_000, 32_000)
    command = f"setsid nohup python3 -m http.server {port} --bind 127.0.0.1 -d site >/dev/null 2>&1 </dev/null &"
    await desktop.execute(["bash", "-c", command])
    await desktop.execute(["bash", "-c", f"until curl -s http://127.0.0.1:{port}/ >/dev/null; do sleep 0.05; done"])
    return f"http://127.0.0.1:{port}"


async def one(workshop: Workshop, task: str, way: str, observe: list[str]) -> tuple[dict[str, Any], float]:
    """Do one task one way in a session of its own; return what it used, and what Chromium's start took."""
    by_pixels, by_reference, expected = TASKS[task]
    workshop.api.policy = {"computer": by_pixels, "browser": by_reference, "both": checked(by_reference)}[way]
    session = await workshop.start(tools=WAYS[way], observe=observe)
    base = await serve(session.desktop)
    names = {"form": ["form"], "table lookup": ["table"], "multi-tab": ["left", "right"]}[task]
    began = time.perf_counter()
    await session.desktop.browse("navigate", {"url": f"{base}/{names[0]}.html"})
    started = time.perf_counter() - began
    for name in names[1:]:
        await session.desktop.browse("new_tab", {})
        await session.desktop.browse("navigate", {"url": f"{base}/{name}.html"})
    before = len(workshop.api.service.usages)
    asked = len(workshop.api.bodies)
    await workshop.send(session, f"Do the task: {task}.")
    usages, bodies = workshop.api.service.usages[before:], workshop.api.bodies[asked:]
    page = await session.store.messages.page(session.id, _last())
    assert page.rows[0].content == expected, (task, way, page.rows[0].content)
    if task == "form":
        state = await session.desktop.browse("state", {})
        assert [tab["title"] for tab in state["tabs"]] == ["sent Ada"], state
    await workshop.registry.end(session.id)
    kinds = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    total = sum(usage[kind] for usage in usages for kind in kinds)
    definitions = sum(tool_tokens(body["tools"]) for body in bodies)
    used = {"requests": len(bodies), "calls": session.steps, "input": total - definitions}
    used["looks"] = [
        json.loads(row.record or "null") for row in await session.store.events.records(session.id, kinds=("Unseen",))
    ]
    for look in used["looks"]:
        found = await session.store.screenshots.read(look["image"]) if look["image"] else None
        look["bytes"] = len(found[0]) if found else 0
    return {**used, "output": sum(usage["output_tokens"] for usage in usages)}, started


def _last() -> Any:
    from cambio_lab.store import MessageQuery

    return MessageQuery(role="assistant", newest_first=True, limit=1)


def tell_cost(looks: list[dict[str, Any]]) -> None:
    """Print what looking at a step cost: of those with an image, of those with a tree."""
    for what in ("image", "tree"):
        chosen = [look for look in looks if look[what] and not (look["image"] and look["tree"])]
        took = statistics.median(look["took_ms"] for look in chosen)
        size = statistics.mean(look["bytes"] if what == "image" else len(look["tree"].encode()) for look in chosen)
        print(f"observed {what}: {len(chosen)} steps, p50 {took:.0f} ms, {size / 1000:.1f} KB a step")


async def main(observe: list[str]) -> None:
    starts: list[float] = []
    looks: list[dict[str, Any]] = []
    with MessagesApi() as api, tempfile.TemporaryDirectory() as directory:
        os.environ["ANTHROPIC_API_KEY"] = api.key
        provider = await make_provider(Settings(), server_id=uuid.uuid4().hex, kind="local")
        workshop = Workshop(Path(directory), provider, api)
        await workshop.open()
        print(f"{'task':14}{'way':10}{'requests':>9}{'calls':>7}{'input tokens':>14}{'output':>8}")
        try:
            for task in TASKS:
                for way in WAYS:
                    used, started = await one(workshop, task, way, observe)
                    looks += used["looks"]
                    starts.append(started)
                    print(f"{task:14}{way:10}{used['requests']:9}{used['calls']:7}{used['input']:14}{used['output']:8}")
        finally:
            await workshop.close()
            await provider.stop()
        assert api.refusals == [], api.refusals
    if looks:
        tell_cost(looks)
    print(
        f"Chromium started and its first page loaded: p50 {statistics.median(starts):.2f} s, most {max(starts):.2f} s"
    )


if __name__ == "__main__":
    asyncio.run(main(["screenshot", "ax"] if "--observe" in sys.argv else []))
