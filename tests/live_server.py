"""A real ``cambio-lab serve`` or ``jupyter lab`` process for tests and benchmarks."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx2


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LiveServer:
    """One server process with its own data and Jupyter directories.

    ``command`` is ``serve`` (our extension alone) or ``lab`` (JupyterLab with everything). A token is made unless
    ``--no-token`` is among the arguments. ``limits=False`` (the default) turns the rate limits off, because most
    tests are not about them.
    """

    def __init__(
        self,
        *arguments: str,
        data_dir: Path,
        desktop: str = "local",
        model: str = "demo",
        limits: bool = False,
        env: Mapping[str, str] | None = None,
        command: str = "serve",
        port: int | None = None,
        base_url: str = "/",
        cwd: Path | None = None,
    ) -> None:
        self.arguments = arguments
        self.data_dir = data_dir
        self.port = port or free_port()
        self.base_url = base_url
        self.token = "" if "--no-token" in arguments else secrets.token_hex(16)
        self.desktop = desktop
        self.command = command
        self.cwd = cwd
        self.log_path = data_dir / "server.log"
        self.process: asyncio.subprocess.Process | None = None
        rates = (
            {} if limits else {f"CAMBIO_LAB_RATE_{name}": "" for name in ("GENERAL", "CREATE", "WEBSOCKET", "REFUSED")}
        )
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "JUPYTER"))},
            "CAMBIO_LAB_MODEL": model,
            "CAMBIO_LAB_KEEP_SESSIONS": "false",  # a test leaves no desktop behind
            "CAMBIO_LAB_DATA_DIR": str(data_dir / "cambio_lab"),
            "JUPYTER_RUNTIME_DIR": str(data_dir / "runtime"),
            "JUPYTER_CONFIG_DIR": str(data_dir / "config"),
            **rates,
            **(env or {}),
        }

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT`` with the base URL, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}{self.base_url}".rstrip("/")

    @property
    def ws_url(self) -> str:
        return "ws" + self.url.removeprefix("http")

    @property
    def headers(self) -> dict[str, str]:
        """The token header, or nothing in no-token mode."""
        return {"Authorization": f"token {self.token}"} if self.token else {}

    def client(self, **options: object) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, headers=self.headers, timeout=60, **options)  # type: ignore[arg-type]

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    async def start(self, timeout: float = 60.0) -> None:
        """Return once ``/health`` answers; raise with the log when it does not."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._command_line(), stdout=log, stderr=log, env=self.environment, cwd=self.cwd or self.data_dir
            )
        try:
            async with asyncio.timeout(timeout):
                async with httpx2.AsyncClient(timeout=5) as client:
                    while not await self._answers(client):
                        if self.process.returncode is not None:
                            raise RuntimeError(f"server exited with {self.process.returncode}:\n{self.log()[-4000:]}")
                        await asyncio.sleep(0.05)
        except TimeoutError:
            await self.stop()
            raise RuntimeError(f"server did not answer within {timeout:g} s:\n{self.log()[-4000:]}") from None

    async def stop(self, timeout: float = 20.0) -> None:
        """Ask politely, then insist; a server that must be killed is an error."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), timeout)
        except TimeoutError:
            await self.kill()
            raise RuntimeError(f"server did not stop within {timeout:g} s:\n{self.log()[-4000:]}") from None

    async def kill(self) -> None:
        """``kill -9``, as a crash would."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def _answers(self, client: httpx2.AsyncClient) -> bool:
        try:
            return (await client.get(f"{self.url}/health")).status_code in (200, 503)
        except httpx2.TransportError:
            return False

    def _command_line(self) -> list[str]:
        if self.command == "serve":
            options = [f"--port={self.port}", f"--desktop={self.desktop}"]
            if self.token:
                self.environment["JUPYTER_TOKEN"] = self.token
            if self.base_url != "/":
                options.append(f"--base-url={self.base_url}")
            return [sys.executable, "-m", "cambio_lab.cli", "serve", *options, *self.arguments]
        return [
            *(sys.executable, "-m", "jupyter", self.command, "--no-browser", "--allow-root"),
            *(f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", f"--ServerApp.base_url={self.base_url}"),
            *(f"--IdentityProvider.token={self.token}", f"--CambioLab.desktop={self.desktop}"),
            *self.arguments,
        ]
