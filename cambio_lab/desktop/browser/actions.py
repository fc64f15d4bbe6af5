"""Mouse, keyboard, forms and screenshots of one tab; find elements by a description in words, without a model."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from cambio_lab.errors import ActionError

from ..base import Region, Screenshot
from ..rfb.reader import LARGEST_AREA
from . import DevToolsError, key_modifiers, key_presses, key_text
from .tab import Element, Tab

_BUTTONS = {"left": 1, "right": 2, "middle": 4}
_TYPED_BY_KEYS = 300
"""Characters that are typed key by key; longer texts are inserted, as an input method does."""
_NOTCH = 100
"""Pixels of one notch of the wheel."""
_PINCHED = "[visualViewport.scale, visualViewport.offsetLeft, visualViewport.offsetTop]"
_WINDOW = "[innerWidth, innerHeight, screenX + (outerWidth - innerWidth) / 2, screenY + outerHeight - innerHeight]"
MOST_FOUND, MOST_LISTED = 20, 5000
MOST_SCREENSHOT = 20_000_000
"""Bytes."""


async def viewport(tab: Tab) -> tuple[int, int]:
    """Width and height of the viewport in pixels."""
    width, height = await tab.call(tab.main_frame, "[innerWidth, innerHeight]")
    return int(width), int(height)


async def place(tab: Tab, target: dict[str, Any]) -> tuple[float, float, str]:
    """Return where a target is, scrolled into view, and what it is called for people."""
    if target.get("type") == "ref" or "ref" in target:
        element = await tab.resolve(str(target["ref"]))
        x, y = await _centre(tab, element)
        return x, y, element.label
    x, y = await point(tab, target)
    return x, y, ""


async def point(tab: Tab, target: dict[str, Any]) -> tuple[float, float]:
    """Return the page's point at a place of the screenshot, checked against the viewport; nothing is clamped."""
    x, y = target["coordinate"] if "coordinate" in target else (target["x"], target["y"])
    width, height = await viewport(tab)
    if not (0 <= x < width and 0 <= y < height):
        raise ActionError(f"({x}, {y}) is outside the viewport of {width}x{height} pixels.")
    scale, left, top = await tab.call(tab.main_frame, _PINCHED)
    return left + x / scale, top + y / scale


async def scale(tab: Tab, factor: float) -> None:
    """Magnify the page as a pinch does: what is drawn grows, the page's own pixels and layout stay."""
    await tab.send("Emulation.setPageScaleFactor", pageScaleFactor=factor)


async def _centre(tab: Tab, element: Element) -> tuple[float, float]:
    try:
        await tab.send("DOM.scrollIntoViewIfNeeded", objectId=element.object_id)
        quads = (await tab.send("DOM.getContentQuads", objectId=element.object_id))["quads"]
    except DevToolsError:
        raise ActionError("The element has no place on the page (it is hidden or empty).") from None
    width, height, *begin = (int(pixels) for pixels in await tab.call(tab.main_frame, _WINDOW))
    for quad in quads:
        x, y = sum(quad[0::2]) / 4, sum(quad[1::2]) / 4
        if 0 <= x < width and 0 <= y < height:
            (left, right), (top, bottom) = ((max(0, min(side)), max(side)) for side in (quad[0::2], quad[1::2]))
            tab.box = [int(left), int(top), int(min(width, right)), int(min(height, bottom)), *begin]
            return x, y
    raise ActionError("The element is not in the viewport and could not be scrolled into it.")


async def _mouse(tab: Tab, kind: str, x: float, y: float, **more: Any) -> None:
    await tab.send("Input.dispatchMouseEvent", timeout=8.0, type=kind, x=x, y=y, **more)
    tab.mouse = (x, y)


async def click(tab: Tab, target: dict[str, Any], button: str, count: int, modifiers: str | None = None) -> str:
    """Click ``count`` times; returns what was clicked."""
    bits = key_modifiers(modifiers)
    x, y, name = await place(tab, target)
    await _mouse(tab, "mouseMoved", x, y, modifiers=bits)
    for number in range(1, count + 1):
        held = {"button": button, "clickCount": number, "modifiers": bits}
        await _mouse(tab, "mousePressed", x, y, buttons=_BUTTONS[button], **held)
        await _mouse(tab, "mouseReleased", x, y, buttons=0, **held)
    return name


