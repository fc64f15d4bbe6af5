"""Ten small, checkable tasks for a desktop: files, an editor, a terminal, a window, a browser on local pages.

Each is seeded: names, numbers and places differ from repeat to repeat, and are the same for every model of a repeat.
None needs the internet. ``docs/experiments.md`` shows how to add yours. Here are those in the browser, on pages that a
small server inside the desktop gives out.
"""

from __future__ import annotations

import json

from ..._version import __version__
from .. import Benchmark
from ..live import Live
from ..task import Task, Verdict
from .desktop import DESKTOP_TASKS, WORDS, limited

SERVER = """\
import http.server, json, pathlib, sys, urllib.parse
page = pathlib.Path(".page.html").read_bytes()
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(page)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        received = dict(urllib.parse.parse_qsl(body, keep_blank_values=True))
        with open(".received.json", "a") as file:
            file.write(json.dumps(received) + "\\n")
        self.answer(b"<h1>Thank you</h1><p>Your order has been received.</p>")
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
pathlib.Path(".page-ready").write_text("yes")
server.serve_forever()
"""
STYLE = "<meta charset=utf-8><style>body{font:20px sans-serif;margin:40px} input,select,button{font-size:20px}</style>"
FORM = f"""{STYLE}<title>Order</title><h1>Order</h1><form method=post action=/order>
<p><label>Name <input name=name autofocus></label>
<p><label>Number of chairs <input name=chairs></label>
<p><label>Wood <select name=wood><option>oak<option>beech<option>pine<option>maple</select></label>
<p><button>Send order</button></form>"""


async def _serve(live: Live, page: str, title: str) -> None:
    """Start the server on a port of this run's own (local desktops share the machine) and the browser on it."""
    port = live.values["port"] = live.random.randrange(20_000, 32_000)
    await live.write(".page.html", page)
    await live.write(".page.py", SERVER)
    await live.spawn(f"python3 .page.py {port}")
    await live.wait_for(".page-ready")
    await live.spawn(f"firefox-esr http://127.0.0.1:{port}/")
    await live.wait_for_window(f"{title} — Mozilla Firefox")


async def _open_form(live: Live) -> None:
    live.values["order"] = {
        "name": f"{live.random.choice(WORDS).title()} Müller",
        "chairs": str(live.random.randrange(2, 60)),
        "wood": live.random.choice(("beech", "pine", "maple")),
    }
    await _serve(live, FORM, "Order")


def _ask_order(live: Live) -> str:
    order = live.values["order"]
    return (
        f"The browser shows an order form (http://127.0.0.1:{live.values['port']}/). "
        f"Order {order['chairs']} chairs of {order['wood']} for {order['name']}, once."
    )


async def _check_order(live: Live) -> Verdict:
    if not await live.exists(".received.json"):
        return Verdict(False, 0.0, "nothing was ordered")
    orders = [json.loads(line) for line in (await live.read(".received.json")).splitlines()]
    wanted = live.values["order"]
    right = sum(orders[-1].get(key, "").strip() == value for key, value in wanted.items())
    return Verdict(len(orders) == 1 and right == len(wanted), right / len(wanted), f"ordered {orders}")


async def _open_prices(live: Live) -> None:
    names = live.random.sample(WORDS, 8)
    prices = dict(zip(names, live.random.sample(range(105, 990), 8), strict=True))
    live.values["cheapest"] = min(prices, key=prices.__getitem__)
    rows = "".join(f"<tr><td>{name}<td align=right>{price / 100:.2f} €" for name, price in prices.items())
    await _serve(live, f"{STYLE}<title>Prices</title><h1>Prices</h1><table cellpadding=8>{rows}</table>", "Prices")


def _ask_price(live: Live) -> str:
    return (
        f"The browser shows a list of prices (http://127.0.0.1:{live.values['port']}/). "
        "Which article is the cheapest? Answer with its name alone."
    )


async def _check_price(live: Live) -> Verdict:
    said = live.answer.strip().strip(".*`\"'").lower()
    return Verdict(said == live.values["cheapest"], float(said == live.values["cheapest"]), f"said {said[:60]!r}")


TASKS: tuple[Task, ...] = (
    *DESKTOP_TASKS,
    limited(
        "fill form",
        _ask_order,
        setup=_open_form,
        check=_check_order,
        description="Fill in and send a form in the browser, once.",
    ),
    limited(
        "read page",
        _ask_price,
        setup=_open_prices,
        check=_check_price,
        description="Read a table in the browser and answer with a name.",
    ),
)
"""All ten."""

BENCHMARK = Benchmark(
    name="cambio-basics",
    title="Ten small tasks on a desktop: files, editor, terminal, window, browser",
    version=__version__,
    load=lambda split: TASKS,
    metric="The share of runs whose check says yes; the score is the share of the task's parts that are right.",
    licence="BSD-3-Clause",
    citation="cambio_lab, docs/experiments.md",
    needs="the desktop image, or a desktop with Firefox, Mousepad and Tk",
)
