"""The browser toolset ``browser_toolset_20260801`` on the Chromium of the session's desktop.

The SDK's class parses the input, keeps the browser's state and renders the results; what a member does is the
desktop's (:mod:`cambio_lab.desktop.browser`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...desktop.base import Desktop, Region, Screenshot
from ...errors import ActionError, DesktopError, DesktopLost
from ...events import Box, Timing
from ..client import ToolsetParts
from ..options import OPTIONAL_MEMBERS
from . import BROWSER, Call, Outcome, failed, refusing
from .computer import ToolsetTool, confirm

LONG = {"navigate": 60.0, "wait": 45.0, "hold_key": 45.0, "javascript_exec": 45.0}
_SECONDS = 60.0
TABS = frozenset({"new_tab", "list_tabs", "switch_tab"})


class BrowserTool(ToolsetTool):
    """Carries out member calls on the desktop's browser. ``admitted`` is asked again right before a call acts."""

    def __init__(
        self, desktop: Desktop, admitted: Callable[[str], bool], parts: ToolsetParts, members: frozenset[str]
    ) -> None:
        super().__init__(_toolset(self, admitted, parts, members), parts.tool_use)
        self._desktop = desktop
        self._parts, self._results = parts, parts.browser
        self._image: Screenshot | None = None
        self._box: Box | None = None
        self._pages: dict[str, str] = {}
        """Address of each tab, as last reported; the active one also under the empty name."""

    def serves(self, call: Call) -> bool:
        return call.toolset == BROWSER

    def time_limit(self, call: Call) -> float:
        return LONG.get(call.name, _SECONDS)

    def address(self, call: Call) -> str:
        """Return the address of the page that a call is for, as last reported; empty before the first report."""
        return self._pages.get(str(call.arguments.get("tab_id") or ""), "")

    async def run(self, call: Call) -> Outcome:
        self._image = self._box = None
        blocks, is_error, total = await self.result(call)
        lines = [block["text"] for block in blocks if block["type"] == "text"]
        if is_error:
            return failed("\n".join(lines))
        image = self._image
        return Outcome(
            text="\n".join(lines),
            image=image,
            timing=Timing(encode=image.encode_ms if image else 0.0, total=total),
            lines=lines,
            box=self._box,
            state=next((block for block in blocks if block["type"] == "browser_state"), None),
        )

    async def perform(self, name: str, arguments: dict[str, Any]) -> Any:
        """Return what the SDK's class calls once it has parsed the input; returns one of its result objects."""
        with refusing(name, "browser", self._parts.error, self.note_loss):
            if name in ("screenshot", "zoom"):
                return await self._capture(arguments)
            answer = await self._desktop.browse(name, arguments)
        self._box = _box(answer.get("box"))
        if name == "navigate":
            return self._results.BetaBrowserNavigateResult(**answer)
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
        return self._parts.computer.BetaScreenshotResult(data="", media_type=self._image.media_type)

    async def state(self) -> Any:
        """Return the browser's state in the SDK's form; nothing is open when it cannot be asked."""
        found: dict[str, Any] = {"tabs": [], "state_changes": []}
        try:
            found = await self._desktop.browse("state", {})
        except DesktopLost as error:
            self.note_loss(error)
        except DesktopError:
            pass
        self._pages = {tab["tab_id"]: tab["url"] for tab in found["tabs"]}
        self._pages[""] = next((tab["url"] for tab in found["tabs"] if tab.get("active")), "")
        changes = [self._change(change) for change in found["state_changes"]]
        return self._results.BetaBrowserState(tabs=found["tabs"], state_changes=changes)

    def _change(self, change: dict[str, Any]) -> Any:
        if change["type"] == "dialog_dismissed":
            return self._results.BetaDialogDismissed(kind=change["kind"], message=change["message"])
        return self._results.BetaNavigationRefused() if change["type"] == "navigation_refused" else change


_READS = frozenset({"read_page", "get_page_text", "find", "read_console", "read_network", "javascript_exec"})


def _box(found: object) -> Box | None:
    """Return what the desktop, or a run file, says of an element's place; ``None`` where that is no place."""
    if isinstance(found, list) and len(found) == 6 and all(isinstance(n, int) and abs(n) <= 100_000 for n in found):
        return Box(*found)
    return None


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

    class Toolset(parts.browser.BetaAsyncAbstractBrowserToolset20260801):  # type: ignore[misc, name-defined]
        async def execute(self, context: Any, name: str, input: Any) -> Any:
            return await tool.perform(name, input.to_dict())

        async def _browser_state(self, context: Any) -> Any:
            return await tool.state()

    configs = {name: {"enabled": True} for name in sorted(members & frozenset(OPTIONAL_MEMBERS))}
    return Toolset(confirm=confirm(admitted), configs=configs or None, file_policy=_Files())
