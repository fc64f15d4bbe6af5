"""What is typed arrives, character for character, in programs of four toolkits."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import cambio_lab
from cambio_lab.desktop import xserver as typist
from cambio_lab.desktop.base import Point
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.errors import ActionError

from .programs import content, launch, launch_window, wait_for, wait_for_window

MIXED = "The Quick brown fox; ÄÖÜ äöß€ 漢字 🙂 +-*/{}[]()<>|\\~^`'\"@#$%&?!_=\tTab.,:\nsecond line\n"
CHINESE = "".join(chr(0x4E00 + 7 * n) + ("\n" if n % 50 == 49 else "") for n in range(250))
_RANDOM = random.Random(7)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,;:!?-_()äöüß€漢字🙂"
LONG = "".join("\n" if n % 80 == 79 else _RANDOM.choice(LETTERS) for n in range(10_000))
TEXTS = {"mixed": MIXED, "250 different": CHINESE, "10,000": LONG}

Window = Callable[[ConnectedDesktop], Awaitable[None]]
PAGE = b"""<!doctype html><meta charset=utf-8><title>page</title>
<textarea id=t style="width:900px;height:400px" autofocus></textarea>
<script>
document.title = "page";
t.addEventListener("keydown", event => {
  if (event.key != "Tab") return;
  event.preventDefault();
  t.setRangeText("\\t", t.selectionStart, t.selectionEnd, "end");
});
addEventListener("keydown", event => {
  if (!event.ctrlKey || event.key != "s") return;
  event.preventDefault();
  fetch("/save", {method: "POST", body: t.value});
});
</script>"""
SERVER = b"""
import http.server, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Type", "text/html"); self.end_headers()
        self.wfile.write(pathlib.Path("page.html").read_bytes())
    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        pathlib.Path("typed.part").write_bytes(data); pathlib.Path("typed.part").rename("typed.txt")
        self.send_response(204); self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8008), Handler).serve_forever()
"""


async def tk(desktop: ConnectedDesktop) -> None:
    await launch_window(desktop, "editor", f"{desktop.machine.home}/typed.txt")
    await wait_for(desktop, "typed.txt.ready")
    await wait_for_window(desktop, "editor")


async def gtk(desktop: ConnectedDesktop) -> None:
    await desktop.write_file("typed.txt", b"")
    await launch(desktop, "mousepad", f"{desktop.machine.home}/typed.txt")
    await wait_for_window(desktop, "typed.txt")


async def xterm(desktop: ConnectedDesktop) -> None:
    script = "stty -icanon -echo -ixon; touch ready; cat > typed.txt"
    await launch(desktop, "xterm", "-T", "terminal", "-e", script)
    await wait_for(desktop, "ready")
    await wait_for_window(desktop, "terminal")


async def firefox(desktop: ConnectedDesktop) -> None:
    await desktop.write_file("page.html", PAGE)
    await desktop.write_file("server.py", SERVER)
    await launch(desktop, "python3", f"{desktop.machine.home}/server.py")
    await launch(desktop, "firefox-esr", "http://127.0.0.1:8008/")
    await wait_for_window(desktop, "page")
    await desktop.click("left", Point(640, 300))


WINDOWS: dict[str, Window] = {"Tk": tk, "GTK": gtk, "xterm": xterm, "Firefox": firefox}


async def typed(desktop: ConnectedDesktop, window: str, text: str, before: str = "") -> str:
    """What the program has after ``text`` was typed behind ``before`` and saved."""
    await desktop.type_text(text)
    if window != "xterm":
        # A slow program is still busy with the text; the key waits its turn behind it.
        await desktop.key("ctrl+s")
    found = await wait_for(desktop, "typed.txt", before + text, seconds=120)  # Firefox: 2 ms and more each
    await asyncio.sleep(0.3)
    return await content(desktop, "typed.txt") or found


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "window", [pytest.param(name, marks=[pytest.mark.slow] * (name == "Firefox")) for name in WINDOWS]
)
async def test_exactness_table(docker_desktop: ConnectedDesktop, window: str) -> None:
    await WINDOWS[window](docker_desktop)
    before = ""
    for name, text in TEXTS.items():
        begin = time.monotonic()
        got = await typed(docker_desktop, window, text, before)
        verdict = "exact" if got == before + text else "WRONG"
        arrived, took = len(got) - len(before), time.monotonic() - begin
        print(f"{window:8} {name:14} {arrived:6} of {len(text):6} characters {verdict} {took:5.1f} s")
        assert got == before + text
        before = got


FIRST = ["äöü", "ß", "漢字", "é", "ñ€", "かな", "€", "ć", "😀"]
"""Each typed by itself: on a fresh desktop the very first key is one that the layout lacks."""


@pytest.mark.parametrize("window", ["Tk", "xterm"])
async def test_what_the_layout_lacks_is_exact_from_the_first_key_on(either: ConnectedDesktop, window: str) -> None:
    await WINDOWS[window](either)
    before = ""
    for text in FIRST:
        assert await typed(either, window, text, before) == before + text
        before += text
    await either.key("ä")
    await either.key("ż")
    assert await typed(either, window, "!", before + "äż") == before + "äż!"


async def test_a_text_that_was_stopped_before_it_had_its_keys_can_be_typed_again(
    local_desktop: ConnectedDesktop,
) -> None:
    await xterm(local_desktop)
    for seconds in (0.004, 0.05):
        stopped = asyncio.create_task(local_desktop.type_text(CHINESE[:150]))
        await asyncio.sleep(seconds)
        stopped.cancel()
        await asyncio.wait([stopped])
    found = await typed(local_desktop, "xterm", CHINESE[:150])
    assert found == CHINESE[:150]


def test_the_keymap_has_what_the_typist_counts_on() -> None:
    keymap = (Path(cambio_lab.__file__).parent / "desktop" / "image" / "keymap.xkb").read_text()
    for index, char in enumerate(typist.PRESET):
        code, level = typist.PLACES[index]
        found = re.search(rf"key <I{code}> .*\[ (.*) \] }};", keymap)
        assert found is not None and found[1].split(", ")[level] == f"U{ord(char):04X}", char
        assert f"<I{code}> = {code};" in keymap


async def test_caps_lock_left_on_turns_no_letters_round(local_desktop: ConnectedDesktop) -> None:
    await xterm(local_desktop)
    await local_desktop.key("Caps_Lock")
    assert await typed(local_desktop, "xterm", "Caps locK ßÄ\n") == "Caps locK ßÄ\n"
    client = await local_desktop._connection.client()
    assert client.caps_lock, "it is as it was"


async def test_exactness_on_the_local_desktop(local_desktop: ConnectedDesktop) -> None:
    await xterm(local_desktop)
    assert await typed(local_desktop, "xterm", MIXED + CHINESE) == MIXED + CHINESE


async def test_control_characters_are_refused_before_anything_is_typed(local_desktop: ConnectedDesktop) -> None:
    await xterm(local_desktop)
    with pytest.raises(ActionError, match=r"U\+0007"):
        await local_desktop.type_text("abc\a")
    await local_desktop.type_text("x")
    assert await wait_for(local_desktop, "typed.txt", "x") == "x"
