"""Programs that tests start inside a desktop, and what they leave in files."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from typing import Any

from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.errors import ActionError

from .conftest import WINDOWS


async def launch(desktop: ConnectedDesktop, *argv: str) -> None:
    """Start a program that outlives this call; it is gone with the desktop."""
    command = " ".join(map(shlex.quote, argv))
    code, _, error = await desktop.execute(["sh", "-c", f"setsid {command} >launch.log 2>&1 </dev/null &"])
    assert code == 0, error


async def launch_window(desktop: ConnectedDesktop, name: str, *arguments: str) -> None:
    """Start one of the Tk programs in ``windows/``."""
    await desktop.write_file(f"{name}.py", (WINDOWS / f"{name}.py").read_bytes())
    home = desktop.machine.home
    await launch(desktop, desktop.machine.python, f"{home}/{name}.py", *arguments)


async def content(desktop: ConnectedDesktop, path: str) -> str | None:
    """The text of a file in the desktop, ``None`` while it is not there."""
    try:
        return b"".join([chunk async for chunk in desktop.read_file(path)]).decode("utf-8")
    except ActionError:
        return None


async def wait_for(desktop: ConnectedDesktop, path: str, wanted: str | None = None, seconds: float = 40.0) -> str:
    """Until the file is there, or has at least as many characters as ``wanted``; its text then."""
    end = time.monotonic() + seconds
    found: str | None = None
    while time.monotonic() < end:
        found = await content(desktop, path)
        if found is not None and (wanted is None or len(found) >= len(wanted)):
            return found
        await asyncio.sleep(0.1)
    assert found is not None, f"{path} never came: {await content(desktop, 'launch.log')}"
    return found


async def wait_for_window(desktop: ConnectedDesktop, title: str, seconds: float = 60.0) -> None:
    """Until the active window's title contains ``title``: from then on keys reach it."""
    script = (
        "w=$(xprop -root _NET_ACTIVE_WINDOW | sed 's/.*# //'); "
        'xprop -id "$w" WM_NAME _NET_WM_NAME _NET_WM_VISIBLE_NAME 2>/dev/null'
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _, out, _ = await desktop.execute(["sh", "-c", script])
        if title.lower() in out.decode("utf-8", "replace").lower():
            await desktop.settle()
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"no window {title!r} became active: {await content(desktop, 'launch.log')}")


class Recorder:
    """The window of ``windows/recorder.py`` and the events it got."""

    def __init__(self, desktop: ConnectedDesktop) -> None:
        self._desktop = desktop
        self._seen = 0

    @classmethod
    async def open(cls, desktop: ConnectedDesktop) -> Recorder:
        recorder = cls(desktop)
        await launch_window(desktop, "recorder", f"{desktop.machine.home}/events.jsonl")
        await wait_for_window(desktop, "recorder")
        await recorder.events()
        return recorder

    async def events(self, *kinds: str, least: int = 0) -> list[dict[str, Any]]:
        """What came since the last call, of these kinds; waits until at least ``least`` of them did."""
        end = time.monotonic() + 15
        while True:
            text = await content(self._desktop, "events.jsonl") or ""
            lines = text[self._seen :].splitlines()
            found = [event for event in map(json.loads, lines) if not kinds or event["kind"] in kinds]
            if len(found) >= least:
                await asyncio.sleep(0.1)
                if await content(self._desktop, "events.jsonl") == (text or None):
                    self._seen = len(text)
                    return found
            assert time.monotonic() < end, f"only {found}; of any kind: {lines[-12:]}"
            await asyncio.sleep(0.05)
