"""A plain, predictable desktop: what is typed is what opens, copy and paste work, and every script is readable."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from io import BytesIO

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from cambio_lab.desktop import make_provider
from cambio_lab.desktop.base import Point, Size
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.settings import Settings

from .programs import content, launch, wait_for, wait_for_window

LANGUAGES = (
    "am ar bn el gu he hi hy ja ka km kn ko lo ml my or pa ru si ta te th ti ur vi zh-cn zh-tw "
    "bo chr iu mn-cn nqo ber-ma dv"
)
"""Languages with scripts of their own; fontconfig must find a font that has all that each needs."""
SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header('Cache-Control', 'no-store'); self.end_headers()
        self.wfile.write(("<title>%s</title>%s" % (self.path, self.path)).encode())
        if "favicon" not in self.path: open("opened", "a").write(self.path + "\\n")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""


async def new_desktop(width: int = 1280, height: int = 800) -> AsyncIterator[ConnectedDesktop]:
    provider = await make_provider(Settings(pool_size=0), server_id=f"test-{secrets.token_hex(4)}", kind="docker")
    desktop = await provider.acquire("test", DesktopOptions(size=Size(width, height)))
    assert isinstance(desktop, ConnectedDesktop)
    yield desktop
    await provider.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def desktop(docker_host: str) -> AsyncIterator[ConnectedDesktop]:
    """One container for the tests of this module that leave it as it was."""
    async for found in new_desktop():
        yield found


@pytest.fixture
async def fresh(docker_host: str) -> AsyncIterator[ConnectedDesktop]:
    async for found in new_desktop():
        yield found


@pytest.fixture
async def small(docker_host: str) -> AsyncIterator[ConnectedDesktop]:
    async for found in new_desktop(800, 600):
        yield found


async def terminal(desktop: ConnectedDesktop, script: str, title: str) -> None:
    await launch(desktop, "xterm", "-geometry", "+0+0", "-T", title, "-e", "bash", "-c", script)
    await wait_for_window(desktop, title)


async def opened(desktop: ConnectedDesktop, least: int) -> list[str]:
    """The paths that browsers asked for, once there are at least ``least``."""
    end = time.monotonic() + 40
    while len(found := (await content(desktop, "opened") or "").split()) < least:
        assert time.monotonic() < end, found
        await asyncio.sleep(0.2)
    return found


async def started(desktop: ConnectedDesktop) -> None:
    """Type an address until the browser takes it: Firefox shows its window seconds before it takes keys.

    Each try is given time: Firefox drops a navigation whose address is typed over before it began.
    """
    end = time.monotonic() + 60
    while "/started/" not in (await content(desktop, "opened") or "").split():
        assert time.monotonic() < end
        await desktop.key("ctrl+l")
        await desktop.type_text("localhost:8080/started/\n")
        for _ in range(40):
            if "/started/" in (await content(desktop, "opened") or "").split():
                break
            await asyncio.sleep(0.1)
    await wait_for_window(desktop, "/started/")


async def test_the_first_screenshot_shows_the_desktop(fresh: ConnectedDesktop) -> None:
    shown = np.asarray(Image.open(BytesIO((await fresh.screenshot()).data)).convert("RGB"))
    assert (shown.max(axis=2) > 0).mean() > 0.95, "nothing is left black"


async def test_the_first_key_reaches_the_window_manager(fresh: ConnectedDesktop) -> None:
    await fresh.key("ctrl+alt+t")
    await wait_for_window(fresh, "xterm", seconds=20)


async def test_an_empty_desktop_is_not_black(either: ConnectedDesktop) -> None:
    """Also where no program for backgrounds is installed: a black screen looks broken."""
    async with asyncio.timeout(10):
        while True:
            shown = np.asarray(Image.open(BytesIO((await either.screenshot()).data)).convert("RGB"))
            if (shown.max(axis=2) > 40).mean() > 0.9:
                return
            await asyncio.sleep(0.1)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_terminal_copies_and_pastes(desktop: ConnectedDesktop) -> None:
    await terminal(desktop, "echo 'words to copy'; read line; echo \"$line\" >~/pasted; sleep 600", "copying")
    await desktop.click("left", Point(60, 32), count=3)
    await desktop.key("ctrl+shift+c")
    assert (await desktop.get_clipboard()).strip() == "words to copy"
    await desktop.set_clipboard("pasted ßЖ日\n")
    await desktop.key("ctrl+shift+v")
    assert await wait_for(desktop, "pasted", "pasted ßЖ日\n") == "pasted ßЖ日\n"
    await desktop.execute(["pkill", "-x", "xterm"])


@pytest.mark.parametrize("text", ["kept ü 日", "many wörds " * 100_000], ids=["short", "long"])
async def test_the_clipboard_survives_its_program(either: ConnectedDesktop, text: str) -> None:
    program = (
        "import sys, tkinter; root = tkinter.Tk(); root.title('copier'); root.clipboard_clear(); "
        "root.clipboard_append(open('text', encoding='utf-8').read()); root.after(2000, root.destroy); root.mainloop()"
    )
    await either.write_file("text", text.encode())
    code, _, error = await either.execute(["python3", "-c", program])
    assert code == 0, error
    kept = await either.get_clipboard()
    assert kept == text, len(kept)
    paste = "import tkinter; root = tkinter.Tk(); print(root.clipboard_get(), end='')"
    pasted = (await either.execute(["python3", "-c", paste]))[1].decode()
    assert pasted == text, len(pasted)


@pytest.mark.asyncio(loop_scope="module")
async def test_every_living_script_has_a_font(desktop: ConnectedDesktop) -> None:
    missing = [
        name for name in LANGUAGES.split() if not (await desktop.execute(["fc-list", f":lang={name}", "file"]))[1]
    ]
    assert missing == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("browser", ["firefox-esr", "chromium"])
async def test_what_is_typed_is_what_opens(desktop: ConnectedDesktop, browser: str) -> None:
    await desktop.execute(["rm", "-f", "opened"])
    await desktop.write_file("server.py", SERVER.encode())
    await launch(desktop, "python3", "server.py")
    await launch(desktop, browser, "http://localhost:8080/docs/")
    await wait_for_window(desktop, "/docs/")
    await started(desktop)
    before = len(await opened(desktop, 1))
    for page in ("other", "docs", "other", "docs"):  # often visited: what a browser likes best to complete
        await desktop.key("ctrl+l")
        await desktop.type_text(f"localhost:8080/{page}/\n")
        before = len(await opened(desktop, before + 1))
        await wait_for_window(desktop, f"/{page}/")
    await desktop.key("ctrl+l")
    await desktop.type_text("localhost:8080/d")
    await desktop.screenshot()
    await desktop.key("Return")
    assert (await opened(desktop, before + 1))[before:] == ["/d"]
    await desktop.execute(["pkill", "-f", f"{browser}|server.py"])


async def test_a_terminal_fits_a_small_screen(small: ConnectedDesktop) -> None:
    await launch(small, "xterm", "-T", "narrow")
    await wait_for_window(small, "narrow")
    _, out, _ = await small.execute(["sh", "-c", "xwininfo -frame -name narrow | grep -E 'Width|Height|Absolute'"])
    left, top, width, height = (int(line.split()[-1]) for line in out.decode().splitlines())
    assert left >= 0 and top >= 0
    assert left + width <= 800 and top + height <= 600 - 36, "above the panel"
