"""One tab: reading its page, references to its elements, and input to it."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cambio_lab.errors import ActionError

from . import DevTools, DevToolsError, network_error

MOST_TEXT = 50_000
"""Characters of one reading, as the toolset documents for ``read_page``."""
MOST_FRAMES = 30
MOST_URL = 4096
_LOAD_SECONDS, _SETTLE_SECONDS, _QUIET = 10.0, 2.0, 0.03
_TWO_FRAMES = "new Promise(done => { requestAnimationFrame(() => requestAnimationFrame(done)); setTimeout(done, 100) })"
_STALE = "{ref} is no longer on the page. Call read_page or find again for fresh references."


class Element(NamedTuple):
    """An element that a reference names: its frame, its number, its object and, for people, role and name."""

    frame: str
    number: int
    object_id: str
    role: str
    name: str

    @property
    def label(self) -> str:
        """What it is called for people."""
        return f'{self.role} "{self.name}"' if self.name else self.role


@cache
def page_script() -> str:
    return Path(__file__).with_name("page.js").read_text(encoding="utf-8")


class Tab:
    """Attached to one page target. ``session`` is its DevTools session."""

    def __init__(self, devtools: DevTools, target: str, session: str, tab_id: str) -> None:
        self.target, self.session, self.tab_id = target, session, tab_id
        self.url, self.title = "", ""
        self.crashed = False
        self.loading = False
        self.status: int | None = None
        self.main_frame = ""
        self.box: list[int] | None = None
        """Where the element is that the current call acts on: left, top, right, bottom, the viewport's left and top."""
        self.console: deque[str] = deque(maxlen=500)
        self.network: deque[str] = deque(maxlen=500)
        self._devtools = devtools
        self.next_ref = 1
        self._worlds: dict[str, int] = {}
        """Frame -> execution context of our isolated world in it."""
        self._homes: list[tuple[int, int, str]] = []
        """First and last reference of each reading, and the frame that has them."""
        self._loaded = asyncio.Event()
        self._changed = asyncio.Event()
        self.mouse = (0.0, 0.0)

    async def send(self, method: str, timeout: float = 20.0, **params: Any) -> dict[str, Any]:
        """Call a DevTools method on this tab; :class:`ActionError` when the page has crashed or hangs."""
        if self.crashed and method not in ("Page.navigate", "Page.reload", "Page.bringToFront"):
            raise ActionError("The page crashed. Reload it or navigate elsewhere.")
        try:
            return await self._devtools.send(method, params, session=self.session, timeout=timeout)
        except TimeoutError:
            raise ActionError("The page does not respond. Wait, reload it, or close the tab.") from None

    # Events, from the browser

    def entitle(self, info: dict[str, Any]) -> None:
        """Take title and URL from what the browser says of the tab."""
        self.title, self.url = str(info.get("title", ""))[:1000], str(info.get("url", ""))[:MOST_URL]

    def frame_started(self, frame: str) -> None:
        if frame == self.main_frame:
            self.loading = True
            self._loaded.clear()
            self._changed.set()

    def frame_navigated(self, frame: Any) -> None:
        if not isinstance(frame, dict):
            return
        frame_id = str(frame.get("id"))
        self._worlds.pop(frame_id, None)
        if not frame.get("parentId"):
            self.main_frame = frame_id
            self.url = (str(frame.get("url", "")) + str(frame.get("urlFragment", "")))[:MOST_URL]
            self.crashed = False
            self._worlds.clear()
            self._homes.clear()

    def navigated_within(self, event: Mapping[str, Any]) -> None:
        """Take the URL that the document gave itself."""
        if str(event.get("frameId")) == self.main_frame:
            self.url = str(event.get("url", ""))[:MOST_URL]

    def loaded(self, frame: str) -> None:
        if frame in ("", self.main_frame):
            self.loading = False
            self._loaded.set()

    def crash(self) -> None:
        self.crashed = True
        self.loaded("")

    def logged(self, event: Mapping[str, Any]) -> None:
        arguments = event.get("args")
        if isinstance(arguments, list):
            dicts = [one for one in arguments if isinstance(one, dict)]
            words = [str(one.get("value", one.get("description", "")))[:1000] for one in dicts]
            self.console.append(f"{event.get('type')}: {' '.join(words)}"[:2000])

    # Loading

    async def navigate(self, url: str) -> None:
        """Load ``url`` and wait until it has loaded, or a while when it never does."""
        self.status = None
        self._loaded.clear()
        answer = await self.send("Page.navigate", timeout=30.0, url=url)
        if error := answer.get("errorText"):
            raise ActionError(f"The page could not be loaded: {network_error(str(error))}.")
        if answer.get("loaderId"):  # absent within one document
            await self.wait_loaded()

    async def history(self, step: str) -> None:
        """Go ``back`` or ``forward``, or ``reload``."""
        if step == "reload":
            self._loaded.clear()
            await self.send("Page.reload", timeout=30.0)
            self.crashed = False
            await self.wait_loaded()
            return
        found = await self.send("Page.getNavigationHistory")
        index = int(found["currentIndex"]) + (1 if step == "forward" else -1)
        if not 0 <= index < len(found["entries"]):
            raise ActionError(f"There is no page to go {step} to.")
        self._loaded.clear()
        await self.send("Page.navigateToHistoryEntry", entryId=found["entries"][index]["id"])
        await self.wait_loaded(2.0)

    async def wait_loaded(self, seconds: float = _LOAD_SECONDS) -> None:
        with suppress(TimeoutError):  # a page that never becomes idle is usable all the same
            async with asyncio.timeout(seconds):
                await self._loaded.wait()

    async def settle(self) -> None:
        """Wait until what an action started has happened: a frame drawn, and a page that it loads."""
        self._changed.clear()
        # Navigating away destroys the context, and a page that hangs is reported by the next call.
        with suppress(ActionError, DevToolsError):
            await self.send("Runtime.evaluate", timeout=_SETTLE_SECONDS, expression=_TWO_FRAMES, awaitPromise=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_QUIET):
                await self._changed.wait()
        if self.loading:
            await self.wait_loaded(5.0)

    # Worlds and references

    async def _world(self, frame: str) -> int:
        if frame not in self._worlds:
            answer = await self.send(
                "Page.createIsolatedWorld", frameId=frame, worldName="cambio_lab", grantUniveralAccess=False
            )
            context = int(answer["executionContextId"])
            await self.send("Runtime.evaluate", expression=page_script(), contextId=context)
            self._worlds[frame] = context
        return self._worlds[frame]

    async def call(self, frame: str, expression: str, *, by_value: bool = True, timeout: float = 20.0) -> Any:
        """Evaluate ``expression`` in our world of ``frame``; a value, or the remote object."""
        for attempt in range(2):
            context = await self._world(frame)
            try:
                answer = await self.send(
                    "Runtime.evaluate",
                    timeout=timeout,
                    expression=expression,
                    contextId=context,
                    returnByValue=by_value,
                )
            except DevToolsError:
                self._worlds.pop(frame, None)  # the frame has another document now
                if attempt:
                    raise ActionError("The page changed while it was read. Try again.") from None
                continue
            if "exceptionDetails" in answer:
                raise ActionError("The page could not be read.")
            result = answer.get("result", {})
            return result.get("value") if by_value else result
        raise AssertionError("unreachable")

    async def resolve(self, ref: str) -> Element:
        """Return the element that ``ref_7`` names; :class:`ActionError` when it is gone."""
        digits = ref.removeprefix("ref_")
        if not re.fullmatch("[0-9]{1,9}", digits):
            raise ActionError(f"{ref[:40]!r} is no reference. References look like ref_7.")
        number = int(digits)
        frame = next((frame for first, last, frame in self._homes if first <= number <= last), None)
        if frame is None or frame not in self._worlds:
            raise ActionError(_STALE.format(ref=f"ref_{number}"))
        found = await self.call(frame, f"cambio.element({number})", by_value=False)
        if found.get("subtype") != "node":
            raise ActionError(_STALE.format(ref=f"ref_{number}"))
        role, name = await self.call(frame, f"cambio.describe(cambio.element({number}))")
        return Element(frame, number, str(found["objectId"]), str(role)[:40], str(name)[:200])

    def keep(self, first: int, next_ref: int, frame: str) -> None:
        if next_ref > first:
            self._homes.append((first, next_ref - 1, frame))
            self.next_ref = next_ref

    # Reading

    async def tree(self, ref: str | None, depth: int, kind: str | None) -> str:
        """Return the page's accessibility tree with references, frames included."""
        frame, number = self.main_frame, None
        if ref is not None:
            frame, number, *_ = await self.resolve(ref)
        lines: list[str] = []
        budget = [MOST_FRAMES, MOST_TEXT]
        cut = await self._subtree(frame, number, depth, kind or "visible", 0, lines, budget)
        text = "\n".join(lines)
        if cut or len(text) > MOST_TEXT:
            text = text[:MOST_TEXT].rpartition("\n")[0]
            text += f"\n[Cut at {MOST_TEXT} characters. Read a part with ref, or with a smaller depth.]"
        return text or "(nothing visible; try filter all)"

    async def _subtree(
        self, frame: str, number: int | None, depth: int, kind: str, base: int, lines: list[str], budget: list[int]
    ) -> bool:
        first = self.next_ref
        ref = "null" if number is None else number
        options = f"{{ref: {ref}, depth: {depth}, filter: {kind!r}, base: {base}, next: {first}, most: {MOST_TEXT}}}"
        found = await self.call(frame, f"cambio.tree({options})")
        if not isinstance(found, dict):
            return False
        self.keep(first, int(found["next"]), frame)
        cut = bool(found["cut"])
        for level, text, index in found["lines"]:
            lines.append("  " * min(int(level), 200) + str(text)[:MOST_TEXT])
            budget[1] -= len(lines[-1]) + 1
            if budget[1] < 0:
                return True
            if index >= 0 and budget[0] > 0:
                budget[0] -= 1
                child = await self._child_frame(frame, int(index))
                if child:
                    cut |= await self._subtree(child, None, depth, kind, int(level) + 1, lines, budget)
        return cut

    async def _child_frame(self, frame: str, index: int) -> str | None:
        found = await self.call(frame, f"cambio.frame({index})", by_value=False)
        if "objectId" not in found:
            return None
        node = (await self.send("DOM.describeNode", objectId=found["objectId"], depth=0))["node"]
        child = node.get("frameId")
        return str(child) if child else None

    async def frames(self) -> list[str]:
        frames, waiting = list[str](), [(await self.send("Page.getFrameTree"))["frameTree"]]
        while waiting and len(frames) < MOST_FRAMES:
            node = waiting.pop()
            frames.append(str(node["frame"]["id"]))
            waiting += reversed(node.get("childFrames", []))
        return frames

    async def text(self) -> str:
        """Return the visible text, the article's where there is one."""
        parts = []
        left = MOST_TEXT
        for frame in await self.frames():
            found = await self.call(frame, f"cambio.text({left})")
            parts.append(str(found["text"])[:left])
            left -= len(parts[-1])
            if found["cut"] or left <= 0:
                parts.append(f"[Cut at {MOST_TEXT} characters. Use find or read_page for the rest.]")
                break
        return "\n".join(part for part in parts if part.strip()) or "(no text)"
