"""The guest book: a small web page that the demo model opens and signs. This file runs on the desktop by itself.

``python3 guest_book.py`` serves the page on a free port of loopback, opens it in the desktop's browser, waits until it
is drawn, and prints one line of JSON: where on the screen its fields are. Entries are kept in ``guest-book.txt``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox-esr", "firefox")
HOME = Path.home()
BOOK, PLACES = HOME / "guest-book.txt", HOME / ".guest-book.json"
OPEN_SECONDS = 40
PAGE = """<!doctype html><meta charset="utf-8"><title>Guest book</title>
<style>
 body{margin:0;min-height:100vh;font:18px/1.4 sans-serif;color:#223;background:linear-gradient(135deg,#cfe4f5,#f7e3cf)}
 main{display:grid;grid-template-columns:1fr 1fr;gap:2vw;max-width:1080px;margin:auto;padding:3vh 3vw}
 h1{grid-column:1/3;margin:0;font:600 34px serif} section{background:#fffd;border-radius:14px;padding:2vh 2vw}
 label{display:block;margin:1vh 0} input,textarea{width:100%;box-sizing:border-box;font:inherit;padding:6px}
 canvas{display:block;width:220px;height:140px;background:#fff;border:2px dashed #89a;touch-action:none}
 button{font:600 18px sans-serif;margin-top:1.5vh;padding:8px 30px;border:0;color:#fff;background:#276}
 li{margin:.7vh 0} img{display:block;height:84px} .new{background:#fd8;padding:6px 10px;border-radius:8px}
</style>
<main><h1>Guest book</h1>
<section><b>Guests before you</b>
<ul id="guests"><li>Ada: What a view!<li>Grace: Found no bugs. Will return.</ul></section>
<section><label>Your name<input id="name" autofocus></label>
<label>Your greeting<textarea id="greeting" rows="2"></textarea></label>
Your drawing<canvas id="drawing" width="220" height="140"></canvas><button id="sign">Sign</button></section></main>
<script>
 const field = id => document.getElementById(id)
 const post = (to, body) => fetch(to, {method: 'POST', body: JSON.stringify(body)})
 const pen = field('drawing').getContext('2d'); let last = null
 const at = event => [event.offsetX, event.offsetY]
 field('drawing').onpointerdown = event => { last = at(event) }
 onpointerup = () => { last = null }
 field('drawing').onpointermove = event => {
   if (!last) return
   pen.lineWidth = 4; pen.lineCap = 'round'; pen.strokeStyle = '#c33'
   pen.beginPath(); pen.moveTo(...last); pen.lineTo(...(last = at(event))); pen.stroke()
 }
 field('sign').onclick = () => {
   const entry = document.createElement('li'), image = new Image()
   entry.textContent = field('name').value + ': ' + field('greeting').value
   entry.className = 'new'; image.src = field('drawing').toDataURL(); entry.append(image); field('guests').append(entry)
   post('/sign', {name: field('name').value, greeting: field('greeting').value})
 }
 function tell() {
   const left = window.mozInnerScreenX ?? screenX + (outerWidth - innerWidth) / 2
   const top = window.mozInnerScreenY ?? screenY + outerHeight - innerHeight
   const box = id => { const b = field(id).getBoundingClientRect(); return [left + b.x, top + b.y, b.width, b.height] }
   post('/places', {screen: [screen.width, screen.height], name: box('name'), greeting: box('greeting'),
     drawing: box('drawing'), sign: box('sign')})
 }
 let before = performance.now(), calm = 0  // a browser that still starts loses clicks: wait for punctual timers
 setInterval(() => {
   const now = performance.now()
   calm = now - before < 280 ? calm + 1 : 0
   before = now
   if (calm >= 4) tell()
 }, 200)
</script>"""


class Handler(BaseHTTPRequestHandler):
    """The page, and what it reports."""

    def do_GET(self) -> None:
        self._answer(PAGE.encode(), "text/html; charset=utf-8")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/sign":
            with BOOK.open("a", encoding="utf-8") as book:
                book.write(f"{body['name']}: {body['greeting']}\n")
        else:
            fresh = PLACES.with_suffix(".new")
            fresh.write_text(json.dumps(body))
            fresh.replace(PLACES)
        self._answer(b"", "text/plain")

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve() -> int:
    """Serve the page and open it; runs until the desktop ends."""
    server = HTTPServer(("127.0.0.1", 0), Handler)
    browser = next(name for name in BROWSERS if shutil.which(name))
    options = ["--new-window"] if "firefox" in browser else ["--no-first-run", "--start-maximized", "--new-window"]
    if "firefox" not in browser and os.getuid() == 0:
        options.append("--no-sandbox")  # Chromium refuses to start for root otherwise
    subprocess.Popen([browser, *options, f"http://127.0.0.1:{server.server_port}/"])
    server.serve_forever()
    return 0


def main() -> int:
    """Open the guest book; return 1 when the desktop has no browser or does not draw the page."""
    if not any(shutil.which(name) for name in BROWSERS):
        print("This desktop has no browser.")
        return 1
    PLACES.unlink(missing_ok=True)
    quiet = subprocess.DEVNULL
    subprocess.Popen(
        [sys.executable, __file__, "serve"], start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet
    )
    deadline, before = time.monotonic() + OPEN_SECONDS, ""
    while time.monotonic() < deadline:
        time.sleep(0.7)  # two reports of the page: it has settled when they agree
        now = PLACES.read_text() if PLACES.exists() else ""
        if now and now == before:
            print(now)
            return 0
        before = now
    print("The browser did not show the page in time.")
    return 1


if __name__ == "__main__":
    sys.exit(serve() if sys.argv[1:] == ["serve"] else main())
