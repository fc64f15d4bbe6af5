"""The members of the browser toolset, carried out on a desktop's Chromium.

:class:`Browser` is what a desktop offers: one call per member, started on first use and again after it was closed.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from cambio_lab.errors import ActionError

from ..base import Region, Screenshot
from ..machine import Machine
from . import BrowserClosed, actions
from .chromium import Chromium
from .tab import MOST_TEXT, MOST_URL, Tab

OPTIONAL = frozenset({"javascript_exec", "file_upload", "read_console", "read_network"})
"""Members that a session must ask for."""
_SCHEMES = frozenset({"http", "https"})
_FORBIDDEN = re.compile(r"[\s\\\x00-\x1f\x7f\u2028\u2029]")
_RISKY = re.compile(r"(javascript|data|file|view-source|about|blob|chrome|devtools|filesystem|ftp):", re.IGNORECASE)
_DEPTH = 15
MOST_TYPED = 50_000
CLICKS = {
    "left_click": ("left", 1),
    "right_click": ("right", 1),
    "middle_click": ("middle", 1),
    "double_click": ("left", 2),
    "triple_click": ("left", 3),
}


Result = dict[str, Any]


class Browser:
    """A desktop's browser. Members: see :data:`_MEMBERS`, and ``state``."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._hosts: tuple[str, ...] | None = None
        self._members: frozenset[str] = frozenset()
        self._chromium: Chromium | None = None
        self._starting = asyncio.Lock()

    def limit(self, hosts: Sequence[str] | None, members: frozenset[str]) -> None:
        """Open only ``hosts`` (``None``: any; ``.example.org`` with all below it).

        ``members`` are the optional ones that are served, and ``file``.
        ``read_console`` and ``read_network`` return what was noted since the browser's start if they are served then;
        ``file`` allows ``file:`` addresses.
        """
        self._hosts = None if hosts is None else tuple(host.lower() for host in hosts)
        self._members = members

    async def act(self, member: str, arguments: Mapping[str, Any]) -> Result:
        """Carry out ``member``. :class:`ActionError` says, for the model, why not."""
        if member == "state":
            return await self.state()
        if member == "observe":
            return {"text": await self.observe()}
        if member not in _MEMBERS or (member in OPTIONAL and member not in self._members):
            raise ActionError("This browser has no such action.")
        tab_id = arguments.get("tab_id")
        async with self._browser() as chromium:
            return await _MEMBERS[member](self, chromium, None if tab_id is None else str(tab_id), arguments)

    async def screenshot(self, tab_id: str | None, region: Region | None) -> Screenshot:
        """Capture a tab's viewport, or ``region`` of it scaled up."""
        async with self._browser() as chromium:
            tab = chromium.tab(tab_id)
            if tab.tab_id != chromium.active:
                await chromium.activate(tab)
            return await actions.screenshot(tab, region)

    async def state(self) -> Result:
        """Return ``tabs`` (one ``active``) and the ``state_changes`` since the last call; no tabs before a start."""
        chromium = self._chromium
        if chromium is None or not chromium.running:
            return {"tabs": [], "state_changes": []}
        try:
            await chromium.titles()
        except (BrowserClosed, TimeoutError):
            return {"tabs": [], "state_changes": []}
        changes = list(chromium.changes)
        chromium.changes.clear()
        return {"tabs": [_entry(tab, chromium) for tab in chromium.tabs.values()], "state_changes": changes}

    async def observe(self) -> str:
        """Return the active page's tree for people; empty where no page is open. Starts no browser."""
        chromium = self._chromium
        if chromium is None or not chromium.running or not chromium.tabs:
            return ""
        async with self._browser() as chromium:
            return await chromium.tab(None).tree(None, _DEPTH, None)

    async def close(self) -> None:
        if self._chromium is not None:
            await self._chromium.close()
            self._chromium = None

    @asynccontextmanager
    async def _browser(self) -> AsyncIterator[Chromium]:
        async with self._starting:
            if self._chromium is None or not self._chromium.running:
                await self.close()
                noted = {"console": "read_console" in self._members, "network": "read_network" in self._members}
                self._chromium = await Chromium.start(self._machine, self.allowed, **noted)
        try:
            yield self._chromium
        except BrowserClosed:
            raise ActionError("The browser was closed. The next action starts it again, without its tabs.") from None

    def allowed(self, url: str) -> bool:
        """Return whether a document may be loaded from ``url``."""
        parts = urlsplit(url)
        if parts.scheme == "file":
            return "file" in self._members
        if parts.scheme not in _SCHEMES:
            return url in ("about:blank", "about:srcdoc") or parts.scheme == "blob"
        if self._hosts is None:
            return True
        host = (parts.hostname or "").lower()
        return any(host == name.removeprefix(".") or (name[0] == "." and host.endswith(name)) for name in self._hosts)

    def address(self, written: str) -> str:
        """Return the URL to load for what the model wrote; :class:`ActionError` when it is refused."""
        if not written or len(written) > MOST_URL or _FORBIDDEN.search(written):
            raise ActionError("This is no usable address: no spaces, backslashes or control characters.")
        # "localhost:8080" is a host and a port, but a scheme that browsers run or read is never a host.
        has_scheme = re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:(?!\d)", written) or _RISKY.match(written)
        url = written if has_scheme else f"https://{written}"
        if url != "about:blank" and urlsplit(url).scheme.lower() not in _SCHEMES | (self._members & {"file"}):
            raise ActionError("Only http and https addresses can be opened.")
        if not self.allowed(url):
            raise ActionError("This address is not allowed in this session.")
        return url

    # Members

    async def _navigate(self, chromium: Chromium, tab_id: str | None, arguments: Mapping[str, Any]) -> Result:
        tab = chromium.tab(tab_id)
        await chromium.activate(tab)
        url = str(arguments["url"]).strip()
        if url.lower() in ("back", "forward", "reload"):
            await tab.history(url.lower())
        else:
            await tab.navigate(self.address(url))
        await chromium.titles()
        return {"url": tab.url, "title": tab.title, "status": tab.status}

    async def _tabs(self, chromium: Chromium, tab_id: str | None, arguments: Mapping[str, Any]) -> Result:
        await chromium.titles()
        return {"tabs": [_entry(tab, chromium) for tab in chromium.tabs.values()]}

    async def _new_tab(self, chromium: Chromium, tab_id: str | None, arguments: Mapping[str, Any]) -> Result:
        return _entry(await chromium.open_tab(), chromium)

    async def _switch_tab(self, chromium: Chromium, tab_id: str | None, arguments: Mapping[str, Any]) -> Result:
        tab = chromium.tab(tab_id)
        await chromium.activate(tab)
        await chromium.titles()
        return _entry(tab, chromium)

    async def _close_tab(self, chromium: Chromium, tab_id: str | None, arguments: Mapping[str, Any]) -> Result:
        await chromium.close_tab(chromium.tab(tab_id))
        return {}

    async def _javascript(self, chromium: Chromium, tab_id: str | None, arguments: Mapping[str, Any]) -> Result:
        answer = await chromium.tab(tab_id).send(
            "Runtime.evaluate",
            timeout=30.0,
            expression=str(arguments["text"]),
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
            replMode=True,
        )
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"].get("exception", {}).get("description", "an exception")
            raise ActionError(f"The script threw: {str(thrown)[:1000]}")
        result = answer.get("result", {})
        value = result.get("value", result.get("description", result.get("type", "")))
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return {"text": _bounded(text)}


