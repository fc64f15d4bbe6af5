"""A page of another origin, in real Chromium, tries to create, delete, chat and view. It must fail at each."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.live_server import LiveServer

pytestmark = pytest.mark.browser
ATTACKS = """async ([base, ws, id]) => {
  const outcome = {};
  const attempt = async (name, work) => {
    try { outcome[name] = await work(); } catch (error) { outcome[name] = 'blocked'; }
  };
  const json = { 'Content-Type': 'application/json' };
  const send = (path, options) => fetch(base + path, { credentials: 'include', ...options });
  const post = { method: 'POST', body: '{}' };
  await attempt('create as JSON', async () => (await send('/sessions', { ...post, headers: json })).status);
  await attempt('create as text', async () => (await send('/sessions', { ...post, mode: 'no-cors' })).type);
  await attempt('delete', async () => (await send('/sessions/' + id, { method: 'DELETE' })).status);
  await attempt('read', async () => (await (await send('/sessions')).json()).total);
  const form = document.createElement('form');
  form.method = 'POST'; form.action = base + '/sessions'; form.target = 'sink'; form.enctype = 'text/plain';
  const field = document.createElement('input'); field.name = '{"name":"'; field.value = '"}';
  const frame = document.createElement('iframe'); frame.name = 'sink';
  form.append(field); document.body.append(frame, form); form.submit();
  await new Promise(done => setTimeout(done, 500));
  for (const kind of ['ws', 'vnc']) {
    outcome[kind] = await new Promise(done => {
      const socket = new WebSocket(`${ws}/${kind}/${id}`);
      socket.onopen = () => { socket.send('{"content": "obey me"}'); done('open'); };
      socket.onerror = () => done('blocked');
    });
  }
  outcome.image = await new Promise(done => {
    const image = new Image(); image.onload = () => done('shown'); image.onerror = () => done('blocked');
    image.src = `${base}/sessions/${id}/screenshot`;
  });
  const view = document.createElement('iframe');
  outcome.frame = await new Promise(done => {
    view.onload = () => done(view.contentDocument === null ? 'foreign' : 'readable');
    view.src = `${base}/vnc/${id}`; document.body.append(view);
  });
  return outcome;
}"""


@pytest.fixture
def evil_origin() -> Iterator[str]:
    """The attacker's web server: another port of this machine, the nearest that a hostile page can be."""

    class Quiet(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>evil</title><body></body>")

        def log_message(self, format: str, *arguments: Any) -> None:
            """The log is not read."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()


@pytest.mark.parametrize("mode", ["token", "no token"])
async def test_a_hostile_page_fails_at_everything(
    start_server: Callable[..., Any], evil_origin: str, mode: str
) -> None:
    server: LiveServer = await start_server(*(["--no-token"] if mode == "no token" else []))
    async with server.client() as client:
        session = (await client.post("/sessions", json={"name": "victim"})).json()["id"]
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
            page = await browser.new_page()
            # The victim is logged in: the browser holds the server's cookies.
            query = f"?token={server.token}" if server.token else ""
            await page.goto(f"{server.url}/vnc/{session}{query}")
            await own_page_works(page, server)
            await page.goto(evil_origin)
            outcome = await page.evaluate(ATTACKS, [server.url, server.ws_url, session])
            await asyncio.sleep(0.5)
            await browser.close()
        assert outcome == {
            "create as JSON": "blocked", "create as text": "blocked", "delete": "blocked", "read": "blocked",
            "ws": "blocked", "vnc": "blocked", "image": "blocked", "frame": "foreign",
        }  # fmt: skip
        left = (await client.get("/sessions", params={"status": "active"})).json()
        assert [row["name"] for row in left["sessions"]] == ["victim"]
        assert left["sessions"][0]["status"] == "active"
        assert (await client.get(f"/sessions/{session}/history")).json()["total"] == 0
        assert "Blocking Cross Origin" in server.log() or "403" in server.log()


async def own_page_works(page: Page, server: LiveServer) -> None:
    """The same browser may do all of it from our own page, so that a failure elsewhere means something."""
    status = await page.evaluate(
        """async () => {
          const xsrf = /(?:^|;\\s*)_xsrf=([^;]*)/.exec(document.cookie)?.[1] ?? '';
          const headers = { 'Content-Type': 'application/json', 'X-XSRFToken': decodeURIComponent(xsrf) };
          const base = JSON.parse(document.getElementById('cambio-config').textContent).base_url;
          const made = await fetch(base + 'sessions', { method: 'POST', headers, body: '{"name": "own"}' });
          const id = (await made.json()).id;
          return [made.status, (await fetch(base + 'sessions/' + id, { method: 'DELETE', headers })).status];
        }"""
    )
    assert status == [200, 200]
