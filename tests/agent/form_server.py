"""Runs inside the desktop: a page with three coloured fields; what is submitted lands in ``~/received.txt``."""

import http.server
import pathlib
import urllib.parse

PAGE = """<!doctype html><meta charset=utf-8><title>Form</title>
<body style="margin:40px;background:#ffffff;font:20px sans-serif">
<form method=post action=/ accept-charset=utf-8>
<p><input name=name autocomplete=off style="background:#ffd54f;width:500px;height:60px;font:20px sans-serif">
<p><input name=city autocomplete=off style="background:#80deea;width:500px;height:60px;font:20px sans-serif">
<p><input name=note autocomplete=off style="background:#ce93d8;width:500px;height:60px;font:20px sans-serif">
<p><button style="background:#00c853;width:200px;height:60px;border:0">Send</button></form>"""


class Form(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(PAGE)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        values = urllib.parse.parse_qs(body, keep_blank_values=True)
        text = "; ".join(f"{name}={found[0]}" for name, found in values.items())
        (pathlib.Path.home() / "received.txt").write_text(text)
        self._answer("<h1>Thank you</h1>")

    def _answer(self, page: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *args: object) -> None:
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", 8765), Form).serve_forever()