def _entry(tab: Tab, chromium: Chromium) -> dict[str, Any]:
    entry: dict[str, Any] = {"tab_id": tab.tab_id, "title": tab.title, "url": tab.url}
    if tab.tab_id == chromium.active:
        entry["active"] = True
    return entry


def _bounded(text: str) -> str:
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + f"\n[Cut at {MOST_TEXT} characters.]"


Arguments = Mapping[str, Any]
Member = Callable[[Browser, Chromium, str | None, Arguments], Awaitable[Result]]


def _reading(read: Callable[[Tab, Arguments], Awaitable[str]]) -> Member:
    """Make a member of a function that reads a tab and returns text."""

    async def member(browser: Browser, chromium: Chromium, tab_id: str | None, arguments: Arguments) -> Result:
        return {"text": _bounded(await read(chromium.tab(tab_id), arguments))}

    return member


def _input(act: Callable[[Tab, Arguments], Awaitable[str | None]]) -> Member:
    """Make a member of a function that acts on a tab, which is shown first; it returns what was acted on."""

    async def member(browser: Browser, chromium: Chromium, tab_id: str | None, arguments: Arguments) -> Result:
        tab = chromium.tab(tab_id)
        if tab_id is not None and tab_id != chromium.active:
            await chromium.activate(tab)
        tab.box = None
        text = await act(tab, arguments) or ""
        await tab.settle()
        return {"text": text} if tab.box is None else {"text": text, "box": tab.box}

    return member


