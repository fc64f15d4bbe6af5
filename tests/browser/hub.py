"""A JupyterHub from PyPI with its proxy from npm, configured by ``docs/how-to/jupyterhub_config.py``."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

import httpx2
from playwright.async_api import Page

from tests.live_server import free_port

from .lab import ROOT, restored, share

CONFIG = ROOT / "docs" / "how-to" / "jupyterhub_config.py"
# What a deployment adds to the page's file; users without passwords or accounts, and quick culling.
HERE = """
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {home!r}
c.Spawner.args = ["--allow-root", "--LabApp.expose_app_in_browser=True"]
c.Spawner.environment.update({environment!r})
c.JupyterHub.bind_url = {url!r}
c.JupyterHub.hub_port = {hub_port}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.JupyterHub.last_activity_interval = c.JupyterHub.activity_resolution = 1
c.JupyterHub.services[0]["command"][3:] = ["--timeout={idle}", "--cull-every=2"]
c.JupyterHub.services.append({{"name": "test", "api_token": {token!r}}})
c.JupyterHub.load_roles.append({{"name": "test", "scopes": ["read:users", "read:servers"], "services": ["test"]}})
"""


async def install_proxy(folder: Path) -> Path:
    """``configurable-http-proxy`` from npm in ``folder``, once."""
    program = folder / "node_modules" / ".bin" / "configurable-http-proxy"
    if not program.exists():
        options = ("--no-save", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(folder))
        npm = await asyncio.create_subprocess_exec("npm", "install", *options, "configurable-http-proxy@5")
        assert await npm.wait() == 0
    return program


class Hub:
    """One Hub process; its users' servers are its children and end with it."""

    def __init__(self, folder: Path, proxy: Path, idle: int, **environment: str) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self._token = secrets.token_hex(16)
        kept = {name: value for name, value in os.environ.items() if name == "DOCKER_HOST"}
        own = {
            "PYTHONPATH": str(ROOT),
            "JUPYTER_PATH": str(share(folder / "share")),
            "JUPYTERHUB_ACTIVITY_INTERVAL": "2",
        }
        settings = HERE.format(
            home=str(folder / "home" / "{username}"),
            environment={**own, **kept, **environment, "JUPYTERHUB_ACTIVITY_INTERVAL": "2"},
            url=self.url,
            hub_port=free_port(),
            proxy_port=free_port(),
            proxy=str(proxy),
            idle=idle,
            token=self._token,
        )
        (folder / "jupyterhub_config.py").write_text(f"load_subconfig({str(CONFIG)!r})\nc = get_config()\n{settings}")

    async def start(self) -> None:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        command = (sys.executable, "-m", "jupyterhub")
        with (self.folder / "hub.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        async with asyncio.timeout(60):
            while not await self._answers():
                assert self._process.returncode is None, self.log()
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """The Hub stops its users' servers, and they their desktops."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(self._process.wait(), 60)

    def log(self) -> str:
        return (self.folder / "hub.log").read_text(errors="replace")[-6000:]

    async def running(self, user: str) -> bool:
        """Whether this user's server runs, as the Hub sees it."""
        async with httpx2.AsyncClient(headers={"Authorization": f"token {self._token}"}) as client:
            answer = await client.get(f"{self.url}/hub/api/users/{user}")
        return bool(answer.raise_for_status().json()["servers"])

    async def _answers(self) -> bool:
        try:
            async with httpx2.AsyncClient() as client:
                return (await client.get(f"{self.url}/hub/health")).status_code == 200
        except httpx2.TransportError:
            return False


async def log_in(page: Page, hub: Hub, user: str) -> None:
    """Through the Hub's login page to the user's own JupyterLab."""
    await page.goto(f"{hub.url}/hub/login")
    await page.locator("#username_input").fill(user)
    await page.locator("#password_input").fill("any")
    await page.locator("#login_submit").click()
    await page.wait_for_url(f"{hub.url}/user/{user}/lab*", timeout=120_000)
    await restored(page)


async def call(page: Page, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """What a page of this user's gets from ``path``: with the login's cookie, and the XSRF header where it writes."""
    found = await page.evaluate(
        """async ([method, path, body]) => {
            const xsrf = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/)?.[1] ?? '';
            const headers = {'Content-Type': 'application/json', 'X-XSRFToken': xsrf};
            const init = {method, headers, redirect: 'manual', body: body === null ? undefined : JSON.stringify(body)};
            const answer = await fetch(path, init);
            const text = await answer.text();
            try { return [answer.status, JSON.parse(text)] } catch { return [answer.status, text] }
        }""",
        [method, path, body],
    )
    return found[0], found[1]


async def say(page: Page, path: str, text: str) -> None:
    """Send a message on an agent socket; return when its turn has begun."""
    await page.evaluate(
        """([path, content]) => new Promise((resolve, reject) => {
            const socket = new WebSocket(location.origin.replace('http', 'ws') + path);
            socket.onopen = () => socket.send(JSON.stringify({content, metadata: {}}));
            socket.onclose = reject;
            socket.onmessage = event => {
                const state = JSON.parse(event.data).status;
                if (state === 'thinking') { socket.onclose = null; socket.close(); resolve(); }
            };
        })""",
        [path, text],
    )
