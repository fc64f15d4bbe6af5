"""Start Chromium on the desktop's screen and follow its tabs, dialogs, downloads and requests."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from cambio_lab.errors import ActionError, DesktopError

from ..machine import Machine
from . import BrowserClosed, DevTools, Handler
from .tab import Tab

log = logging.getLogger(__name__)

MOST_TABS, MOST_CHANGES, MOST_TASKS = 100, 200, 500
_LONGEST_ID = 64
_START_SECONDS = 30.0
# A profile of its own for each start. Frames of other sites stay in their page's process, so that one session sees
# them all: the desktop, not Chromium's site isolation, is the boundary. Chromium's own sandbox is left off only where
# there is no user namespace for it (a container) or it refuses to start (root). Without --allow-pre-commit-input, input
# is dropped that comes before a new page was drawn: one first key in 150, on a busy machine.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_START = f"""
d=$(mktemp -d "$HOME/.browser.XXXXXX") && mkdir -p "$HOME/Downloads" || exit 1
for p in {" ".join(PROGRAMS)}; do command -v $p >/dev/null && break; p=; done
[ -n "$p" ] || exit 127
if [ "$(id -u)" = 0 ] || ! unshare --user true 2>/dev/null; then set -- --no-sandbox "$@"; fi
exec $p --remote-debugging-pipe --user-data-dir="$d" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null
"""
_FLAGS = (
    *("--no-first-run", "--no-default-browser-check", "--password-store=basic", "--force-device-scale-factor=1"),
    *("--disable-gpu", "--disable-smooth-scrolling", "--disable-sync", "--disable-component-update"),
    *("--disable-background-networking", "--disable-backgrounding-occluded-windows", "--allow-pre-commit-input"),
    *("--disable-renderer-backgrounding", "--disable-background-timer-throttling", "--disable-site-isolation-trials"),
    "--disable-features=IsolateOrigins,site-per-process,Translate,DialMediaRouteProvider",
    *("--start-maximized", "about:blank"),
)

Allowed = Callable[[str], bool]
"""Whether a page may be loaded from this URL; asked for redirects and navigations that a page starts, too."""


class Chromium:
    """One running browser. ``allowed`` is asked for every document that is about to be loaded."""

    def __init__(self, devtools: DevTools, home: str, allowed: Allowed, *, console: bool, network: bool) -> None:
        self.tabs: dict[str, Tab] = {}
        """Tabs by ``tab_id``, in the order in which they were opened."""
        self.active = ""
        self.changes: deque[dict[str, Any]] = deque(maxlen=MOST_CHANGES)
        """State changes that no call has reported yet, in the toolset's own form."""
        self._devtools = devtools
        self._home = home
        self._allowed = allowed
        self._console, self._network = console, network
        self._sessions: dict[str, Tab] = {}
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._downloads: dict[str, tuple[str, str]] = {}
        """URL and path of each download that began."""
        self._first = asyncio.Event()
        self._waits: dict[str, asyncio.Event] = {}

    @classmethod
    async def start(
        cls, machine: Machine, allowed: Allowed, *, console: bool = False, network: bool = False
    ) -> Chromium:
        """Start a browser with a fresh profile. :class:`ActionError` when the desktop has none or it does not start."""
        process = await machine.spawn(["sh", "-c", _START, "browser", *_FLAGS])
        devtools = DevTools(process)
        browser = cls(devtools, machine.home, allowed, console=console, network=network)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await browser._attach()
        except BaseException as error:
            await asyncio.shield(devtools.close())
            if isinstance(error, BrowserClosed):
                raise ActionError("This desktop has no Chromium, or it does not start.") from error
            if isinstance(error, TimeoutError):
                raise ActionError("Chromium did not start in time.") from error
            raise
        return browser

    @property
    def running(self) -> bool:
        return not self._devtools.closed.is_set()

    async def close(self) -> None:
        await self._devtools.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def tab(self, tab_id: str | None) -> Tab:
        """Return the named tab, or the active one; :class:`ActionError` when it is not open."""
        found = self.tabs.get(tab_id or self.active)
        if found is None:
            raise ActionError("This tab is not open. Use list_tabs to see what is open, or new_tab.")
        return found

    async def open_tab(self) -> Tab:
        """Open an empty tab and make it the active one."""
        if len(self.tabs) >= MOST_TABS:
            raise ActionError(f"{MOST_TABS} tabs are open. Close some first.")
        target = str((await self._devtools.send("Target.createTarget", {"url": "about:blank"}))["targetId"])
        waiting = self._waits.setdefault(target, asyncio.Event())
        try:
            async with asyncio.timeout(10):
                while not (tab := next((tab for tab in self.tabs.values() if tab.target == target), None)):
                    await waiting.wait()
        finally:
            self._waits.pop(target, None)
        self.active = tab.tab_id
        return tab

    async def activate(self, tab: Tab) -> None:
        """Show ``tab``, so that people see what is acted on and input reaches it."""
        self.active = tab.tab_id
        await tab.send("Page.bringToFront", timeout=5.0)

    async def close_tab(self, tab: Tab) -> None:
        """Close ``tab``; the last one is replaced by an empty one, because Chromium ends with its last tab."""
        if len(self.tabs) == 1:
            await self.open_tab()
        await self._devtools.send("Target.closeTarget", {"targetId": tab.target})
        self._closed(tab)

    async def titles(self) -> None:
        """Bring every tab's title and URL up to date."""
        found = (await self._devtools.send("Target.getTargets")).get("targetInfos")
        infos = found if isinstance(found, list) else []
        known = {str(info.get("targetId")): info for info in infos if isinstance(info, dict)}
        for tab in self.tabs.values():
            if (info := known.get(tab.target)) is not None:
                tab.entitle(info)

    # Events

    async def _attach(self) -> None:
        self._devtools.handlers |= {
            "Target.attachedToTarget": self._attached,
            "Target.detachedFromTarget": self._detached,
            "Inspector.targetCrashed": self._of_tab(lambda tab, _: tab.crash()),
            "Page.frameStartedLoading": self._of_tab(lambda tab, event: tab.frame_started(str(event.get("frameId")))),
            "Page.frameStoppedLoading": self._of_tab(lambda tab, event: tab.loaded(str(event.get("frameId")))),
            "Page.loadEventFired": self._of_tab(lambda tab, _: tab.loaded("")),
            "Page.frameNavigated": self._of_tab(lambda tab, event: tab.frame_navigated(event.get("frame"))),
            "Page.navigatedWithinDocument": self._of_tab(Tab.navigated_within),
            "Page.javascriptDialogOpening": self._dialog,
            "Fetch.requestPaused": self._paused,
            "Network.responseReceived": self._of_tab(self._response),
            "Runtime.consoleAPICalled": self._of_tab(Tab.logged),
            "Browser.downloadWillBegin": self._download_began,
            "Browser.downloadProgress": self._download_changed,
        }
        downloads = {"behavior": "allow", "downloadPath": f"{self._home}/Downloads", "eventsEnabled": True}
        await self._devtools.send("Browser.setDownloadBehavior", downloads)
        attach = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True, "filter": [{"type": "page"}]}
        await self._devtools.send("Target.setAutoAttach", attach)
        await self._first.wait()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        if len(self._tasks) >= MOST_TASKS:
            work.close()
            raise ValueError
        task = asyncio.create_task(self._guarded(work), name="browser-event")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except (DesktopError, TimeoutError, LookupError, TypeError) as error:  # gone by now, or its answer is damaged
            log.debug("browser event not handled: %s", error)

    def _attached(self, _: str, event: Mapping[str, Any]) -> None:
        info = event.get("targetInfo", {})
        session, target = str(event.get("sessionId")), str(info.get("targetId"))
        if info.get("type") != "page" or len(self._sessions) > MOST_TABS or len(session + target) > 2 * _LONGEST_ID:
            return
        self._count += 1
        tab = Tab(self._devtools, target, session, f"tab_{self._count}")
        tab.entitle(info)
        self._sessions[session] = tab
        self._spawn(self._prepare(tab))

    async def _prepare(self, tab: Tab) -> None:
        """Set a new tab up before its page runs, then let it run."""
        send = partial(self._devtools.send, session=tab.session)
        try:
            await asyncio.gather(
                *map(send, ["Page.enable", "Inspector.enable"] + ["Runtime.enable"] * self._console),
                send("Network.enable", {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0}),
                send("Fetch.enable", {"patterns": [{"resourceType": "Document"}]}),
                # Keys reach the page whatever has the window's focus: a new window begins with its address bar.
                send("Emulation.setFocusEmulationEnabled", {"enabled": True}),
                send("Runtime.runIfWaitingForDebugger"),
            )
            tree = await send("Page.getFrameTree")
            tab.main_frame = tab.main_frame or str(tree["frameTree"]["frame"]["id"])
        finally:
            self.tabs[tab.tab_id] = tab
            opened_by_page = bool(self.active)
            self.active = tab.tab_id
            if opened_by_page:
                self.changes.append({"type": "tab_opened", "tab_id": tab.tab_id})
            self._first.set()
            if (waiting := self._waits.get(tab.target)) is not None:
                waiting.set()

    def _of_tab(self, handle: Callable[[Tab, Mapping[str, Any]], None]) -> Handler:
        """Make a handler of events that belong to a tab; those of no known one are dropped."""

        def handler(session: str, event: Mapping[str, Any]) -> None:
            if (tab := self._sessions.get(session)) is not None:
                handle(tab, event)

        return handler

    def _detached(self, _: str, event: Mapping[str, Any]) -> None:
        if (tab := self._sessions.pop(str(event.get("sessionId")), None)) is not None:
            self._closed(tab)

    def _closed(self, tab: Tab) -> None:
        self.tabs.pop(tab.tab_id, None)
        if self.active == tab.tab_id:
            self.active = next(reversed(self.tabs), "")

    def _dialog(self, session: str, event: Mapping[str, Any]) -> None:
        kind = str(event.get("type", ""))[:40]
        leaving = kind == "beforeunload"  # dismissing it would keep the page open against the agent's will
        self.changes.append({"type": "dialog_dismissed", "kind": kind, "message": str(event.get("message", ""))[:1000]})
        self._spawn(self._devtools.send("Page.handleJavaScriptDialog", {"accept": leaving}, session=session))

    def _paused(self, session: str, event: Mapping[str, Any]) -> None:
        request = {"requestId": event.get("requestId")}
        url = str(event.get("request", {}).get("url", ""))
        if self._allowed(url):
            self._spawn(self._devtools.send("Fetch.continueRequest", request, session=session))
            return
        self.changes.append({"type": "navigation_refused"})
        log.info("navigation refused: host=%s", urlsplit(url).hostname)
        refused = {**request, "errorReason": "BlockedByClient"}
        self._spawn(self._devtools.send("Fetch.failRequest", refused, session=session))

    def _response(self, tab: Tab, event: Mapping[str, Any]) -> None:
        response = event.get("response")
        if not isinstance(response, dict):
            return
        status = response.get("status")
        if event.get("type") == "Document" and event.get("frameId") == tab.main_frame and isinstance(status, int):
            tab.status = status
        if self._network:
            url, mime = str(response.get("url", ""))[:500], str(response.get("mimeType", ""))[:80]
            tab.network.append(f"{event.get('type')} {url} {status} {mime}"[:700])

    def _download_began(self, _: str, event: Mapping[str, Any]) -> None:
        guid, url = str(event.get("guid"))[:_LONGEST_ID], str(event.get("url", ""))[:2000]
        name = str(event.get("suggestedFilename", "")).replace("/", "_")
        self._downloads[guid] = (url, f"{self._home}/Downloads/{name[:200]}")
        while len(self._downloads) > MOST_CHANGES:
            self._downloads.pop(next(iter(self._downloads)))
        self.changes.append({"type": "download_started", "download_id": guid, "url": url})

    def _download_changed(self, _: str, event: Mapping[str, Any]) -> None:
        guid, state = str(event.get("guid")), event.get("state")
        if guid not in self._downloads or state not in ("completed", "canceled"):
            return
        url, path = self._downloads[guid]
        change: dict[str, Any] = {"download_id": guid, "url": url}
        total = event.get("totalBytes")
        if state == "completed":
            change |= {"type": "download_completed", "path": str(event.get("filePath") or path)[:1000]}
            if isinstance(total, int | float) and 0 <= total < 1e15:
                change["size_bytes"] = int(total)
        else:
            change |= {"type": "download_failed", "error": "canceled"}
        self.changes.append(change)