async def _wait(tab: Tab, arguments: Arguments) -> str:
    seconds = float(arguments["duration"])
    if not 0 <= seconds <= 30:
        raise ActionError("duration must be from 0 to 30 seconds.")
    await asyncio.sleep(seconds)
    return ""


async def _drain(lines: Any, empty: str) -> str:
    text = "\n".join(lines)
    lines.clear()
    return text or empty


def _depth(arguments: Arguments) -> int:
    depth = arguments.get("depth")
    return _DEPTH if depth is None else max(1, min(int(depth), 100))


async def _type(tab: Tab, arguments: Arguments) -> None:
    text = str(arguments["text"])
    if len(text) > MOST_TYPED:
        raise ActionError(f"Type at most {MOST_TYPED} characters in one call.")
    await actions.type_text(tab, text)


def _click(button: str, count: int) -> Member:
    return _input(lambda tab, a: actions.click(tab, a["target"], button, count, a.get("modifiers")))


_MEMBERS: dict[str, Member] = {
    "navigate": Browser._navigate,
    "list_tabs": Browser._tabs,
    "new_tab": Browser._new_tab,
    "switch_tab": Browser._switch_tab,
    "close_tab": Browser._close_tab,
    "javascript_exec": Browser._javascript,
    "read_page": _reading(lambda tab, a: tab.tree(a.get("ref"), _depth(a), a.get("filter"))),
    "get_page_text": _reading(lambda tab, a: tab.text()),
    "find": _reading(lambda tab, a: actions.find(tab, str(a["query"])[:500])),
    "read_console": _reading(lambda tab, a: _drain(tab.console, "(nothing was logged)")),
    "read_network": _reading(lambda tab, a: _drain(tab.network, "(no requests)")),
    **{name: _click(*how) for name, how in CLICKS.items()},
    "hover": _input(lambda tab, a: actions.hover(tab, a["target"])),
    "mouse_move": _input(lambda tab, a: actions.hover(tab, a["target"])),
    "left_click_drag": _input(lambda tab, a: actions.drag(tab, a["from"], a["target"])),
    "left_mouse_down": _input(lambda tab, a: actions.press_button(tab, down=True)),
    "left_mouse_up": _input(lambda tab, a: actions.press_button(tab, down=False)),
    "scroll": _input(
        lambda tab, a: actions.scroll(tab, a["target"], a["scroll_direction"], int(a.get("scroll_amount") or 3))
    ),
    "scroll_to": _input(lambda tab, a: actions.scroll_to(tab, str(a["target"]["ref"]))),
    "type": _input(_type),
    "key": _input(lambda tab, a: actions.press(tab, str(a["text"]), int(a.get("repeat") or 1))),
    "hold_key": _input(lambda tab, a: actions.hold(tab, str(a["text"]), float(a["duration"]))),
    "form_input": _input(lambda tab, a: actions.fill(tab, str(a["target"]["ref"]), a["value"])),
    "file_upload": _input(lambda tab, a: actions.upload(tab, str(a["target"]["ref"]), list(a.get("paths") or []))),
    "wait": _reading(_wait),
    "scale": _input(lambda tab, a: actions.scale(tab, float(a["factor"]))),  # no model has it: for tasks
}