async def hover(tab: Tab, target: dict[str, Any]) -> str:
    x, y, name = await place(tab, target)
    await _mouse(tab, "mouseMoved", x, y)
    return name


async def press_button(tab: Tab, *, down: bool) -> None:
    """Press or release the left button where the pointer is."""
    x, y = tab.mouse
    await _mouse(tab, "mousePressed" if down else "mouseReleased", x, y, button="left", buttons=int(down), clickCount=1)


async def drag(tab: Tab, start: dict[str, Any], end: dict[str, Any]) -> None:
    """Press at ``start``, move in steps, release at ``end``."""
    x0, y0 = await point(tab, start)
    x1, y1 = await point(tab, end)
    await _mouse(tab, "mouseMoved", x0, y0)
    await _mouse(tab, "mousePressed", x0, y0, button="left", buttons=1, clickCount=1)
    try:
        steps = max(5, min(30, int(math.hypot(x1 - x0, y1 - y0) / 15)))
        for step in range(1, steps + 1):
            share = step / steps
            await _mouse(tab, "mouseMoved", x0 + (x1 - x0) * share, y0 + (y1 - y0) * share, button="left", buttons=1)
    finally:
        await _mouse(tab, "mouseReleased", *tab.mouse, button="left", buttons=0, clickCount=1)


async def scroll(tab: Tab, target: dict[str, Any], direction: str, amount: int) -> None:
    """Turn the wheel ``amount`` notches, 1 to 10."""
    if not 1 <= amount <= 10:
        raise ActionError("scroll_amount must be from 1 to 10.")
    x, y = await point(tab, target)
    across, down = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}[direction]
    await _mouse(tab, "mouseWheel", x, y, deltaX=across * amount * _NOTCH, deltaY=down * amount * _NOTCH)


async def scroll_to(tab: Tab, ref: str) -> str:
    element = await tab.resolve(ref)
    await _centre(tab, element)
    return element.label


async def type_text(tab: Tab, text: str) -> None:
    """Type ``text`` at the focus: key by key where a keyboard has the keys, else inserted."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(text) <= _TYPED_BY_KEYS:
        for character in text:
            events = key_text(character)
            if events is None:
                await tab.send("Input.insertText", text=character)
            else:
                await _keys(tab, events)
    else:
        for number, line in enumerate(text.split("\n")):
            if number:
                await _keys(tab, key_presses("Return")[0])
            for start in range(0, len(line), 10_000):
                await tab.send("Input.insertText", text=line[start : start + 10_000])


async def press(tab: Tab, sequence: str, repeat: int) -> None:
    for chord in key_presses(sequence, repeat):
        await _keys(tab, chord)


async def hold(tab: Tab, chord: str, seconds: float) -> None:
    """Hold a chord for at most 30 seconds; released whatever happens."""
    if not 0 <= seconds <= 30:
        raise ActionError("duration must be from 0 to 30 seconds.")
    events = key_presses(chord)
    if len(events) != 1:
        raise ActionError("hold_key takes one key or chord.")
    down = [event for event in events[0] if event["type"] != "keyUp"]
    up = [event for event in events[0] if event["type"] == "keyUp"]
    try:
        await _keys(tab, down)
        await asyncio.sleep(seconds)
    finally:
        await asyncio.shield(_keys(tab, up))


async def _keys(tab: Tab, events: list[dict[str, Any]]) -> None:
    for event in events:
        await tab.send("Input.dispatchKeyEvent", timeout=8.0, **event)


async def fill(tab: Tab, ref: str, value: object) -> str:
    """Set a form element's value; returns what it is called."""
    element = await tab.resolve(ref)
    problem = await tab.call(element.frame, f"cambio.fill({element.number}, {json.dumps(value)})")
    if problem:
        raise ActionError(f"The value was not set. {str(problem)[:600]}")
    with suppress(ActionError):  # a field may have no place
        await _centre(tab, element)
    return element.label


async def upload(tab: Tab, ref: str, paths: list[str]) -> str:
    """Choose files of the desktop in a file input."""
    element = await tab.resolve(ref)
    try:
        await tab.send("DOM.setFileInputFiles", objectId=element.object_id, files=paths)
    except DevToolsError:
        raise ActionError("The element takes no files.") from None
    return element.label


