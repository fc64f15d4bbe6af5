# ruff: noqa: E501
"""A site to drive, served inside the desktop: ``python3 site.py PORT``. Every page keeps its own state in the page."""

import http.server
import sys
import time

HEAD = "<!doctype html><meta charset=utf-8><style>body{font:18px sans-serif}</style>"
FORM = """<title>Form</title><h1>Order</h1><form onsubmit="event.preventDefault(); window.sent = Object.fromEntries(new FormData(this))">
<label>Name <input name=name></label><label>Notes <textarea name=notes></textarea></label>
<label><input type=checkbox name=agree> I agree</label>
<label><input type=radio name=size value=s> Small</label><label><input type=radio name=size value=l> Large</label>
<label>Wood <select name=wood><option value=o>Oak<option value=b>Beech</select></label>
<label>Day <input type=date name=day></label><label>Chairs <input type=number name=chairs></label>
<label>Secret <input type=password name=secret></label><label>Picture <input type=file name=file></label>
<div contenteditable id=rich aria-label="Rich text" style="border:1px solid;min-height:1em"></div>
<input aria-label="Locked" disabled value=x><button>Send order</button></form>
<script>window.events = []; for (const kind of ["input", "change"]) addEventListener(kind, e => events.push(kind + ":" + e.target.name))</script>"""
MOUSE = """<title>Mouse</title><body style="margin:0"><div id=pad style="width:600px;height:300px;background:#cde"></div>
<p style="margin-top:3000px">The end of the page</p><script>window.seen = [];
for (const kind of ["click","dblclick","contextmenu","auxclick","mousedown","mouseup","mousemove","wheel"])
  pad.addEventListener(kind, e => { if (kind === "contextmenu") e.preventDefault();
    if (kind !== "mousemove" || e.buttons) seen.push([kind, e.clientX, e.clientY, e.button, e.detail, e.shiftKey]) })
pad.addEventListener("mouseover", () => window.hovered = true)
window.keys = []; addEventListener("keydown", e => keys.push((e.ctrlKey ? "ctrl+" : "") + e.key)); addEventListener("keyup", e => keys.push("-" + e.key))</script>"""
SHADOW = """<title>Shadow</title><div id=host></div><script>const root = host.attachShadow({mode: "open"});
root.innerHTML = "<button>In the shadow</button><slot></slot>"; root.querySelector("button").onclick = () => window.shadowed = true</script>"""
POPUP = """<title>Opener</title><button onclick="window.open('/second')">Open a window</button>
<a href=/second target=_blank>Link to a new tab</a>"""
DIALOG = """<title>Dialogs</title><button onclick="window.answer = confirm('Delete everything?')">Delete</button>
<button onclick="alert('Hello')">Greet</button>"""
FRAMES = """<title>Frames</title><h1>Outer</h1><iframe title=Same src=/inner width=300 height=100></iframe>
<iframe title=Other src="http://localhost:%d/inner" width=300 height=100></iframe>"""
INNER = """<title>Inner</title><button onclick="document.title = 'pressed'; this.textContent = 'Pressed'">Inner button</button>"""
BUSY = """<title>Busy</title><button onclick="window.pressed = true">Press</button><img src=/never>
<script>setInterval(() => fetch("/tick").catch(() => 0), 50)</script>"""
REDIRECT = "http://forbidden.invalid/"


def many(count: int) -> str:
    rows = "".join(f"<tr><td>Row {n}<td><button>Buy {n}</button>" for n in range(count))
    return f"<title>Many</title><table>{rows}</table>"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        assert isinstance(self.server, http.server.HTTPServer)
        port = self.server.server_port
        pages = {
            "/form": FORM, "/mouse": MOUSE, "/shadow": SHADOW, "/popup": POPUP, "/dialog": DIALOG, "/inner": INNER,
            "/frames": FRAMES % port, "/busy": BUSY, "/tick": "", "/many": many(3000), "/huge": many(10_000),
            "/closed": "<title>Closed</title><p>Before</p><div id=host style='width:200px;height:80px'></div><script>"
            "host.attachShadow({mode: 'closed'}).innerHTML = '<button style=width:200px;height:80px>In the dark</button>';"
            "host.onclick = () => window.pressed = true</script>",
            "/marked": '<title>Marked</title><button id=green aria-label=Green style="position:absolute;left:40px;top:60px;'
            'width:120px;height:50px;border:0;background:#00c853">',
            "/second": "<title>Second</title><h1>Second page</h1><a href=/form>Form</a>",
            "/article": "<title>Article</title><nav>Menu</nav><article><h1>News</h1><p>Something happened.</p></article>",
            "/console": "<title>Console</title><script>console.log('hello', 42); console.error('bad')</script>",
            "/start": f"<title>Start</title><script>location = '{REDIRECT}'</script>",
        }  # fmt: skip
        if path == "/never":
            time.sleep(60)
        if path == "/redirect":
            self.send_response(302)
            self.send_header("location", REDIRECT)
            self.end_headers()
            return
        if path == "/file":
            self.send_response(200)
            self.send_header("content-disposition", "attachment; filename=report.txt")
            self.end_headers()
            self.wfile.write(b"the report\n")
            return
        self.send_response(200 if path in pages else 404)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write((HEAD + pages.get(path, "<title>Not found</title>nothing here")).encode())

    def log_message(self, *arguments: object) -> None:
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
