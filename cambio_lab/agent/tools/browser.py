"""The browser toolset ``browser_toolset_20260801`` on the Chromium of the session's desktop.

The SDK's class parses the input, keeps the browser's state and renders the results; what a member does is the
desktop's (:mod:`cambio_lab.desktop.browser`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from ...desktop.base import Desktop, Region, Screenshot
from ...errors import ActionError, DesktopError, DesktopLost
from ...events import Timing
from ..client import ToolsetParts
from .call import BROWSER, Call, Outcome, failed

log = logging.getLogger(__name__)
OPTIONAL = frozenset({"javascript_exec", "file_upload", "read_console", "read_network"})
"""Members that a session must ask for by name."""
LONG = {"navigate": 60.0, "wait": 45.0, "hold_key": 45.0, "javascript_exec": 45.0}
_SECONDS = 60.0
TABS = frozenset({"new_tab", "list_tabs", "switch_tab"})


class BrowserTool:
    """Carries out member calls on the desktop's browser. ``admitted`` is asked again right before a call acts."""

    def __init__(
        self, desktop: Desktop, admitted: Callable[[str], bool], parts: ToolsetParts, members: frozenset[str]
    ) -> None:
        self._desktop = desktop
        self._parts = parts.browser
        self._tool_use = parts.tool_use
        self._toolset = _toolset(self, admitted, parts, members)
        self._image: Screenshot | None = None
        self._lost: DesktopLost | None = None
        self._pages: dict[str, str] = {}
        """Address of each tab, as last reported; the active one also under the empty name."""

    def definitions(self) -> list[dict[str, Any]]:
        return [dict(self._toolset.to_dict())]

    def serves(self, call: Call) -> bool:
        return call.toolset == BROWSER

    def member(self, call: Call) -> str:
        return call.name

    def time_limit(self, call: Call) -> float:
        return LONG.get(call.name, _SECONDS)

    def page(self, call: Call) -> str:
        """Return the address of the page that a call is for, as last reported; empty before the first report."""
        return self._pages.get(str(call.arguments.get("tab_id") or ""), "")

    async def run(self, call: Call) -> Outcome:
        """Run one member call. Only :class:`DesktopLost` and cancellation come out as exceptions."""
        self._image = self._lost = None
        started = time.perf_counter()
        result = await self._toolset.tool_result(call.block or self._tool_use(call))
        if self._lost is not None:
            raise self._lost
        content = result.get("content") or []
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        lines = [block["text"] for block in blocks if block["type"] == "text"]
        if result.get("is_error"):
            return failed("\n".join(lines))
        image = self._image
        return Outcome(
            text="\n".join(lines),
            image=image,
            timing=Timing(encode=image.encode_ms if image else 0.0, total=(time.perf_counter() - started) * 1000),
            lines=lines,
            state=next((block for block in blocks if block["type"] == "browser_state"), None),
        )

    async def perform(self, name: str, arguments: dict[str, Any]) -> Any:
        """Return what the SDK's class calls once it has parsed the input; returns one of its result objects."""
        try:
            if name in ("screenshot", "zoom"):
                return await self._capture(arguments)
            answer = await self._desktop.browse(name, arguments)
        except ActionError as error:
            raise self._parts.error(error.message) from error
        except DesktopLost as error:
            self._lost = error
            raise self._parts.error("The desktop is gone.") from error
        except TimeoutError as error:
            raise self._parts.error(f"{name} took too long and was cancelled.") from error
        except DesktopError as error:
            raise self._parts.error(f"The browser could not do {name}.") from error
        except Exception as error:
            log.exception("%s failed in the browser", name)
            raise self._parts.error(f"{name} failed inside the browser.") from error
        if name == "navigate":
            return self._parts.navigated(**answer)
        if name in TABS:
            return answer["tabs"] if name == "list_tabs" else answer
        return answer.get("text") or None if name not in _READS else answer["text"]

    async def _capture(self, arguments: Mapping[str, Any]) -> Any:
        region = arguments.get("region")
        if region is not None and len(region) != 4:
            raise ActionError("region is [x0, y0, x1, y1].")
        corners = None if region is None else Region(*region)
        self._image = await self._desktop.browser_screenshot(arguments.get("tab_id"), corners)
        # The SDK only needs to see that there is one: the block is made from the screenshot itself, once.
        return self._parts.screenshot(data="", media_type=self._image.media_type)

    async def state(self) -> Any:
        """Return the browser's state in the SDK's form; nothing is open when it cannot be asked."""
        try:
            found = await self._desktop.browse("state", {})
        except DesktopLost as error:
            self._lost = error
            found = {"tabs": [], "state_changes": []}
        except DesktopError:
            found = {"tabs": [], "state_changes": []}
        self._pages = {tab["tab_id"]: tab["url"] for tab in found["tabs"]}
        self._pages[""] = next((tab["url"] for tab in found["tabs"] if tab.get("active")), "")
        changes = [self._change(change) for change in found["state_changes"]]
        return self._parts.state(tabs=found["tabs"], state_changes=changes)

    def _change(self, change: dict[str, Any]) -> Any:
        if change["type"] == "dialog_dismissed":
            return self._parts.dialog(kind=change["kind"], message=change["message"])
        return self._parts.refused() if change["type"] == "navigation_refused" else change


_READS = frozenset({"read_page", "get_page_text", "find", "read_console", "read_network", "javascript_exec"})


class _Files:
    """Which files of the desktop a page may be given: the desktop itself checks that they lie in its home."""

    def resolve_upload_paths(self, context: Any, paths: Any) -> list[str]:
        return list(paths)

    def resolve_upload_documents(self, context: Any, document_ids: Any) -> list[str]:
        return []

    def is_path_visible(self, path: str) -> bool:
        return True  # shell and editor read the same files


def _toolset(tool: BrowserTool, admitted: Callable[[str], bool], parts: ToolsetParts, members: frozenset[str]) -> Any:
    """The SDK's abstract toolset with our ``execute``: a class of its own because the SDK is loaded on first use."""

    class Toolset(parts.browser.base):  # type: ignore[misc, name-defined]
        async def execute(self, context: Any, name: str, input: Any) -> Any:
            return await tool.perform(name, input.to_dict())

        async def _browser_state(self, context: Any) -> Any:
            return await tool.state()

    def confirm(context: Any) -> bool:
        return context.tool_use is not None and admitted(context.tool_use.id)

    configs = {name: {"enabled": True} for name in sorted(members & OPTIONAL)}
    return Toolset(confirm=confirm, configs=configs or None, file_policy=_Files())