async def screenshot(tab: Tab, region: Region | None = None) -> Screenshot:
    """Capture the viewport, or ``region`` of it scaled up to at most the viewport's size, as PNG."""
    params: dict[str, Any] = {"format": "png", "optimizeForSpeed": True}
    if region is not None:
        x0, y0, x1, y1 = region
        width, height = await viewport(tab)
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ActionError(f"The region does not lie in the viewport of {width}x{height} pixels.")
        scale = min(width / (x1 - x0), height / (y1 - y0))
        params["clip"] = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "scale": scale}
    begin = time.perf_counter()
    answer = await tab.send("Page.captureScreenshot", timeout=15.0, **params)
    try:
        data = await asyncio.to_thread(base64.b64decode, str(answer.get("data", ""))[: MOST_SCREENSHOT * 4 // 3])
        kind, width, height = struct.unpack(">8s8xII", data[:24])
        if kind != b"\x89PNG\r\n\x1a\n" or not 0 < width * height <= LARGEST_AREA:
            raise ValueError
    except (ValueError, struct.error):  # binascii.Error is a ValueError
        raise ActionError("The screenshot could not be taken.") from None
    return Screenshot(data, "image/png", width, height, (time.perf_counter() - begin) * 1000)


Found = tuple[int, str, str, str, bool]
"""Reference number, role, name, other words, and whether it is interactive."""

# The roles that a word may mean beside the one of the same name.
_ROLES = {
    "field": {"textbox", "searchbox", "spinbutton", "password", "combobox", "date", "time"},
    "input": {"textbox", "searchbox", "spinbutton", "password", "combobox", "date", "time"},
    "box": {"textbox", "searchbox", "checkbox"},
    "bar": {"searchbox", "textbox", "navigation"},
    "search": {"searchbox"},
    "dropdown": {"combobox", "listbox"},
    "select": {"combobox", "listbox"},
    "menu": {"menuitem", "combobox", "navigation", "list"},
    "title": {"heading"},
    "icon": {"image", "button"},
    "upload": {"file"},
    "date": {"date", "datetime"},
}
_IGNORED = {"a", "an", "the", "of", "for", "to", "in", "on", "with", "and", "or", "that", "element", "page", "all"}


def words(text: str) -> list[str]:
    """Split into lower-case words, also at ``camelCase`` and ``snake_case``."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return re.findall(r"[^\W_]+", spaced.lower())


def rank(query: str, found: Sequence[Found], most: int) -> list[Found]:
    """Return at most ``most`` of ``found``, best first; those that share no word with ``query`` are left out."""
    asked = [word for word in words(query) if word not in _IGNORED] or words(query)
    scored = [(score, -number, item) for number, item in enumerate(found) if (score := _score(query, asked, item)) > 0]
    scored.sort(key=lambda entry: entry[:2], reverse=True)
    best = scored[0][0] if scored else 0.0
    return [item for score, _, item in scored if score >= 0.3 * best][:most]


def _score(query: str, asked: Sequence[str], item: Found) -> float:
    _, role, name, other, interactive = item
    named, others = words(name), words(other)
    score = 0.0
    for word in asked:
        if word in named:
            score += 3.0
        elif len(word) > 3 and any(one.startswith(word) or word.startswith(one) for one in named if len(one) > 3):
            score += 2.0
        elif word in others:
            score += 1.5
        if role in _ROLES.get(word, ()) or word == role:
            score += 1.5
    if score and name and name.lower() in query.lower():
        score += 2.0
    if score > 1.5 and named:  # a short name that matches says more than a long one
        score += 1.0 / len(named)
    return score + 0.3 if score and interactive else score


async def find(tab: Tab, query: str) -> str:
    """Return up to :data:`MOST_FOUND` elements whose role, name and other words match ``query``."""
    found: list[Found] = []
    for frame in await tab.frames():
        first, left = tab.next_ref, MOST_LISTED - len(found)
        answer = await tab.call(frame, f"cambio.catalogue({{next: {first}, most: {left}}})")
        tab.keep(first, int(answer["next"]), frame)
        for number, role, name, other, acts in answer["found"][:left]:
            found.append((int(number), str(role)[:40], str(name)[:201], str(other)[:201], bool(acts)))
        if len(found) >= MOST_LISTED:
            break
    best = await asyncio.to_thread(rank, query, found, MOST_FOUND)
    if not best:
        return "No element matches. Try other words, or read_page."
    return "\n".join(f'{role} "{name}" [ref_{number}]' for number, role, name, _, _ in best)
